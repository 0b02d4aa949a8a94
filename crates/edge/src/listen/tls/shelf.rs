//! Pairs that were read, each with how its files looked then: what has not changed is not read again, and what cannot be read
//! leaves what was read before in its place.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use metrics::Counter;
use ops::config_file::Look;
use tracing::{info, warn};

use super::files::{self, BadPair, Certificate};
use crate::config::PairFiles;

/// When a file that has changed is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// At once: somebody says that it is whole.
    Now,
    /// When two looks in a row find the same, so that nobody reads half of it.
    Settled,
}

/// How the files of something looked at three times. The two files of a pair; one file twice for what has one.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// When they were last seen.
    seen: Option<Pair>,
    /// When they were last read, and were good.
    good: Option<Pair>,
    /// When it was last told that they are not.
    told: Option<Pair>,
}

type Pair = [Option<Look>; 2];

impl Looks {
    /// Reads what the files hold, if they are others than were read before and it is time. `read` is `Ok(None)` where it is
    /// not. An error is told once for each state of the files.
    pub(super) fn read<T, E: std::fmt::Display>(
        &mut self,
        files: [&Path; 2],
        when: When,
        read: impl FnOnce() -> Result<T, E>,
    ) -> Result<Option<T>, Unread<E>> {
        // Before they are read: what changes meanwhile is seen the next time.
        let now = files.map(Look::at);
        let settled = self.seen.replace(now) == Some(now);
        if self.good == Some(now) || (when == When::Settled && !settled) {
            return Ok(None);
        }
        match read() {
            Ok(whole) => {
                self.good = Some(now);
                self.told = None;
                Ok(Some(whole))
            }
            Err(error) => {
                let is_new = self.told.replace(now) != Some(now);
                Err(Unread { error, is_new })
            }
        }
    }
}

/// What could not be read.
pub(super) struct Unread<E> {
    pub(super) error: E,
    /// Nobody has been told.
    pub(super) is_new: bool,
}

/// All pairs that were read.
pub(super) struct Shelf {
    pairs: HashMap<PairFiles, Held>,
    errors: Counter,
}

#[derive(Default)]
struct Held {
    looks: Looks,
    certificate: Option<Arc<Certificate>>,
}

impl Shelf {
    pub(super) fn new(errors: Counter) -> Self {
        Self {
            pairs: HashMap::new(),
            errors,
        }
    }

    /// The certificate in these files as they are now, or as they last were when they were good; none while they are written.
    ///
    /// # Errors
    /// When they never were.
    pub(super) fn read(
        &mut self,
        files: &PairFiles,
        when: When,
    ) -> Result<Option<Arc<Certificate>>, Unread<BadPair>> {
        let held = self.pairs.entry(files.clone()).or_default();
        let paths = [files.certificate.as_path(), files.key.as_path()];
        match held.looks.read(paths, when, || files::load(files)) {
            Ok(None) => {}
            Ok(Some(read)) => {
                let names = read.names.join(" ");
                info!(file = %files.certificate.display(), names, until = %read.not_after, "a certificate was read");
                held.certificate = Some(Arc::new(read));
            }
            Err(unread) => {
                if unread.is_new {
                    self.errors.increment(1);
                }
                let Some(kept) = &held.certificate else {
                    return Err(unread);
                };
                if unread.is_new {
                    let error = unread.error;
                    warn!(%error, until = %kept.not_after, "a certificate was not read, the one before stays in use");
                }
            }
        }
        Ok(held.certificate.clone())
    }

    /// Forgets pairs that nobody uses.
    pub(super) fn keep(&mut self, used: impl Fn(&PairFiles) -> bool) {
        self.pairs.retain(|files, _| used(files));
    }
}
