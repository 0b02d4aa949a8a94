//! What rustls is told about connections from senders: versions, protocols, tickets, and whom it asks for a certificate.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::by_name::{ByName, Resolver};
use super::files::read_small;
use crate::config::{ClientAuth, ClientCertificates, MinVersion};

/// Reads the authorities that client certificates may be from.
pub(super) fn read_authorities(file: &Path) -> Result<RootCertStore, String> {
    let named = |reason: String| format!("{}: {reason}", file.display());
    let text = read_small(file).map_err(named)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| named(format!("is not PEM: {error}")))?;
        roots
            .add(certificate)
            .map_err(|error| named(format!("has a bad certificate: {error}")))?;
    }
    if roots.is_empty() {
        return Err(named("has no certificate in PEM in it".to_owned()));
    }
    Ok(roots)
}

/// The settings of a listener's connections. Whom a ticket was given after showing a certificate, is not asked for one again:
/// so tickets of listeners that ask for certificates, and those of other authorities, must not be taken here. `tickets` are
/// for listeners that ask for none.
pub(super) fn config(
    certificates: &Arc<ArcSwap<ByName>>,
    clients: Option<(&ClientCertificates, RootCertStore)>,
    min_version: MinVersion,
    tickets: &Arc<dyn ProducesTickets>,
) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(default_provider());
    let versions: &[&SupportedProtocolVersion] = match min_version {
        MinVersion::Tls12 => &[&TLS13, &TLS12],
        MinVersion::Tls13 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)?;
    let (builder, tickets) = match clients {
        None => (builder.with_no_client_auth(), Arc::clone(tickets)),
        Some((clients, authorities)) => {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider);
            let verifier = match clients.auth {
                ClientAuth::Required => verifier,
                ClientAuth::Optional => verifier.allow_unauthenticated(),
            };
            let verifier = verifier
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
            (
                builder.with_client_cert_verifier(verifier),
                Ticketer::new()?,
            )
        }
    };
    let resolver = Resolver(Arc::clone(certificates));
    let mut config = builder.with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = tickets;
    // Tickets need no memory here.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}
