//! What HTTP/1.1 leaves to be abused within a connection: chunks, what may be written beside them, and lines of nothing.

use std::io;

use super::wire::Wire;

/// Bytes written at once.
const BATCH: usize = 16 * 1024;

/// Sends `head`, then `piece` again and again, for as long as it is taken.
async fn endless(mut wire: Wire, head: &str, piece: &[u8]) -> io::Result<()> {
    let batch = piece.repeat(BATCH / piece.len());
    if !head.is_empty() {
        wire.attacker.tally.requests(1);
        wire.send(head.as_bytes()).await?;
    }
    loop {
        // Whatever is there to be read is read, so that an answer ends it.
        wire.look()?;
        wire.send(&batch).await?;
        tokio::task::yield_now().await;
    }
}

fn chunked(wire: &Wire) -> String {
    format!(
        "POST /v1/traces HTTP/1.1\r\nhost: edge\r\nauthorization: Bearer {}\r\n\
         content-type: application/x-protobuf\r\ntransfer-encoding: chunked\r\n\r\n",
        wire.attacker.key
    )
}

/// A body of a tenant in chunks of a byte.
pub(super) async fn tiny_chunks(wire: Wire) -> io::Result<()> {
    let head = chunked(&wire);
    endless(wire, &head, b"1\r\na\r\n").await
}

/// A chunk's extension that never ends.
pub(super) async fn chunk_extension(wire: Wire) -> io::Result<()> {
    let head = chunked(&wire) + "1;";
    endless(wire, &head, b"x=y;").await
}

/// Trailers that never end.
pub(super) async fn trailers(wire: Wire) -> io::Result<()> {
    let head = chunked(&wire) + "0\r\n";
    endless(wire, &head, b"x: y\r\n").await
}

/// Empty lines, which a server should skip before a request (RFC 9112 section 2.2).
pub(super) async fn empty_lines(wire: Wire) -> io::Result<()> {
    endless(wire, "", b"\r\n").await
}
