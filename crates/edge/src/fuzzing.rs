//! The pure functions that read what strangers send, for the targets in `fuzz/` and for nobody else. Decides nothing.

use bytes::BytesMut;
use http::HeaderMap;
use http::request::Parts;
use model::{ApiKey, Signal};
use ops::config::ByteSize;

use crate::listen::http1_head::{self, Framing};
use crate::listen::http2_frames::{FrameLimits, Frames};
use crate::refusal::Refusal;
use crate::request::{authenticate, route};

/// A step that refused; [`Refused::label`] is the cause.
#[derive(Debug)]
pub struct Refused(Refusal);

impl Refused {
    /// The cause as metrics name it.
    pub fn label(&self) -> &'static str {
        self.0.row().label
    }
}

/// What `request::authenticate` reads in the headers: the key, and the user name of Basic.
pub fn credential(headers: &HeaderMap) -> Result<(ApiKey, Option<String>), Refused> {
    let credential = authenticate::credential(headers).map_err(Refused)?;
    Ok((credential.key, credential.user))
}

/// What `request::route` makes of path, method and headers: the name of the protocol, and the signal.
pub fn place(parts: &Parts) -> Result<(&'static str, Signal), Refused> {
    let place = route::place(parts).map_err(Refused)?;
    Ok((place.protocol.as_str(), place.signal))
}

/// The name of the protocol that answers to a request are written in, if it is any.
pub fn dialect(parts: &Parts) -> Option<&'static str> {
    Some(route::dialect(parts).protocol()?.as_str())
}

/// A head as `listen::http1` sees it.
#[derive(Debug)]
pub struct Head {
    /// Method, target, version and headers.
    pub parts: Parts,
    /// How the body is delimited.
    pub framing: Result<Length, Refused>,
    /// Whether the connection may stay.
    pub keep_alive: bool,
}

/// How a body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// By its length in bytes.
    Known(u64),
    /// By chunks.
    Chunked,
}

/// Takes a head of at most `head_max` bytes off the front of `buffer`; `None` when it is not complete yet.
pub fn http1_head(buffer: &mut BytesMut, head_max: u64) -> Result<Option<Head>, Refused> {
    let head = http1_head::parse(buffer, ByteSize(head_max)).map_err(|bad| Refused(bad.0))?;
    Ok(head.map(|head| Head {
        parts: head.parts,
        framing: head.framing.map_err(Refused).map(|framing| match framing {
            Framing::Length(length) => Length::Known(length),
            Framing::Chunked => Length::Chunked,
        }),
        keep_alive: head.keep_alive,
    }))
}

/// What the frames of a sender, its preface included, end a connection for when only `limit` of each kind are taken.
pub fn http2_abuse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limit: u32) -> Option<String> {
    let mut frames = Frames::new(FrameLimits {
        control_frames: limit,
        resets: limit,
        provoked_resets: limit,
    });
    let abuse = pieces
        .into_iter()
        .find_map(|piece| frames.received(piece))?;
    Some(format!("{abuse:?}"))
}
