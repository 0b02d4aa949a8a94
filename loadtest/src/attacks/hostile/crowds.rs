//! Connections for their own sake: many that do nothing, and many that come and go.

use std::io;
use std::time::Duration;

use super::session::{Session, export};
use super::wire::Wire;

/// Longer than any run.
const FOREVER: Duration = Duration::from_hours(1);

pub(super) async fn http1(mut wire: Wire) -> io::Result<()> {
    let request = request(&wire.attacker.key);
    wire.exchange(request.as_bytes()).await?;
    drop(wire.arriving.take());
    wire.hold(FOREVER).await
}

/// An export without anything in it.
pub(super) fn request(key: &str) -> String {
    format!(
        "POST /v1/traces HTTP/1.1\r\nhost: edge\r\nauthorization: Bearer {key}\r\n\
         content-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n"
    )
}

pub(super) async fn http2(wire: Wire) -> io::Result<()> {
    let credential = format!("Bearer {}", wire.attacker.key);
    let mut session = Session::open(wire, &[]).await?;
    let mut out = Vec::new();
    session.request(&mut out, true, &export(&credential))?;
    session.send(&out, 1).await?;
    loop {
        session.listen().await?;
        if session.answers > 0 {
            drop(session.wire.arriving.take());
        }
    }
}

/// A third says nothing at all, a third has had one answer over HTTP/1.1, a third has said hello over HTTP/2.
pub(super) async fn idle(mut wire: Wire) -> io::Result<()> {
    match wire.number % 3 {
        0 => wire.hold(FOREVER).await,
        1 => {
            wire.exchange(b"GET /nothing HTTP/1.1\r\nhost: edge\r\n\r\n")
                .await?;
            wire.hold(FOREVER).await
        }
        _ => {
            let mut session = Session::open(wire, &[]).await?;
            loop {
                session.listen().await?;
            }
        }
    }
}

/// Opened, and reset.
pub(super) async fn churn(wire: Wire) -> io::Result<()> {
    drop(wire);
    Ok(())
}
