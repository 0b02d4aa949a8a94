//! HTTP/1.1 answers on their way to senders: how they are framed, and that they are written as they come.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use http::{Response, Version};
use http_body::Body as _;
use tokio::io::AsyncWrite as _;

use super::http1::Stream;
use super::http1_head;
use crate::patience::Patience;
use crate::request::body::Body;
use crate::send_queue::SendQueue;
use crate::worker::Worker;

/// How a response is framed.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) version: Version,
    pub(super) head_only: bool,
    pub(super) keep_alive: bool,
}

/// Writes a response; the head goes out together with the first of the body. Says whether the connection can stay.
pub(super) async fn write_response(
    worker: &Worker,
    stream: &RefCell<Stream>,
    out: &mut SendQueue,
    response: Response<Body>,
    plan: Plan,
) -> Result<bool, BrokenOff> {
    let (parts, body) = response.into_parts();
    let bodiless = plan.head_only || parts.status == 204 || parts.status == 304;
    let length = if parts.status == 204 {
        None
    } else {
        body.size_hint().exact()
    };
    let chunked = length.is_none() && !bodiless && plan.version == Version::HTTP_11;
    let keep_alive = plan.keep_alive && (length.is_some() || bodiless || chunked);
    let date = worker.date.now();
    let mut head = BytesMut::with_capacity(512);
    http1_head::write(&mut head, plan.version, parts.status, &parts.headers, &date);
    http1_head::write_framing(&mut head, length, chunked, keep_alive, plan.version);
    out.push(head.freeze());
    let mut body = pin!(body);
    let mut patience = Patience::default();
    let mut open = !bodiless;
    poll_fn(|cx| {
        loop {
            while open && !out.is_full() {
                match body.as_mut().poll_frame(cx) {
                    Poll::Pending => break,
                    Poll::Ready(None) => {
                        open = false;
                        if chunked {
                            out.push(Bytes::from_static(b"0\r\n\r\n"));
                        }
                    }
                    Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(BrokenOff)),
                    // HTTP/1 senders have no use for trailers.
                    Poll::Ready(Some(Ok(frame))) => {
                        if let Ok(data) = frame.into_data() {
                            if chunked {
                                out.push_chunk(data);
                            } else {
                                out.push(data);
                            }
                        }
                    }
                }
            }
            let mut stream = stream.borrow_mut();
            let socket = Pin::new(&mut stream.socket);
            let all_taken = out.is_empty();
            // What TLS took need not have left yet.
            let sent = if all_taken {
                socket.poll_flush(cx)
            } else {
                out.poll_write(socket, cx)
            };
            match sent {
                Poll::Ready(Ok(())) if all_taken => {
                    return if open {
                        Poll::Pending
                    } else {
                        Poll::Ready(Ok(()))
                    };
                }
                Poll::Ready(Ok(())) => patience.progress(),
                Poll::Ready(Err(_)) => return Poll::Ready(Err(BrokenOff)),
                Poll::Pending => {
                    let limit = worker.current().settings.body_idle_max;
                    return patience.poll(cx, limit).map(|()| Err(BrokenOff));
                }
            }
        }
    })
    .await?;
    Ok(keep_alive)
}

/// The answer could not be brought to its end; the connection must be closed without one.
pub(super) struct BrokenOff;
