//! Snappy's framing format (google/snappy `framing_format.txt`): chunks of at most 64 KiB, each with a checksum. A chunk is
//! gathered and given to the library.

use std::io::Read as _;

use snap::read::FrameDecoder;

use super::Step;
use crate::count::Uncounted;
use crate::count::body::Items;

/// The type of the chunk that a stream begins with, and may have again.
pub(super) const STREAM_IDENTIFIER: u8 = 0xff;
const STREAM_START: [u8; 10] = *b"\xff\x06\x00\x00sNaPpY";
/// The type of a chunk and its length.
const HEAD_BYTES: usize = 4;
/// A chunk of 64 KiB that does not compress, and its checksum.
const CONTENT_MAX: usize = 76_490 + 4;
/// What may be kept, in bytes.
pub(super) const CHUNK_BYTES: u64 = 160 * 1024;

pub(in crate::count) struct SnappyFrames {
    /// Head and content of the chunk that is coming.
    chunk: Vec<u8>,
    /// What is left of a chunk that does not matter.
    skipped_left: usize,
    has_begun: bool,
}

impl SnappyFrames {
    pub(super) const fn new() -> Self {
        Self {
            chunk: Vec::new(),
            skipped_left: 0,
            has_begun: false,
        }
    }

    pub(super) fn step(
        &mut self,
        rest: &mut &[u8],
        scratch: &mut [u8],
        items: &mut Items,
    ) -> Result<Step, Uncounted> {
        let mut inflated = 0;
        if self.skipped_left > 0 {
            let here = self.skipped_left.min(rest.len());
            self.skipped_left -= here;
            *rest = rest.get(here..).unwrap_or_default();
        } else if self.gather(rest, HEAD_BYTES) {
            let [kind, low, mid, high] = *self.chunk.first_chunk().unwrap_or(&[0; HEAD_BYTES]);
            let length = usize::from(low) | usize::from(mid) << 8 | usize::from(high) << 16;
            match kind {
                _ if !self.has_begun && kind != STREAM_IDENTIFIER => {
                    return Err(Uncounted::Compression);
                }
                0x80..=0xfe => {
                    self.chunk.clear();
                    self.skipped_left = length;
                }
                0x02..=0x7f => return Err(Uncounted::Compression),
                _ if length > CONTENT_MAX => return Err(Uncounted::Compression),
                _ if self.gather(rest, HEAD_BYTES + length) => {
                    inflated = self.inflate(kind, scratch)?;
                    items.push(scratch.get(..inflated).unwrap_or_default());
                    self.chunk.clear();
                }
                _ => {}
            }
        }
        Ok(Step {
            inflated,
            has_more: !rest.is_empty(),
        })
    }

    pub(super) const fn may_end(&self) -> bool {
        self.has_begun && self.chunk.is_empty() && self.skipped_left == 0
    }

    /// Whether the first `length` bytes of the chunk are here.
    fn gather(&mut self, rest: &mut &[u8], length: usize) -> bool {
        let missing = length.saturating_sub(self.chunk.len());
        let here = missing.min(rest.len());
        let (part, left) = rest.split_at_checked(here).unwrap_or_default();
        self.chunk.extend_from_slice(part);
        *rest = left;
        here == missing
    }

    /// Inflates the chunk; how many bytes it has.
    fn inflate(&mut self, kind: u8, scratch: &mut [u8]) -> Result<usize, Uncounted> {
        if kind == STREAM_IDENTIFIER {
            self.has_begun = true;
            let is_right = self.chunk == STREAM_START;
            return is_right.then_some(0).ok_or(Uncounted::Compression);
        }
        let mut decoder = FrameDecoder::new(STREAM_START.chain(&*self.chunk));
        let mut given = 0;
        while let Some(room) = scratch.get_mut(given..).filter(|room| !room.is_empty()) {
            match decoder.read(room).map_err(|_| Uncounted::Compression)? {
                0 => break,
                read => given += read,
            }
        }
        Ok(given)
    }
}
