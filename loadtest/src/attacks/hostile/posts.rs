//! Bodies of 64 MiB from somebody without a key: how much of one has the edge taken when it says no?
//!
//! Two kinds take turns. The patient one sends a piece, then waits long enough for an answer: what it has sent when the answer comes is
//! the most that can have been read, whatever lies in between. The greedy one sends as fast as it can; of what it got rid of by the
//! time of the answer, what the kernel says is unread is taken off: unsent or unacknowledged on this side (`tx_queue` of
//! `/proc/net/tcp`), received but not yet read on the other (`rx_queue`). An edge that closes at once takes its socket out of
//! that list, so that over HTTP/1.1 the greedy figure includes what lay in buffers.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::frames::{Kind, PAYLOAD_BYTES_MAX, frame, request};
use super::guesses::fresh_key;
use super::session::Session;
use super::tally::raise;
use super::wire::{Wire, status};

const BODY: u64 = 64 << 20;
const PATIENT_PIECE: usize = 4 << 10;
const GREEDY_PIECE: usize = 64 << 10;
/// How long a patient one waits for an answer before it sends on.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long it waits when the windows are full.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
static ZEROS: [u8; GREEDY_PIECE] = [0; GREEDY_PIECE];

fn head(framing: &str) -> io::Result<String> {
    Ok(format!(
        "POST /v1/traces HTTP/1.1\r\nhost: edge\r\nauthorization: Bearer {}\r\n\
         content-type: application/x-protobuf\r\n{framing}\r\n",
        fresh_key()?
    ))
}

pub(super) async fn length(wire: Wire) -> io::Result<()> {
    http1(wire, &format!("content-length: {BODY}\r\n"), false).await
}

pub(super) async fn expect(wire: Wire) -> io::Result<()> {
    let framing = format!("expect: 100-continue\r\ncontent-length: {BODY}\r\n");
    http1(wire, &framing, false).await
}

pub(super) async fn chunked(wire: Wire) -> io::Result<()> {
    http1(wire, "transfer-encoding: chunked\r\n", true).await
}

async fn http1(mut wire: Wire, framing: &str, chunked: bool) -> io::Result<()> {
    wire.attacker.turn().await;
    wire.attacker.tally.requests(1);
    wire.send(head(framing)?.as_bytes()).await?;
    let patient = wire.number.is_multiple_of(2);
    let size = if patient { PATIENT_PIECE } else { GREEDY_PIECE };
    let piece = piece(size, chunked);
    let mut sent = 0;
    while sent < BODY {
        if patient {
            let answered = tokio::time::timeout(PATIENCE, wire.stream.readable()).await;
            if answered.is_ok() {
                break;
            }
        }
        let (written, goes_on) = write_until_answered(&mut wire, &piece).await;
        sent += written.min(size) as u64;
        if !goes_on {
            break;
        }
    }
    let taken = sent.saturating_sub(unread(&wire.stream)?);
    let mut answer = [0; 512];
    let read = wire.stream.read(&mut answer).await?;
    let status = status(answer.get(..read).unwrap_or_default())
        .ok_or_else(|| io::Error::other("closed without an answer"))?;
    wire.attacker.tally.answer(status.to_string());
    let rest = rest(&mut wire, &piece).await;
    wire.attacker
        .tally
        .bytes(usize::try_from(sent + rest).unwrap_or(usize::MAX));
    wire.attacker.tally.post(|posts| {
        posts.answered += 1;
        let most = if patient {
            &mut posts.patient_bytes_max
        } else {
            &mut posts.greedy_bytes_max
        };
        raise(most, taken);
        raise(&mut posts.sent_bytes_max, sent + rest);
    });
    Ok(())
}

fn piece(size: usize, chunked: bool) -> Bytes {
    let zeros = ZEROS.get(..size).unwrap_or(&ZEROS);
    if !chunked {
        return Bytes::from_static(zeros);
    }
    let head = format!("{size:x}\r\n");
    Bytes::from([head.as_bytes(), zeros, b"\r\n"].concat())
}

/// Writes a piece: how much of it went, and whether more can. It cannot when there is an answer, or when the connection was
/// reset: the answer may have come before that.
async fn write_until_answered(wire: &mut Wire, piece: &[u8]) -> (usize, bool) {
    let mut written = 0;
    while let Some(rest) = piece.get(written..).filter(|rest| !rest.is_empty()) {
        // A look that takes nothing: the answer is read when the queues have been.
        let mut first = [0];
        let answered = wire.stream.peek(&mut first);
        tokio::select! {
            biased;
            _ = answered => return (written, false),
            _ = wire.stream.writable() => {}
        }
        match wire.stream.try_write(rest) {
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return (written, false),
        }
    }
    (written, true)
}

/// Sends on as though there had been no answer: how much more was taken.
async fn rest(wire: &mut Wire, piece: &[u8]) -> u64 {
    let mut sent = 0;
    while sent < BODY {
        let writable = tokio::time::timeout(Duration::from_secs(3), wire.stream.writable());
        if !matches!(writable.await, Ok(Ok(()))) {
            break;
        }
        match wire.stream.try_write(piece) {
            Ok(written) => sent += written as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
        tokio::task::yield_now().await;
    }
    sent
}

/// Over HTTP/2, within the windows that the edge gives.
pub(super) async fn http2(wire: Wire) -> io::Result<()> {
    wire.attacker.turn().await;
    let patient = wire.number.is_multiple_of(2);
    let mut session = Session::open(wire, &[]).await?;
    let credential = format!("Bearer {}", fresh_key()?);
    let block = request(
        "/v1/traces",
        &[
            ("content-type", "application/x-protobuf"),
            ("content-length", &BODY.to_string()),
            ("authorization", &credential),
        ],
    );
    let mut out = Vec::new();
    let stream = session.request(&mut out, false, &block)?;
    session.send(&out, 1).await?;
    let size = if patient {
        PATIENT_PIECE
    } else {
        PAYLOAD_BYTES_MAX
    };
    let mut piece = Vec::new();
    frame(
        &mut piece,
        Kind::Data,
        0,
        stream,
        ZEROS.get(..size).unwrap_or(&ZEROS),
    );
    let mut sent = 0;
    while session.answers == 0 && sent < BODY {
        let room = session.stream_window.min(session.connection_window);
        let full = room < i64::try_from(size).unwrap_or_default();
        if full || patient {
            let wait = if full { ANSWER_WITHIN } else { PATIENCE };
            match tokio::time::timeout(wait, session.listen()).await {
                Ok(heard) => heard?,
                Err(_) if full => break,
                Err(_) => {}
            }
            if full || session.answers > 0 {
                continue;
            }
        }
        session.take_room(size).await?;
        session.send(&piece, 1).await?;
        sent += size as u64;
    }
    let taken = sent.saturating_sub(unread(&session.wire.stream)?);
    session.wire.attacker.tally.post(|posts| {
        posts.answered += u64::from(session.answers > 0);
        let most = if patient {
            &mut posts.patient_bytes_max
        } else {
            &mut posts.greedy_bytes_max
        };
        raise(most, taken);
        raise(&mut posts.sent_bytes_max, sent);
    });
    Ok(())
}

/// Bytes on their way from this end of the connection to the other program: not acknowledged, or received and not read.
fn unread(stream: &TcpStream) -> io::Result<u64> {
    let table = fs::read_to_string("/proc/net/tcp")?;
    let (here, there) = (stream.local_addr()?, stream.peer_addr());
    // The edge may have reset the connection by now.
    let Ok(there) = there else { return Ok(0) };
    Ok(in_flight(&table, here, there))
}

fn in_flight(table: &str, here: SocketAddr, there: SocketAddr) -> u64 {
    let (Some(here), Some(there)) = (hex(here), hex(there)) else {
        return 0;
    };
    let mut bytes = 0;
    for line in table.lines() {
        let fields: Vec<_> = line.split_whitespace().take(5).collect();
        let [_, local, remote, _, queues] = fields.as_slice() else {
            continue;
        };
        let Some((unsent, received)) = queues.split_once(':') else {
            continue;
        };
        let number = |hex| u64::from_str_radix(hex, 16).unwrap_or_default();
        if *local == here && *remote == there {
            bytes += number(unsent);
        } else if *local == there && *remote == here {
            bytes += number(received);
        }
    }
    bytes
}

/// An address as the kernel prints it: the bytes of the IP as a number of this machine, the port as people write it.
fn hex(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else {
        return None;
    };
    let ip = u32::from_ne_bytes(address.ip().octets());
    Some(format!("{ip:08X}:{:04X}", address.port()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_nobody_has_read_is_seen_in_the_kernels_table() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_accepted, _) = listener.accept().unwrap();
        (&stream).write_all(&[0; 5000]).unwrap();
        stream.set_nonblocking(true).unwrap();
        let stream = TcpStream::from_std(stream).unwrap();
        assert_eq!(unread(&stream).unwrap(), 5000);
    }
}
