//! The certificates of a listener: those its settings name, and those that are in its folders now. Decides in which order they
//! go before each other.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tracing::warn;

use super::by_name::ByName;
use super::files::{self, Certificate};
use super::shelf::{Shelf, When};
use crate::config::{CertificateSources, PairFiles};

/// What some sources have. Listeners with the same sources share it.
pub(super) struct Certificates {
    pub(super) sources: CertificateSources,
    pub(super) current: Arc<ArcSwap<ByName>>,
    folders: Mutex<HashMap<PathBuf, Folder>>,
}

/// A folder as it was last seen.
#[derive(Default)]
struct Folder {
    pairs: Vec<PairFiles>,
    /// What was told of it.
    told: String,
}

/// What is wrong with sources: what stands in the way of using them at all, and what does not.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Certificates {
    /// None yet.
    pub(super) fn new(sources: CertificateSources) -> Self {
        Self {
            sources,
            current: Arc::default(),
            folders: Mutex::default(),
        }
    }

    /// Reads what has changed. What cannot be read now stays as it was.
    pub(super) fn refresh(&self, held: &mut Shelf, when: When) -> Findings {
        let mut findings = Findings::default();
        let mut all = Vec::new();
        for (n, pair) in self.sources.pairs.iter().enumerate() {
            match held.read(pair, when) {
                Ok(certificate) => all.extend(certificate),
                Err(unread) => findings
                    .problems
                    .push(format!("certificates[{n}]: {}", unread.error)),
            }
        }
        let mut found = Vec::new();
        for folder in &self.sources.folders {
            self.read_folder(folder, held, when, &mut found, &mut findings);
        }
        // Where a name has several, as when Caddy took another authority, the one that lasts longest goes first.
        found.sort_by_key(|certificate: &Arc<Certificate>| Reverse(certificate.not_after));
        all.extend(found);
        let before = self.current.load();
        let same = before.all.len() == all.len()
            && before.all.iter().zip(&all).all(|(a, b)| Arc::ptr_eq(a, b));
        if !same {
            self.current.store(Arc::new(ByName::new(all)));
        }
        findings
    }

    fn read_folder(
        &self,
        path: &Path,
        held: &mut Shelf,
        when: When,
        found: &mut Vec<Arc<Certificate>>,
        findings: &mut Findings,
    ) {
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = folders.entry(path.to_owned()).or_default();
        match files::pairs_in(path) {
            Ok(pairs) => {
                folder.pairs = pairs;
                folder.told.clear();
            }
            Err(error) => {
                let error = error.to_string();
                if folder.told != error {
                    warn!(
                        error,
                        "a folder with certificates was not read, what was found in it stays in use"
                    );
                    folder.told.clone_from(&error);
                }
                findings
                    .problems
                    .push(format!("certificate_folders: {error}"));
            }
        }
        for pair in &folder.pairs {
            match held.read(pair, when) {
                Ok(certificate) => found.extend(certificate),
                Err(unread) => {
                    let error = unread.error.to_string();
                    if unread.is_new {
                        warn!(error, "a certificate was not read");
                    }
                    findings
                        .warnings
                        .push(format!("certificate_folders: {error}"));
                }
            }
        }
    }

    /// Whether these files may be read for it.
    pub(super) fn uses(&self, pair: &PairFiles) -> bool {
        let folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        self.sources.pairs.contains(pair)
            || folders.values().any(|folder| folder.pairs.contains(pair))
    }
}
