//! What comes before HTTP on a connection from a sender. Decides which layers there are, by the listener's settings.

use std::time::Duration;

use tokio::net::TcpStream;
use tracing::info;

use super::Peer;
use super::io::ClientIo;
use super::tls::{self, ListenerTls};
use crate::log_limits::Of;
use crate::metrics::HandshakeFailure;
use crate::worker::Worker;

/// Does what comes before HTTP, within `limit`. `None` where it fails: the connection is over then.
pub(super) async fn open(
    worker: &Worker,
    peer: &Peer,
    stream: TcpStream,
    limit: Duration,
) -> Option<ClientIo> {
    match peer.listener.tls() {
        None => Some(ClientIo::Plain(stream)),
        // Not part of the connection's own future, which lives longer.
        Some(tls) => Box::pin(handshake(worker, peer, &tls, stream, limit)).await,
    }
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
        Ok(Ok(accepted)) => {
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
