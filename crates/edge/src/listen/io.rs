//! A sender's connection as bytes, whatever carries them. Decides nothing.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncBufRead as _, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A connection from a sender.
pub(crate) enum ClientIo {
    Plain(TcpStream),
    Tls(Tls),
}

/// A connection over TLS. Says goodbye when it ends: a client could not tell the end from a connection cut off otherwise.
pub(crate) struct Tls {
    stream: Box<TlsStream<TcpStream>>,
    aborted: bool,
}

impl ClientIo {
    /// A connection whose handshake is over.
    pub(crate) fn tls(stream: TlsStream<TcpStream>) -> Self {
        Self::Tls(Tls {
            stream: Box::new(stream),
            aborted: false,
        })
    }

    /// Whether the TLS handshake settled on HTTP/2. Then nothing else may be spoken (RFC 9113 section 3.2).
    pub(crate) fn agreed_on_http2(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }

    /// Whether a read would tell something at once. Costs no buffer: a connection that waits should hold none.
    pub(crate) fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => stream.poll_read_ready(cx),
            // Bytes in the socket may be half a record, and whole ones may have been taken out of it.
            Self::Tls(tls) => Pin::new(&mut *tls.stream).poll_fill_buf(cx).map_ok(|_| ()),
        }
    }

    /// Makes the end of the connection an abortion: what was written of an answer must not pass for all of it.
    pub(crate) fn abort(&mut self) {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Tls(tls) => {
                tls.aborted = true;
                tls.stream.get_ref().0
            }
        };
        // If this fails the connection is gone already.
        let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        if self.aborted {
            return;
        }
        let (stream, session) = self.stream.get_mut();
        session.send_close_notify();
        // What does not fit into the socket is not waited for, and who is gone already needs no goodbye.
        let _ = session.write_tls(&mut AtOnce(stream));
    }
}

/// Writes what fits now.
struct AtOnce<'a>(&'a TcpStream);

impl Write for AtOnce<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(&mut *tls.stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(&mut *tls.stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(&mut *tls.stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(tls) => Pin::new(&mut *tls.stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(&mut *tls.stream).poll_shutdown(cx),
        }
    }
}
