//! Where the frames of an HTTP/2 connection begin and end in the bytes of one direction (RFC 9113 section 4.1). Says what their heads
//! say; what that means is for `http2_frames`.

/// A frame's head: length, type, flags, stream.
const HEAD_BYTES: usize = 9;
pub(super) const DATA: u8 = 0x0;
pub(super) const HEADERS: u8 = 0x1;
pub(super) const RST_STREAM: u8 = 0x3;
pub(super) const GO_AWAY: u8 = 0x7;
pub(super) const PADDED: u8 = 0x8;

/// Where one direction is: in a frame's head or in its payload.
#[derive(Debug, Default)]
pub(super) struct Walk {
    head: [u8; HEAD_BYTES],
    head_filled: usize,
    payload_left: usize,
    /// The first bytes of the payload: of a reset, why; of padded DATA, how much of it is padding.
    code: u32,
    code_left: usize,
}

/// A frame's head as far as it matters here.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Walk {
    /// Walks over `bytes`, calling `seen` at each frame's head, and with the error code of a reset
    /// or the length of padding once that is known.
    pub(super) fn over<T>(
        &mut self,
        mut bytes: &[u8],
        mut seen: impl FnMut(Frame, Option<u32>) -> Option<T>,
    ) -> Option<T> {
        let mut found = None;
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                let take = self.payload_left.min(bytes.len());
                let (payload, rest) = bytes.split_at(take);
                bytes = rest;
                self.payload_left -= take;
                if self.code_left > 0 {
                    for byte in payload.iter().take(self.code_left) {
                        self.code = (self.code << 8) | u32::from(*byte);
                    }
                    self.code_left -= self.code_left.min(take);
                    if self.code_left == 0 {
                        found = found.or(seen(self.frame(), Some(self.code)));
                    }
                }
                continue;
            }
            let take = (HEAD_BYTES - self.head_filled).min(bytes.len());
            let (part, rest) = bytes.split_at(take);
            bytes = rest;
            if let Some(place) = self.head.get_mut(self.head_filled..self.head_filled + take) {
                place.copy_from_slice(part);
            }
            self.head_filled += take;
            if self.head_filled == HEAD_BYTES {
                self.head_filled = 0;
                let frame = self.frame();
                self.payload_left = frame.length;
                if frame.kind == RST_STREAM && frame.length == 4 {
                    (self.code, self.code_left) = (0, 4);
                }
                if frame.is_padded_data() {
                    (self.code, self.code_left) = (0, 1);
                }
                found = found.or(seen(frame, None));
            }
        }
        found
    }

    /// Whether the payload of a frame is not all there yet.
    pub(super) const fn is_within_payload(&self) -> bool {
        self.payload_left > 0
    }

    const fn frame(&self) -> Frame {
        let [a, b, c, kind, flags, stream @ ..] = self.head;
        Frame {
            length: (a as usize) << 16 | (b as usize) << 8 | c as usize,
            kind,
            flags,
            // Its first bit means nothing.
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
        }
    }
}

impl Frame {
    pub(super) const fn is_padded_data(self) -> bool {
        self.kind == DATA && self.flags & PADDED != 0 && self.length > 0
    }
}
