//! The upstream's HTTP/2 side: gRPC calls are answered with an empty message and status 0, anything else with an empty 200.

use std::io;
use std::rc::Rc;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::stats::Stats;

const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
const STREAMS_MAX: u32 = 1024;
const EMPTY_MESSAGE: &[u8] = &[0; 5];

/// Serves a connection whose first bytes, `begun`, have been read.
pub(crate) async fn serve(
    stream: TcpStream,
    begun: Bytes,
    stats: &Rc<Stats>,
    early: bool,
) -> io::Result<()> {
    let (from, to) = stream.into_split();
    let stream = tokio::io::join(io::Cursor::new(begun).chain(from), to);
    let mut connection = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .handshake(stream)
        .await
        .map_err(io::Error::other)?;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted.map_err(io::Error::other)?;
        let stats = stats.clone();
        tokio::task::spawn_local(async move {
            // What fails here was counted as begun and stays cut short.
            let _ = exchange(request, respond, &stats, early).await;
        });
    }
    Ok(())
}

async fn exchange(
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    stats: &Stats,
    early: bool,
) -> Result<(), h2::Error> {
    let headers = request.headers();
    let tenants = headers.get_all("x-scope-orgid");
    let aliases = headers.get_all("x_scope_orgid");
    stats.begun(tenants.iter().chain(&aliases).map(HeaderValue::as_bytes));
    let grpc = headers
        .get("content-type")
        .is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"));
    let body = request.into_body();
    if early {
        answer(respond, grpc)?;
        read(body, grpc, stats).await
    } else {
        read(body, grpc, stats).await?;
        answer(respond, grpc)
    }
}

/// Reads the body whole; for gRPC it must be one message of the length it announces.
async fn read(mut body: RecvStream, grpc: bool, stats: &Stats) -> Result<(), h2::Error> {
    let mut length = 0_u64;
    let mut prefix = Vec::with_capacity(5);
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        prefix.extend(chunk.iter().take(5 - prefix.len()));
        length += chunk.len() as u64;
    }
    if !grpc || announced(&prefix) == Some(length) {
        stats.complete(length);
    }
    Ok(())
}

/// The length of a body that is one message with this prefix.
fn announced(prefix: &[u8]) -> Option<u64> {
    let (_flag, length) = prefix.split_first()?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    Some(5 + u64::from(length))
}

fn answer(mut respond: SendResponse<Bytes>, grpc: bool) -> Result<(), h2::Error> {
    let mut response = Response::new(());
    if !grpc {
        return respond.send_response(response, true).map(drop);
    }
    response
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("application/grpc"));
    let mut stream = respond.send_response(response, false)?;
    stream.send_data(Bytes::from_static(EMPTY_MESSAGE), false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers)
}
