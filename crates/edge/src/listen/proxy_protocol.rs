//! The header that a proxy puts before a connection it passes on. Decides whether a connection may begin so; the header itself
//! is for `wire` to read.

use std::io;
use std::net::SocketAddr;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use wire::proxy_protocol::{BadHeader, Parsed, parse};

use super::Peer;
use crate::metrics::ProxyProblem;

/// A connection that cannot be served.
pub(super) struct Refused {
    pub(super) problem: ProxyProblem,
    pub(super) reason: String,
}

impl Refused {
    fn new(problem: ProxyProblem, reason: &impl ToString) -> Self {
        Self {
            problem,
            reason: reason.to_string(),
        }
    }
}

/// How a connection began.
pub(super) enum Begun {
    /// With a header: whom it is from, if that says so.
    From(Option<SocketAddr>),
    /// Not at all, as health checks do.
    Ended,
}

/// Reads the header, and not a byte after it.
///
/// # Errors
/// When the peer is nobody to believe, or sends no header.
pub(super) async fn read(peer: &Peer, stream: &mut TcpStream) -> Result<Begun, Refused> {
    if !peer.listener.settings().trusted.contains(peer.address.ip()) {
        let reason = "only addresses in proxies.trusted may connect to this listener";
        return Err(Refused::new(ProxyProblem::Untrusted, &reason));
    }
    let mut header = Vec::with_capacity(128);
    loop {
        let more = match parse(&header) {
            Ok(Parsed::Whole(header)) => return Ok(Begun::From(header.source)),
            Ok(Parsed::More(more)) => more.get(),
            Err(bad @ BadHeader::Missing) => {
                return Err(Refused::new(ProxyProblem::Missing, &bad));
            }
            Err(bad @ BadHeader::Malformed(_)) => {
                return Err(Refused::new(ProxyProblem::Malformed, &bad));
            }
        };
        let mut rest = (&mut *stream).take(more as u64);
        let read = rest.read_buf(&mut header).await;
        if read.as_ref().map_or(0, |n| *n) == 0 {
            if header.is_empty() {
                return Ok(Begun::Ended);
            }
            let closed = read.err().unwrap_or(io::ErrorKind::UnexpectedEof.into());
            return Err(Refused::new(ProxyProblem::Closed, &closed));
        }
    }
}
