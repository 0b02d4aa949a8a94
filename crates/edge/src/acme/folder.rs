//! What is kept of an authority: `NAME.crt` and `NAME.key` for each name, and `account.json`. Nothing in it is ever half written,
//! and only one process writes it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use instant_acme::AccountCredentials;
use time::OffsetDateTime;

use super::order::Obtained;
use crate::config::{ExternalAccount, PairFiles};
use crate::listen::tls::{load, read_small};

/// Why something could not be kept, or what was kept cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", .file.display())]
pub(crate) struct FolderError {
    file: PathBuf,
    reason: String,
}

impl FolderError {
    fn new(file: &Path, reason: impl std::fmt::Display) -> Self {
        Self {
            file: file.to_owned(),
            reason: reason.to_string(),
        }
    }
}

/// The key of an account elsewhere.
///
/// # Errors
/// What is wrong with its file.
pub(super) fn external_key(account: &ExternalAccount) -> Result<Vec<u8>, String> {
    let file = &account.key_file;
    let named = |reason: String| format!("{}: {reason}", file.display());
    let text = read_small(file).map_err(named)?;
    let text = String::from_utf8_lossy(&text);
    let key = BASE64_URL_SAFE_NO_PAD.decode(text.trim().trim_end_matches('='));
    key.map_err(|_| named("is not the account's key in URL-safe base64".to_owned()))
}

/// Why this process could not write into a folder, which need not exist yet. Nothing is left of the attempt: whoever checks a
/// configuration may be another user than the one who runs the edge.
pub(super) fn unwritable(path: &Path) -> Option<FolderError> {
    let existing = path.ancestors().find(|folder| folder.exists())?;
    let probe = existing.join(format!(".okmon-check-{}", std::process::id()));
    let written = write_whole(&probe, b"");
    let removed = fs::remove_file(&probe);
    let error = match written {
        Err(FolderError { reason, .. }) => reason,
        Ok(()) => removed.err()?.to_string(),
    };
    let fix = "let the user that runs the edge write there";
    Some(FolderError::new(existing, format!("{error}: {fix}")))
}

/// A folder that no other process writes for as long as this lives.
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// `None` while another process has it.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, FolderError> {
        let failed = |error: io::Error| FolderError::new(path, error);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed)?;
        let lock = path.join(".lock");
        let failed = |error: io::Error| FolderError::new(&lock, error);
        let file = File::create(&lock).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self {
                path: path.to_owned(),
                _lock: file,
            })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// In how long the certificate for `name` has to be obtained; 0 when there is none that can be used.
    pub(super) fn due_in(&self, name: &str, now: OffsetDateTime) -> Duration {
        let Ok(kept) = load(&self.pair(name)) else {
            return Duration::ZERO;
        };
        Duration::try_from(kept.renew_at() - now).unwrap_or_default()
    }

    fn pair(&self, name: &str) -> PairFiles {
        PairFiles {
            certificate: self.path.join(format!("{name}.crt")),
            key: self.path.join(format!("{name}.key")),
        }
    }

    /// Keeps a certificate in place of the one before, if it can be used.
    pub(super) fn keep(&self, name: &str, obtained: &Obtained) -> Result<(), FolderError> {
        let new = PairFiles {
            certificate: self.path.join(format!(".{name}.crt.new")),
            key: self.path.join(format!(".{name}.key.new")),
        };
        write_whole(&new.key, obtained.key.as_bytes())?;
        write_whole(&new.certificate, obtained.chain.as_bytes())?;
        load(&new).map_err(|bad| FolderError::new(&self.path, bad))?;
        let PairFiles { certificate, key } = self.pair(name);
        rename(&new.key, &key)?;
        rename(&new.certificate, &certificate)
    }

    /// The account, if one was kept.
    pub(super) fn account(&self) -> Result<Option<AccountCredentials>, FolderError> {
        let file = self.account_file();
        let failed = |reason: &dyn std::fmt::Display| FolderError::new(&file, reason);
        if !file.exists() {
            return Ok(None);
        }
        let text = read_small(&file).map_err(|error| failed(&error))?;
        let account = serde_json::from_slice(&text);
        account.map(Some).map_err(|error| {
            let fix = "remove it, and another account is made";
            failed(&format!("is not an account ({error}): {fix}"))
        })
    }

    /// Keeps the account: what it was allowed to do it need not be allowed again.
    pub(super) fn keep_account(&self, account: &AccountCredentials) -> Result<(), FolderError> {
        let file = self.account_file();
        let text = serde_json::to_vec(account).map_err(|error| FolderError::new(&file, error))?;
        let new = self.path.join(".account.json.new");
        write_whole(&new, &text)?;
        rename(&new, &file)
    }

    fn account_file(&self) -> PathBuf {
        self.path.join("account.json")
    }
}

/// Writes a file that only its owner may read.
fn write_whole(file: &Path, text: &[u8]) -> Result<(), FolderError> {
    let writing = || {
        let mut to = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(file)?;
        to.write_all(text)?;
        to.sync_all()
    };
    writing().map_err(|error| FolderError::new(file, error))
}

fn rename(from: &Path, to: &Path) -> Result<(), FolderError> {
    fs::rename(from, to).map_err(|error| FolderError::new(to, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_could_not_be_written_is_told_and_nothing_is_left_in_one_that_could() {
        let above = tempfile::tempdir().unwrap();
        let file = above.path().join("file");
        fs::write(&file, "").unwrap();
        // A file where a folder should be keeps even root from writing.
        assert!(unwritable(&file.join("folder")).is_some());
        fs::remove_file(file).unwrap();
        assert!(unwritable(&above.path().join("not/yet")).is_none());
        assert_eq!(fs::read_dir(above.path()).unwrap().count(), 0);
    }
}
