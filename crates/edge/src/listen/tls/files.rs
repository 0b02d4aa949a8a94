//! Certificates in files: reads a pair, and finds pairs in folders. Decides what a pair is; which one is shown to whom is for
//! `by_name`, and when it is read for `shelf`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::config::PairFiles;

/// Files in one folder, its own folders included. More is a folder of something else.
const ENTRIES_MAX: usize = 20_000;
/// Folders within folders. Caddy has two.
const DEPTH_MAX: usize = 8;
/// The largest file that is read. A chain has some KiB.
const FILE_MAX: u64 = 1 << 20;

/// A certificate that can be shown, and what it says about itself.
pub(crate) struct Certificate {
    pub(crate) files: PairFiles,
    pub(crate) key: Arc<CertifiedKey>,
    /// Host names in lower case, `*.` first where it stands for one label.
    pub(crate) names: Vec<String>,
    not_before: OffsetDateTime,
    pub(crate) not_after: OffsetDateTime,
}

impl Certificate {
    /// When another should be there: a third of its time is left.
    pub(crate) fn renew_at(&self) -> OffsetDateTime {
        self.not_after - (self.not_after - self.not_before) / 3
    }

    /// What is wrong with it, though it can be shown.
    pub(crate) fn trouble(&self, now: OffsetDateTime) -> Option<String> {
        let file = self.files.certificate.display();
        if self.not_after < now {
            Some(format!("{file}: has expired at {}", self.not_after))
        } else if self.not_before > now {
            Some(format!("{file}: is not valid before {}", self.not_before))
        } else {
            None
        }
    }
}

/// Why files are no pair.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", .file.display())]
pub(crate) struct BadPair {
    pub(crate) file: PathBuf,
    reason: String,
}

impl BadPair {
    fn new(file: &Path, reason: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            reason: reason.into(),
        }
    }
}

/// What to do about a file that cannot be opened.
pub(crate) fn unreadable(error: &io::Error) -> String {
    let fix = match error.kind() {
        io::ErrorKind::PermissionDenied => ": let the user that runs the edge read it",
        io::ErrorKind::NotFound => ": is the path right?",
        _ => "",
    };
    format!("cannot be read: {error}{fix}")
}

/// Reads a file that is not larger than any of its kind.
pub(crate) fn read_small(file: &Path) -> Result<Vec<u8>, String> {
    let found = fs::metadata(file).map_err(|error| unreadable(&error))?;
    if found.len() > FILE_MAX {
        return Err("is larger than 1 MiB: is it the right file?".to_owned());
    }
    fs::read(file).map_err(|error| unreadable(&error))
}

/// Reads a pair.
pub(crate) fn load(files: &PairFiles) -> Result<Certificate, BadPair> {
    let PairFiles { certificate, key } = files;
    let in_certificate = |reason: String| BadPair::new(certificate, reason);
    let text = read_small(certificate).map_err(in_certificate)?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| in_certificate(format!("is not PEM: {error}")))?;
    let Some(leaf) = chain.first() else {
        return Err(in_certificate("has no certificate in PEM in it".to_owned()));
    };
    let about = About::read(leaf).map_err(|error| in_certificate(error.to_owned()))?;
    let text = read_small(key).map_err(|reason| BadPair::new(key, reason))?;
    let private = PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        BadPair::new(
            key,
            "has no private key in it that can be used: PEM, not encrypted",
        )
    })?;
    let certified = CertifiedKey::from_der(chain, private, &default_provider());
    let certified = certified.map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            let whose = format!("is not the key of {}", certificate.display());
            BadPair::new(key, whose)
        }
        other => BadPair::new(key, format!("cannot be used: {other}")),
    })?;
    Ok(Certificate {
        files: files.clone(),
        key: Arc::new(certified),
        names: about.names,
        not_before: about.not_before,
        not_after: about.not_after,
    })
}

struct About {
    names: Vec<String>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

impl About {
    fn read(leaf: &CertificateDer<'_>) -> Result<Self, &'static str> {
        let (_, leaf) =
            X509Certificate::from_der(leaf).map_err(|_| "has a certificate that is no X.509")?;
        let alternatives = leaf
            .subject_alternative_name()
            .map_err(|_| "has a certificate with bad names")?;
        let names = alternatives.map_or(&[][..], |names| &names.value.general_names[..]);
        let names = names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        });
        Ok(Self {
            names: names.collect(),
            not_before: leaf.validity().not_before.to_datetime(),
            not_after: leaf.validity().not_after.to_datetime(),
        })
    }
}

/// The pairs `NAME.crt` and `NAME.key` in a folder and the folders in it, in the order of their paths. None where there is no
/// such folder yet. Hidden entries are left out: what Kubernetes mounts has every file once more behind them.
///
/// # Errors
/// When some of it cannot be read.
pub(crate) fn pairs_in(folder: &Path) -> Result<Vec<PairFiles>, BadPair> {
    let mut pairs = Vec::new();
    let mut entries_left = ENTRIES_MAX;
    let mut waiting = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = waiting.pop() {
        let failed = |error: io::Error| BadPair::new(&folder, unreadable(&error));
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            entries_left = entries_left.checked_sub(1).ok_or_else(|| {
                let reason = format!("has more than {ENTRIES_MAX} files: is it the right one?");
                BadPair::new(&folder, reason)
            })?;
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            if name.starts_with(b".") {
                continue;
            }
            if path.extension().is_some_and(|extension| extension == "crt") {
                let key = path.with_extension("key");
                if key.exists() {
                    pairs.push(PairFiles {
                        certificate: path,
                        key,
                    });
                }
            } else if depth < DEPTH_MAX && path.is_dir() {
                waiting.push((path, depth + 1));
            }
        }
    }
    pairs.sort();
    Ok(pairs)
}
