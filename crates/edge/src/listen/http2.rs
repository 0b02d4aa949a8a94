//! HTTP/2 towards senders, by hyper. Decides the connection's settings; each stream runs in a task of its own.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, BytesMut};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Peer;
use super::io::ClientIo;
use crate::request;
use crate::request::body::ClientBody;
use crate::worker::Worker;

/// Runs streams on the worker's own runtime.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future<Output = ()> + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Serves one connection until either side ends it. `ahead` begins with the preface that gave its protocol away.
pub(crate) async fn serve(worker: Rc<Worker>, peer: Peer, stream: ClientIo, ahead: BytesMut) {
    // Not the targets: a connection outlives a configuration.
    let settings = Arc::clone(&worker.current().settings);
    let settings = &settings.connections;
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let worker = Rc::clone(&worker);
        let peer = peer.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = Ok(ClientBody::Http2(body));
            Ok::<_, Infallible>(request::serve(&worker, &peer, parts, body).await)
        }
    });
    let connection = http2::Builder::new(Local)
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.streams_max)
        .initial_stream_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_frame_size(64 * 1024)
        .max_header_list_size(u32::try_from(settings.head_max.0).unwrap_or(u32::MAX))
        .keep_alive_interval(Some(settings.idle_timeout))
        .serve_connection(TokioIo::new(Ahead { stream, ahead }), service);
    let mut connection = pin!(connection);
    let draining = peer.listener.draining.clone();
    tokio::select! {
        // How a connection ends is its streams' business; they are accounted one by one.
        _ = connection.as_mut() => return,
        () = draining.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// A stream of which the first bytes were read already.
struct Ahead {
    stream: ClientIo,
    ahead: BytesMut,
}

impl AsyncRead for Ahead {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let n = self.ahead.len().min(buf.remaining());
        buf.put_slice(self.ahead.get(..n).unwrap_or_default());
        self.ahead.advance(n);
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Ahead {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
