//! `[listeners.X.tls]`: TLS on a port for senders. The files themselves are read when the configuration is put in force.

use std::path::PathBuf;

use ops::config::Section;

use super::AcmeSettings;

/// TLS on one listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsSettings {
    pub(crate) sources: CertificateSources,
    pub(crate) clients: Option<ClientCertificates>,
    pub(crate) min_version: MinVersion,
    /// Whether an authority may look here for the names that are to be proven.
    pub(crate) acme: bool,
}

/// Where a listener's certificates come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CertificateSources {
    pub(crate) pairs: Vec<PairFiles>,
    pub(crate) folders: Vec<PathBuf>,
}

/// A certificate with its chain, and its private key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PairFiles {
    pub(crate) certificate: PathBuf,
    /// May be the same file.
    pub(crate) key: PathBuf,
}

/// What a client has to show, besides the key of its requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientCertificates {
    pub(crate) ca_file: PathBuf,
    pub(crate) auth: ClientAuth,
}

/// Whether a client has to have a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientAuth {
    Required,
    /// One that is shown must be good.
    Optional,
}

/// The oldest version of TLS that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MinVersion {
    Tls12,
    Tls13,
}

/// TLS of the listener whose section this is, if it has any.
pub(super) fn tls(listener: &Section<'_>, acme: Option<&AcmeSettings>) -> Option<TlsSettings> {
    let section = listener.section("tls");
    let pairs: Vec<_> = section
        .sections("certificates")
        .iter()
        .filter_map(pair)
        .collect();
    let mut folders = paths(&section, "certificate_folders");
    let uses_acme = section.or("acme", false);
    if uses_acme {
        folders.extend(acme.map(|acme| acme.folder.clone()));
    }
    let ca_file: Option<String> = section.optional("client_ca_file");
    let auth = [
        ("required", ClientAuth::Required),
        ("optional", ClientAuth::Optional),
    ];
    let auth = section.choice("client_auth", &auth, ClientAuth::Required);
    if ca_file.is_none() && section.optional::<String>("client_auth").is_some() {
        let fix = "needs client_ca_file, the authority that client certificates are from";
        section.problem("client_auth", fix);
    }
    let versions = [("1.2", MinVersion::Tls12), ("1.3", MinVersion::Tls13)];
    let min_version = section.choice("min_version", &versions, MinVersion::Tls12);
    section.finish();
    if !section.exists() {
        return None;
    }
    if pairs.is_empty() && folders.is_empty() && !uses_acme {
        section.problem(
            "certificates",
            "no certificate is set: write certificates = [{ cert_file = \"…\", key_file = \"…\" }], certificate_folders = [\"…\"] or acme = true",
        );
    }
    Some(TlsSettings {
        sources: CertificateSources { pairs, folders },
        clients: ca_file.map(|file| ClientCertificates {
            ca_file: file.into(),
            auth,
        }),
        min_version,
        acme: uses_acme,
    })
}

fn pair(section: &Section<'_>) -> Option<PairFiles> {
    let certificate: Option<String> = section.required(
        "cert_file",
        "write the file with the certificate and its chain",
    );
    let key: Option<String> = section.optional("key_file");
    section.finish();
    let certificate = PathBuf::from(certificate?);
    Some(PairFiles {
        key: key.map_or_else(|| certificate.clone(), PathBuf::from),
        certificate,
    })
}

fn paths(section: &Section<'_>, key: &str) -> Vec<PathBuf> {
    let texts: Vec<String> = section.or(key, Vec::new());
    texts.into_iter().map(PathBuf::from).collect()
}
