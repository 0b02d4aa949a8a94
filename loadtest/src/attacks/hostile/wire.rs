//! One connection of an attacker: from an address of its choice, counted in and out, with what it sends counted too.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::OwnedSemaphorePermit;

use super::Attacker;
use crate::generator::answer_head;
use crate::http1::Received;

const READ_BYTES: usize = 4096;

pub(super) struct Wire {
    pub(super) attacker: Rc<Attacker>,
    pub(super) stream: TcpStream,
    received: Received,
    /// Which of the attack's connections it is, those opened in the place of an earlier one included.
    pub(super) number: u64,
    /// Others wait to be opened until this one was answered.
    pub(super) arriving: Option<OwnedSemaphorePermit>,
}

impl Wire {
    /// Connects from the address whose turn it is. A connection that the attacker closes is reset, so that it leaves no trace in
    /// the ports of this machine.
    pub(super) async fn connect(attacker: &Rc<Attacker>) -> io::Result<Self> {
        let number = attacker.next_number();
        let socket = TcpSocket::new_v4()?;
        let address = number % u64::from(attacker.attack.addresses);
        socket.bind(source(attacker.attack.place(), address))?;
        socket.set_zero_linger()?;
        let stream = socket.connect(attacker.target).await?;
        stream.set_nodelay(true)?;
        attacker.tally.connected();
        Ok(Self {
            attacker: Rc::clone(attacker),
            stream,
            received: Received::new(READ_BYTES),
            number,
            arriving: None,
        })
    }

    /// Sends all of it, reading nothing meanwhile.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.attacker.tally.bytes(bytes.len());
        Ok(())
    }

    /// Sends one request of HTTP/1.1 and reads its answer whole. An error where the edge closes then.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> io::Result<()> {
        self.attacker.tally.requests(1);
        // The answer may be there although not all of the request was taken.
        let sent = self.send(request).await;
        match self.answer().await {
            Ok(()) => sent,
            Err(error) => Err(sent.err().unwrap_or(error)),
        }
    }

    /// Reads one answer of HTTP/1.1 whole.
    pub(super) async fn answer(&mut self) -> io::Result<()> {
        let answer = answer_head(&mut self.received, &mut self.stream).await?;
        self.attacker.tally.answer(format!("{}", answer.content));
        let skipped = self.received.skip_body(&mut self.stream, answer.framing);
        skipped.await?;
        if answer.keep_alive {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    /// Sends `piece` again and again with a pause of `every`, until the edge has enough of it.
    pub(super) async fn drip(&mut self, piece: &[u8], every: Duration) -> io::Result<()> {
        loop {
            self.hold(every).await?;
            self.send(piece).await?;
        }
    }

    /// Waits for `time`; an error when the edge ends the connection before. What it says is read away.
    pub(super) async fn hold(&mut self, time: Duration) -> io::Result<()> {
        let mut some = [0; 512];
        let ended = async {
            loop {
                match self.stream.read(&mut some).await {
                    Ok(0) => return io::Error::from(io::ErrorKind::UnexpectedEof),
                    Ok(read) => self.note_status(some.get(..read).unwrap_or_default()),
                    Err(error) => return error,
                }
            }
        };
        match tokio::time::timeout(time, ended).await {
            Ok(error) => Err(error),
            Err(_) => Ok(()),
        }
    }

    /// Reads what is there; an error when the edge has ended the connection.
    pub(super) fn look(&mut self) -> io::Result<()> {
        let mut some = [0; 512];
        loop {
            match self.stream.try_read(&mut some) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.note_status(some.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn note_status(&self, read: &[u8]) {
        if let Some(status) = status(read) {
            self.attacker.tally.answer(status.to_string());
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.attacker.tally.disconnected();
    }
}

/// The status in the first bytes of an answer of HTTP/1.1.
pub(super) fn status(answer: &[u8]) -> Option<u16> {
    let digits = answer.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    str::from_utf8(digits).ok()?.parse().ok()
}

/// All of 127.0.0.0/8 is this machine. Each attack has a corner of its own, where nothing is held against it from before, far from
/// 127.0.0.1 of the good tenant.
fn source(attack: u8, number: u64) -> SocketAddr {
    let [.., high, low] = number.to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 64 + attack, high, low)), 0)
}
