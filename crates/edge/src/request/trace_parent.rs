//! The sender's place in a trace, as far as the edge's own log and spans point to it (W3C Trace Context, section 3.2). What is not
//! valid is passed upstream all the same, and is nothing here.

use http::{HeaderMap, HeaderName};

/// `traceparent`.
pub(crate) static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// `VERSION-TRACE-PARENT-FLAGS` in bytes; versions to come may be longer.
const LENGTH: usize = 55;

/// A trace and the span in it that a request belongs to; neither is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceParent {
    pub(crate) trace: u128,
    pub(crate) span: u64,
    pub(crate) flags: u8,
}

impl TraceParent {
    /// Reads the one `traceparent` there is, if it is valid.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let first = headers.get(&TRACEPARENT)?;
        let mut all = headers.get_all(&TRACEPARENT).iter();
        (all.next().is_some() && all.next().is_none()).then_some(())?;
        Self::parse(first.as_bytes())
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let (known, rest) = text.split_at_checked(LENGTH)?;
        let version = hex(known.get(..2)?)?;
        let is_whole = rest.is_empty() || version > 0 && rest.starts_with(b"-");
        let dashes = [2, 35, 52].iter().all(|at| known.get(*at) == Some(&b'-'));
        if version == 0xff || !is_whole || !dashes {
            return None;
        }
        let trace = hex(known.get(3..35)?)?;
        let span = u64::try_from(hex(known.get(36..52)?)?).ok()?;
        let flags = u8::try_from(hex(known.get(53..)?)?).ok()?;
        (trace != 0 && span != 0).then_some(Self { trace, span, flags })
    }
}

/// Reads lower-case hexadecimal digits; upper case is not allowed here.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn of(values: &[&str]) -> Option<TraceParent> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&TRACEPARENT, value.parse().unwrap());
        }
        TraceParent::of(&headers)
    }

    #[test]
    fn the_valid_ones_are_read() {
        let good = TraceParent {
            trace: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
            span: 0x00f0_67aa_0ba9_02b7,
            flags: 1,
        };
        assert_eq!(of(&[GOOD]), Some(good));
        let later = GOOD.replacen("00", "cc", 1);
        assert_eq!(of(&[&later]), Some(good));
        assert_eq!(of(&[&format!("{later}-what-comes")]), Some(good));
    }

    #[test]
    fn what_is_not_valid_is_none() {
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[GOOD, GOOD]), None, "there may be one");
        let zeros = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        let no_span = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01";
        for bad in [
            "",
            "00",
            zeros,
            no_span,
            &GOOD.to_uppercase(),
            &GOOD[..54],
            &format!("{GOOD}-"),
            &format!("{GOOD}0"),
            &GOOD.replacen("00", "cc", 1).replace("-01", "-011"),
            &GOOD.replacen("00", "ff", 1),
            &GOOD.replace('-', "_"),
            &GOOD.replace("4bf9", "4bg9"),
        ] {
            assert_eq!(of(&[bad]), None, "{bad}");
        }
    }
}
