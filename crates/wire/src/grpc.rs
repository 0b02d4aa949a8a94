//! gRPC's own layer on HTTP/2: message prefix, status text and deadline header. Pure functions; who sends what, and when,
//! is for the caller to decide. Source: grpc/grpc `doc/PROTOCOL-HTTP2.md`.

use std::fmt::Write as _;
use std::time::Duration;

/// The length of a message prefix: one flag byte, four bytes of big-endian length.
pub const PREFIX_LEN: usize = 5;

/// A complete message that is empty and not compressed: what a success without content looks like.
pub const EMPTY_MESSAGE: [u8; PREFIX_LEN] = [0; PREFIX_LEN];

/// What stands before each message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// Whether the message is compressed as `grpc-encoding` says.
    pub compressed: bool,
    /// The message's length in bytes, as sent.
    pub length: u32,
}

/// A flag byte other than 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a gRPC message starts with flag 0 or 1, this one with {0}")]
pub struct BadFlag(pub u8);

impl Prefix {
    /// Reads the five bytes before a message.
    pub fn parse(bytes: [u8; PREFIX_LEN]) -> Result<Self, BadFlag> {
        let [flag, length @ ..] = bytes;
        match flag {
            0 | 1 => Ok(Self {
                compressed: flag == 1,
                length: u32::from_be_bytes(length),
            }),
            other => Err(BadFlag(other)),
        }
    }

    /// The five bytes as they are sent.
    pub const fn to_bytes(self) -> [u8; PREFIX_LEN] {
        let [a, b, c, d] = self.length.to_be_bytes();
        [self.compressed as u8, a, b, c, d]
    }
}

/// Percent-encodes a `grpc-message`: everything outside printable ASCII, and `%` itself.
pub fn encode_message(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (0x20..=0x7e).contains(&byte) && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Reads a `grpc-timeout` value: up to eight digits and one of the units `H M S m u n`. `None` if it is anything else.
pub fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n = digits
        .iter()
        .fold(0_u64, |n, digit| n * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(n * 3600),
        b'M' => Duration::from_secs(n * 60),
        b'S' => Duration::from_secs(n),
        b'm' => Duration::from_millis(n),
        b'u' => Duration::from_micros(n),
        b'n' => Duration::from_nanos(n),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_round_trips_and_odd_flags_are_refused() {
        let prefix = Prefix {
            compressed: true,
            length: 0x0102_0304,
        };
        assert_eq!(prefix.to_bytes(), [1, 1, 2, 3, 4]);
        assert_eq!(Prefix::parse(prefix.to_bytes()), Ok(prefix));
        assert_eq!(Prefix::parse([2, 0, 0, 0, 0]), Err(BadFlag(2)));
    }

    #[test]
    fn a_message_is_encoded_outside_printable_ascii() {
        assert_eq!(encode_message("slow down"), "slow down");
        assert_eq!(encode_message("100 %\n…"), "100 %25%0A%E2%80%A6");
    }

    #[test]
    fn a_timeout_has_eight_digits_and_a_unit() {
        assert_eq!(parse_timeout(b"10S"), Some(Duration::from_secs(10)));
        assert_eq!(
            parse_timeout(b"99999999H"),
            Some(Duration::from_hours(99_999_999))
        );
        for bad in [&b""[..], b"S", b"10", b"123456789S", b"-1S", b"1s"] {
            assert_eq!(parse_timeout(bad), None);
        }
    }
}
