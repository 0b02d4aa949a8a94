//! The watch over an HTTP/2 connection's frames. The first byte says how large the pieces are, the second how many frames of a kind are
//! taken; the rest stands in for the preface and the frames.
//!
//! - The verdict is the same however the bytes are cut.
//! - It is that of a naive count: resets beyond the limit, or frames that carry neither a request nor 16 bytes of a body beyond the limit,
//!   ten for each request and one for each KiB or more of a body that comes at once.
#![no_main]

use edge::fuzzing::http2_abuse;
use libfuzzer_sys::fuzz_target;

const PREFACE_BYTES: usize = 24;

fuzz_target!(|input: &[u8]| {
    let Some(([size, limit], bytes)) = input.split_first_chunk::<2>() else {
        return;
    };
    let limit = u32::from(limit % 32);
    let verdict = http2_abuse([bytes], limit);
    assert_eq!(verdict.as_deref(), naive(bytes, limit));
    assert_eq!(
        http2_abuse(bytes.chunks(usize::from(*size) + 1), limit),
        verdict
    );
});

fn naive(bytes: &[u8], limit: u32) -> Option<&'static str> {
    let mut rest = bytes.get(PREFACE_BYTES..)?;
    let (mut useless, mut resets) = (0_u32, 0);
    while let Some(([a, b, c, kind, flags, ..], payload)) = rest.split_first_chunk::<9>() {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        rest = payload.get(length..).unwrap_or_default();
        let name = match kind {
            0 => {
                let content = match payload.first() {
                    Some(padding) if flags & 8 != 0 && length > 0 => {
                        (length - 1).saturating_sub(usize::from(*padding))
                    }
                    // How much of it is padding is still to come.
                    None if flags & 8 != 0 && length > 0 => return None,
                    _ => length,
                };
                if content >= 1024 {
                    useless = useless.saturating_sub(1);
                }
                if content >= 16 || flags & 1 == 1 {
                    continue;
                }
                "EmptyData"
            }
            9 if length > 0 => continue,
            1 => {
                useless = useless.saturating_sub(10);
                continue;
            }
            3 => {
                resets += 1;
                if resets > limit {
                    return Some("Resets");
                }
                continue;
            }
            2 => "Priorities",
            4 => "Settings",
            6 => "Pings",
            8 => "WindowUpdates",
            9 => "Continuations",
            _ => "UnknownFrames",
        };
        useless += 1;
        if useless > limit {
            return Some(name);
        }
    }
    None
}
