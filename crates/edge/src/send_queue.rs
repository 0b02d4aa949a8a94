//! Bytes on their way into a socket: frames are shared, not copied, and leave in as few writes as the kernel takes.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::AsyncWrite;

/// More than this is not queued before some is written, in bytes.
const FULL_BYTES: usize = 64 * 1024;
/// The most slices given to one write.
const SLICES: usize = 8;

/// A queue of frames that are being written.
#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    frames: VecDeque<Bytes>,
    bytes: usize,
}

impl SendQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Whether what is queued should be written before more is.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= FULL_BYTES || self.frames.len() >= SLICES
    }

    pub(crate) fn push(&mut self, frame: Bytes) {
        if !frame.is_empty() {
            self.bytes += frame.len();
            self.frames.push_back(frame);
        }
    }

    /// Queues a frame as one chunk of the chunked coding.
    pub(crate) fn push_chunk(&mut self, frame: Bytes) {
        if frame.is_empty() {
            return;
        }
        self.push(Bytes::from(format!("{:x}\r\n", frame.len())));
        self.push(frame);
        self.push(Bytes::from_static(b"\r\n"));
    }

    pub(crate) fn clear(&mut self) {
        self.frames.clear();
        self.bytes = 0;
    }

    /// Writes until all is written or the socket takes no more.
    pub(crate) fn poll_write<W: AsyncWrite>(
        &mut self,
        mut io: Pin<&mut W>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.bytes > 0 {
            let mut slices = [IoSlice::new(&[]); SLICES];
            for (slice, frame) in slices.iter_mut().zip(&self.frames) {
                *slice = IoSlice::new(frame);
            }
            let n = self.frames.len().min(SLICES);
            let written = ready!(
                io.as_mut()
                    .poll_write_vectored(cx, slices.get(..n).unwrap_or_default())
            )?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(first) = self.frames.front_mut() {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.frames.pop_front();
        }
    }
}
