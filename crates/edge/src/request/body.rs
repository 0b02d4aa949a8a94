//! The bodies of a request and of its answer, as bytes that pass. Decides nothing but when a body is too long or has stopped
//! coming; never looks inside.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use ops::config::ByteSize;
use tokio::time::Instant;

use super::account::{Entry, Tally};
use super::forward::check_trailers;
use super::replay::{Kept, ReplayBudget};
use crate::listen::http1;
use crate::protocol::otlp_grpc;
use crate::refusal::{Code, Refusal};
use crate::upstream::{Download, UpstreamError};

/// What the client sends, whichever version of HTTP it speaks.
pub(crate) enum ClientBody {
    Http1(http1::RequestBody),
    Http2(Incoming),
}

impl ClientBody {
    /// The next bytes, never empty; `None` at the body's proper end.
    pub(crate) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Refusal>>> {
        match self {
            Self::Http1(body) => body.poll_data(cx),
            Self::Http2(body) => loop {
                return Poll::Ready(match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                    None => None,
                    Some(Err(_)) => Some(Err(Refusal::ClientGone)),
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) if data.is_empty() => continue,
                        Ok(data) => Some(Ok(data)),
                        // Trailers of a request have no meaning on any route.
                        Err(_) => continue,
                    },
                });
            },
        }
    }

    /// Whether the proper end has been reached, as far as is known without reading.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_over(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }
}

/// A client's body on its way upstream: counted, capped, and cut to one gRPC message where it is re-framed.
pub(crate) struct Upload {
    body: ClientBody,
    tally: Rc<Tally>,
    max: ByteSize,
    pace: Pace,
    /// Bytes that were read ahead and go before the rest.
    ahead: Option<Bytes>,
    /// What is left of the one message of a gRPC call whose prefix was taken off.
    message_left: Option<u64>,
    /// What has passed, as long as it may be needed once more.
    kept: Option<Kept>,
    /// What has passed before and passes once more.
    repeated: Option<Kept>,
}

impl Upload {
    pub(crate) fn new(
        body: ClientBody,
        tally: Rc<Tally>,
        max: ByteSize,
        rate_min: ByteSize,
        replay: &Arc<ReplayBudget>,
    ) -> Self {
        Self {
            kept: Kept::new(replay),
            repeated: None,
            body,
            tally,
            max,
            pace: Pace::new(rate_min),
            ahead: None,
            message_left: None,
        }
    }

    /// Puts `ahead` before what is still to come, and from now on lets exactly `length` bytes pass: what is shorter or
    /// longer is a broken call.
    pub(crate) fn into_message(mut self, ahead: Bytes, length: u64) -> Self {
        self.ahead = (!ahead.is_empty()).then_some(ahead);
        self.message_left = Some(length);
        // The prefix does not go upstream, and what came with it passes now.
        self.kept = self.kept.and_then(Kept::anew);
        self
    }

    /// Whether all that has passed could pass once more.
    pub(crate) const fn is_repeatable(&self) -> bool {
        self.kept.is_some()
    }

    /// Keeps nothing from now on: nobody will ask for it once more.
    pub(crate) fn keep_nothing(&mut self) {
        self.kept = None;
    }

    /// Begins at the beginning, once; `None` when what has passed was not kept.
    pub(crate) fn repeat(mut self) -> Option<Self> {
        let kept = self.kept.take()?;
        self.repeated = Some(kept);
        Some(self)
    }

    /// Whether nothing more will come, as far as is known without reading.
    pub(crate) fn is_over(&self) -> bool {
        self.repeated.as_ref().is_none_or(Kept::is_empty)
            && self.ahead.is_none()
            && self.body.is_over()
            && self.message_left.is_none_or(|left| left == 0)
    }

    /// The next bytes, never empty; `None` at the proper end. An error means that the upstream must not see a proper end.
    pub(crate) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Refusal>>> {
        if let Some(repeated) = &mut self.repeated {
            if let Some(data) = repeated.take_first() {
                return Poll::Ready(Some(Ok(data)));
            }
            self.repeated = None;
        }
        let data = match self.ahead.take() {
            Some(data) => data,
            None => match ready!(self.poll_counted(cx)) {
                Some(Ok(data)) => data,
                Some(Err(refusal)) => return Poll::Ready(Some(Err(refusal))),
                None => {
                    let short = self.message_left.is_some_and(|left| left > 0);
                    let problem = "the gRPC message is shorter than its prefix says";
                    return Poll::Ready(short.then_some(Err(Refusal::BadFraming { problem })));
                }
            },
        };
        if let Some(left) = &mut self.message_left {
            match left.checked_sub(data.len() as u64) {
                Some(rest) => *left = rest,
                None => return Poll::Ready(Some(Err(Refusal::SecondMessage))),
            }
        }
        if self.kept.as_mut().is_some_and(|kept| !kept.add(&data)) {
            self.kept = None;
        }
        Poll::Ready(Some(Ok(data)))
    }

    fn poll_counted(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Refusal>>> {
        let Poll::Ready(next) = self.body.poll_data(cx) else {
            self.pace.waits();
            return Poll::Pending;
        };
        if let Some(Ok(data)) = &next {
            if !self.pace.keeps(self.tally.received_bytes.get()) {
                return Poll::Ready(Some(Err(Refusal::BodyTimeout)));
            }
            let received = self.tally.received_bytes.get() + data.len() as u64;
            self.tally.received_bytes.set(received);
            if received > self.max.0 {
                return Poll::Ready(Some(Err(Refusal::TooLarge { limit: self.max })));
            }
        }
        Poll::Ready(next)
    }
}

/// For how long a body may come as slowly as it likes.
const PACE_GRACE: Duration = Duration::from_secs(10);

/// Whether a body comes fast enough. Only the time counts that is spent waiting for the client: an upstream that is slow to take
/// it is not the client's fault.
struct Pace {
    /// Bytes a second; 0 is any.
    rate_min: ByteSize,
    waited: Duration,
    waits_since: Option<Instant>,
}

impl Pace {
    const fn new(rate_min: ByteSize) -> Self {
        Self {
            rate_min,
            waited: Duration::ZERO,
            waits_since: None,
        }
    }

    /// Notes that there is nothing to take.
    fn waits(&mut self) {
        if self.waits_since.is_none() && self.rate_min.0 > 0 {
            self.waits_since = Some(Instant::now());
        }
    }

    /// Notes that there is something again, after `received` bytes: whether that was soon enough.
    fn keeps(&mut self, received: u64) -> bool {
        let Some(since) = self.waits_since.take() else {
            return true;
        };
        self.waited += since.elapsed();
        let late = self.waited.saturating_sub(PACE_GRACE);
        late.is_zero() || received >= self.rate_min.0.saturating_mul(self.waited.as_secs())
    }
}

/// The body of an answer; keeps the request's account until it is over.
pub(crate) struct Body {
    content: Content,
    entry: Option<Entry>,
}

/// What an answer consists of.
enum Content {
    /// Bytes that are known, then trailers.
    Known {
        data: Option<Bytes>,
        trailers: Option<HeaderMap>,
    },
    /// What an upstream sends.
    Upstream {
        download: Download,
        grpc: bool,
    },
    Over,
}

impl Body {
    pub(crate) const fn empty() -> Self {
        Self {
            content: Content::Over,
            entry: None,
        }
    }

    pub(crate) fn full(data: Bytes) -> Self {
        Self::known((!data.is_empty()).then_some(data), None)
    }

    /// One gRPC message and the trailers that end the call.
    pub(crate) fn message(data: Bytes, trailers: HeaderMap) -> Self {
        Self::known(Some(data), Some(trailers))
    }

    fn known(data: Option<Bytes>, trailers: Option<HeaderMap>) -> Self {
        let content = if data.is_none() && trailers.is_none() {
            Content::Over
        } else {
            Content::Known { data, trailers }
        };
        Self {
            content,
            entry: None,
        }
    }

    /// What an upstream sends; `grpc` lets a break-off be told in trailers instead of a reset.
    pub(crate) fn upstream(download: Download, grpc: bool) -> Self {
        if download.is_over() {
            // So that an answer without a body, such as a trailers-only one, ends with its head here too.
            return Self::empty();
        }
        Self {
            content: Content::Upstream { download, grpc },
            entry: None,
        }
    }

    /// Whether there is nothing to send.
    pub(crate) const fn is_over(&self) -> bool {
        matches!(self.content, Content::Over)
    }

    /// Lets `entry` end with this body.
    pub(crate) fn account_to(&mut self, entry: Entry) {
        self.entry = Some(entry);
    }

    fn ended(&mut self, trailers: Option<&HeaderMap>) {
        self.content = Content::Over;
        if let Some(mut entry) = self.entry.take() {
            entry.body_ended(trailers);
        }
    }

    fn broke_off(&mut self, error: &UpstreamError) {
        self.content = Content::Over;
        if let Some(mut entry) = self.entry.take() {
            entry.body_failed(error);
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = UpstreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        let frame = match &mut self.content {
            Content::Over => return Poll::Ready(None),
            Content::Known { data, trailers } => {
                let frame = data
                    .take()
                    .map(Frame::data)
                    .or_else(|| trailers.take().map(Frame::trailers));
                if matches!((&data, &trailers), (None, None)) {
                    // Trailers of ours repeat what the entry was told already.
                    self.ended(None);
                }
                return Poll::Ready(frame.map(Ok));
            }
            Content::Upstream { download, grpc } => match ready!(download.poll_frame(cx)) {
                Some(Err(error)) if *grpc => {
                    self.broke_off(&error);
                    return Poll::Ready(Some(Ok(Frame::trailers(broken_call()))));
                }
                Some(Ok(mut frame)) => {
                    if let Some(trailers) = frame.trailers_mut().filter(|_| *grpc)
                        && check_trailers(trailers)
                        && let Some(entry) = &mut self.entry
                    {
                        entry.denied_in_trailers();
                    }
                    Some(Ok(frame))
                }
                frame => frame,
            },
        };
        match &frame {
            None => self.ended(None),
            Some(Err(error)) => self.broke_off(error),
            Some(Ok(frame)) => {
                let trailers = frame.trailers_ref().cloned();
                let over = matches!(&self.content, Content::Upstream { download, .. } if download.is_over());
                if trailers.is_some() || over {
                    self.ended(trailers.as_ref());
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Over => SizeHint::with_exact(0),
            Content::Known {
                data,
                trailers: None,
            } => SizeHint::with_exact(data.as_ref().map_or(0, |d| d.len() as u64)),
            Content::Known { .. } => SizeHint::default(),
            Content::Upstream { download, .. } => download
                .length()
                .map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

/// Trailers for a call whose upstream broke off after its answer had begun: the sender keeps its data.
fn broken_call() -> HeaderMap {
    let refusal = Refusal::UpstreamUnreachable;
    let mut trailers = HeaderMap::with_capacity(4);
    let text = format!("ok-monitoring: {}", refusal.text());
    otlp_grpc::status_headers(&mut trailers, Code::Unavailable as u8, &text);
    trailers
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits `seconds` for the client, which has sent `received` bytes then.
    async fn waited(pace: &mut Pace, seconds: u64, received: u64) -> bool {
        pace.waits();
        tokio::time::advance(Duration::from_secs(seconds)).await;
        pace.keeps(received)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_be_slow_for_a_while_but_not_for_ever() {
        let mut pace = Pace::new(ByteSize(100));
        assert!(waited(&mut pace, 10, 1).await, "within the grace");
        assert!(waited(&mut pace, 1, 1_100).await, "as fast as it must be");
        assert!(!waited(&mut pace, 1, 1_199).await, "a byte too slow");
    }

    #[tokio::test(start_paused = true)]
    async fn time_that_nobody_waits_for_the_client_does_not_count() {
        let mut pace = Pace::new(ByteSize(100));
        assert!(waited(&mut pace, 10, 1).await);
        tokio::time::advance(Duration::from_hours(1)).await;
        assert!(pace.keeps(2), "the upstream was slow");
        let mut any = Pace::new(ByteSize(0));
        assert!(waited(&mut any, 1_000_000, 1).await, "0 takes any");
    }
}
