//! Compressed bodies, inflated under a cap. Which names of encodings a path knows is for the path to decide.

use std::io::{self, Read};

use bytes::Bytes;

use super::BODY_BYTES_MAX;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Not at all.
    Identity,
    /// RFC 1952, any number of members.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// RFC 1950: what HTTP calls deflate.
    Zlib,
    /// RFC 1951: what Loki calls deflate.
    RawDeflate,
    /// A snappy block, the only form in remote write and Loki push.
    SnappyBlock,
    /// A snappy stream.
    SnappyFramed,
}

/// Why a body could not be inflated.
#[derive(Debug, thiserror::Error)]
pub(super) enum InflateError {
    /// It is larger than the cap.
    #[error("the inflated body is larger than {BODY_BYTES_MAX} bytes")]
    TooLarge,
    /// It is not what its encoding says.
    #[error("{0}")]
    Damaged(String),
}

/// The first bytes of a snappy stream.
const SNAPPY_STREAM_START: &[u8] = b"\xff\x06\x00\x00sNaPpY";

impl Encoding {
    /// The form of a `Content-Encoding: snappy` body where either is allowed.
    pub(super) fn sniff_snappy(body: &[u8]) -> Self {
        if body.starts_with(SNAPPY_STREAM_START) {
            Self::SnappyFramed
        } else {
            Self::SnappyBlock
        }
    }

    /// The body as it was before compression, at most [`BODY_BYTES_MAX`] long.
    pub(super) fn inflate(self, body: Bytes) -> Result<Bytes, InflateError> {
        match self {
            Self::Identity => Ok(body),
            Self::Gzip => read_capped("gzip", flate2::read::MultiGzDecoder::new(&*body)),
            Self::Zstd => zstd::stream::read::Decoder::new(&*body)
                .map_err(|error| damaged("zstd", &error))
                .and_then(|decoder| read_capped("zstd", decoder)),
            Self::Zlib => read_capped("deflate", flate2::read::ZlibDecoder::new(&*body)),
            Self::RawDeflate => read_capped("deflate", flate2::read::DeflateDecoder::new(&*body)),
            Self::SnappyFramed => read_capped("snappy", snap::read::FrameDecoder::new(&*body)),
            Self::SnappyBlock => snappy_block(&body),
        }
    }
}

/// The block's own claim of its length is checked before anything is allocated.
fn snappy_block(body: &[u8]) -> Result<Bytes, InflateError> {
    let length = snap::raw::decompress_len(body).map_err(|error| damaged("snappy", &error))?;
    if length > BODY_BYTES_MAX {
        return Err(InflateError::TooLarge);
    }
    let mut decoder = snap::raw::Decoder::new();
    let inflated = decoder
        .decompress_vec(body)
        .map_err(|error| damaged("snappy", &error))?;
    Ok(inflated.into())
}

fn read_capped(name: &str, reader: impl Read) -> Result<Bytes, InflateError> {
    let mut inflated = Vec::new();
    let read: io::Result<usize> = reader
        .take(BODY_BYTES_MAX as u64 + 1)
        .read_to_end(&mut inflated);
    match read {
        Err(error) => Err(damaged(name, &error)),
        Ok(_) if inflated.len() > BODY_BYTES_MAX => Err(InflateError::TooLarge),
        Ok(_) => Ok(inflated.into()),
    }
}

fn damaged(name: &str, error: &dyn std::error::Error) -> InflateError {
    InflateError::Damaged(format!("{name}: {error}"))
}
