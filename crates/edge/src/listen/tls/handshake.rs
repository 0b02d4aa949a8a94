//! How a connection over TLS begins, and why it does not.

use std::io;

use rustls::server::Acceptor;
use rustls::{Error, HandshakeKind, PeerIncompatible, ProtocolVersion};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::ListenerTls;
use crate::metrics::HandshakeFailure;

/// A handshake that failed.
pub(crate) struct Failed {
    pub(crate) reason: HandshakeFailure,
    pub(crate) error: io::Error,
}

/// A handshake that succeeded.
pub(crate) struct Accepted {
    pub(crate) stream: TlsStream<TcpStream>,
    pub(crate) is_tls13: bool,
    pub(crate) resumed: bool,
}

/// Does the handshake with a client that has connected. May take as long as the client likes. `None` when it was an authority
/// that looked whether a name leads here, and has seen it.
pub(crate) async fn accept(
    tls: &ListenerTls,
    stream: TcpStream,
) -> Result<Option<Accepted>, Failed> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await;
    let start = start.map_err(Failed::of)?;
    let challenges = tls.challenges.as_ref();
    if let Some(shown) = challenges.and_then(|it| it.looked_for(&start.client_hello())) {
        let mut stream = start.into_stream(shown).await.map_err(Failed::of)?;
        // Whether it hears goodbye is its own affair.
        let _ = stream.shutdown().await;
        return Ok(None);
    }
    let has_none = tls.certificates.current.load().all.is_empty();
    let accepting = start.into_stream(tls.config.load_full());
    let stream = accepting.await.map_err(|error| {
        let failed = Failed::of(error);
        if has_none {
            let reason = HandshakeFailure::NoCertificate;
            return Failed { reason, ..failed };
        }
        failed
    })?;
    let session = stream.get_ref().1;
    Ok(Some(Accepted {
        is_tls13: session.protocol_version() == Some(ProtocolVersion::TLSv1_3),
        resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
        stream,
    }))
}

impl Failed {
    fn of(error: io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        let reason = inner.map_or(HandshakeFailure::Closed, reason);
        Self { reason, error }
    }
}

fn reason(error: &Error) -> HandshakeFailure {
    match error {
        Error::InvalidMessage(_) => HandshakeFailure::NotTls,
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        ) => HandshakeFailure::Version,
        Error::PeerIncompatible(_) => HandshakeFailure::Incompatible,
        Error::NoApplicationProtocol => HandshakeFailure::Alpn,
        Error::NoCertificatesPresented | Error::InvalidCertificate(_) => {
            HandshakeFailure::ClientCertificate
        }
        Error::AlertReceived(_) => HandshakeFailure::RefusedByClient,
        _ => HandshakeFailure::Other,
    }
}
