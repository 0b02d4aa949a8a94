//! HTTP/1.1 towards upstreams. The request's own task writes the body and reads the answer, both at once: no task, no
//! channel and no copy between a sender's frame and the upstream's socket. An answer that comes before the body's end is
//! taken as it is; a body that fails never ends properly.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::time::Instant;
use tokio_util::io::poll_read_buf;
use wire::chunked::Decoded;

use super::connect::{Connector, Io};
use super::endpoints::InFlight;
use super::http1_head::{Head, Reading};
use super::{
    Answer, Attempt, Download as AnyDownload, Timeouts, UpstreamError, UpstreamRequest, Waits,
    stood_still,
};
use crate::patience::Patience;
use crate::refusal::Refusal;
use crate::request::upload::Upload;
use crate::send_queue::SendQueue;

/// How long a connection is kept without use: less than any backend's own limit that we know of.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// How many are kept without use, per worker.
const IDLE_CONNECTIONS: usize = 256;
const READ_BYTES: usize = 8 * 1024;
const READ_LARGE_BYTES: usize = 64 * 1024;

/// One worker's connections to one endpoint.
pub(super) struct Client {
    connector: Connector,
    timeouts: Timeouts,
    idle: Idle,
}

type Idle = Rc<RefCell<VecDeque<Connection>>>;

struct Connection {
    io: Io,
    buffer: BytesMut,
    out: SendQueue,
    patience: Patience,
    idle_since: Instant,
}

impl Connection {
    fn new(io: Io) -> Self {
        Self {
            io,
            buffer: BytesMut::new(),
            out: SendQueue::default(),
            patience: Patience::default(),
            idle_since: Instant::now(),
        }
    }

    /// Whether the upstream has neither closed the connection nor said anything nobody asked for.
    fn is_silent(&mut self) -> bool {
        let mut byte = [0];
        let mut context = Context::from_waker(Waker::noop());
        let read = Pin::new(&mut self.io).poll_read(&mut context, &mut ReadBuf::new(&mut byte));
        read.is_pending()
    }
}

impl Client {
    pub(super) fn new(connector: Connector, timeouts: Timeouts) -> Self {
        Self {
            connector,
            timeouts,
            idle: Idle::default(),
        }
    }

    /// Sends a request. What was not passed on of `attempt` is still in it when that fails.
    pub(super) async fn send(
        &self,
        request: UpstreamRequest<'_>,
        place: InFlight,
        attempt: &mut Attempt,
    ) -> Result<Answer, UpstreamError> {
        let pooled = if attempt.is_second {
            // The other idle ones may have ended with the first.
            None
        } else {
            self.take_idle()
        };
        attempt.was_pooled = pooled.is_some();
        let mut connection = match pooled {
            Some(connection) => connection,
            None => Connection::new(self.connector.connect().await?),
        };
        let upload = attempt.take_upload()?;
        connection.out.push(self.head(&request));
        let mut exchange = Exchange {
            connection,
            upload,
            _place: place,
            started: Instant::now(),
            head_came: false,
            left: request.length,
            upload_state: UploadState::Open,
            waits_on_client: false,
            timeouts: self.timeouts,
        };
        match poll_fn(|cx| exchange.poll_head(cx)).await {
            Ok(head) => {
                let taken = exchange.upload_state == UploadState::Done;
                if !taken && attempt.declines(head.status, &head.headers, &exchange.upload) {
                    attempt.upload = Some(exchange.upload);
                    return Err(UpstreamError::Declined(head.status));
                }
                exchange.head_came = true;
                exchange.upload.keep_nothing();
                Ok(self.answer(exchange, head))
            }
            Err(error) => {
                attempt.upload = Some(exchange.upload);
                Err(error)
            }
        }
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        loop {
            let mut connection = idle.pop_back()?;
            if connection.idle_since.elapsed() > IDLE_MAX {
                // The others have waited longer still.
                idle.clear();
                return None;
            }
            if connection.is_silent() {
                return Some(connection);
            }
        }
    }

    fn head(&self, request: &UpstreamRequest<'_>) -> Bytes {
        let mut head = BytesMut::with_capacity(512);
        head.put_slice(b"POST ");
        head.put_slice(request.path.as_bytes());
        head.put_slice(b" HTTP/1.1\r\nhost: ");
        head.put_slice(self.connector.endpoint.authority.as_bytes());
        head.put_slice(b"\r\n");
        match request.length {
            Some(length) => {
                head.put_slice(b"content-length: ");
                head.put_slice(itoa::Buffer::new().format(length).as_bytes());
                head.put_slice(b"\r\n");
            }
            None => head.put_slice(b"transfer-encoding: chunked\r\n"),
        }
        for (name, value) in request.headers {
            head.put_slice(name.as_str().as_bytes());
            head.put_slice(b": ");
            head.put_slice(value.as_bytes());
            head.put_slice(b"\r\n");
        }
        head.put_slice(b"\r\n");
        head.freeze()
    }

    /// Makes the answer; a body that is here already gives its connection back at once.
    fn answer(&self, mut exchange: Exchange, head: Head) -> Answer {
        let whole = match head.body {
            Reading::Length(length) if length <= exchange.connection.buffer.len() as u64 => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                Some(exchange.connection.buffer.split_to(length).freeze())
            }
            _ => None,
        };
        let download = match whole {
            Some(body) => {
                if head.keep_alive {
                    exchange.give_back(&self.idle);
                }
                AnyDownload::Whole((!body.is_empty()).then_some(body))
            }
            None => AnyDownload::Http1(Box::new(Download {
                exchange: Some(exchange),
                body: head.body,
                keep_alive: head.keep_alive,
                idle: Rc::clone(&self.idle),
            })),
        };
        Answer {
            status: head.status,
            headers: head.headers,
            download,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum UploadState {
    Open,
    /// All was taken from the client, not yet all written.
    Ending,
    Done,
    /// The upstream takes no more; its answer may still come.
    Refused,
}

/// A request on its connection until the answer is over. Dropping it closes the connection.
struct Exchange {
    connection: Connection,
    upload: Upload,
    /// Bytes of the body still to come, if its length was given.
    left: Option<u64>,
    upload_state: UploadState,
    waits_on_client: bool,
    started: Instant,
    head_came: bool,
    timeouts: Timeouts,
    _place: InFlight,
}

impl Exchange {
    /// Moves the body on. Pending does not mean that there is nothing to read.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        loop {
            while self.upload_state == UploadState::Open && !self.connection.out.is_full() {
                match self.upload.poll_data(cx) {
                    Poll::Pending => {
                        self.waits_on_client = true;
                        break;
                    }
                    Poll::Ready(next) => self.queue(next)?,
                }
            }
            if matches!(self.upload_state, UploadState::Done | UploadState::Refused) {
                return Poll::Ready(Ok(()));
            }
            let connection = &mut self.connection;
            if connection.out.is_empty() {
                let flushed = Pin::new(&mut connection.io).poll_flush(cx);
                if self.upload_state == UploadState::Open {
                    return Poll::Pending;
                }
                self.waits_on_client = false;
                self.upload_state = match ready!(flushed) {
                    Ok(()) => UploadState::Done,
                    Err(_) => UploadState::Refused,
                };
                continue;
            }
            match connection.out.poll_write(Pin::new(&mut connection.io), cx) {
                Poll::Ready(Ok(())) => connection.patience.progress(),
                Poll::Ready(Err(_)) => {
                    connection.out.clear();
                    self.upload_state = UploadState::Refused;
                }
                Poll::Pending => {
                    self.waits_on_client = false;
                    return Poll::Pending;
                }
            }
        }
    }

    /// Queues what the client sent.
    fn queue(&mut self, next: Option<Result<Bytes, Refusal>>) -> Result<(), UpstreamError> {
        let out = &mut self.connection.out;
        match next {
            Some(Ok(data)) => match &mut self.left {
                Some(left) => {
                    *left = left
                        .checked_sub(data.len() as u64)
                        .ok_or(UpstreamError::Upload(Refusal::BadFraming {
                            problem: "the body is longer than its Content-Length",
                        }))?;
                    out.push(data);
                    if *left == 0 && self.upload.is_over() {
                        self.upload_state = UploadState::Ending;
                    }
                }
                None => out.push_chunk(data),
            },
            Some(Err(refusal)) => return Err(UpstreamError::Upload(refusal)),
            None => match self.left {
                Some(1..) => return Err(UpstreamError::Upload(Refusal::ClientGone)),
                Some(0) => self.upload_state = UploadState::Ending,
                None => {
                    out.push(Bytes::from_static(b"0\r\n\r\n"));
                    self.upload_state = UploadState::Ending;
                }
            },
        }
        Ok(())
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, UpstreamError>> {
        if let Poll::Ready(Err(error)) = self.poll_upload(cx) {
            return Poll::Ready(Err(error));
        }
        loop {
            if let Some(head) = Head::parse(&mut self.connection.buffer)? {
                return Poll::Ready(Ok(head));
            }
            match self.poll_fill(cx, READ_BYTES) {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(UpstreamError::unreachable(
                        "closed before it answered",
                    )));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return self.poll_patience(cx).map(Err),
            }
        }
    }

    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        size: usize,
    ) -> Poll<Result<usize, UpstreamError>> {
        let connection = &mut self.connection;
        let ready = ready!(connection.io.poll_read_ready(cx));
        ready.map_err(UpstreamError::unreachable)?;
        connection.buffer.reserve(size);
        let read = ready!(poll_read_buf(
            Pin::new(&mut connection.io),
            cx,
            &mut connection.buffer
        ));
        connection.patience.progress();
        Poll::Ready(read.map_err(UpstreamError::unreachable))
    }

    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<UpstreamError> {
        let waits = if self.upload_state == UploadState::Open && self.waits_on_client {
            Waits::Client
        } else if self.upload_state == UploadState::Done && !self.head_came {
            Waits::Head
        } else {
            Waits::Bytes
        };
        let (limit, by_client) = self.timeouts.of(waits, self.started);
        self.connection
            .patience
            .poll(cx, limit)
            .map(|()| stood_still(by_client))
    }

    /// Keeps the connection for another request if nothing of this one is left on it.
    fn give_back(mut self, idle: &Idle) {
        if self.upload_state != UploadState::Done || !self.connection.buffer.is_empty() {
            return;
        }
        self.connection.buffer = BytesMut::new();
        self.connection.patience.progress();
        self.connection.idle_since = Instant::now();
        let mut idle = idle.borrow_mut();
        if idle.len() == IDLE_CONNECTIONS
            || idle
                .front()
                .is_some_and(|first| first.idle_since.elapsed() > IDLE_MAX)
        {
            idle.pop_front();
        }
        idle.push_back(self.connection);
    }
}

/// The body of an answer that streams.
pub(crate) struct Download {
    /// Gone once the body is over.
    exchange: Option<Exchange>,
    body: Reading,
    keep_alive: bool,
    idle: Idle,
}

impl Download {
    pub(super) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, UpstreamError>>> {
        let Some(exchange) = &mut self.exchange else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(Err(error)) = exchange.poll_upload(cx) {
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            let buffer = &mut exchange.connection.buffer;
            match &mut self.body {
                Reading::Done | Reading::Length(0) => {
                    self.finish();
                    return Poll::Ready(None);
                }
                Reading::Length(left) if !buffer.is_empty() => {
                    let take =
                        usize::try_from(*left).map_or(buffer.len(), |left| left.min(buffer.len()));
                    *left -= take as u64;
                    let data = buffer.split_to(take).freeze();
                    if *left == 0 {
                        self.finish();
                    }
                    return Poll::Ready(Some(Ok(data)));
                }
                Reading::UntilClose if !buffer.is_empty() => {
                    return Poll::Ready(Some(Ok(buffer.split().freeze())));
                }
                Reading::Chunked(decoder) => match decoder.decode(buffer) {
                    Ok(Decoded::Data(data)) => return Poll::Ready(Some(Ok(data))),
                    Ok(Decoded::End) => {
                        self.body = Reading::Done;
                        continue;
                    }
                    Ok(Decoded::More) => {}
                    Err(error) => return Poll::Ready(Some(Err(UpstreamError::unreachable(error)))),
                },
                Reading::Length(_) | Reading::UntilClose => {}
            }
            match exchange.poll_fill(cx, READ_LARGE_BYTES) {
                Poll::Ready(Ok(0)) if matches!(self.body, Reading::UntilClose) => {
                    self.body = Reading::Done;
                }
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Some(Err(UpstreamError::unreachable(
                        "closed before its answer's end",
                    ))));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                Poll::Pending => return exchange.poll_patience(cx).map(|error| Some(Err(error))),
            }
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.exchange.is_none()
    }

    pub(super) fn length(&self) -> Option<u64> {
        match self.body {
            Reading::Length(left) => Some(left),
            Reading::Done => Some(0),
            Reading::Chunked(_) | Reading::UntilClose => None,
        }
    }

    fn finish(&mut self) {
        if let Some(exchange) = self.exchange.take()
            && self.keep_alive
        {
            exchange.give_back(&self.idle);
        }
        self.body = Reading::Done;
    }
}
