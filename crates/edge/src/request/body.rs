//! The body of an answer, which passes unchanged and takes the request's account along.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::account::Entry;
use super::forward::check_trailers;
use crate::protocol::otlp_grpc;
use crate::refusal::{Code, Refusal};
use crate::upstream::{Download, UpstreamError};

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
