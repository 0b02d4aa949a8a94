//! HTTP/2 towards upstreams, by `h2`, driven from the request's own task. An answer that comes before the body's end is
//! taken as it is; a body that fails resets its stream.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Uri, Version, header};
use http_body::Frame;
use tokio::time::Instant;
use tracing::debug;

use super::connect::Connector;
use super::endpoints::InFlight;
use super::{
    Answer, Attempt, Download as AnyDownload, Timeouts, UpstreamError, UpstreamRequest, Waits,
    stood_still,
};
use crate::patience::Patience;
use crate::request::upload::Upload;

/// What an upstream may send us unasked; answers are small.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Streams on one connection before another is opened. grpc-go's servers allow any number, others 100.
const STREAMS: usize = 100;
/// Connections per worker. Beyond, streams wait their turn.
const CONNECTIONS: usize = 16;

/// One worker's connections to one endpoint.
pub(super) struct Client {
    connector: Connector,
    timeouts: Timeouts,
    connections: Rc<RefCell<Vec<Connection>>>,
    next_id: Cell<u64>,
    /// One connection is opened at a time: a burst needs few.
    opening: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Connection {
    id: u64,
    send: SendRequest<Bytes>,
    streams: Rc<Cell<usize>>,
}

/// Counts a stream of a connection for as long as it lives.
struct Counted(Rc<Cell<usize>>);

impl Counted {
    fn new(streams: &Rc<Cell<usize>>) -> Self {
        streams.set(streams.get() + 1);
        Self(Rc::clone(streams))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Client {
    pub(super) fn new(connector: Connector, timeouts: Timeouts) -> Self {
        Self {
            connector,
            timeouts,
            connections: Rc::default(),
            next_id: Cell::new(0),
            opening: tokio::sync::Mutex::new(()),
        }
    }

    /// Sends a request. What was not passed on of `attempt` is still in it when that fails.
    pub(super) async fn send(
        &self,
        request: UpstreamRequest<'_>,
        place: InFlight,
        attempt: &mut Attempt,
    ) -> Result<Answer, UpstreamError> {
        let head = self.head(&request)?;
        attempt.was_pooled = !self.connections.borrow().is_empty();
        let empty = attempt.upload.as_ref().is_some_and(Upload::is_over);
        let (response, stream, counted) = self.open(head, empty).await?;
        let mut exchange = Exchange {
            stream,
            upload: attempt.take_upload()?,
            _place: place,
            started: Instant::now(),
            head_came: false,
            state: if empty {
                UploadState::Done
            } else {
                UploadState::Open
            },
            waits_on_client: false,
            patience: Patience::default(),
            timeouts: self.timeouts,
            _counted: counted,
        };
        let mut response = response;
        let answered = poll_fn(|cx| exchange.poll_answer(&mut response, cx)).await;
        let (parts, body) = match answered {
            Ok(answer) => answer.into_parts(),
            Err(error) => {
                attempt.upload = Some(exchange.upload);
                return Err(error);
            }
        };
        let taken = exchange.state == UploadState::Done;
        if !taken && attempt.declines(parts.status, &parts.headers, &exchange.upload) {
            attempt.upload = Some(exchange.upload);
            return Err(UpstreamError::Declined(parts.status));
        }
        exchange.head_came = true;
        exchange.upload.keep_nothing();
        let download = if body.is_end_stream() {
            AnyDownload::Whole(None)
        } else {
            AnyDownload::Http2(Box::new(Download {
                length: content_length(&parts.headers),
                body,
                exchange,
                data_over: false,
                over: false,
            }))
        };
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            download,
        })
    }

    fn head(&self, request: &UpstreamRequest<'_>) -> Result<Request<()>, UpstreamError> {
        let is_https = self.connector.shared.is_https();
        let uri = Uri::builder()
            .scheme(if is_https { "https" } else { "http" })
            .authority(self.connector.endpoint.authority.as_str())
            .path_and_query(request.path)
            .build()
            .map_err(UpstreamError::unreachable)?;
        let mut head = Request::new(());
        *head.method_mut() = Method::POST;
        *head.uri_mut() = uri;
        *head.version_mut() = Version::HTTP_2;
        let headers = head.headers_mut();
        headers.reserve(request.headers.len() + 1);
        for (name, value) in request.headers {
            headers.append(name.clone(), value.clone());
        }
        if let Some(length) = request.length {
            headers.insert(header::CONTENT_LENGTH, length.into());
        }
        Ok(head)
    }

    /// Opens a stream. A connection that turns out to be closed is replaced, as nothing was sent on it.
    async fn open(
        &self,
        head: Request<()>,
        empty: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>, Counted), UpstreamError> {
        let mut last = None;
        for _ in 0..3 {
            let connection = self.connection().await?;
            let counted = Counted::new(&connection.streams);
            let ready =
                tokio::time::timeout(self.timeouts.first_byte, connection.send.ready()).await;
            let opened = match ready {
                Ok(Ok(mut send)) => send.send_request(head.clone(), empty),
                Ok(Err(error)) => Err(error),
                Err(_) => return Err(UpstreamError::Timeout),
            };
            match opened {
                Ok((response, stream)) => return Ok((response, stream, counted)),
                Err(error) => {
                    self.connections
                        .borrow_mut()
                        .retain(|other| other.id != connection.id);
                    last = Some(error);
                }
            }
        }
        Err(UpstreamError::Unreachable(
            last.map_or_else(String::new, |error| error.to_string()),
        ))
    }

    /// A connection with room for a stream; the fullest is never taken while another has room.
    async fn connection(&self) -> Result<Connection, UpstreamError> {
        if let Some(connection) = self.roomy() {
            return Ok(connection);
        }
        let _opening = self.opening.lock().await;
        if let Some(connection) = self.roomy() {
            return Ok(connection);
        }
        let (crowded, n) = {
            let connections = self.connections.borrow();
            let crowded = connections
                .iter()
                .min_by_key(|connection| connection.streams.get())
                .cloned();
            (crowded, connections.len())
        };
        if n >= CONNECTIONS
            && let Some(crowded) = crowded
        {
            return Ok(crowded);
        }
        let io = self.connector.connect().await?;
        let handshake = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .enable_push(false)
            .handshake(io);
        let (send, driver) = tokio::time::timeout(self.timeouts.connect, handshake)
            .await
            .map_err(|_| UpstreamError::Timeout)?
            .map_err(UpstreamError::unreachable)?;
        let id = self.next_id.replace(self.next_id.get() + 1);
        let connections = Rc::downgrade(&self.connections);
        tokio::task::spawn_local(async move {
            if let Err(error) = driver.await {
                debug!(%error, "an upstream connection ended");
            }
            if let Some(connections) = connections.upgrade() {
                connections
                    .borrow_mut()
                    .retain(|connection| connection.id != id);
            }
        });
        let connection = Connection {
            id,
            send,
            streams: Rc::default(),
        };
        self.connections.borrow_mut().push(connection.clone());
        Ok(connection)
    }

    fn roomy(&self) -> Option<Connection> {
        let connections = self.connections.borrow();
        let roomy = |connection: &&Connection| {
            let streams = connection.send.current_max_send_streams().min(STREAMS);
            connection.streams.get() < streams
        };
        connections.iter().find(roomy).cloned()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum UploadState {
    Open,
    Done,
    /// The upstream takes no more; its answer may still come.
    Refused,
}

/// A request on its stream until the answer is over. Dropping it resets the stream if either direction is open.
struct Exchange {
    stream: SendStream<Bytes>,
    upload: Upload,
    state: UploadState,
    waits_on_client: bool,
    patience: Patience,
    started: Instant,
    head_came: bool,
    timeouts: Timeouts,
    _counted: Counted,
    _place: InFlight,
}

impl Exchange {
    /// Moves the body on, as far as the upstream's window lets it.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        while self.state == UploadState::Open {
            self.waits_on_client = false;
            // One byte of window lets a frame go: h2 sends the rest of it as the window opens, and no other is taken.
            self.stream.reserve_capacity(1);
            while self.stream.capacity() == 0 {
                match ready!(self.stream.poll_capacity(cx)) {
                    Some(Ok(0)) => {}
                    Some(Ok(_)) => break,
                    Some(Err(_)) | None => {
                        self.state = UploadState::Refused;
                        return Poll::Ready(Ok(()));
                    }
                }
            }
            let Poll::Ready(next) = self.upload.poll_data(cx) else {
                self.waits_on_client = true;
                return Poll::Pending;
            };
            self.patience.progress();
            let sent = match next {
                Some(Ok(data)) => {
                    let last = self.upload.is_over();
                    if last {
                        self.state = UploadState::Done;
                    }
                    self.stream.send_data(data, last)
                }
                None => {
                    self.state = UploadState::Done;
                    self.stream.send_data(Bytes::new(), true)
                }
                Some(Err(refusal)) => {
                    self.state = UploadState::Refused;
                    self.stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(Err(UpstreamError::Upload(refusal)));
                }
            };
            if sent.is_err() {
                self.state = UploadState::Refused;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_answer(
        &mut self,
        response: &mut ResponseFuture,
        cx: &mut Context<'_>,
    ) -> Poll<Result<http::Response<RecvStream>, UpstreamError>> {
        let upload = self.poll_upload(cx);
        match (Pin::new(response).poll(cx), upload) {
            (Poll::Ready(Ok(answer)), _) => return Poll::Ready(Ok(answer)),
            // A body that failed has reset the stream, which the response then tells too: the cause goes first.
            (_, Poll::Ready(Err(error))) => return Poll::Ready(Err(error)),
            (Poll::Ready(Err(error)), _) => {
                // A stream that the endpoint ends for itself may have been taken; one that it refuses was not (RFC 9113
                // section 8.7), nor was one whose connection is gone.
                let of_stream = error.is_reset() && error.reason() != Some(Reason::REFUSED_STREAM);
                return Poll::Ready(Err(if of_stream {
                    UpstreamError::Broken(error.to_string())
                } else {
                    UpstreamError::unreachable(error)
                }));
            }
            (Poll::Pending, _) => {}
        }
        self.poll_patience(cx).map(Err)
    }

    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<UpstreamError> {
        let waits = if self.state == UploadState::Open && self.waits_on_client {
            Waits::Client
        } else if self.state == UploadState::Done && !self.head_came {
            Waits::Head
        } else {
            Waits::Bytes
        };
        let (limit, by_client) = self.timeouts.of(waits, self.started);
        self.patience
            .poll(cx, limit)
            .map(|()| stood_still(by_client))
    }
}

/// The body of an answer that streams.
pub(crate) struct Download {
    body: RecvStream,
    exchange: Exchange,
    length: Option<u64>,
    data_over: bool,
    over: bool,
}

impl Download {
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let upload = self.exchange.poll_upload(cx);
        let next = self.poll_body(cx);
        if next.is_ready() {
            self.exchange.patience.progress();
            return next;
        }
        if let Poll::Ready(Err(error)) = upload {
            self.over = true;
            return Poll::Ready(Some(Err(error)));
        }
        self.exchange
            .poll_patience(cx)
            .map(|error| Some(Err(error)))
    }

    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        while !self.data_over {
            match ready!(self.body.poll_data(cx)) {
                Some(Ok(data)) => {
                    // An error here means that the connection is gone, which the next read tells.
                    let _ = self.body.flow_control().release_capacity(data.len());
                    if data.is_empty() {
                        continue;
                    }
                    self.over = self.body.is_end_stream();
                    if let Some(left) = &mut self.length {
                        *left = left.saturating_sub(data.len() as u64);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return self.fail(&error),
                None => self.data_over = true,
            }
        }
        let trailers: Result<Option<HeaderMap>, _> = ready!(self.body.poll_trailers(cx));
        match trailers {
            Ok(trailers) => {
                self.over = true;
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &h2::Error) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        self.over = true;
        Poll::Ready(Some(Err(UpstreamError::unreachable(error))))
    }

    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    pub(super) fn length(&self) -> Option<u64> {
        if self.over { Some(0) } else { self.length }
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}
