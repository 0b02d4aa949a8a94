//! Compressed bodies, inflated a step at a time into whatever counts them, so that nobody inflates for long at a time and
//! nothing is kept but what the compression looks back at. Which names of encodings a path knows is for the path to decide.

mod deflate;
mod snappy_block;
mod snappy_frames;
mod zstd;

use self::deflate::Deflate;
use self::snappy_block::SnappyBlock;
use self::snappy_frames::SnappyFrames;
use self::zstd::Zstd;
use super::Uncounted;
use super::body::Items;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// Not at all.
    Identity,
    /// RFC 1952, any number of members.
    Gzip,
    /// RFC 1950: what HTTP calls deflate.
    Zlib,
    /// RFC 1951: what Loki calls deflate.
    RawDeflate,
    /// RFC 8878, any number of frames.
    Zstd,
    /// A snappy block, the only form in remote write and Loki push.
    SnappyBlock,
    /// A snappy stream.
    SnappyFramed,
    /// A snappy stream or block, by its first byte: the Collector takes either.
    Snappy,
    /// One that is not inflated here.
    Other,
}

/// The most that a step gives, in bytes.
pub(super) const STEP_BYTES: usize = 64 * 1024;

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// How many bytes it gave.
    pub(super) inflated: usize,
    /// Whether another one may give more of what is here already.
    pub(super) has_more: bool,
}

impl Step {
    /// There is nothing to do before more comes.
    pub(super) const NOTHING: Self = Self {
        inflated: 0,
        has_more: false,
    };
}

/// A compressed body on its way.
pub(super) enum Inflater {
    Identity,
    Deflate(Deflate),
    Zstd(Zstd),
    SnappyBlock(SnappyBlock),
    SnappyFrames(SnappyFrames),
    /// Either form of snappy, before its first byte.
    Snappy,
    Other,
}

impl Inflater {
    pub(super) fn new(coding: Coding) -> Self {
        match coding {
            Coding::Identity => Self::Identity,
            Coding::Gzip => Self::Deflate(Deflate::new(deflate::Wrap::Gzip)),
            Coding::Zlib => Self::Deflate(Deflate::new(deflate::Wrap::Zlib)),
            Coding::RawDeflate => Self::Deflate(Deflate::new(deflate::Wrap::None)),
            Coding::Zstd => Zstd::new().map_or(Self::Other, Self::Zstd),
            Coding::SnappyBlock => Self::SnappyBlock(SnappyBlock::new()),
            Coding::SnappyFramed => Self::SnappyFrames(SnappyFrames::new()),
            Coding::Snappy => Self::Snappy,
            Coding::Other => Self::Other,
        }
    }

    /// Takes bytes off the front of `rest` and gives what they inflate to. `scratch` has [`STEP_BYTES`]; `window` is memory
    /// to be used again.
    pub(super) fn step(
        &mut self,
        rest: &mut &[u8],
        scratch: &mut [u8],
        window: &mut Vec<u8>,
        items: &mut Items,
    ) -> Result<Step, Uncounted> {
        match self {
            Self::Identity => {
                let (part, left) = rest.split_at_checked(STEP_BYTES).unwrap_or((rest, &[]));
                *rest = left;
                items.push(part);
                Ok(Step {
                    inflated: part.len(),
                    has_more: !left.is_empty(),
                })
            }
            Self::Deflate(deflate) => deflate.step(rest, scratch, items),
            Self::Zstd(zstd) => zstd.step(rest, scratch, items),
            Self::SnappyBlock(block) => block.step(rest, window, items),
            Self::SnappyFrames(frames) => frames.step(rest, scratch, items),
            Self::Snappy => {
                let Some(first) = rest.first() else {
                    return Ok(Step::NOTHING);
                };
                // A stream begins with a chunk of type 255.
                *self = if *first == snappy_frames::STREAM_IDENTIFIER {
                    Self::SnappyFrames(SnappyFrames::new())
                } else {
                    Self::SnappyBlock(SnappyBlock::new())
                };
                self.step(rest, scratch, window, items)
            }
            Self::Other => Err(Uncounted::Encoding),
        }
    }

    /// What the body itself says that it inflates to, in bytes, where it says so first.
    pub(super) fn declared_bytes(&self) -> Option<u64> {
        match self {
            Self::SnappyBlock(block) => block.declared_bytes(),
            _ => None,
        }
    }

    /// How much is kept between two steps when `inflated_bytes` have passed, in bytes.
    pub(super) fn kept_bytes(&self, inflated_bytes: u64) -> u64 {
        let window = match self {
            Self::Identity | Self::Snappy | Self::Other => return 0,
            Self::Deflate(_) => deflate::WINDOW_BYTES,
            Self::Zstd(_) => zstd::WINDOW_BYTES,
            Self::SnappyBlock(_) => snappy_block::KEPT_BYTES,
            Self::SnappyFrames(_) => snappy_frames::CHUNK_BYTES,
        };
        inflated_bytes.min(window)
    }

    /// Judges whether the body may end here.
    pub(super) fn finish(&self) -> Result<(), Uncounted> {
        let is_whole = match self {
            Self::Identity => true,
            Self::Deflate(deflate) => deflate.may_end(),
            Self::Zstd(zstd) => zstd.may_end(),
            Self::SnappyBlock(block) => block.may_end(),
            Self::SnappyFrames(frames) => frames.may_end(),
            Self::Snappy => false,
            Self::Other => return Err(Uncounted::Encoding),
        };
        is_whole.then_some(()).ok_or(Uncounted::Truncated)
    }

    /// Gives back memory that can be used again.
    pub(super) fn into_window(self) -> Vec<u8> {
        match self {
            Self::SnappyBlock(block) => block.into_window(),
            _ => Vec::new(),
        }
    }
}
