//! How hyper's own HTTP/1 server reads the same bytes. It runs without a runtime: all bytes are there from the start.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::request::Parts;
use http_body::Body as _;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::service_fn;

/// A request as hyper reads it.
#[derive(Debug)]
pub struct Seen {
    pub parts: Parts,
    /// The body's length, where the head says it.
    pub length: Option<u64>,
    /// What came of the body.
    pub body: Vec<u8>,
    /// Whether that was all of it.
    pub complete: bool,
}

/// The first request in `bytes`, if hyper takes it for one.
pub fn first_request(bytes: &[u8]) -> Option<Seen> {
    let seen: Rc<RefCell<Option<Seen>>> = Rc::default();
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let seen = Rc::clone(&seen);
        async move {
            let (parts, mut body) = request.into_parts();
            if seen.borrow().is_none() {
                *seen.borrow_mut() = Some(Seen {
                    parts,
                    length: body.size_hint().exact(),
                    body: Vec::new(),
                    complete: false,
                });
            }
            while let Some(frame) =
                std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await
            {
                let Ok(frame) = frame else {
                    return std::future::pending().await;
                };
                if let (Ok(data), Some(seen)) = (frame.into_data(), &mut *seen.borrow_mut()) {
                    seen.body.extend_from_slice(&data);
                }
            }
            if let Some(seen) = &mut *seen.borrow_mut() {
                seen.complete = true;
            }
            // The first request is enough: never answered, the connection goes no further.
            std::future::pending::<Result<http::Response<Empty<Bytes>>, Infallible>>().await
        }
    });
    let socket = Socket {
        bytes: bytes.to_vec(),
        at: 0,
    };
    {
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(socket, service);
        let mut connection = pin!(connection);
        let mut cx = Context::from_waker(Waker::noop());
        // Data goes from the connection to the body by wake-ups; without a runtime, asking again does it.
        for _ in 0..bytes.len() + 8 {
            if connection.as_mut().poll(&mut cx).is_ready() {
                break;
            }
            if seen.borrow().as_ref().is_some_and(|seen| seen.complete) {
                break;
            }
        }
    }
    seen.take()
}

/// A socket that has all its bytes to give, then nothing, and takes whatever is written.
struct Socket {
    bytes: Vec<u8>,
    at: usize,
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let end = self.bytes.len().min(self.at + buffer.remaining());
        if end == self.at {
            return Poll::Pending;
        }
        buffer.put_slice(&self.bytes[self.at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

impl Write for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
