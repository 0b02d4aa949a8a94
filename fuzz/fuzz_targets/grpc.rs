//! gRPC's framing, status text and deadline.
//!
//! - Five bytes are a prefix exactly if the first is 0 or 1, and are written as they were read.
//! - A status text is written in printable ASCII without a line's end, and reads back as it was.
//! - A deadline is read exactly if it is one to eight digits and a unit, and then means what the unit says.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use wire::grpc::{PREFIX_LEN, Prefix, encode_message, parse_timeout};

fuzz_target!(|input: &[u8]| {
    if let Some(bytes) = input.first_chunk::<PREFIX_LEN>() {
        match Prefix::parse(*bytes) {
            Ok(prefix) => {
                assert_eq!(prefix.to_bytes(), *bytes);
                assert_eq!(prefix.compressed, bytes[0] == 1);
                let length = bytes[1..]
                    .iter()
                    .fold(0, |n, byte| n * 256 + u64::from(*byte));
                assert_eq!(u64::from(prefix.length), length);
            }
            Err(_) => assert!(bytes[0] > 1),
        }
    }

    let text = String::from_utf8_lossy(input);
    let encoded = encode_message(&text);
    assert!(encoded.bytes().all(|byte| (0x20..=0x7e).contains(&byte)));
    assert_eq!(decode(encoded.as_bytes()), text.as_bytes());

    assert_eq!(parse_timeout(input), timeout(input));
});

/// gRPC's percent-encoding, the other way round.
fn decode(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            decoded.push(*byte);
            continue;
        }
        let (digits, after) = rest.split_first_chunk::<2>().expect("two digits");
        let digits = std::str::from_utf8(digits).expect("digits");
        decoded.push(u8::from_str_radix(digits, 16).expect("digits"));
        rest = after;
    }
    decoded
}

fn timeout(text: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(text).ok()?;
    let unit = text.chars().last()?;
    let digits = text.strip_suffix(unit)?;
    if !(1..=8).contains(&digits.len()) || digits.contains(|c: char| !c.is_ascii_digit()) {
        return None;
    }
    let nanoseconds_each: u128 = match unit {
        'H' => 3_600_000_000_000,
        'M' => 60_000_000_000,
        'S' => 1_000_000_000,
        'm' => 1_000_000,
        'u' => 1_000,
        'n' => 1,
        _ => return None,
    };
    let all = digits.parse::<u128>().ok()? * nanoseconds_each;
    let seconds = u64::try_from(all / 1_000_000_000).ok()?;
    let rest = u32::try_from(all % 1_000_000_000).ok()?;
    Some(Duration::new(seconds, rest))
}
