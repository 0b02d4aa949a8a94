//! Attackers that take their time: heads, bodies and answers, a byte a second.

use std::io;
use std::time::Duration;

use super::frames::{INITIAL_WINDOW_SIZE, Kind, PREFACE, frame, setting};
use super::session::{Session, export};
use super::wire::Wire;

const BYTE_EVERY: Duration = Duration::from_secs(1);
/// Streams that one connection drags along.
const STREAMS: u32 = 50;
/// Longer than any run.
const FOREVER: Duration = Duration::from_hours(1);
/// Requests sent by those who read no answer, more than sockets hold the answers of.
const UNREAD: usize = 20_000;

/// A head that never ends.
pub(super) async fn head(mut wire: Wire) -> io::Result<()> {
    wire.attacker.tally.requests(1);
    wire.send(b"POST /v1/traces HTTP/1.1\r\nhost: edge\r\nx-slow: ")
        .await?;
    wire.drip(b"a", BYTE_EVERY).await
}

/// HTTP/2's first words, one letter after the other.
pub(super) async fn preface(mut wire: Wire) -> io::Result<()> {
    for letter in PREFACE {
        wire.send(&[*letter]).await?;
        wire.hold(BYTE_EVERY).await?;
    }
    wire.hold(FOREVER).await
}

/// A header block of HTTP/2 that never ends.
pub(super) async fn header_block(wire: Wire) -> io::Result<()> {
    let mut session = Session::open(wire, &[]).await?;
    let stream = session.stream()?;
    let mut out = Vec::new();
    let block = export("Bearer nobody");
    let (first, _) = block.split_at(4);
    frame(&mut out, Kind::Headers, 0, stream, first);
    session.wire.attacker.tally.requests(1);
    session.send(&out, 1).await?;
    // The rest of the path, a letter in each frame.
    out.clear();
    frame(&mut out, Kind::Continuation, 0, stream, b"a");
    drip(&mut session, &out, 1).await
}

async fn drip(session: &mut Session, frames: &[u8], count: u64) -> io::Result<()> {
    let mut every = tokio::time::interval(BYTE_EVERY);
    loop {
        tokio::select! {
            heard = session.listen() => heard?,
            _ = every.tick() => session.send(frames, count).await?,
        }
    }
}

/// A body that comes a byte a second, of a tenant that may send.
pub(super) async fn body(mut wire: Wire) -> io::Result<()> {
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: edge\r\nauthorization: Bearer {}\r\n\
         content-type: application/x-protobuf\r\ncontent-length: 65536\r\n\r\n",
        wire.attacker.key
    );
    wire.attacker.tally.requests(1);
    wire.send(head.as_bytes()).await?;
    wire.drip(b"\n", BYTE_EVERY).await
}

/// Many such bodies on one connection of HTTP/2.
pub(super) async fn bodies(wire: Wire) -> io::Result<()> {
    let mut session = Session::open(wire, &[]).await?;
    let mut out = Vec::new();
    for _ in 0..STREAMS {
        let stream = session.open_export().await?;
        frame(&mut out, Kind::Data, 0, stream, b"\n");
    }
    drip(&mut session, &out, u64::from(STREAMS)).await
}

/// Requests one after the other, and no answer read.
pub(super) async fn unread(mut wire: Wire) -> io::Result<()> {
    let request = b"GET /nothing HTTP/1.1\r\nhost: edge\r\n\r\n".repeat(100);
    for _ in 0..UNREAD / 100 {
        wire.send(&request).await?;
        wire.attacker.tally.requests(100);
    }
    std::future::pending().await
}

/// Answers asked for, and no room given to them.
pub(super) async fn window(wire: Wire) -> io::Result<()> {
    let mut session = Session::open(wire, &setting(INITIAL_WINDOW_SIZE, 0)).await?;
    let block = export("Bearer nobody");
    let mut out = Vec::new();
    for _ in 0..STREAMS {
        session.request(&mut out, true, &block)?;
    }
    session.send(&out, u64::from(STREAMS)).await?;
    // A sign of life that gives nothing.
    let mut ping = Vec::new();
    frame(&mut ping, Kind::Ping, 0, 0, &[0; 8]);
    drip(&mut session, &ping, 1).await
}
