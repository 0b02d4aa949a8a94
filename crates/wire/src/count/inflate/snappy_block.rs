//! Snappy's block format (google/snappy `format_description.txt`): the length, then literals and copies of what came before.
//! Libraries inflate a block that is here as a whole; this one takes it as it comes.
//!
//! A copy may reach back to the beginning of the block. Encoders work in parts of 64 KiB, and klauspost's in parts of 4 MiB:
//! as much is kept, and a block that reaches further back is not counted.

use super::{STEP_BYTES, Step};
use crate::count::Uncounted;
use crate::count::body::Items;
use crate::count::varint::Varint;

/// How far back a copy may reach at least.
const WINDOW: usize = 4 << 20;
/// What may be kept of a block, in bytes: moving the window to the front costs a copy of it, and should be seldom.
pub(super) const KEPT_BYTES: u64 = 2 * WINDOW as u64;
/// Copies are made in pieces of so many bytes, so they may write behind their end.
const PIECE: usize = 16;
/// The longest copy, and what may be written behind it.
const SLACK: usize = 64 + PIECE;

pub(in crate::count) struct SnappyBlock {
    length: Varint,
    declared_bytes: Option<u64>,
    /// What was inflated last, up to `at`; what is behind that means nothing.
    window: Vec<u8>,
    at: usize,
    /// What the window has lost at its front.
    before_window: u64,
    /// How many bytes of a literal are still to come.
    literal_left: usize,
    /// The beginning of an element that was cut.
    cut: [u8; 5],
    cut_len: usize,
}

enum Element {
    /// So many bytes follow.
    Literal(usize),
    Copy {
        offset: usize,
        length: usize,
    },
}

impl SnappyBlock {
    pub(super) const fn new() -> Self {
        Self {
            length: Varint::new(),
            declared_bytes: None,
            window: Vec::new(),
            at: 0,
            before_window: 0,
            literal_left: 0,
            cut: [0; 5],
            cut_len: 0,
        }
    }

    pub(super) const fn declared_bytes(&self) -> Option<u64> {
        self.declared_bytes
    }

    pub(super) fn into_window(self) -> Vec<u8> {
        self.window
    }

    pub(super) fn step(
        &mut self,
        rest: &mut &[u8],
        spare: &mut Vec<u8>,
        items: &mut Items,
    ) -> Result<Step, Uncounted> {
        let Some(declared) = self.declared_bytes else {
            return self.begin(rest, spare);
        };
        self.make_room();
        let start = self.at;
        let stop = start + STEP_BYTES;
        while self.at < stop {
            if self.literal_left > 0 {
                if rest.is_empty() {
                    break;
                }
                self.literal(rest, stop);
                continue;
            }
            match self.element(rest)? {
                Some(Element::Literal(length)) => self.literal_left = length,
                Some(Element::Copy { offset, length }) => self.copy(offset, length)?,
                None => break,
            }
        }
        if self.produced_bytes() > declared {
            return Err(Uncounted::Compression);
        }
        items.push(self.window.get(start..self.at).unwrap_or_default());
        Ok(Step {
            inflated: self.at - start,
            has_more: !rest.is_empty(),
        })
    }

    /// Reads the length, which is to be judged before anything is inflated.
    fn begin(&mut self, rest: &mut &[u8], spare: &mut Vec<u8>) -> Result<Step, Uncounted> {
        let length = self.length.read(rest);
        if let Some(declared) = length.map_err(|_| Uncounted::Compression)? {
            // The format knows 32 bits.
            u32::try_from(declared).map_err(|_| Uncounted::Compression)?;
            self.declared_bytes = Some(declared);
            self.window = std::mem::take(spare);
        }
        Ok(Step {
            inflated: 0,
            has_more: !rest.is_empty(),
        })
    }

    pub(super) fn may_end(&self) -> bool {
        self.declared_bytes == Some(self.produced_bytes())
            && self.literal_left == 0
            && self.cut_len == 0
    }

    const fn produced_bytes(&self) -> u64 {
        self.before_window + self.at as u64
    }

    /// Makes room behind `at` for a step.
    fn make_room(&mut self) {
        if self.at > 2 * WINDOW - STEP_BYTES {
            let lost = self.at - WINDOW;
            self.window.copy_within(lost..self.at, 0);
            self.before_window += lost as u64;
            self.at = WINDOW;
        }
        let needed = self.at + STEP_BYTES + SLACK;
        if self.window.len() < needed {
            // The length that the block declares is its sender's claim: room is made for what has come.
            let length = needed.max(2 * self.window.len());
            self.window.resize(length.min(2 * WINDOW + SLACK), 0);
        }
    }

    #[inline]
    fn literal(&mut self, rest: &mut &[u8], stop: usize) {
        let short: Option<&[u8; PIECE]> = rest.first_chunk();
        if let Some(piece) = short.filter(|_| self.literal_left <= PIECE)
            && let Some(place) = self.window.get_mut(self.at..self.at + PIECE)
        {
            place.copy_from_slice(piece);
            *rest = rest.get(self.literal_left..).unwrap_or_default();
            self.at += self.literal_left;
            self.literal_left = 0;
            return;
        }
        let here = self.literal_left.min(rest.len()).min(stop - self.at);
        let (part, left) = rest.split_at_checked(here).unwrap_or_default();
        if let Some(place) = self.window.get_mut(self.at..self.at + here) {
            place.copy_from_slice(part);
        }
        *rest = left;
        self.at += here;
        self.literal_left -= here;
    }

    #[inline]
    fn copy(&mut self, offset: usize, length: usize) -> Result<(), Uncounted> {
        if offset == 0 || offset > self.at {
            let is_behind = offset as u64 <= self.produced_bytes() && offset > 0;
            return Err(if is_behind {
                Uncounted::Window
            } else {
                Uncounted::Compression
            });
        }
        let (from, to) = (self.at - offset, self.at);
        if offset >= PIECE {
            let mut done = 0;
            while done < length {
                let piece = from + done;
                self.window.copy_within(piece..piece + PIECE, to + done);
                done += PIECE;
            }
        } else {
            // What is copied begins with what this very copy writes: each time there is twice as much of it.
            let mut done = 0;
            while done < length {
                let here = (offset + done).min(length - done);
                self.window.copy_within(from..from + here, to + done);
                done += here;
            }
        }
        self.at += length;
        Ok(())
    }

    /// The next element, once all of its head is here.
    #[inline]
    fn element(&mut self, rest: &mut &[u8]) -> Result<Option<Element>, Uncounted> {
        if self.cut_len == 0
            && let Some((element, after)) = parse(rest)
        {
            *rest = after;
            return Ok(Some(element));
        }
        while let Some((byte, after)) = rest.split_first() {
            *rest = after;
            if let Some(place) = self.cut.get_mut(self.cut_len) {
                *place = *byte;
            }
            self.cut_len += 1;
            let cut = self.cut.get(..self.cut_len).ok_or(Uncounted::Compression)?;
            if let Some((element, _)) = parse(cut) {
                self.cut_len = 0;
                return Ok(Some(element));
            }
        }
        Ok(None)
    }
}

/// The element that `bytes` begin with, and what comes after its head.
#[inline]
fn parse(bytes: &[u8]) -> Option<(Element, &[u8])> {
    let (tag, after) = bytes.split_first()?;
    let high = usize::from(tag >> 2);
    let copy = |offset, length| Element::Copy { offset, length };
    match tag & 3 {
        0 if high < 60 => Some((Element::Literal(high + 1), after)),
        0 => {
            // The length less one, in one to four bytes.
            let mut bytes = [0; 4];
            let (length, after) = after.split_at_checked(high - 59)?;
            bytes.get_mut(..length.len())?.copy_from_slice(length);
            let length = usize::try_from(u32::from_le_bytes(bytes)).ok()?;
            Some((Element::Literal(length.checked_add(1)?), after))
        }
        1 => {
            let (low, after) = after.split_first()?;
            let offset = usize::from(tag >> 5) << 8 | usize::from(*low);
            Some((copy(offset, 4 + (high & 7)), after))
        }
        2 => {
            let (offset, after) = after.split_first_chunk()?;
            Some((
                copy(usize::from(u16::from_le_bytes(*offset)), high + 1),
                after,
            ))
        }
        _ => {
            let (offset, after) = after.split_first_chunk()?;
            let offset = usize::try_from(u32::from_le_bytes(*offset)).ok()?;
            Some((copy(offset, high + 1), after))
        }
    }
}
