//! The PROXY protocol's header, read as from a socket: never more than was said to belong to it. The first byte says how many bytes
//! come at a time.
//!
//! - The outcome is the same however the bytes are cut: the same source after the same number of bytes, or a refusal.
//! - No more than the bound is read, nothing behind the header is, and what is there does not matter.
//! - The source of version 1 is what its words say, and of version 2 what stands at its place.
//! - A header made for an address, in either version, with and without checksum, reads as that address; one flipped bit under a
//!   checksum never reads as another one.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use wire::proxy_protocol::{BadHeader, HEADER_MAX, Header, Parsed, parse};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

fuzz_target!(|input: &[u8]| {
    let Some((step, stream)) = input.split_first() else {
        return;
    };
    let step = usize::from(*step) + 1;
    let (outcome, taken) = read(stream, usize::MAX);
    assert!(taken <= HEADER_MAX);
    for at_most in [1, step] {
        let (again, taken_again) = read(stream, at_most);
        match outcome {
            Ok(_) => assert_eq!((again, taken_again), (outcome, taken)),
            Err(_) => assert!(again.is_err() && taken_again <= HEADER_MAX),
        }
    }
    if let Ok(Some(header)) = outcome {
        let bytes = &stream[..taken];
        assert_eq!(
            read(&[bytes, b"POST / HTTP/1.1\r\n"].concat(), step),
            (outcome, taken)
        );
        assert_eq!(header.source, naive_source(bytes));
    }
    if let Some((address, rest)) = address(stream) {
        round_trip(address, rest, step);
    }
});

/// The header, `None` when the stream ends before it does, and how many bytes were taken.
type Outcome = (Result<Option<Header>, BadHeader>, usize);

fn read(stream: &[u8], at_most: usize) -> Outcome {
    let mut taken = 0;
    loop {
        match parse(&stream[..taken]) {
            Ok(Parsed::Whole(header)) => return (Ok(Some(header)), taken),
            Ok(Parsed::More(_)) if taken == stream.len() => return (Ok(None), taken),
            Ok(Parsed::More(more)) => taken = stream.len().min(taken + more.get().min(at_most)),
            Err(bad) => return (Err(bad), taken),
        }
    }
}

fn naive_source(header: &[u8]) -> Option<SocketAddr> {
    if let Some(line) = header.strip_prefix(b"PROXY ") {
        let line = std::str::from_utf8(line)
            .expect("text")
            .strip_suffix("\r\n")
            .expect("a line");
        let words: Vec<_> = line.split(' ').collect();
        let [family, source, _, port, _] = words[..] else {
            assert_eq!(words[0], "UNKNOWN");
            return None;
        };
        return match family {
            "UNKNOWN" => None,
            "TCP4" => Some((source.parse::<Ipv4Addr>().unwrap(), port.parse().unwrap()).into()),
            "TCP6" => Some((source.parse::<Ipv6Addr>().unwrap(), port.parse().unwrap()).into()),
            other => panic!("{other}"),
        };
    }
    assert!(header.starts_with(SIGNATURE));
    assert_eq!(
        header.len(),
        16 + usize::from(u16::from_be_bytes([header[14], header[15]]))
    );
    let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    match (header[12], header[13]) {
        (0x21, 0x11) => {
            let source: [u8; 4] = header[16..20].try_into().unwrap();
            Some((IpAddr::from(source), port(24)).into())
        }
        (0x21, 0x21) => {
            let source: [u8; 16] = header[16..32].try_into().unwrap();
            Some((IpAddr::from(source), port(48)).into())
        }
        (0x21, 0x00 | 0x31) | (0x20, _) => None,
        other => panic!("{other:x?}"),
    }
}

/// An address out of the input, of the version that its first bit says.
fn address(input: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let ([kind, port @ ..], rest) = input.split_first_chunk::<3>()?;
    let port = u16::from_be_bytes(*port);
    if kind & 1 == 0 {
        let (octets, rest) = rest.split_first_chunk::<4>()?;
        Some(((IpAddr::from(*octets), port).into(), rest))
    } else {
        let (octets, rest) = rest.split_first_chunk::<16>()?;
        Some(((IpAddr::from(*octets), port).into(), rest))
    }
}

fn round_trip(source: SocketAddr, extension: &[u8], step: usize) {
    let (name, any) = match source {
        SocketAddr::V4(_) => ("TCP4", "0.0.0.0"),
        SocketAddr::V6(_) => ("TCP6", "::"),
    };
    let line = format!("PROXY {name} {} {any} {} 0\r\n", source.ip(), source.port());
    reads_as(line.as_bytes(), source, step);

    let (family, mut rest) = match source.ip() {
        IpAddr::V4(ip) => (0x11, [ip.octets(), [0; 4]].concat()),
        IpAddr::V6(ip) => (0x21, [ip.octets(), [0; 16]].concat()),
    };
    rest.extend(source.port().to_be_bytes());
    rest.extend([0, 0]);
    let extension = &extension[..extension.len().min(1000)];
    rest.push(0xe0);
    rest.extend((extension.len() as u16).to_be_bytes());
    rest.extend(extension);
    reads_as(&v2(family, &rest), source, step);

    rest.extend([0x03, 0, 4, 0, 0, 0, 0]);
    let mut header = v2(family, &rest);
    let sum = crc32c(&header).to_be_bytes();
    let at = header.len() - 4;
    header[at..].copy_from_slice(&sum);
    reads_as(&header, source, step);
    // Not in the kind of the checksum itself, without which there is none.
    let flipped = 16 + step % (rest.len() - 7);
    header[flipped] ^= 1 << (step % 8);
    if let (Ok(Some(header)), _) = read(&header, step) {
        // The lengths of extensions may hide the checksum; then nothing vouches for the address.
        let length_at = 16 + rest.len() - 7 - extension.len() - 2;
        assert!(
            (length_at - 1..length_at + 2).contains(&flipped),
            "{header:?}"
        );
    }
}

fn reads_as(header: &[u8], source: SocketAddr, step: usize) {
    let expected = Ok(Some(Header {
        source: Some(source),
    }));
    let stream = [header, b"next"].concat();
    assert_eq!(read(&stream, step), (expected, header.len()));
}

fn v2(family: u8, rest: &[u8]) -> Vec<u8> {
    let length = (rest.len() as u16).to_be_bytes();
    [&SIGNATURE[..], &[0x21, family], &length, rest].concat()
}

/// CRC-32C by a table of sixteen, not bit by bit as the code under test.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut table = [0_u32; 16];
    for (n, entry) in table.iter_mut().enumerate() {
        *entry = (0..4).fold(n as u32, |crc, _| {
            if crc & 1 == 1 {
                (crc >> 1) ^ 0x82f6_3b78
            } else {
                crc >> 1
            }
        });
    }
    !bytes.iter().fold(!0_u32, |crc, byte| {
        let crc = crc ^ u32::from(*byte);
        let crc = (crc >> 4) ^ table[(crc & 15) as usize];
        (crc >> 4) ^ table[(crc & 15) as usize]
    })
}
