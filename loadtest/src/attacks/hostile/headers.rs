//! Heads that are too large, have too many headers, or become so when they are decompressed.

use std::io;

use super::frames::{NEWEST, literal, literal_into_table};
use super::session::{Session, export};
use super::wire::Wire;

const COUNT: usize = 2000;
const LARGE: usize = 1 << 20;
/// The table of HPACK holds 4,096 bytes: one entry of nearly so many.
const ENTRY: usize = 3900;
/// References to it in one head, of a byte each: 60 MB of headers in 16 KB.
const REFERENCES: usize = 16_000;
/// Heads written at once.
const BATCH: u64 = 4;

fn http1(headers: &str) -> String {
    format!("POST /v1/traces HTTP/1.1\r\nhost: edge\r\n{headers}content-length: 0\r\n\r\n")
}

pub(super) async fn http1_many(mut wire: Wire) -> io::Result<()> {
    let request = http1(&"x: y\r\n".repeat(COUNT));
    loop {
        wire.exchange(request.as_bytes()).await?;
    }
}

pub(super) async fn http1_large(mut wire: Wire) -> io::Result<()> {
    let request = http1(&format!("x: {}\r\n", "y".repeat(LARGE)));
    loop {
        wire.exchange(request.as_bytes()).await?;
    }
}

async fn http2(wire: Wire, first: &[u8], block: &[u8]) -> io::Result<()> {
    let mut session = Session::open(wire, &[]).await?;
    let mut out = Vec::new();
    if !first.is_empty() {
        session.request(&mut out, true, first)?;
    }
    loop {
        for _ in 0..BATCH {
            session.request(&mut out, true, block)?;
        }
        session.send(&out, BATCH).await?;
        out.clear();
    }
}

pub(super) async fn http2_many(wire: Wire) -> io::Result<()> {
    let mut block = export("Bearer nobody");
    for _ in 0..COUNT {
        literal(&mut block, "x", b"y");
    }
    http2(wire, &[], &block).await
}

pub(super) async fn http2_large(wire: Wire) -> io::Result<()> {
    let mut block = export("Bearer nobody");
    literal(&mut block, "x", &vec![b'y'; LARGE]);
    http2(wire, &[], &block).await
}

/// One header is remembered, then named again and again.
pub(super) async fn hpack_bomb(wire: Wire) -> io::Result<()> {
    let mut first = export("Bearer nobody");
    literal_into_table(&mut first, "x", &[b'y'; ENTRY]);
    let mut block = export("Bearer nobody");
    block.extend([NEWEST; REFERENCES]);
    http2(wire, &first, &block).await
}
