//! Certificates by which an authority sees that a name leads here (TLS-ALPN-01, RFC 8737). Decides which connection is such a look,
//! and what it is shown; which names are to be proven, and when, is for `acme`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::{ClientHello, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

/// What such a connection speaks, and nothing else.
const PROTOCOL: &[u8] = b"acme-tls/1";
/// SHA-256.
const DIGEST_BYTES: usize = 32;

/// Why a certificate for a challenge could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChallengeError {
    #[error("the authority's digest is not one of SHA-256")]
    Digest,
    #[error(transparent)]
    Certificate(#[from] rcgen::Error),
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// What is shown while names are being proven, by name. Usually empty.
#[derive(Default)]
pub(crate) struct Challenges(Mutex<HashMap<String, Arc<ServerConfig>>>);

/// A name that is being proven; dropping it ends that.
pub(crate) struct Answering {
    challenges: Arc<Challenges>,
    name: String,
}

impl Challenges {
    /// Shows whoever looks for `name` that the one who has been given `digest` can be reached there.
    pub(crate) fn answer(
        self: &Arc<Self>,
        name: &str,
        digest: &[u8],
    ) -> Result<Answering, ChallengeError> {
        if digest.len() != DIGEST_BYTES {
            return Err(ChallengeError::Digest);
        }
        let mut params = CertificateParams::new([name.to_owned()])?;
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let provider = Arc::new(default_provider());
        // Not looked into: what makes it an answer is an extension that nobody else may accept.
        let key = provider.key_provider.load_private_key(key.into())?;
        let shown = CertifiedKey::new(vec![certificate.der().clone()], key);
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        self.by_name().insert(name.to_owned(), Arc::new(config));
        Ok(Answering {
            challenges: Arc::clone(self),
            name: name.to_owned(),
        })
    }

    /// How to speak with an authority that looks for a name that is being proven; `None` for everybody else.
    pub(super) fn looked_for(&self, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        let mut offered = hello.alpn()?;
        if offered.next() != Some(PROTOCOL) || offered.next().is_some() {
            return None;
        }
        let name = hello.server_name()?.to_ascii_lowercase();
        self.by_name().get(&name).map(Arc::clone)
    }

    fn by_name(&self) -> MutexGuard<'_, HashMap<String, Arc<ServerConfig>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.challenges.by_name().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;
    use rustls::server::Acceptor;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    /// Whether somebody who says hello like this is shown what an authority is.
    fn is_shown(challenges: &Challenges, name: &str, protocols: &[&[u8]]) -> bool {
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        let mut acceptor = Acceptor::default();
        acceptor.read_tls(&mut hello.as_slice()).unwrap();
        let accepted = acceptor.accept().unwrap().expect("a whole hello");
        challenges.looked_for(&accepted.client_hello()).is_some()
    }

    #[test]
    fn only_an_authority_that_looks_for_a_name_that_is_being_proven_is_shown_so() {
        let challenges = Arc::new(Challenges::default());
        assert!(!is_shown(&challenges, "a.example.com", &[PROTOCOL]));
        let answering = challenges.answer("a.example.com", &[7; 32]).unwrap();
        assert!(is_shown(&challenges, "a.example.com", &[PROTOCOL]));
        assert!(is_shown(&challenges, "A.example.com", &[PROTOCOL]));
        for (name, protocols) in [
            ("b.example.com", &[PROTOCOL][..]),
            ("a.example.com", &[]),
            ("a.example.com", &[b"h2", b"http/1.1"]),
            ("a.example.com", &[PROTOCOL, b"h2"]),
            ("a.example.com", &[b"h2", PROTOCOL]),
        ] {
            assert!(!is_shown(&challenges, name, protocols), "{protocols:?}");
        }
        drop(answering);
        assert!(!is_shown(&challenges, "a.example.com", &[PROTOCOL]));
        assert!(challenges.answer("a.example.com", &[7; 20]).is_err());
    }
}
