//! HTTP/1.1 framing, as little as both ends of a test need: finds a message's head, skips its body. Knows no semantics beyond
//! that, keeps no body, and trusts its peer more than a server on the internet may.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest head taken.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// The most headers taken.
pub(crate) const HEADERS_MAX: usize = 64;

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After this many bytes.
    Length(u64),
    /// After the last chunk.
    Chunked,
    /// When the peer closes.
    UntilClose,
}

/// What a head says that matters here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<T> {
    /// What the start line and the headers of interest say.
    pub(crate) content: T,
    /// How the body is framed.
    pub(crate) framing: Framing,
    /// Whether another message may follow on this connection.
    pub(crate) keep_alive: bool,
}

impl<T> Head<T> {
    /// Reads framing and persistence out of `headers`; `unframed` is what a message without either header means.
    pub(crate) fn new(
        content: T,
        version: Option<u8>,
        headers: &[httparse::Header<'_>],
        unframed: Framing,
    ) -> io::Result<Self> {
        let mut framing = unframed;
        let mut keep_alive = version == Some(1);
        for header in headers {
            if header.name.eq_ignore_ascii_case("content-length") {
                let length = str::from_utf8(header.value)
                    .ok()
                    .and_then(|v| v.trim().parse().ok())
                    .ok_or_else(|| malformed("Content-Length is not a number"))?;
                framing = Framing::Length(length);
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                framing = Framing::Chunked;
            } else if header.name.eq_ignore_ascii_case("connection")
                && header.value.eq_ignore_ascii_case(b"close")
            {
                keep_alive = false;
            }
        }
        Ok(Self {
            content,
            framing,
            keep_alive: keep_alive && framing != Framing::UntilClose,
        })
    }
}

/// What a connection has received and not yet consumed.
pub(crate) struct Received {
    buffer: BytesMut,
    read_bytes: usize,
}

impl Received {
    /// An empty buffer that asks for `read_bytes` at a time.
    pub(crate) fn new(read_bytes: usize) -> Self {
        Self {
            buffer: BytesMut::with_capacity(read_bytes),
            read_bytes,
        }
    }

    /// Everything received so far, for whoever takes the connection over.
    pub(crate) fn into_bytes(self) -> bytes::Bytes {
        self.buffer.freeze()
    }

    /// Waits until the first `count` bytes are there and says whether they are `expected`; false too when the peer closes.
    pub(crate) async fn starts_with(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        expected: &[u8],
    ) -> io::Result<bool> {
        while self.buffer.len() < expected.len() {
            if self.fill(from).await? == 0 {
                return Ok(false);
            }
        }
        Ok(self.buffer.starts_with(expected))
    }

    /// The next head; `None` when the peer closed between messages. `parse` says how long the head is, or that more is
    /// needed. Dropping the future loses nothing.
    pub(crate) async fn head<T>(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        parse: impl Fn(&[u8]) -> io::Result<Option<(usize, T)>>,
    ) -> io::Result<Option<T>> {
        loop {
            if !self.buffer.is_empty() {
                if let Some((length, head)) = parse(&self.buffer)? {
                    self.buffer.advance(length);
                    return Ok(Some(head));
                }
                if self.buffer.len() > HEAD_BYTES_MAX {
                    return Err(malformed("head longer than 64 KiB"));
                }
            }
            if self.fill(from).await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    /// Consumes a body and returns its length in bytes, chunk framing not counted.
    pub(crate) async fn skip_body(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        framing: Framing,
    ) -> io::Result<u64> {
        match framing {
            Framing::Length(length) => self.skip(from, length).await.map(|()| length),
            Framing::Chunked => self.skip_chunks(from).await,
            Framing::UntilClose => {
                let mut total = 0;
                loop {
                    total += self.buffer.len() as u64;
                    self.buffer.clear();
                    if self.fill(from).await? == 0 {
                        return Ok(total);
                    }
                }
            }
        }
    }

    async fn skip(&mut self, from: &mut (impl AsyncRead + Unpin), mut left: u64) -> io::Result<()> {
        loop {
            let taken = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(self.buffer.len());
            self.buffer.advance(taken);
            left -= taken as u64;
            if left == 0 {
                return Ok(());
            }
            if self.fill(from).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn skip_chunks(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<u64> {
        let mut total = 0;
        loop {
            let line = self.line(from).await?;
            let digits = line[..].split(|b| *b == b';').next().unwrap_or_default();
            let size = str::from_utf8(digits)
                .ok()
                .and_then(|d| u64::from_str_radix(d.trim(), 16).ok())
                .ok_or_else(|| malformed("chunk size is not a hexadecimal number"))?;
            if size == 0 {
                while !self.line(from).await?.is_empty() {}
                return Ok(total);
            }
            self.skip(from, size).await?;
            total += size;
            if !self.line(from).await?.is_empty() {
                return Err(malformed("chunk longer than its size"));
            }
        }
    }

    /// One line without its end.
    async fn line(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<BytesMut> {
        loop {
            if let Some(at) = self.buffer.iter().position(|b| *b == b'\n') {
                let mut line = self.buffer.split_to(at);
                self.buffer.advance(1);
                if line.last() == Some(&b'\r') {
                    line.truncate(line.len() - 1);
                }
                return Ok(line);
            }
            if self.fill(from).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn fill(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        // An empty buffer gets its whole room back; a begun one only enough not to read in crumbs.
        let wanted = if self.buffer.is_empty() {
            self.read_bytes
        } else {
            self.read_bytes / 4
        };
        self.buffer.reserve(wanted);
        from.read_buf(&mut self.buffer).await
    }
}

/// An error for bytes that are not HTTP.
pub(crate) fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn skipped(framing: Framing, wire: &[u8]) -> (u64, Vec<u8>) {
        let mut received = Received::new(5);
        let mut from = wire;
        let length = received.skip_body(&mut from, framing).await.unwrap();
        let mut rest = received.into_bytes().to_vec();
        rest.extend_from_slice(from);
        (length, rest)
    }

    #[tokio::test]
    async fn a_body_is_skipped_to_its_last_byte_and_no_further() {
        let chunked = b"4;x=y\r\nabcd\r\na\r\n0123456789\r\n0\r\nt: v\r\n\r\nnext";
        assert_eq!(
            skipped(Framing::Chunked, chunked).await,
            (14, b"next".to_vec())
        );
        assert_eq!(
            skipped(Framing::Length(6), b"abcdefnext").await,
            (6, b"next".to_vec())
        );
        assert_eq!(
            skipped(Framing::UntilClose, b"abcdef").await,
            (6, Vec::new())
        );
    }

    #[tokio::test]
    async fn a_body_cut_short_is_an_error_and_never_a_shorter_body() {
        for (framing, wire) in [
            (Framing::Length(6), &b"abcde"[..]),
            (Framing::Chunked, b"4\r\nab"),
            (Framing::Chunked, b"4\r\nabcd\r\n"),
        ] {
            let mut from = wire;
            let error = Received::new(64)
                .skip_body(&mut from, framing)
                .await
                .unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
