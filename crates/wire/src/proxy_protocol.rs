//! HAProxy's PROXY protocol, versions 1 and 2 (proxy-protocol.txt): the address that a connection had before a proxy took it.
//! Reads what a proxy puts before everything else, strictly, and says how much more of it there is at least, so that nobody
//! reads into what follows. Whether the proxy is to be believed is for others.
//!
//! Of version 2's extensions only the checksum is looked at: where there is one, it must be right.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;

use self::BadHeader::Malformed;

/// What a header of version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What version 2 has before the addresses.
const V2_HEAD: usize = 16;
/// The shortest header of version 1, `PROXY UNKNOWN\r\n`.
const V1_MIN: usize = 15;
/// The longest, its CRLF included.
const V1_MAX: usize = 107;
/// The longest header of version 2 that is read. Extensions may be up to 64 KiB by the letter; the largest in use, a client's
/// certificate name or a cloud's endpoint, have some hundred bytes.
pub const HEADER_MAX: usize = 4096;

/// The kinds of extension that matter here.
const TYPE_CRC32C: u8 = 0x03;

/// A header that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Whom the connection is from. `None` when the proxy speaks for itself, as health checks do, or does not know: the
    /// connection's own address counts then.
    pub source: Option<SocketAddr>,
}

/// One step of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// So many more bytes belong to the header at least. They may be read; more may not.
    More(NonZeroUsize),
    /// The bytes are the whole header.
    Whole(Header),
}

/// Bytes that are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    /// They begin with something else.
    #[error("does not begin with a PROXY header")]
    Missing,
    /// They begin with one that is wrong.
    #[error("bad PROXY header: {0}")]
    Malformed(&'static str),
}

/// Reads what has come so far.
///
/// # Errors
/// As soon as the bytes cannot become a header.
pub fn parse(bytes: &[u8]) -> Result<Parsed, BadHeader> {
    const V1: &[u8] = b"PROXY ";
    let Some(first) = bytes.first() else {
        // Both versions have as much.
        return Ok(more(V1_MIN));
    };
    if *first == b'P' {
        begins_with(bytes, V1)?;
        return v1(bytes);
    }
    begins_with(bytes, SIGNATURE)?;
    v2(bytes)
}

fn begins_with(bytes: &[u8], expected: &[u8]) -> Result<(), BadHeader> {
    let compared = bytes.len().min(expected.len());
    if bytes.get(..compared) == expected.get(..compared) {
        Ok(())
    } else {
        Err(BadHeader::Missing)
    }
}

fn more(bytes: usize) -> Parsed {
    Parsed::More(NonZeroUsize::new(bytes).unwrap_or(NonZeroUsize::MIN))
}

fn v1(bytes: &[u8]) -> Result<Parsed, BadHeader> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        if bytes.len() >= V1_MAX {
            return Err(Malformed("the line is longer than 107 bytes"));
        }
        let least = if bytes.starts_with(b"PROXY TCP4 ") {
            b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n".len()
        } else if bytes.starts_with(b"PROXY TCP6 ") {
            b"PROXY TCP6 :: :: 1 1\r\n".len()
        } else {
            V1_MIN
        };
        let end = if bytes.ends_with(b"\r") { 1 } else { 2 };
        let least = least.saturating_sub(bytes.len()).max(end);
        return Ok(more(least.min(V1_MAX - bytes.len())));
    };
    if end >= V1_MAX {
        return Err(Malformed("the line is longer than 107 bytes"));
    }
    let line = bytes
        .get(..end)
        .and_then(|line| line.strip_suffix(b"\r"))
        .ok_or(Malformed("the line does not end with CRLF"))?;
    if bytes.len() != end + 1 {
        return Err(Malformed("there is more than the header"));
    }
    let line = str::from_utf8(line).map_err(|_| Malformed("not ASCII"))?;
    let mut words = line.split(' ').skip(1);
    let source = match words.next() {
        // What follows is to be ignored.
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(v1_addresses::<Ipv4Addr>(words)?),
        Some("TCP6") => Some(v1_addresses::<Ipv6Addr>(words)?),
        _ => return Err(Malformed("neither TCP4, TCP6 nor UNKNOWN")),
    };
    Ok(Parsed::Whole(Header { source }))
}

/// The source of `SOURCE DESTINATION PORT PORT`.
fn v1_addresses<'a, A>(mut words: impl Iterator<Item = &'a str>) -> Result<SocketAddr, BadHeader>
where
    A: std::str::FromStr + Into<IpAddr>,
{
    let mut address = || -> Result<IpAddr, BadHeader> {
        let word = words.next().ok_or(Malformed("an address is missing"))?;
        let address: A = word.parse().map_err(|_| Malformed("not an address"))?;
        Ok(address.into())
    };
    let (source, _destination) = (address()?, address()?);
    let mut port = || {
        let word = words.next().ok_or(Malformed("a port is missing"))?;
        let has_leading_zero = word.len() > 1 && word.starts_with('0');
        if has_leading_zero || !word.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Malformed("not a port"));
        }
        word.parse().map_err(|_| Malformed("not a port"))
    };
    let (source_port, _destination_port): (u16, u16) = (port()?, port()?);
    if words.next().is_some() {
        return Err(Malformed("too many words"));
    }
    Ok(SocketAddr::new(source, source_port))
}

fn v2(bytes: &[u8]) -> Result<Parsed, BadHeader> {
    let Some((head, rest)) = bytes.split_at_checked(V2_HEAD) else {
        // Version 1's least has been asked for already, so this is what is left of the head.
        return Ok(more(V2_HEAD.saturating_sub(bytes.len())));
    };
    let [.., command, family, high, low] = head else {
        return Err(BadHeader::Missing);
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if V2_HEAD + length > HEADER_MAX {
        return Err(Malformed("longer than 4 KiB"));
    }
    // The command decides whether the addresses count, but a version that is not known decides about everything.
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed("neither LOCAL nor PROXY of version 2")),
    };
    match rest.len().checked_sub(length) {
        None => return Ok(more(length - rest.len())),
        Some(0) => {}
        Some(_) => return Err(Malformed("there is more than the header")),
    }
    let (source, extensions) = v2_addresses(*family, rest)?;
    check_extensions(bytes, extensions)?;
    Ok(Parsed::Whole(Header {
        source: source.filter(|_| !is_local),
    }))
}

/// The source, if the family has one we know, and what follows the addresses.
fn v2_addresses(family: u8, rest: &[u8]) -> Result<(Option<SocketAddr>, &[u8]), BadHeader> {
    const SHORT: BadHeader = Malformed("too short for its addresses");
    match family {
        // Over TCP, over IPv4: source, destination, ports.
        0x11 => {
            let (addresses, extensions) = rest.split_first_chunk::<12>().ok_or(SHORT)?;
            let [a, b, c, d, _, _, _, _, high, low, _, _] = *addresses;
            let address = Ipv4Addr::new(a, b, c, d);
            let source = SocketAddr::new(address.into(), u16::from_be_bytes([high, low]));
            Ok((Some(source), extensions))
        }
        0x21 => {
            let (addresses, extensions) = rest.split_first_chunk::<36>().ok_or(SHORT)?;
            let (source, after) = addresses.split_first_chunk::<16>().ok_or(SHORT)?;
            let (_, ports) = after.split_first_chunk::<16>().ok_or(SHORT)?;
            let (port, _) = ports.split_first_chunk::<2>().ok_or(SHORT)?;
            let source = SocketAddr::new(Ipv6Addr::from(*source).into(), u16::from_be_bytes(*port));
            Ok((Some(source), extensions))
        }
        // A socket of the proxy's own machine.
        0x31 => {
            let (_, extensions) = rest.split_first_chunk::<216>().ok_or(SHORT)?;
            Ok((None, extensions))
        }
        // Not known to the proxy, whatever follows.
        0x00 => Ok((None, &[])),
        _ => Err(Malformed("not an address family of a TCP connection")),
    }
}

/// Walks the extensions: type, length, value.
fn check_extensions(header: &[u8], mut extensions: &[u8]) -> Result<(), BadHeader> {
    const SHORT: BadHeader = Malformed("an extension is longer than the header");
    while !extensions.is_empty() {
        let (head, rest) = extensions.split_first_chunk::<3>().ok_or(SHORT)?;
        let [kind, high, low] = *head;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (value, rest) = rest.split_at_checked(length).ok_or(SHORT)?;
        if kind == TYPE_CRC32C {
            let told = <[u8; 4]>::try_from(value)
                .map_err(|_| Malformed("the checksum has not four bytes"))?;
            // It counts as zero while it is computed.
            let at = header.len() - rest.len() - 4;
            let before = header.get(..at).unwrap_or_default();
            let parts = before.iter().chain(&[0; 4]).chain(rest);
            if crc32c(parts.copied()) != u32::from_be_bytes(told) {
                return Err(Malformed("the checksum is wrong"));
            }
        }
        extensions = rest;
    }
    Ok(())
}

/// CRC-32C (RFC 3720 appendix B.4). Bit by bit: it is one header for a connection.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    const REVERSED: u32 = 0x82f6_3b78;
    let folded = bytes.fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (REVERSED & (crc & 1).wrapping_neg())
        })
    });
    !folded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(bytes: &[u8]) -> Option<SocketAddr> {
        match parse(bytes) {
            Ok(Parsed::Whole(header)) => header.source,
            other => panic!("{other:?} for {bytes:?}"),
        }
    }

    fn malformed(bytes: &[u8]) -> &'static str {
        match parse(bytes) {
            Err(Malformed(why)) => why,
            other => panic!("{other:?} for {bytes:?}"),
        }
    }

    fn v2_header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    const V4: [u8; 12] = [203, 0, 113, 7, 10, 0, 0, 1, 0xd4, 0x31, 0x10, 0xdd];

    fn v6() -> Vec<u8> {
        let source: Ipv6Addr = "2001:db8::7".parse().unwrap();
        let rest = [0xd4, 0x31, 0x10, 0xdd];
        [&source.octets()[..], &[0; 16], &rest].concat()
    }

    #[test]
    fn version_1_tells_the_source() {
        let v4 = b"PROXY TCP4 203.0.113.7 10.0.0.1 54321 4317\r\n";
        assert_eq!(whole(v4), Some("203.0.113.7:54321".parse().unwrap()));
        let v6 = b"PROXY TCP6 2001:db8::7 ::1 54321 4317\r\n";
        assert_eq!(whole(v6), Some("[2001:db8::7]:54321".parse().unwrap()));
        assert_eq!(whole(b"PROXY UNKNOWN\r\n"), None);
        assert_eq!(whole(b"PROXY UNKNOWN ::1 whatever\r\n"), None);
    }

    #[test]
    fn version_1_is_read_strictly() {
        for (line, why) in [
            (&b"PROXY TCP4 ::1 ::1 1 1\r\n"[..], "not an address"),
            (b"PROXY TCP6 1.1.1.1 1.1.1.1 1 1\r\n", "not an address"),
            (b"PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n", "a port is missing"),
            (b"PROXY TCP4 1.1.1.1\r\n", "an address is missing"),
            (b"PROXY TCP4 1.1.1.1 1.1.1.1 65536 1\r\n", "not a port"),
            (b"PROXY TCP4 1.1.1.1 1.1.1.1 01 1\r\n", "not a port"),
            (b"PROXY TCP4 1.1.1.1 1.1.1.1 +1 1\r\n", "not a port"),
            (b"PROXY TCP4 1.1.1.1  1.1.1.1 1 1\r\n", "not an address"),
            (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1 1\r\n", "too many words"),
            (
                b"PROXY UDP4 1.1.1.1 1.1.1.1 1 1\r\n",
                "neither TCP4, TCP6 nor UNKNOWN",
            ),
            (
                b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n",
                "the line does not end with CRLF",
            ),
            (b"PROXY UNKNOWN\r\nPOST", "there is more than the header"),
        ] {
            assert_eq!(malformed(line), why, "{}", line.escape_ascii());
        }
        let mut long = b"PROXY UNKNOWN ".to_vec();
        long.resize(V1_MAX - 2, b'x');
        assert_eq!(whole(&[&long[..], b"\r\n"].concat()), None);
        long.push(b'x');
        assert_eq!(parse(&long), Ok(more(1)), "no byte beyond the bound");
        for too_long in [&b"x"[..], b"\r\n"] {
            let line = [&long[..], too_long].concat();
            assert_eq!(malformed(&line), "the line is longer than 107 bytes");
        }
    }

    #[test]
    fn version_2_tells_the_source() {
        let v4 = v2_header(0x21, 0x11, &V4);
        assert_eq!(whole(&v4), Some("203.0.113.7:54321".parse().unwrap()));
        let v6 = v2_header(0x21, 0x21, &v6());
        assert_eq!(whole(&v6), Some("[2001:db8::7]:54321".parse().unwrap()));
        let no_op = [&V4[..], &[0x04, 0, 2, 1, 2]].concat();
        assert!(whole(&v2_header(0x21, 0x11, &no_op)).is_some());
    }

    #[test]
    fn version_2_without_a_source_leaves_the_connection_its_own() {
        assert_eq!(whole(&v2_header(0x20, 0x00, &[])), None, "LOCAL");
        assert_eq!(whole(&v2_header(0x20, 0x11, &V4)), None, "LOCAL");
        assert_eq!(whole(&v2_header(0x21, 0x00, &[1, 2, 3])), None, "UNSPEC");
        assert_eq!(whole(&v2_header(0x21, 0x31, &[0; 216])), None, "UNIX");
    }

    #[test]
    fn version_2_is_read_strictly() {
        for (header, why) in [
            (
                v2_header(0x11, 0x11, &V4),
                "neither LOCAL nor PROXY of version 2",
            ),
            (
                v2_header(0x22, 0x11, &V4),
                "neither LOCAL nor PROXY of version 2",
            ),
            (
                v2_header(0x21, 0x12, &V4),
                "not an address family of a TCP connection",
            ),
            (
                v2_header(0x21, 0x11, &V4[1..]),
                "too short for its addresses",
            ),
            (v2_header(0x21, 0x21, &V4), "too short for its addresses"),
            (
                v2_header(0x21, 0x11, &[&V4[..], &[4, 0, 9, 1]].concat()),
                "an extension is longer than the header",
            ),
            (v2_header(0x21, 0x11, &[0; HEADER_MAX]), "longer than 4 KiB"),
            (
                [&v2_header(0x21, 0x11, &V4)[..], b"x"].concat(),
                "there is more than the header",
            ),
        ] {
            assert_eq!(malformed(&header), why);
        }
    }

    #[test]
    fn a_checksum_must_be_right() {
        // "123456789", as every description of the algorithm has it.
        assert_eq!(crc32c(b"123456789".iter().copied()), 0xe306_9283);
        let rest = [&V4[..], &[TYPE_CRC32C, 0, 4, 0, 0, 0, 0], &[0x04, 0, 1, 9]].concat();
        let mut header = v2_header(0x21, 0x11, &rest);
        let sum = crc32c(header.iter().copied()).to_be_bytes();
        let at = V2_HEAD + 12 + 3;
        header[at..at + 4].copy_from_slice(&sum);
        assert!(whole(&header).is_some());
        header[at] ^= 1;
        assert_eq!(malformed(&header), "the checksum is wrong");
        let short = [&V4[..], &[TYPE_CRC32C, 0, 1, 0]].concat();
        let short = v2_header(0x21, 0x11, &short);
        assert_eq!(malformed(&short), "the checksum has not four bytes");
    }

    #[test]
    fn what_is_no_header_is_told_by_its_first_bytes() {
        for other in [
            &b"POST /v1/logs HTTP/1.1\r\n"[..],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x16\x03\x01",
            b"\r\n\r\nPOST",
            b"G",
        ] {
            assert_eq!(parse(other), Err(BadHeader::Missing), "{other:?}");
        }
    }

    /// Reads as a socket would: never more than was said to belong to the header.
    fn read(stream: &[u8], at_most: usize) -> (Result<Parsed, BadHeader>, usize) {
        let mut taken = 0;
        loop {
            match parse(&stream[..taken]) {
                Ok(Parsed::More(more)) if taken < stream.len() => {
                    taken = stream.len().min(taken + more.get().min(at_most));
                }
                other => return (other, taken),
            }
        }
    }

    #[test]
    fn not_a_byte_after_the_header_is_read() {
        for header in [
            b"PROXY TCP4 203.0.113.7 10.0.0.1 54321 4317\r\n".to_vec(),
            b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n".to_vec(),
            b"PROXY TCP6 :: :: 1 1\r\n".to_vec(),
            b"PROXY UNKNOWN\r\n".to_vec(),
            v2_header(0x20, 0, &[]),
            v2_header(0x21, 0x11, &V4),
            v2_header(0x21, 0x21, &v6()),
        ] {
            let stream = [&header[..], b"POST / HTTP/1.1\r\n\r\n"].concat();
            for at_most in [1, 3, 1000] {
                let (parsed, taken) = read(&stream, at_most);
                assert!(matches!(parsed, Ok(Parsed::Whole(_))), "{parsed:?}");
                assert_eq!(taken, header.len(), "{}", header.escape_ascii());
            }
        }
    }

    proptest! {
        #[test]
        fn reading_ends_within_the_bound(
            start in prop_oneof![Just(&b"PROXY "[..]), Just(&SIGNATURE[..]), Just(&b""[..])],
            rest in prop::collection::vec(any::<u8>(), 0..5000),
        ) {
            let stream = [start, &rest].concat();
            let (parsed, taken) = read(&stream, usize::MAX);
            prop_assert!(taken <= HEADER_MAX);
            prop_assert!(!matches!(parsed, Ok(Parsed::More(_))) || taken == stream.len());
        }
    }
}
