//! An authority that issues certificates, and the files they are kept in.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SerialNumber,
};
use time::OffsetDateTime;

/// A root authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, in PEM.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate and its issuer.
    pub chain: String,
    /// Its private key.
    pub key: String,
    /// The certificate itself, in DER.
    pub der: Vec<u8>,
    /// Which of all that were issued here it is.
    pub serial: u64,
}

/// Two files.
#[derive(Debug, Clone)]
pub struct Pair {
    /// `NAME.crt`
    pub certificate: PathBuf,
    /// `NAME.key`
    pub key: PathBuf,
}

const DAY: Duration = Duration::from_hours(24);

impl Authority {
    /// A new one of that name.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = made("a key", KeyPair::generate());
        Self(made(
            "an authority",
            CertifiedIssuer::self_signed(params, key),
        ))
    }

    /// Its own certificate, for those who trust it.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// The same in DER.
    pub fn der(&self) -> Vec<u8> {
        self.0.der().to_vec()
    }

    /// A certificate for `names`, good for servers and clients, for a month from yesterday on.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_until(names, OffsetDateTime::now_utc() + 30 * DAY)
    }

    /// As `issue`, with another end.
    pub fn issue_until(&self, names: &[&str], not_after: OffsetDateTime) -> Issued {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = made("host names", CertificateParams::new(names));
        params.distinguished_name.push(DnType::CommonName, "leaf");
        params.serial_number = Some(SerialNumber::from(serial));
        params.not_before = not_after.min(OffsetDateTime::now_utc()) - DAY;
        params.not_after = not_after;
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = made("a key", KeyPair::generate());
        let leaf = made("a certificate", params.signed_by(&key, &self.0));
        Issued {
            chain: format!("{}{}", leaf.pem(), self.pem()),
            key: key.serialize_pem(),
            der: leaf.der().to_vec(),
            serial,
        }
    }
}

impl Issued {
    /// Puts both into a folder as `NAME.crt` and `NAME.key`, each at once whole in place of what is there: the key first.
    pub fn write(&self, folder: &Path, name: &str) -> Pair {
        let pair = Pair {
            certificate: folder.join(format!("{name}.crt")),
            key: folder.join(format!("{name}.key")),
        };
        made("a folder", fs::create_dir_all(folder));
        for (file, text) in [(&pair.key, &self.key), (&pair.certificate, &self.chain)] {
            let new = file.with_extension("new");
            made("a file", fs::write(&new, text));
            made("a file", fs::rename(&new, file));
        }
        pair
    }
}

fn made<T, E: Display>(what: &str, result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{what}: {error}"))
}
