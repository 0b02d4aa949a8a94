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

use instant_acme::{Account, AccountBuilder, ExternalAccountKey, NewAccount};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use self::folder::{Folder, FolderError};
use self::order::OrderError;
use crate::config::AcmeSettings;
use crate::listen::tls::Challenges;
use crate::metrics::Metrics;

/// How long one certificate may take. Authorities answer in seconds, unless they are busy.
const ORDER_MAX: Duration = Duration::from_mins(5);
/// How often the folder is looked at: somebody may have removed a certificate.
const LOOK_EVERY: Duration = Duration::from_hours(1);
/// How often one asks for a folder that another process writes.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// The wait after an authority could not be reached, which doubles each time, and its longest.
const UNREACHED: (Duration, Duration) = (Duration::from_secs(10), Duration::from_mins(10));
/// The same after it refused. Let's Encrypt allows five refusals an hour for a name.
const REFUSED: (Duration, Duration) = (Duration::from_mins(5), Duration::from_hours(6));

/// Obtains what the configuration in force names. Dropping it ends that.
pub(crate) struct Acme {
    challenges: Arc<Challenges>,
    metrics: Arc<Metrics>,
    running: Option<AbortOnDropHandle<()>>,
}

/// What a configuration needs, read and ready.
pub(crate) struct Prepared {
    settings: AcmeSettings,
    external_account: Option<ExternalAccountKey>,
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
    let external_account = external_account.map(folder::external_key).transpose();
    let external_account = external_account
        .map_err(|error| problems.push(format!("acme.external_account_key_file: {error}")));
    match external_account {
        Ok(external_account) if problems.is_empty() => Ok(Some(Prepared {
            settings: settings.clone(),
            external_account,
        })),
        _ => Err(problems),
    }
}

fn account_builder(settings: &AcmeSettings) -> Result<AccountBuilder, instant_acme::Error> {
    match &settings.ca_file {
        None => Account::builder(),
        Some(file) => Account::builder_with_root(file),
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

    /// Obtains by these settings from now on; what failed before is tried at once.
    pub(crate) async fn replace(&mut self, prepared: Option<Prepared>) {
        if let Some(before) = self.running.take() {
            before.abort();
            // It has the folder until then.
            let _ = before.await;
        }
        self.running = prepared.map(|prepared| {
            let (challenges, metrics) = (Arc::clone(&self.challenges), Arc::clone(&self.metrics));
            AbortOnDropHandle::new(tokio::spawn(keep(prepared, challenges, metrics)))
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
}

impl Failure {
    /// How long to wait after so many in a row.
    fn wait(&self, failures: u32) -> Duration {
        let refused = matches!(self, Self::Order(error) if error.is_refusal());
        let (first, longest) = if refused { REFUSED } else { UNREACHED };
        let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(16));
        doubled.min(longest)
    }
}

async fn keep(prepared: Prepared, challenges: Arc<Challenges>, metrics: Arc<Metrics>) {
    let settings = &prepared.settings;
    let folder = open(settings).await;
    let mut hosts: Vec<_> = settings.names.iter().map(|name| Host::new(name)).collect();
    loop {
        let mut next = LOOK_EVERY;
        for host in &mut hosts {
            let due = folder.due_in(host.name, OffsetDateTime::now_utc());
            let waits = host.not_before.saturating_duration_since(Instant::now());
            let mut wait = due.max(waits);
            if wait.is_zero() {
                wait = attempt(&prepared, &folder, host, &challenges, &metrics).await;
            }
            next = next.min(wait);
        }
        sleep(next).await;
    }
}

/// The folder, as soon as nobody else writes it.
async fn open(settings: &AcmeSettings) -> Folder {
    let mut told = false;
    loop {
        let problem = match Folder::open(&settings.folder) {
            Ok(Some(folder)) => return folder,
            Ok(None) => "another process obtains certificates there".to_owned(),
            Err(error) => error.to_string(),
        };
        if !told {
            let folder = settings.folder.display();
            warn!(%folder, problem, "certificates are not obtained until this changes");
            told = true;
        }
        sleep(ASK_EVERY).await;
    }
}

/// Tries to obtain a certificate; how long to wait until this name is looked at again.
async fn attempt(
    prepared: &Prepared,
    folder: &Folder,
    host: &mut Host<'_>,
    challenges: &Arc<Challenges>,
    metrics: &Metrics,
) -> Duration {
    let obtaining = obtain(prepared, folder, host.name, challenges);
    let failure = match timeout(ORDER_MAX, obtaining).await {
        Ok(Ok(())) => {
            metrics.tls.acme_order(true);
            info!(name = host.name, "a certificate was obtained");
            host.failures = 0;
            return folder.due_in(host.name, OffsetDateTime::now_utc());
        }
        Ok(Err(failure)) => failure,
        Err(_) => Failure::Timeout,
    };
    metrics.tls.acme_order(false);
    host.failures += 1;
    let wait = failure.wait(host.failures);
    host.not_before = Instant::now() + wait;
    let again_in_seconds = wait.as_secs();
    warn!(name = host.name, error = %failure, again_in_seconds, "a certificate was not obtained");
    wait
}

async fn obtain(
    prepared: &Prepared,
    folder: &Folder,
    name: &str,
    challenges: &Arc<Challenges>,
) -> Result<(), Failure> {
    let account = account(prepared, folder).await?;
    let obtained = order::obtain(&account, name, challenges).await?;
    Ok(folder.keep(name, &obtained)?)
}

/// The account, which is made the first time that it is needed.
async fn account(prepared: &Prepared, folder: &Folder) -> Result<Account, Failure> {
    let Prepared {
        settings,
        external_account,
    } = prepared;
    let builder = account_builder(settings).map_err(OrderError::from)?;
    if let Some(credentials) = folder.account()? {
        let known = builder.from_credentials(credentials).await;
        return Ok(known.map_err(OrderError::from)?);
    }
    let contacts: Vec<_> = settings.contacts.iter().map(String::as_str).collect();
    let wanted = NewAccount {
        contact: &contacts,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let made = builder.create(
        &wanted,
        settings.directory.clone(),
        external_account.as_ref(),
    );
    let (account, credentials) = made.await.map_err(OrderError::from)?;
    folder.keep_account(&credentials)?;
    Ok(account)
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
        let waits: Vec<_> = (1..=8)
            .map(|n| Failure::Timeout.wait(n).as_secs())
            .collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(Failure::Timeout.wait(u32::MAX), UNREACHED.1);
    }
}
