//! Counting the items of JSON, beside serde. The first byte chooses the format, the second in how large frames the body comes.
//!
//! - The outcome is the same however the body is cut.
//! - What serde takes as JSON, and is not nested too deeply, is counted.
//! - What serde refuses is not counted, but for control characters in strings, which nobody looks at.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use wire::count::{JsonCounter, JsonFormat, Uncounted};

fuzz_target!(|input: &[u8]| {
    let Some(([format, size], body)) = input.split_first_chunk::<2>() else {
        return;
    };
    let format = JsonFormat::ALL[usize::from(*format) % JsonFormat::ALL.len()];
    let counted = count(format, body, body.len().max(1));
    assert_eq!(count(format, body, usize::from(*size) + 1), counted);
    match serde_json::from_slice::<IgnoredAny>(body) {
        Ok(_) => assert!(
            counted.is_ok() || counted == Err(Uncounted::Depth),
            "{counted:?}"
        ),
        Err(error) => assert!(
            counted.is_err() || error.to_string().contains("control character"),
            "{error}"
        ),
    }
});

fn count(format: JsonFormat, body: &[u8], size: usize) -> Result<u64, Uncounted> {
    let mut counter = JsonCounter::new(format);
    for frame in body.chunks(size) {
        counter.push(frame);
    }
    counter.finish()
}
