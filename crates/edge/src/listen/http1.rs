//! HTTP/1.1 towards senders: heads parsed strictly, bodies handed on as they come, answers written as they come. Refuses
//! whatever parsers disagree about (RFC 9112 section 11); what a request means is for `request` to decide.
//!
//! One task serves a connection. The request's body and the loop share the [`Stream`]; each borrows it for one poll only.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{Method, Version};
use tokio::io::AsyncWrite as _;
use tokio::time::Instant;
use tokio_util::io::poll_read_buf;
use wire::chunked::{Decoded, Decoder};

use super::http1_answer::{Plan, write_response};
use super::http1_head::{self, BadHead, Framing, Head};
use super::io::ClientIo;
use super::offenders::Fault;
use super::{Age, Peer};
use crate::metrics::Closed;
use crate::patience::Patience;
use crate::refusal::Refusal;
use crate::request;
use crate::request::Blame;
use crate::request::upload::ClientBody;
use crate::send_queue::SendQueue;
use crate::worker::Worker;

/// How much is read at once. A sender's 32 KiB batch and its head fit.
pub(super) const READ_BYTES: usize = 64 * 1024;
/// How much for the middle of a large body.
const READ_LARGE_BYTES: usize = 256 * 1024;
/// Room that is not worth giving back.
const COMPACT_BYTES: usize = 1024;
/// How much of a refused body is read away in order to keep its connection.
const DRAIN_BYTES: u64 = 64 * 1024;
/// How long a connection that is being closed may take to read its answer.
const LINGER: Duration = Duration::from_secs(2);
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A sender's connection: its socket, what was read ahead, and where in a request's body it is.
pub(super) struct Stream {
    pub(super) socket: ClientIo,
    buffer: BytesMut,
    body: BodyState,
    /// What is left to write of the interim answer that a client waits for before it sends the body.
    interim: Option<&'static [u8]>,
    /// What came in the place of chunks were none.
    is_malformed: bool,
    /// The last read had no room for more: there may be more than a usual buffer takes.
    was_filled: bool,
    over: bool,
}

enum BodyState {
    Done,
    Length(u64),
    Chunked(Decoder),
    Broken,
}

/// The body of the request that its connection is serving.
pub(crate) struct RequestBody(Rc<RefCell<Stream>>);

impl RequestBody {
    pub(crate) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Refusal>>> {
        self.0.borrow_mut().poll_body(cx)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.borrow().body_is_over()
    }
}

impl Stream {
    fn body_is_over(&self) -> bool {
        match &self.body {
            BodyState::Done => true,
            BodyState::Chunked(decoder) => decoder.is_end(),
            BodyState::Length(_) | BodyState::Broken => false,
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Refusal>>> {
        loop {
            let wanted = match &mut self.body {
                BodyState::Done => return Poll::Ready(None),
                BodyState::Broken => return Poll::Ready(Some(Err(Refusal::ClientGone))),
                BodyState::Length(left) => {
                    if !self.buffer.is_empty() {
                        let take = usize::try_from(*left)
                            .map_or(self.buffer.len(), |left| left.min(self.buffer.len()));
                        *left -= take as u64;
                        if *left == 0 {
                            self.body = BodyState::Done;
                        }
                        return Poll::Ready(Some(Ok(self.buffer.split_to(take).freeze())));
                    }
                    *left
                }
                BodyState::Chunked(decoder) => match decoder.decode(&mut self.buffer) {
                    Ok(Decoded::Data(data)) => return Poll::Ready(Some(Ok(data))),
                    Ok(Decoded::End) => {
                        self.body = BodyState::Done;
                        return Poll::Ready(None);
                    }
                    Ok(Decoded::More) => READ_BYTES as u64,
                    Err(_) => {
                        self.body = BodyState::Broken;
                        self.is_malformed = true;
                        let problem = "the chunked coding of the body is broken, or its chunks have hardly any content";
                        return Poll::Ready(Some(Err(Refusal::BadFraming { problem })));
                    }
                },
            };
            ready!(self.poll_interim(cx));
            if ready!(self.poll_fill(cx, wanted)) == 0 {
                self.body = BodyState::Broken;
            }
        }
    }

    /// Tells a client that waits for it to send the body. A failure shows when the body is read.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(left) = &mut self.interim {
            let mut socket = Pin::new(&mut self.socket);
            if left.is_empty() {
                // Over TLS it may have been taken and not be on its way.
                let _ = ready!(socket.poll_flush(cx));
                self.interim = None;
                break;
            }
            match ready!(socket.as_mut().poll_write(cx, left)) {
                Ok(written @ 1..) => left.advance(written),
                Ok(0) | Err(_) => self.interim = None,
            }
        }
        Poll::Ready(())
    }

    /// Reads what there is; 0 when the client will send no more.
    fn poll_fill(&mut self, cx: &mut Context<'_>, wanted: u64) -> Poll<usize> {
        if self.over {
            return Poll::Ready(0);
        }
        // A connection that waits holds no buffer: an idle one costs little.
        if self.socket.poll_read_ready(cx).is_pending() {
            if self.buffer.is_empty() {
                self.buffer = BytesMut::new();
            }
            return Poll::Pending;
        }
        // Takes the allocation back whole if all that was read has been passed on.
        self.buffer
            .reserve(if wanted > READ_BYTES as u64 && self.was_filled {
                READ_LARGE_BYTES
            } else {
                READ_BYTES
            });
        let read = ready!(poll_read_buf(
            Pin::new(&mut self.socket),
            cx,
            &mut self.buffer
        ))
        .unwrap_or(0);
        self.over = read == 0;
        self.was_filled = self.buffer.len() == self.buffer.capacity();
        Poll::Ready(read)
    }

    /// Gives back the room that what was read does not need.
    fn compact(&mut self) {
        if self.buffer.capacity() > 2 * self.buffer.len() + COMPACT_BYTES {
            self.buffer = BytesMut::from(self.buffer.as_ref());
        }
    }

    /// Notices that the client left while it should be waiting for its answer. What it sends ahead is kept, up to a bound.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while matches!(self.body, BodyState::Done) && self.buffer.len() < READ_BYTES / 4 {
            if ready!(self.poll_fill(cx, 0)) == 0 {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

/// Serves one connection until either side ends it. `ahead` is what was read to find out its protocol.
pub(crate) async fn serve(worker: Rc<Worker>, peer: Peer, socket: ClientIo, ahead: BytesMut) {
    let stream = Rc::new(RefCell::new(Stream {
        socket,
        buffer: ahead,
        body: BodyState::Done,
        interim: None,
        is_malformed: false,
        was_filled: false,
        over: false,
    }));
    let mut out = SendQueue::default();
    let mut patience = Patience::default();
    let age = Age::new(worker.current().settings.connections.age_max);
    let mut served = 0;
    loop {
        let head = match read_head(&worker, &peer, &stream, &mut patience).await {
            Ok(Some(head)) => head,
            Ok(None) => return,
            Err(refusal) => {
                let response = request::refuse(&worker, &peer, refusal);
                let plan = Plan {
                    version: Version::HTTP_11,
                    head_only: false,
                    keep_alive: false,
                };
                if write_response(&worker, &stream, &mut out, response, plan)
                    .await
                    .is_ok()
                {
                    linger(&stream).await;
                }
                return;
            }
        };
        let mut plan = Plan {
            version: head.parts.version,
            head_only: head.parts.method == Method::HEAD,
            keep_alive: head.keep_alive,
        };
        served += 1;
        let body = begin_body(&stream, &head);
        // Apart, for as long as it lasts: it is several times as large as what a connection needs to wait for it.
        let serving = Box::pin(request::serve(&worker, &peer, head.parts, body));
        let Some(response) = while_present(&stream, serving).await else {
            return;
        };
        if stream.borrow().is_malformed {
            peer.seat.ends_for(Fault::Abuse);
        }
        plan.keep_alive =
            plan.keep_alive && !peer.listener.ending.draining.is_cancelled() && can_drain(&stream);
        if let Some(limit) = overstays(&worker, &peer, &age, served).filter(|_| plan.keep_alive) {
            worker.metrics.connections.closed(limit);
            plan.keep_alive = false;
        }
        // Each burst of guesses shall cost a connection; who has shown a valid key keeps it.
        let guesses = response.extensions().get() == Some(&Blame::AuthFailures);
        if guesses && plan.keep_alive && !peer.seat.is_known() {
            peer.seat.ends_for(Fault::Guesses);
            worker.metrics.connections.closed(Closed::AuthFailures);
            plan.keep_alive = false;
        }
        let Ok(stays) = write_response(&worker, &stream, &mut out, response, plan).await else {
            stream.borrow_mut().socket.abort();
            return;
        };
        if !stays || !drain(&stream).await {
            linger(&stream).await;
            return;
        }
        if !stream.borrow().buffer.is_empty() {
            // The next request is here already; others have waited.
            tokio::task::yield_now().await;
        }
    }
}

/// The limit by which this answer is the last on its connection.
fn overstays(worker: &Worker, peer: &Peer, age: &Age, served: u64) -> Option<Closed> {
    let current = worker.current();
    let settings = &current.settings.connections;
    let requests_max = settings.requests_max;
    if requests_max > 0 && served >= requests_max {
        return Some(Closed::RequestsMax);
    }
    let now = Instant::now();
    if age.is_over(now) {
        Some(Closed::Age)
    } else if !peer.seat.is_known() && now - age.since >= settings.stranger_timeout {
        Some(Closed::Stranger)
    } else {
        None
    }
}

/// Reads the next request's head. `None` when the connection shall end without an answer.
async fn read_head(
    worker: &Worker,
    peer: &Peer,
    stream: &RefCell<Stream>,
    patience: &mut Patience,
) -> Result<Option<Head>, Refusal> {
    let settings = Arc::clone(&worker.current().settings);
    let settings = &settings.connections;
    let mut closing = pin!(peer.listener.ending.closes());
    patience.progress();
    poll_fn(|cx| {
        let mut stream = stream.borrow_mut();
        loop {
            match http1_head::parse(&mut stream.buffer, settings.head_max) {
                Ok(Some(head)) => return Poll::Ready(Ok(Some(head))),
                Ok(None) => {}
                Err(BadHead(refusal)) => return Poll::Ready(Err(refusal)),
            }
            let begun = !stream.buffer.is_empty();
            let Poll::Ready(read) = stream.poll_fill(cx, 0) else {
                if !begun && closing.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Ok(None));
                }
                if begun {
                    // What came of a head may be kept for long: not in a buffer for a whole batch.
                    stream.compact();
                }
                let (limit, reason) = if begun {
                    (settings.head_timeout, Closed::HeadTimeout)
                } else if peer.seat.is_known() {
                    (settings.idle_timeout, Closed::Idle)
                } else {
                    (settings.stranger_timeout, Closed::Stranger)
                };
                return patience.poll(cx, limit).map(|()| {
                    worker.metrics.connections.closed(reason);
                    Ok(None)
                });
            };
            if read == 0 {
                return Poll::Ready(Ok(None));
            }
            if !begun {
                patience.progress();
            }
        }
    })
    .await
}

/// Sets the stream up for the body of the request whose head was read.
fn begin_body(shared: &Rc<RefCell<Stream>>, head: &Head) -> Result<ClientBody, Refusal> {
    let mut stream = shared.borrow_mut();
    let framing = match &head.framing {
        Ok(framing) => *framing,
        Err(refusal) => {
            stream.body = BodyState::Broken;
            return Err(refusal.clone());
        }
    };
    stream.body = match framing {
        Framing::Length(0) => BodyState::Done,
        Framing::Length(length) => BodyState::Length(length),
        Framing::Chunked => BodyState::Chunked(Decoder::default()),
    };
    stream.interim = if head.expects_continue && stream.buffer.is_empty() {
        Some(CONTINUE)
    } else {
        None
    };
    Ok(ClientBody::Http1(RequestBody(Rc::clone(shared))))
}

/// Runs `serving` for as long as the client is there to be answered.
async fn while_present<T>(
    stream: &RefCell<Stream>,
    mut serving: Pin<Box<impl Future<Output = T>>>,
) -> Option<T> {
    poll_fn(|cx| {
        if let Poll::Ready(response) = serving.as_mut().poll(cx) {
            return Poll::Ready(Some(response));
        }
        stream.borrow_mut().poll_gone(cx).map(|()| None)
    })
    .await
}

/// Whether what is left of the request's body is known to be small enough to be read away.
fn can_drain(stream: &RefCell<Stream>) -> bool {
    let stream = stream.borrow();
    match &stream.body {
        BodyState::Done => true,
        // A client that waits for the interim answer may or may not send the body now.
        BodyState::Length(left) => *left <= DRAIN_BYTES && stream.interim.is_none(),
        BodyState::Chunked(decoder) => decoder.is_end(),
        BodyState::Broken => false,
    }
}

/// Reads away what is left of the request's body, so that the next request can be read.
async fn drain(stream: &RefCell<Stream>) -> bool {
    let reading = poll_fn(|cx| {
        loop {
            match ready!(stream.borrow_mut().poll_body(cx)) {
                None => return Poll::Ready(true),
                Some(Err(_)) => return Poll::Ready(false),
                Some(Ok(_)) => {}
            }
        }
    });
    if stream.borrow().body_is_over() {
        return reading.await;
    }
    tokio::time::timeout(LINGER, reading).await.unwrap_or(false)
}

/// Closes so that the client can read its answer: says that no more will come, then reads on for a while. Closing a socket
/// with unread bytes would reset it and take the answer back (RFC 9112 section 9.6).
async fn linger(stream: &RefCell<Stream>) {
    let mut left = DRAIN_BYTES;
    let closing = async {
        poll_fn(|cx| Pin::new(&mut stream.borrow_mut().socket).poll_shutdown(cx))
            .await
            .ok();
        poll_fn(|cx| {
            let mut stream = stream.borrow_mut();
            while left > 0 {
                stream.buffer.clear();
                match ready!(stream.poll_fill(cx, 0)) {
                    0 => break,
                    read => left = left.saturating_sub(read as u64),
                }
            }
            Poll::Ready(())
        })
        .await;
    };
    let _ = tokio::time::timeout(LINGER, closing).await;
}
