//! Zstandard, by the reference implementation. Frames follow one another; those that look further back than RFC 8878 section
//! 3.1.1.1.2 asks every decoder to bear are not inflated.

use std::io;

use zstd::stream::raw::{DParameter, Decoder, Operation as _};

use super::{STEP_BYTES, Step};
use crate::count::Uncounted;
use crate::count::body::Items;

/// The largest window, as a power of two, and in bytes.
const WINDOW_LOG_MAX: u32 = 23;
pub(super) const WINDOW_BYTES: u64 = 1 << WINDOW_LOG_MAX;

pub(in crate::count) struct Zstd {
    decoder: Decoder<'static>,
    in_frame: bool,
}

impl Zstd {
    /// `None` when there is no memory for it.
    pub(super) fn new() -> Option<Self> {
        let mut decoder = Decoder::new().ok()?;
        decoder
            .set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))
            .ok()?;
        Some(Self {
            decoder,
            in_frame: false,
        })
    }

    pub(super) fn step(
        &mut self,
        rest: &mut &[u8],
        scratch: &mut [u8],
        items: &mut Items,
    ) -> Result<Step, Uncounted> {
        if rest.is_empty() && !self.in_frame {
            return Ok(Step::NOTHING);
        }
        let status = self
            .decoder
            .run_on_buffers(rest, scratch)
            .map_err(|error| why(&error))?;
        if status.bytes_read == 0 && status.bytes_written == 0 && !rest.is_empty() {
            return Err(Uncounted::Compression);
        }
        *rest = rest.get(status.bytes_read..).unwrap_or_default();
        items.push(scratch.get(..status.bytes_written).unwrap_or_default());
        self.in_frame = status.remaining > 0;
        Ok(Step {
            inflated: status.bytes_written,
            has_more: !rest.is_empty() || status.bytes_written == STEP_BYTES,
        })
    }

    pub(super) const fn may_end(&self) -> bool {
        !self.in_frame
    }
}

/// The library tells its errors apart by their texts alone.
fn why(error: &io::Error) -> Uncounted {
    if error.to_string().contains("too much memory") {
        Uncounted::Window
    } else {
        Uncounted::Compression
    }
}
