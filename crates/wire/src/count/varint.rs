//! A number in protobuf's variable length, which may be cut anywhere. Ten bytes and 64 bits at most; longer than needed is
//! fine, as it is to every decoder.

use super::Uncounted;

/// The bytes of a number that have come so far.
#[derive(Debug, Clone)]
pub(super) struct Varint {
    value: u64,
    shift: u32,
}

impl Varint {
    pub(super) const fn new() -> Self {
        Self { value: 0, shift: 0 }
    }

    /// Whether no byte of a number has come yet.
    pub(super) const fn is_empty(&self) -> bool {
        self.shift == 0
    }

    /// Takes bytes off the front of `rest` until the number is whole; `None` when it is not yet.
    #[inline]
    pub(super) fn read(&mut self, rest: &mut &[u8]) -> Result<Option<u64>, Uncounted> {
        while let Some((byte, after)) = rest.split_first() {
            *rest = after;
            // The tenth byte holds the last of 64 bits.
            if self.shift == 63 && *byte > 1 {
                return Err(Uncounted::Varint);
            }
            self.value |= u64::from(byte & 0x7f) << self.shift;
            if *byte < 0x80 {
                let value = self.value;
                *self = Self::new();
                return Ok(Some(value));
            }
            self.shift += 7;
        }
        Ok(None)
    }
}
