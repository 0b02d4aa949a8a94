//! The body of a request on its way upstream: counted, capped, and cut to one gRPC message where it is re-framed. Decides nothing but
//! when it is too long or has stopped coming; what looks inside to count is `count`'s.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use hyper::body::Incoming;
use ops::config::ByteSize;
use tokio::time::Instant;

use super::account::Tally;
use super::count::{Counted, Counting};
use super::replay::{Kept, ReplayBudget};
use crate::listen::http1;
use crate::refusal::Refusal;

/// How much of a body is here before anything of the upstream's is taken for it, in bytes: what a full frame of HTTP/2 has.
const GATHERED_BYTES: u64 = 16 * 1024;

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
    counting: Option<Counting>,
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
        counting: Option<Counting>,
    ) -> Self {
        if counting.is_some() {
            tally.counted.set(Counted::Unfinished);
        }
        let mut upload = Self {
            kept: Kept::new(replay),
            repeated: None,
            body,
            tally,
            max,
            pace: Pace::new(rate_min),
            counting,
            ahead: None,
            message_left: None,
        };
        if upload.body.is_over() {
            upload.end_count();
        }
        upload
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

    /// Waits until the beginning of the body is here, or all of a small one: whoever sends it slowly holds no connection to the
    /// upstream meanwhile, and none of the requests that it is given at a time.
    pub(crate) async fn gather(&mut self, idle_max: Duration) -> Result<(), Refusal> {
        let wanted = self
            .message_left
            .map_or(GATHERED_BYTES, |left| left.min(GATHERED_BYTES));
        let mut first = self.ahead.take().unwrap_or_default();
        // Small frames are copied together: each would hold on to the buffer that it was read into.
        let mut joined = BytesMut::new();
        while ((first.len() + joined.len()) as u64) < wanted && !self.body.is_over() {
            let next = poll_fn(|cx| self.poll_counted(cx));
            let next = tokio::time::timeout(idle_max, next).await;
            match next.map_err(|_| Refusal::BodyTimeout)?.transpose()? {
                None => break,
                Some(data) if first.is_empty() && joined.is_empty() => first = data,
                Some(data) => {
                    joined.extend_from_slice(&std::mem::take(&mut first));
                    joined.extend_from_slice(&data);
                }
            }
        }
        let gathered = if joined.is_empty() {
            first
        } else {
            joined.freeze()
        };
        self.ahead = (!gathered.is_empty()).then_some(gathered);
        Ok(())
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
            && !self.counting.as_ref().is_some_and(Counting::is_busy)
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

    /// What the client sent next, counted in bytes and items.
    fn poll_counted(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Refusal>>> {
        if self.counting.as_ref().is_some_and(Counting::is_busy) {
            return self.poll_looked_at(cx);
        }
        let next = ready!(self.poll_measured(cx));
        match (&mut self.counting, next) {
            (Some(counting), Some(Ok(data))) => {
                counting.begin(data);
                self.poll_looked_at(cx)
            }
            (Some(_), None) => {
                self.end_count();
                Poll::Ready(None)
            }
            (_, next) => Poll::Ready(next),
        }
    }

    /// The frame that is being looked at, once that is done. One that inflates to much has others take turns.
    fn poll_looked_at(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Refusal>>> {
        let Some(frame) = self.counting.as_mut().and_then(Counting::go_on) else {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        // What cannot be counted gives back at once what was kept for it.
        if self.body.is_over() || self.counting.as_ref().is_some_and(Counting::has_failed) {
            self.end_count();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn end_count(&mut self) {
        if let Some(counting) = self.counting.take() {
            self.tally.counted.set(counting.finish());
        }
    }

    fn poll_measured(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Refusal>>> {
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
