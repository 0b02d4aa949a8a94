//! Counting items on the wire, beside full decodes. The first byte chooses the format, the second in how large frames the body comes.
//!
//! - The outcome is the same however the body is cut.
//! - What a full decode takes is counted, and as the decode counts.
//! - What decodes by a schema that has the way to the items and nothing else is counted as that counts; what does not is not counted,
//!   but for the two things about groups that `wire::count` names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::count::{Counter, Format, Uncounted};

#[path = "../../crates/wire/tests/it/count/decoded.rs"]
mod decoded;

fuzz_target!(|input: &[u8]| {
    let Some(([format, size], body)) = input.split_first_chunk::<2>() else {
        return;
    };
    let format = Format::ALL[usize::from(*format) % Format::ALL.len()];
    let counted = count(format, body, body.len().max(1));
    assert_eq!(count(format, body, usize::from(*size) + 1), counted);
    if let Ok(items) = decoded::items(format, body) {
        assert_eq!(counted, Ok(items), "a full decode");
    }
    match decoded::skeleton(format, body) {
        Ok(items) => assert_eq!(counted, Ok(items), "the way to the items"),
        Err(error) => assert!(
            counted.is_err() || decoded::is_about_groups(&error),
            "{error}"
        ),
    }
});

fn count(format: Format, body: &[u8], size: usize) -> Result<u64, Uncounted> {
    let mut counter = Counter::new(format);
    for frame in body.chunks(size) {
        counter.push(frame);
    }
    counter.finish()
}
