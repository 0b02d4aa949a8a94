//! Deflate in the wrappings that senders use. Go's reader, which all backends have, takes any number of gzip members one after the
//! other, and does not look at what follows the end of the other two.

use flate2::{Decompress, FlushDecompress, Status};

use super::{STEP_BYTES, Step};
use crate::count::Uncounted;
use crate::count::body::Items;

/// What is kept: 32 KiB to look back at, and the tables.
pub(super) const WINDOW_BYTES: u64 = 48 * 1024;
/// The largest window that deflate knows, as a power of two.
const WINDOW_BITS: u8 = 15;

/// What is around the deflated bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrap {
    None,
    Zlib,
    Gzip,
}

pub(in crate::count) struct Deflate {
    wrap: Wrap,
    state: Decompress,
    has_ended: bool,
}

impl Deflate {
    pub(super) fn new(wrap: Wrap) -> Self {
        Self {
            wrap,
            state: match wrap {
                Wrap::None => Decompress::new(false),
                Wrap::Zlib => Decompress::new(true),
                Wrap::Gzip => Decompress::new_gzip(WINDOW_BITS),
            },
            has_ended: false,
        }
    }

    pub(super) fn step(
        &mut self,
        rest: &mut &[u8],
        scratch: &mut [u8],
        items: &mut Items,
    ) -> Result<Step, Uncounted> {
        if self.has_ended && (rest.is_empty() || self.wrap != Wrap::Gzip) {
            *rest = &[];
            return Ok(Step::NOTHING);
        }
        if self.has_ended {
            *self = Self::new(Wrap::Gzip);
        }
        let (read, given) = (self.state.total_in(), self.state.total_out());
        let status = self
            .state
            .decompress(rest, scratch, FlushDecompress::None)
            .map_err(|_| Uncounted::Compression)?;
        let read = usize::try_from(self.state.total_in() - read).unwrap_or(usize::MAX);
        let given = usize::try_from(self.state.total_out() - given).unwrap_or(usize::MAX);
        if read == 0 && given == 0 && !rest.is_empty() && status != Status::StreamEnd {
            return Err(Uncounted::Compression);
        }
        *rest = rest.get(read..).unwrap_or_default();
        items.push(scratch.get(..given).unwrap_or_default());
        self.has_ended = status == Status::StreamEnd;
        Ok(Step {
            inflated: given,
            has_more: !rest.is_empty() || (!self.has_ended && given == STEP_BYTES),
        })
    }

    pub(super) const fn may_end(&self) -> bool {
        self.has_ended
    }
}
