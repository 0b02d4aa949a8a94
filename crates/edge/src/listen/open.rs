//! What comes before HTTP on a connection from a sender. Decides which layers there are, by the listener's settings.

use std::time::Duration;

use tokio::net::TcpStream;
use tracing::info;

use super::Peer;
use super::io::ClientIo;
use super::proxy_protocol::{self, Begun};
use super::tls::{self, ListenerTls};
use crate::log_limits::Of;
use crate::metrics::{HandshakeFailure, ProxyProblem};
use crate::worker::Worker;

/// Does what comes before HTTP, each within `limit`. `None` where it fails: the connection is over then. Where a proxy tells whom
/// the connection is from, `peer` is that sender afterwards.
pub(super) async fn open(
    worker: &Worker,
    peer: &mut Peer,
    mut stream: TcpStream,
    limit: Duration,
) -> Option<ClientIo> {
    // Boxed so that they are not part of the connection's own future, which lives longer.
    if peer.listener.settings().proxy_protocol {
        Box::pin(proxy_header(worker, peer, &mut stream, limit)).await?;
    }
    match peer.listener.tls() {
        None => Some(ClientIo::Plain(stream)),
        Some(tls) => Box::pin(handshake(worker, peer, &tls, stream, limit)).await,
    }
}

async fn proxy_header(
    worker: &Worker,
    peer: &mut Peer,
    stream: &mut TcpStream,
    limit: Duration,
) -> Option<()> {
    let metrics = &worker.metrics;
    let reading = tokio::time::timeout(limit, proxy_protocol::read(peer, stream));
    let (problem, reason) = match reading.await {
        Ok(Ok(Begun::Ended)) => {
            metrics.connections.silent.increment(1);
            return None;
        }
        Ok(Ok(Begun::From(source))) => {
            if let Some(source) = source {
                peer.address = source;
            }
            if !peer.listener.settings().trusted.contains(peer.address.ip())
                && let Err(full) = peer.seat.is_of(peer.address.ip())
            {
                metrics.connections.closed(full.into());
                return None;
            }
            return Some(());
        }
        Ok(Err(refused)) => (refused.problem, refused.reason),
        Err(_) => (ProxyProblem::Timeout, "it took too long".to_owned()),
    };
    metrics.tls.proxy_problem(problem);
    if worker.may_log(Of::Address(peer.address.ip()), problem.as_str()) {
        let (listener, problem) = (&peer.listener.name, problem.as_str());
        info!(peer = %peer.address, listener, problem, reason, "a connection without a good PROXY header was refused");
    }
    None
}

async fn handshake(
    worker: &Worker,
    peer: &Peer,
    tls: &ListenerTls,
    stream: TcpStream,
    limit: Duration,
) -> Option<ClientIo> {
    let metrics = &worker.metrics.tls;
    let (reason, error) = match tokio::time::timeout(limit, tls::accept(tls, stream)).await {
        Ok(Ok(None)) => return None,
        Ok(Ok(Some(accepted))) => {
            metrics.handshake(accepted.is_tls13, accepted.resumed);
            return Some(ClientIo::tls(accepted.stream));
        }
        Ok(Err(failed)) => (failed.reason, failed.error.to_string()),
        Err(_) => (HandshakeFailure::Timeout, "it took too long".to_owned()),
    };
    metrics.failure(reason);
    // Port scanners and health checks go away like this all day long.
    if reason != HandshakeFailure::Closed
        && worker.may_log(Of::Address(peer.address.ip()), reason.as_str())
    {
        let listener = &peer.listener.name;
        info!(peer = %peer.address, listener, reason = reason.as_str(), error, "a TLS handshake failed");
    }
    None
}
