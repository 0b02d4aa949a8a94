//! gRPC unary calls over HTTP/2 with prior knowledge, on `h2` itself: several streams share a connection.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, StatusCode};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::http1::RECONNECT_AFTER;
use super::{Lifetime, Run};

/// What gRPC calls a status that a proxy forgot to send.
const UNKNOWN: u32 = 2;
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// A connection and how often it was opened; the first stream that finds it dead opens it again for all.
pub(crate) struct Shared {
    current: Mutex<(u64, SendRequest<Bytes>)>,
    /// The current one's number, for those who only want to know whether theirs is old.
    newest: Cell<u64>,
    lifetime: Cell<Lifetime>,
}

impl Shared {
    pub(super) async fn open(address: SocketAddr, lifetime: Lifetime) -> io::Result<Rc<Self>> {
        let sender = connect(address).await?;
        Ok(Rc::new(Self {
            current: Mutex::new((0, sender)),
            newest: Cell::new(0),
            lifetime: Cell::new(lifetime),
        }))
    }

    /// Counts a call; whether the connection has had enough of them.
    fn is_used_up(&self) -> bool {
        let mut lifetime = self.lifetime.get();
        let over = lifetime.is_over_after_one_more();
        self.lifetime.set(lifetime);
        over
    }

    async fn sender(&self) -> (u64, SendRequest<Bytes>) {
        self.current.lock().await.clone()
    }

    /// Opens the connection again unless another stream did so since `generation`.
    async fn reopen(&self, run: &Run, generation: u64) {
        let mut current = self.current.lock().await;
        if current.0 != generation {
            return;
        }
        match connect(run.address).await {
            Ok(sender) => {
                *current = (generation + 1, sender);
                self.newest.set(generation + 1);
                run.tally.reconnected();
            }
            Err(error) => {
                run.tally.lost("connect", &error);
                tokio::time::sleep(RECONNECT_AFTER).await;
            }
        }
    }
}

async fn connect(address: SocketAddr) -> io::Result<SendRequest<Bytes>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .enable_push(false)
        .handshake(stream)
        .await
        .map_err(io::Error::other)?;
    // Its error reaches every stream on it by itself.
    tokio::task::spawn_local(connection);
    Ok(sender)
}

/// Makes calls one after the other until the run is over.
pub(crate) async fn stream(run: Rc<Run>, shared: Rc<Shared>) {
    let (mut generation, mut sender) = shared.sender().await;
    while let Some(due) = run.pace.next().await {
        // Another stream has opened it anew; calls on the old one end by themselves.
        if shared.newest.get() != generation {
            (generation, sender) = shared.sender().await;
        }
        match call(&run, &mut sender).await {
            Ok(Outcome::Grpc(0)) => {
                run.tally.accepted(due);
                if shared.is_used_up() {
                    shared.reopen(&run, generation).await;
                }
            }
            Ok(Outcome::Grpc(code)) => run.tally.refused("grpc", code),
            Ok(Outcome::Http(status)) => run.tally.refused("http", u32::from(status.as_u16())),
            Err(error) => {
                let whole_connection = error.is_io() || error.is_go_away();
                run.tally.lost("stream", &error);
                if whole_connection || !error.is_remote() {
                    shared.reopen(&run, generation).await;
                    (generation, sender) = shared.sender().await;
                }
            }
        }
    }
}

enum Outcome {
    Grpc(u32),
    Http(StatusCode),
}

async fn call(run: &Run, sender: &mut SendRequest<Bytes>) -> Result<Outcome, h2::Error> {
    let (request, body) = run.requests.next_http2();
    run.tally.sent(body.len());
    std::future::poll_fn(|cx| sender.poll_ready(cx)).await?;
    let (answer, mut upload) = sender.send_request(request, false)?;
    // h2 holds the body back until the windows open; there is one body a stream at most.
    upload.send_data(body, true)?;
    let answer = answer.await?;
    if answer.status() != StatusCode::OK {
        return Ok(Outcome::Http(answer.status()));
    }
    if let Some(code) = grpc_status(answer.headers()) {
        return Ok(Outcome::Grpc(code));
    }
    let mut download = answer.into_body();
    while let Some(chunk) = download.data().await {
        let length = chunk?.len();
        download.flow_control().release_capacity(length)?;
    }
    let trailers = download.trailers().await?;
    let code = trailers.as_ref().and_then(grpc_status).unwrap_or(UNKNOWN);
    Ok(Outcome::Grpc(code))
}

fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    let value = headers.get("grpc-status")?;
    Some(
        value
            .to_str()
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(UNKNOWN),
    )
}
