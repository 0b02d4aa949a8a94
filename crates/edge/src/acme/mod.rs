//! Certificates from an authority that speaks ACME (RFC 8555). Decides when one is obtained: where there is none, and when a third of
//! its time is left. They are put into a folder; showing them is the work of `listen::tls`, which finds them there.
//!
//! | file | decides |
//! | --- | --- |
//! | `order` | how a name is proven and its certificate fetched |
//! | `folder` | what is kept, and who may write it |

mod folder;
mod order;

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{Account, AccountBuilder, Error, ExternalAccountKey, NewAccount, Problem};
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use self::folder::{Folder, FolderError};
use self::order::OrderError;
use crate::config::AcmeSettings;
use crate::listen::tls::Challenges;
use crate::metrics::Metrics;
use crate::upstream::about;

/// How long one certificate may take. Authorities answer in seconds, unless they are busy.
const ORDER_MAX: Duration = Duration::from_mins(5);
/// How often the folder is looked at: somebody may have removed a certificate.
const LOOK_EVERY: Duration = Duration::from_hours(1);
/// How often one asks for a folder that another process writes.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// The wait after an authority could not be reached, which doubles each time, and its longest.
const UNREACHED: (Duration, Duration) = (Duration::from_secs(10), Duration::from_mins(10));
/// The same after it refused, or issued what was of no use: each costs something that authorities count. Let's Encrypt allows five
/// refusals an hour and five certificates a week for a name.
const REFUSED: (Duration, Duration) = (Duration::from_mins(5), Duration::from_hours(6));

/// Obtains what the configuration in force names. Dropping it ends that.
pub(crate) struct Acme {
    challenges: Arc<Challenges>,
    metrics: Arc<Metrics>,
    running: Option<Running>,
}

struct Running {
    prepared: Arc<Prepared>,
    /// Says that what failed shall be tried at once.
    again: Arc<Notify>,
    task: AbortOnDropHandle<()>,
}

/// What a configuration needs, read and ready.
#[derive(PartialEq, Eq)]
pub(crate) struct Prepared {
    settings: AcmeSettings,
    /// What `settings.external_account` is proven by.
    external_key: Option<Vec<u8>>,
}

/// Reads the files that `settings` name.
///
/// # Errors
/// One line for each that cannot be used.
pub(crate) fn prepare(settings: Option<&AcmeSettings>) -> Result<Option<Prepared>, Vec<String>> {
    let Some(settings) = settings else {
        return Ok(None);
    };
    let mut problems = Vec::new();
    if let Err(error) = account_builder(settings) {
        problems.push(format!("acme.ca_file: {error}"));
    }
    let external_account = settings.external_account.as_ref();
    let external_key = external_account.map(folder::external_key).transpose();
    let external_key = external_key
        .map_err(|error| problems.push(format!("acme.external_account_key_file: {error}")));
    match external_key {
        Ok(external_key) if problems.is_empty() => Ok(Some(Prepared {
            settings: settings.clone(),
            external_key,
        })),
        _ => Err(problems),
    }
}

/// What an operator should know of `settings` before they are used: whether this user could write the folder.
pub(crate) fn notes(settings: &AcmeSettings) -> Option<String> {
    let unwritable = folder::unwritable(&settings.folder)?;
    Some(format!("acme.folder: nothing can be kept: {unwritable}"))
}

fn account_builder(settings: &AcmeSettings) -> Result<AccountBuilder, Error> {
    match &settings.ca_file {
        None => Account::builder(),
        Some(file) => Account::builder_with_root(file),
    }
}

impl Prepared {
    fn external_account(&self) -> Option<ExternalAccountKey> {
        let account = self.settings.external_account.as_ref()?;
        let key = self.external_key.as_ref()?;
        Some(ExternalAccountKey::new(account.id.clone(), key))
    }
}

impl Acme {
    /// Obtains nothing yet. Names are proven by `challenges`.
    pub(crate) const fn new(challenges: Arc<Challenges>, metrics: Arc<Metrics>) -> Self {
        Self {
            challenges,
            metrics,
            running: None,
        }
    }

    /// Obtains by these settings from now on; what failed before is tried at once. An order goes on where they are as before: what
    /// is cut off may have been issued already.
    pub(crate) async fn replace(&mut self, prepared: Option<Prepared>) {
        if let (Some(running), Some(prepared)) = (&self.running, &prepared)
            && *running.prepared == *prepared
        {
            running.again.notify_one();
            return;
        }
        if let Some(before) = self.running.take() {
            before.task.abort();
            // It has the folder until then.
            let _ = before.task.await;
        }
        self.running = prepared.map(|prepared| {
            let (prepared, again) = (Arc::new(prepared), Arc::<Notify>::default());
            let keeper = Keeper {
                prepared: Arc::clone(&prepared),
                again: Arc::clone(&again),
                challenges: Arc::clone(&self.challenges),
                metrics: Arc::clone(&self.metrics),
            };
            Running {
                prepared,
                again,
                task: AbortOnDropHandle::new(tokio::spawn(keeper.keep())),
            }
        });
    }
}

/// A name, and how it went with it.
struct Host<'a> {
    name: &'a str,
    /// In a row.
    failures: u32,
    /// When it may be tried.
    not_before: Instant,
}

impl<'a> Host<'a> {
    fn new(name: &'a str) -> Self {
        Self {
            name,
            failures: 0,
            not_before: Instant::now(),
        }
    }
}

/// Why a certificate was not obtained.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the folder: {0}")]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Order(#[from] OrderError),
    #[error("the authority took too long")]
    Timeout,
    #[error("what the authority issued is to be renewed already: is this machine's clock right?")]
    DueAlready,
}

impl Failure {
    /// How long to wait after so many in a row.
    fn wait(&self, failures: u32) -> Duration {
        let is_held_against_us = match self {
            Self::Order(error) => error.is_refusal(),
            Self::Timeout => false,
            // Something was issued each time.
            Self::Folder(_) | Self::DueAlready => true,
        };
        let (first, longest) = if is_held_against_us {
            REFUSED
        } else {
            UNREACHED
        };
        let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(16));
        doubled.min(longest)
    }
}

/// What the task needs.
struct Keeper {
    prepared: Arc<Prepared>,
    again: Arc<Notify>,
    challenges: Arc<Challenges>,
    metrics: Arc<Metrics>,
}

impl Keeper {
    async fn keep(self) {
        let settings = &self.prepared.settings;
        let folder = open(settings).await;
        let mut hosts: Vec<_> = settings.names.iter().map(|name| Host::new(name)).collect();
        loop {
            let mut next = LOOK_EVERY;
            for host in &mut hosts {
                let due = folder.due_in(host.name, OffsetDateTime::now_utc());
                let waits = host.not_before.saturating_duration_since(Instant::now());
                let mut wait = due.max(waits);
                if wait.is_zero() {
                    wait = self.attempt(&folder, host).await;
                }
                next = next.min(wait);
            }
            tokio::select! {
                () = sleep(next) => {}
                () = self.again.notified() => {
                    for host in &mut hosts {
                        host.not_before = Instant::now();
                    }
                }
            }
        }
    }

    /// Tries to obtain a certificate; how long to wait until this name is looked at again.
    async fn attempt(&self, folder: &Folder, host: &mut Host<'_>) -> Duration {
        let obtaining = self.obtain(folder, host.name);
        let failure = match timeout(ORDER_MAX, obtaining).await {
            Ok(Ok(due)) => {
                self.metrics.tls.acme_order(true);
                info!(name = host.name, "a certificate was obtained");
                host.failures = 0;
                return due;
            }
            Ok(Err(failure)) => failure,
            Err(_) => Failure::Timeout,
        };
        self.metrics.tls.acme_order(false);
        host.failures += 1;
        // Many that saw an authority go away do not come back to it at once.
        let wait = about(failure.wait(host.failures));
        host.not_before = Instant::now() + wait;
        let again_in_seconds = wait.as_secs();
        warn!(name = host.name, error = %failure, again_in_seconds, "a certificate was not obtained");
        wait
    }

    /// In how long it is due again.
    async fn obtain(&self, folder: &Folder, name: &str) -> Result<Duration, Failure> {
        let account = self.account(folder).await?;
        let obtained = order::obtain(&account, name, &self.challenges).await?;
        folder.keep(name, &obtained)?;
        let due = folder.due_in(name, OffsetDateTime::now_utc());
        if due.is_zero() {
            return Err(Failure::DueAlready);
        }
        Ok(due)
    }

    /// The account, which is made the first time that it is needed, and when the authority does not know it any more.
    async fn account(&self, folder: &Folder) -> Result<Account, Failure> {
        let settings = &self.prepared.settings;
        let contacts: Vec<_> = settings.contacts.iter().map(String::as_str).collect();
        if let Some(credentials) = folder.account()? {
            let builder = account_builder(settings).map_err(OrderError::from)?;
            let known = builder.from_credentials(credentials).await;
            let known = known.map_err(OrderError::from)?;
            match known.update_contacts(&contacts).await {
                Ok(()) => return Ok(known),
                Err(Error::Api(problem)) if is_no_account(&problem) => {
                    warn!(%problem, "the authority does not know the account any more, another is made");
                }
                // Whether it can be used will be seen.
                Err(Error::Api(problem)) => {
                    warn!(%problem, "the authority does not take the addresses of acme.emails");
                    return Ok(known);
                }
                Err(error) => return Err(OrderError::from(error).into()),
            }
        }
        let wanted = NewAccount {
            contact: &contacts,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let external_account = self.prepared.external_account();
        let builder = account_builder(settings).map_err(OrderError::from)?;
        let directory = settings.directory.clone();
        let made = builder.create(&wanted, directory, external_account.as_ref());
        let (account, credentials) = made.await.map_err(OrderError::from)?;
        folder.keep_account(&credentials)?;
        Ok(account)
    }
}

fn is_no_account(problem: &Problem) -> bool {
    problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:accountDoesNotExist")
}

/// The folder, as soon as nobody else writes it.
async fn open(settings: &AcmeSettings) -> Folder {
    let mut told = String::new();
    loop {
        let problem = match Folder::open(&settings.folder) {
            Ok(Some(folder)) => return folder,
            Ok(None) => "another process obtains certificates there".to_owned(),
            Err(error) => error.to_string(),
        };
        if told != problem {
            let folder = settings.folder.display();
            warn!(%folder, problem, "certificates are not obtained until this changes");
            told = problem;
        }
        sleep(ASK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_refuses_is_asked_less_often_than_who_cannot_be_reached() {
        let refused = Failure::Order(OrderError::NotProven(String::new()));
        let waits: Vec<_> = (1..=9).map(|n| refused.wait(n).as_secs() / 60).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 360, 360]);
        let hour: u64 = waits.iter().take_while(|wait| **wait < 60).sum();
        assert!(hour >= 60, "at most five times within an hour: {waits:?}");
        // It was issued, and would be once more.
        assert_eq!(Failure::DueAlready.wait(1), REFUSED.0);
        let waits: Vec<_> = (1..=8)
            .map(|n| Failure::Timeout.wait(n).as_secs())
            .collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(Failure::Timeout.wait(u32::MAX), UNREACHED.1);
    }
}
