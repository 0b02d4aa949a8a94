//! A compressed body is counted as the one inside it, however it is compressed and cut, and is refused where the libraries refuse it.

use std::io::{Read, Write};

use flate2::Compression;
use proptest::prelude::*;
use proptest::sample::Index;
use wire::count::{BodyCounter, Bounds, Coding, Format, Framing, Scratch, Uncounted, Written};

use super::{bodies, cuts, damage, damaged};

const CODINGS: [Coding; 8] = [
    Coding::Identity,
    Coding::Gzip,
    Coding::Zlib,
    Coding::RawDeflate,
    Coding::Zstd,
    Coding::SnappyBlock,
    Coding::SnappyFramed,
    Coding::Snappy,
];
const WIDE: Bounds = Bounds {
    inflated_max_bytes: 64 << 20,
    ratio_max: 1_000_000,
};

/// Counts `body` in frames that end at `cuts`, with little work at a time.
fn count_with(
    written: Written,
    coding: Coding,
    framing: Framing,
    bounds: Bounds,
    frames: &[&[u8]],
) -> Result<u64, Uncounted> {
    let mut scratch = Scratch::new();
    let mut counter = BodyCounter::new(written, coding, framing, bounds);
    for frame in frames {
        let mut rest = *frame;
        while !counter.push(&mut rest, &mut scratch, 4096) {}
        assert!(rest.is_empty());
        assert!(counter.kept_bytes() <= 8 << 20);
    }
    counter.finish(&mut scratch)
}

fn count(format: Format, coding: Coding, body: &[u8], cuts: &[Index]) -> Result<u64, Uncounted> {
    let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
    ends.extend([0, body.len()]);
    ends.sort_unstable();
    let frames: Vec<_> = ends
        .windows(2)
        .map(|ends| &body[ends[0]..ends[1]])
        .collect();
    count_with(
        Written::Protobuf(format),
        coding,
        Framing::None,
        WIDE,
        &frames,
    )
}

/// `body` in parts that are compressed one by one, where the format knows that.
fn compress(coding: Coding, body: &[u8], parts: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let size = body.len().div_ceil(parts).max(1);
    let parts = || body.chunks(size).chain(body.is_empty().then_some(body));
    match coding {
        Coding::Identity | Coding::Other => out.extend_from_slice(body),
        Coding::Gzip => {
            for part in parts() {
                let mut encoder = flate2::write::GzEncoder::new(&mut out, Compression::fast());
                encoder.write_all(part).unwrap();
            }
        }
        Coding::Zlib => flate2::write::ZlibEncoder::new(&mut out, Compression::best())
            .write_all(body)
            .unwrap(),
        Coding::RawDeflate => flate2::write::DeflateEncoder::new(&mut out, Compression::fast())
            .write_all(body)
            .unwrap(),
        Coding::Zstd => {
            for part in parts() {
                out.extend(zstd::encode_all(part, 1).unwrap());
            }
        }
        Coding::SnappyBlock => out = snap::raw::Encoder::new().compress_vec(body).unwrap(),
        Coding::SnappyFramed | Coding::Snappy => {
            let mut encoder = snap::write::FrameEncoder::new(&mut out);
            for part in parts() {
                encoder.write_all(part).unwrap();
                encoder.flush().unwrap();
            }
            drop(encoder);
            if out.is_empty() {
                out.extend_from_slice(b"\xff\x06\x00\x00sNaPpY");
            }
        }
    }
    out
}

/// What the libraries make of it.
fn inflate(coding: Coding, body: &[u8]) -> Option<Vec<u8>> {
    let read = |mut reader: Box<dyn Read + '_>| {
        let mut out = Vec::new();
        reader.read_to_end(&mut out).ok().map(|_| out)
    };
    match coding {
        Coding::Identity | Coding::Other => Some(body.to_vec()),
        Coding::Gzip => read(Box::new(flate2::read::MultiGzDecoder::new(body))),
        Coding::Zlib => read(Box::new(flate2::read::ZlibDecoder::new(body))),
        Coding::RawDeflate => read(Box::new(flate2::read::DeflateDecoder::new(body))),
        Coding::Zstd => read(Box::new(zstd::stream::read::Decoder::new(body).unwrap())),
        Coding::Snappy if body.first() != Some(&0xff) => inflate(Coding::SnappyBlock, body),
        Coding::SnappyBlock => {
            let length = snap::raw::decompress_len(body).ok()?;
            (length as u64 <= WIDE.inflated_max_bytes).then_some(())?;
            snap::raw::Decoder::new().decompress_vec(body).ok()
        }
        Coding::SnappyFramed | Coding::Snappy => {
            read(Box::new(snap::read::FrameDecoder::new(body)))
        }
    }
}

fn codings() -> impl Strategy<Value = Coding> {
    prop::sample::select(CODINGS.to_vec())
}

/// A snappy block as no encoder writes it: copies of all three forms from anywhere, and the bytes it stands for.
fn odd_block() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let element = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..200).prop_map(Ok),
        (any::<Index>(), 1..65_usize, 1..4_u8).prop_map(Err),
    ];
    prop::collection::vec(element, 1..40).prop_map(|elements| {
        let (mut out, mut block) = (Vec::new(), Vec::new());
        for element in elements {
            match element {
                Ok(literal) => {
                    let less_one = u8::try_from(literal.len() - 1).unwrap();
                    if less_one < 60 {
                        block.push(less_one << 2);
                    } else {
                        block.extend([60 << 2, less_one]);
                    }
                    block.extend_from_slice(&literal);
                    out.extend_from_slice(&literal);
                }
                Err((offset, length, form)) => {
                    if out.is_empty() {
                        continue;
                    }
                    let mut offset = offset.index(out.len()) + 1;
                    let short = u8::try_from(length - 1).unwrap();
                    match form {
                        1 if (4..12).contains(&length) && offset < 1 << 11 => {
                            let high = u8::try_from(offset >> 8).unwrap();
                            let length = u8::try_from(length - 4).unwrap();
                            let low = u8::try_from(offset & 0xff).unwrap();
                            block.extend([high << 5 | length << 2 | 1, low]);
                        }
                        3 => {
                            block.push(short << 2 | 3);
                            block.extend(u32::try_from(offset).unwrap().to_le_bytes());
                        }
                        _ => {
                            offset = offset.min(usize::from(u16::MAX));
                            block.push(short << 2 | 2);
                            block.extend(u16::try_from(offset).unwrap().to_le_bytes());
                        }
                    }
                    for _ in 0..length {
                        out.push(out[out.len() - offset]);
                    }
                }
            }
        }
        let mut length = out.len();
        let mut head = Vec::new();
        while length > 0x7f {
            head.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        head.push(u8::try_from(length).unwrap());
        ([head, block].concat(), out)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_compressed_body_is_counted_as_the_one_inside_it(
        (format, body) in bodies(),
        coding in codings(),
        parts in 1..4_usize,
        cuts in cuts(),
    ) {
        let compressed = compress(coding, &body, parts);
        prop_assert_eq!(
            count(format, coding, &compressed, &cuts),
            super::count(format, &body, &[])
        );
    }

    #[test]
    fn a_damaged_one_is_refused_where_libraries_refuse_it(
        (format, body) in bodies(),
        coding in codings(),
        damages in prop::collection::vec(damage(), 1..3),
        cuts in cuts(),
    ) {
        check(format, coding, &damaged(compress(coding, &body, 2), &damages), &cuts)?;
    }

    #[test]
    fn an_odd_block_is_inflated_as_it_stands((block, inside) in odd_block(), cuts in cuts()) {
        prop_assert_eq!(&inflate(Coding::SnappyBlock, &block), &Some(inside.clone()));
        for format in [Format::LokiPush, Format::Metrics] {
            prop_assert_eq!(
                count(format, Coding::SnappyBlock, &block, &cuts),
                super::count(format, &inside, &[])
            );
        }
    }

    #[test]
    fn a_damaged_block_is_refused_where_the_library_refuses_it(
        (block, _) in odd_block(),
        damages in prop::collection::vec(damage(), 1..3),
        cuts in cuts(),
    ) {
        check(Format::LokiPush, Coding::SnappyBlock, &damaged(block, &damages), &cuts)?;
    }
}

fn check(format: Format, coding: Coding, body: &[u8], cuts: &[Index]) -> Result<(), TestCaseError> {
    let counted = count(format, coding, body, cuts);
    // Of several kinds of damage the one that is met first is told.
    let kind = |counted: Result<u64, Uncounted>| counted.map_err(Uncounted::reason);
    let whole = count(format, coding, body, &[]);
    if coding == Coding::Zstd && (counted.is_err() || whole.is_err()) {
        // Whether a frame is as long as it says, the library judges where it is there at once, and not where it comes in parts.
        return Ok(());
    }
    prop_assert_eq!(kind(counted), kind(whole), "cut differently");
    match inflate(coding, body) {
        // Whether nothing at all is a body is for the backend to say.
        _ if body.is_empty() => {}
        Some(inside) => {
            prop_assert_eq!(kind(counted), kind(super::count(format, &inside, &[])));
        }
        // The library's own reader cuts a zstd frame otherwise.
        None => prop_assert!(counted.is_err() || coding == Coding::Zstd, "{:?}", counted),
    }
    Ok(())
}

/// `streams` with so many entries of 100 bytes.
fn push_request(entries: usize) -> Vec<u8> {
    let entry = [&[0x12, 100][..], &[b'x'; 100]].concat();
    let mut body = vec![0x0a];
    let mut length = entries * entry.len();
    while length > 0x7f {
        body.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    body.push(u8::try_from(length).unwrap());
    body.extend(entry.repeat(entries));
    body
}

#[test]
fn what_comes_before_a_streams_beginning_is_no_snappy() {
    let stream = compress(Coding::SnappyFramed, &push_request(3), 1);
    let padding = b"\xfe\x02\x00\x00ab";
    let with =
        |parts: &[&[u8]]| count(Format::LokiPush, Coding::SnappyFramed, &parts.concat(), &[]);
    assert_eq!(with(&[&stream, padding]), Ok(3));
    assert_eq!(with(&[padding, &stream]), Err(Uncounted::Compression));
}

#[test]
fn large_bodies_pass_through_little_memory() {
    let body = push_request(300_000);
    for coding in CODINGS {
        let compressed = compress(coding, &body, 3);
        let frames: Vec<_> = compressed.chunks(10_000).collect();
        let written = Written::Protobuf(Format::LokiPush);
        let counted = count_with(written, coding, Framing::None, WIDE, &frames);
        assert_eq!(counted, Ok(300_000), "{coding:?}");
    }
}

#[test]
fn a_copy_from_further_back_than_is_kept_is_refused_and_one_from_within_is_not() {
    // 9 MiB of literals, then a copy of one byte from `offset` back.
    let block = |offset: u32| {
        let length = (9 << 20) + 1_u32;
        let mut block = Vec::new();
        let mut rest = length;
        while rest > 0x7f {
            block.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
            rest >>= 7;
        }
        block.push(u8::try_from(rest).unwrap());
        let literal = length - 2;
        block.push(63 << 2);
        block.extend(literal.to_le_bytes());
        block.extend(vec![0; 9 << 20]);
        block.push(3);
        block.extend(offset.to_le_bytes());
        block
    };
    let count = |offset| {
        let block = block(offset);
        let frames: Vec<_> = block.chunks(100_000).collect();
        let written = Written::Protobuf(Format::LokiPush);
        count_with(written, Coding::SnappyBlock, Framing::None, WIDE, &frames)
    };
    // Zeros are no field.
    assert_eq!(count(4 << 20), Err(Uncounted::FieldNumber));
    assert_eq!(count(9 << 20), Err(Uncounted::FieldNumber));
}

#[test]
fn bombs_are_not_inflated_to_their_end() {
    let body = push_request(300_000);
    let written = Written::Protobuf(Format::LokiPush);
    for coding in [Coding::Gzip, Coding::Zlib, Coding::RawDeflate, Coding::Zstd] {
        let compressed = compress(coding, &body, 1);
        let with = |inflated_max_bytes, ratio_max| {
            let bounds = Bounds {
                inflated_max_bytes,
                ratio_max,
            };
            count_with(written, coding, Framing::None, bounds, &[&compressed])
        };
        assert_eq!(with(64 << 20, 10), Err(Uncounted::Ratio), "{coding:?}");
        assert_eq!(
            with(1 << 20, 10_000),
            Err(Uncounted::TooLarge),
            "{coding:?}"
        );
    }
    // A block says first how long it will be.
    let mut claim = vec![0xff, 0xff, 0xff, 0xff, 0x0f];
    claim.extend([0; 100]);
    let block = Coding::SnappyBlock;
    let counted = count_with(written, block, Framing::None, WIDE, &[&claim]);
    assert_eq!(counted, Err(Uncounted::TooLarge));
}

#[test]
fn a_window_beyond_what_every_decoder_bears_is_refused() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&push_request(200_000)).unwrap();
    let compressed = encoder.finish().unwrap();
    let written = Written::Protobuf(Format::LokiPush);
    let counted = count_with(written, Coding::Zstd, Framing::None, WIDE, &[&compressed]);
    assert_eq!(counted, Err(Uncounted::Window));
}

#[test]
fn a_grpc_body_is_one_message_and_its_flag_says_whether_it_is_compressed() {
    let body = push_request(7);
    let zipped = compress(Coding::Gzip, &body, 1);
    let frame = |flag: u8, message: &[u8]| {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&[flag], &length[..], message].concat()
    };
    let count = |body: &[u8]| {
        let written = Written::Protobuf(Format::LokiPush);
        let whole = count_with(written, Coding::Gzip, Framing::Grpc, WIDE, &[body]);
        let bytes: Vec<_> = body.chunks(1).collect();
        let cut = count_with(written, Coding::Gzip, Framing::Grpc, WIDE, &bytes);
        assert_eq!(whole, cut);
        whole
    };
    assert_eq!(count(&frame(0, &body)), Ok(7));
    assert_eq!(count(&frame(1, &zipped)), Ok(7));
    assert_eq!(count(&frame(0, &[])), Ok(0));
    let (short, _) = body.split_at(body.len() - 1);
    let mut cut_off = frame(0, &body);
    cut_off.pop();
    for wrong in [
        [frame(0, &body), frame(0, &body)].concat(),
        cut_off,
        frame(2, &body),
        vec![0, 0, 0],
        Vec::new(),
    ] {
        assert_eq!(count(&wrong), Err(Uncounted::Framing));
    }
    assert_eq!(count(&frame(0, short)), Err(Uncounted::Truncated));
}

#[test]
fn work_is_done_a_bit_at_a_time() {
    let body = compress(Coding::Gzip, &push_request(100_000), 1);
    let written = Written::Protobuf(Format::LokiPush);
    let mut scratch = Scratch::new();
    let mut counter = BodyCounter::new(written, Coding::Gzip, Framing::None, WIDE);
    let (mut rest, mut turns) = (&*body, 1);
    while !counter.push(&mut rest, &mut scratch, 100_000) {
        turns += 1;
    }
    assert_eq!(counter.finish(&mut scratch), Ok(100_000));
    assert!((50..110).contains(&turns), "{turns} turns for 10 MB");

    // Members that hold nothing are work too.
    let empty = compress(Coding::Gzip, &[], 1).repeat(1000);
    let mut counter = BodyCounter::new(written, Coding::Gzip, Framing::None, WIDE);
    let (mut rest, mut turns) = (&*empty, 1);
    while !counter.push(&mut rest, &mut scratch, 100_000) {
        turns += 1;
    }
    assert_eq!(counter.finish(&mut scratch), Ok(0));
    assert!(turns > 9, "{turns} turns for 1,000 members");
}

#[test]
fn what_is_not_inflated_here_says_so() {
    let written = Written::Protobuf(Format::LokiPush);
    let counted = count_with(written, Coding::Other, Framing::None, WIDE, &[b"x"]);
    assert_eq!(counted, Err(Uncounted::Encoding));
    assert!(Uncounted::REASONS.contains(&Uncounted::Encoding.reason()));
}
