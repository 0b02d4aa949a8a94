//! A connection of HTTP/2 in the hands of an attacker: sends any bytes, and takes notice of what the edge says meanwhile, or of
//! nothing at all.

use std::io;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, Interest};

use super::frames::{
    ACK, HEADER_BYTES, INITIAL_WINDOW_SIZE, Kind, PREFACE, frame, headers, request,
};
use super::wire::Wire;

const READ_BYTES: usize = 16 * 1024;

pub(super) struct Session {
    pub(super) wire: Wire,
    incoming: BytesMut,
    /// The stream for the next request.
    next_stream: u32,
    /// What the edge lets the one stream send that is open, and all of the connection.
    pub(super) stream_window: i64,
    pub(super) connection_window: i64,
    /// Streams answered so far.
    pub(super) answers: u64,
}

impl Session {
    /// Says hello with `settings`, and waits until the edge has.
    pub(super) async fn open(wire: Wire, settings: &[u8]) -> io::Result<Self> {
        let mut session = Self {
            wire,
            incoming: BytesMut::new(),
            next_stream: 1,
            stream_window: 65_535,
            connection_window: 65_535,
            answers: 0,
        };
        let mut hello = PREFACE.to_vec();
        frame(&mut hello, Kind::Settings, 0, 0, settings);
        session.wire.send(&hello).await?;
        let mut greeted = false;
        while !greeted {
            session.read().await?;
            greeted = session.take_frames()?;
        }
        hello.clear();
        frame(&mut hello, Kind::Settings, ACK, 0, &[]);
        session.send(&hello, 1).await?;
        Ok(session)
    }

    /// Reads until there is something.
    pub(super) async fn read(&mut self) -> io::Result<()> {
        self.incoming.reserve(READ_BYTES);
        match self.wire.stream.read_buf(&mut self.incoming).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Reads and understands what comes, until it is something new.
    pub(super) async fn listen(&mut self) -> io::Result<()> {
        self.read().await?;
        self.take_frames().map(drop)
    }

    /// A number for a stream; an error when they are used up.
    pub(super) fn stream(&mut self) -> io::Result<u32> {
        let stream = self.next_stream;
        self.next_stream = stream
            .checked_add(2)
            .filter(|next| *next < 1 << 31)
            .ok_or_else(|| io::Error::other("no streams left"))?;
        Ok(stream)
    }

    /// Appends a request that `block` describes.
    pub(super) fn request(
        &mut self,
        out: &mut Vec<u8>,
        end_stream: bool,
        block: &[u8],
    ) -> io::Result<u32> {
        let stream = self.stream()?;
        headers(out, end_stream, stream, block);
        self.wire.attacker.tally.requests(1);
        Ok(stream)
    }

    /// Opens a stream with an OTLP export of the attacker's own tenant, its body still to come.
    pub(super) async fn open_export(&mut self) -> io::Result<u32> {
        let credential = format!("Bearer {}", self.wire.attacker.key);
        let block = export(&credential);
        let mut out = Vec::new();
        let stream = self.request(&mut out, false, &block)?;
        self.send(&out, 1).await?;
        Ok(stream)
    }

    /// Sends `frames` frames, and reads whatever comes meanwhile: an attacker that does not is stopped by its own socket.
    pub(super) async fn send(&mut self, bytes: &[u8], frames: u64) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.wire.stream.try_write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let either = Interest::READABLE | Interest::WRITABLE;
                    self.wire.stream.ready(either).await?;
                    self.drain()?;
                }
                Err(error) => {
                    // Why it was closed may be there to be read.
                    self.drain()?;
                    return Err(error);
                }
            }
        }
        let tally = &self.wire.attacker.tally;
        tally.bytes(bytes.len());
        tally.frames(frames);
        self.drain()?;
        // Writing what is taken at once never waits, and other connections have their turn too.
        tokio::task::yield_now().await;
        Ok(())
    }

    /// Takes room for `bytes` of a body from the windows, where there is one stream, and waits until they have it.
    pub(super) async fn take_room(&mut self, bytes: usize) -> io::Result<()> {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        while self.stream_window.min(self.connection_window) < bytes {
            self.listen().await?;
        }
        self.stream_window -= bytes;
        self.connection_window -= bytes;
        Ok(())
    }

    /// Reads what is there.
    fn drain(&mut self) -> io::Result<()> {
        loop {
            self.incoming.reserve(READ_BYTES);
            match self.wire.stream.try_read_buf(&mut self.incoming) {
                Ok(0) => {
                    self.take_frames()?;
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(_) => {
                    self.take_frames()?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Understands the frames that are there whole; says whether the edge's settings were among them. GOAWAY is an error.
    fn take_frames(&mut self) -> io::Result<bool> {
        let mut greeted = false;
        loop {
            let Some((kind, flags, length)) = header(&self.incoming) else {
                return Ok(greeted);
            };
            if self.incoming.len() < HEADER_BYTES + length {
                return Ok(greeted);
            }
            let header = self.incoming.split_to(HEADER_BYTES);
            let payload = self.incoming.split_to(length);
            let connection = header.get(5..).is_some_and(|stream| stream == [0; 4]);
            let tally = &self.wire.attacker.tally;
            match kind {
                kind if kind == Kind::Headers as u8 => {
                    self.answers += 1;
                    tally.answer("HTTP/2".to_owned());
                }
                kind if kind == Kind::Reset as u8 => {
                    self.answers += 1;
                    tally.answer(format!("reset {}", word(&payload, 0)));
                }
                kind if kind == Kind::Settings as u8 && flags & ACK == 0 => {
                    greeted = true;
                    self.note_settings(&payload);
                }
                kind if kind == Kind::WindowUpdate as u8 && connection => {
                    self.connection_window += i64::from(word(&payload, 0));
                }
                kind if kind == Kind::WindowUpdate as u8 => {
                    self.stream_window += i64::from(word(&payload, 0));
                }
                kind if kind == Kind::GoAway as u8 => {
                    let code = word(&payload, 4);
                    return Err(io::Error::other(format!("GOAWAY {code}")));
                }
                _ => {}
            }
        }
    }

    fn note_settings(&mut self, payload: &[u8]) {
        for setting in payload.chunks_exact(6) {
            let (name, value) = setting.split_at(2);
            if name == INITIAL_WINDOW_SIZE.to_be_bytes() {
                self.stream_window = i64::from(word(value, 0));
            }
        }
    }
}

/// An OTLP export over HTTP/2 with this credential.
pub(super) fn export(credential: &str) -> Vec<u8> {
    request(
        "/v1/traces",
        &[
            ("content-type", "application/x-protobuf"),
            ("authorization", credential),
        ],
    )
}

/// Type, flags and length of the frame that `bytes` begin with.
fn header(bytes: &BytesMut) -> Option<(u8, u8, usize)> {
    let mut header = bytes.get(..HEADER_BYTES)?;
    let length = usize::try_from(header.get_uint(3)).ok()?;
    Some((header.get_u8(), header.get_u8(), length))
}

/// Four bytes as a number.
fn word(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|word| word.try_into().ok())
        .map_or(0, u32::from_be_bytes)
}
