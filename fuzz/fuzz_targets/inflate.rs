//! Inflating bodies to count them, beside the libraries. The first byte chooses the compression, the second in how large frames the body comes.
//!
//! - The outcome is the same however the body is cut and however little is done at a time.
//! - What the libraries inflate, within the bounds, is counted as what they inflate it to.
//! - What they refuse is not counted. (Whether a zstd frame is as long as it says, its library
//!   judges where it is there at once, and not where it comes in parts.)
//! - No more is kept than the largest window.
#![no_main]

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use wire::count::{
    BodyCounter, Bounds, Coding, Counter, Format, Framing, Scratch, Uncounted, Written,
};

const CODINGS: [Coding; 6] = [
    Coding::Gzip,
    Coding::Zlib,
    Coding::RawDeflate,
    Coding::Zstd,
    Coding::SnappyBlock,
    Coding::SnappyFramed,
];
const FORMAT: Format = Format::LokiPush;
const INFLATED_MAX: u64 = 2 << 20;

fuzz_target!(|input: &[u8]| {
    let Some(([coding, size], body)) = input.split_first_chunk::<2>() else {
        return;
    };
    if body.is_empty() {
        return;
    }
    let coding = CODINGS[usize::from(*coding) % CODINGS.len()];
    let counted = count(coding, body, body.len(), usize::MAX);
    // Of several kinds of damage the one that is met first is told.
    let kind = |counted: Result<u64, Uncounted>| counted.map_err(Uncounted::reason);
    let cut = count(coding, body, usize::from(*size) + 1, 1);
    if coding == Coding::Zstd && (cut.is_err() || counted.is_err()) {
        return;
    }
    assert_eq!(kind(cut), kind(counted));
    let beyond = [Uncounted::TooLarge, Uncounted::Window, Uncounted::Ratio].map(Err);
    match inflated(coding, body) {
        Some(inside) if !beyond.contains(&counted) => {
            let mut counter = Counter::new(FORMAT);
            counter.push(&inside);
            assert_eq!(kind(counted), kind(counter.finish()));
        }
        Some(_) => {}
        None => assert!(counted.is_err() || coding == Coding::Zstd, "{counted:?}"),
    }
});

fn count(coding: Coding, body: &[u8], size: usize, work: usize) -> Result<u64, Uncounted> {
    let bounds = Bounds {
        inflated_max_bytes: INFLATED_MAX,
        ratio_max: 1000,
    };
    let mut scratch = Scratch::new();
    let written = Written::Protobuf(FORMAT);
    let mut counter = BodyCounter::new(written, coding, Framing::None, bounds);
    for frame in body.chunks(size) {
        let mut rest = frame;
        while !counter.push(&mut rest, &mut scratch, work) {}
        assert!(counter.kept_bytes() <= 8 << 20);
    }
    counter.finish(&mut scratch)
}

/// What the libraries make of it; `None` also for what is beyond the bounds, where that is judged first.
fn inflated(coding: Coding, body: &[u8]) -> Option<Vec<u8>> {
    let read = |reader: &mut dyn Read| {
        let mut out = Vec::new();
        let read = reader.take(INFLATED_MAX + 1).read_to_end(&mut out);
        read.ok().map(|_| out)
    };
    match coding {
        Coding::Gzip => read(&mut flate2::read::MultiGzDecoder::new(body)),
        Coding::Zlib => read(&mut flate2::read::ZlibDecoder::new(body)),
        Coding::RawDeflate => read(&mut flate2::read::DeflateDecoder::new(body)),
        Coding::Zstd => read(&mut zstd::stream::read::Decoder::new(body).ok()?),
        Coding::SnappyFramed => read(&mut snap::read::FrameDecoder::new(body)),
        _ => {
            let length = snap::raw::decompress_len(body).ok()?;
            (length as u64 <= INFLATED_MAX).then_some(())?;
            snap::raw::Decoder::new().decompress_vec(body).ok()
        }
    }
}
