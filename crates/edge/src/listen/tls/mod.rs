//! TLS towards senders. Decides when certificates are read: at the start, at a reload, and when their files have changed while
//! connections go on. What cannot be used refuses a start or a reload; later it leaves what was good in its place.
//!
//! | file | decides |
//! | --- | --- |
//! | `files` | what a certificate's files are |
//! | `shelf` | when they are read again |
//! | `certificates` | which ones a listener has |
//! | `by_name` | which one a client is shown |
//! | `server` | versions, tickets, client certificates |
//! | `handshake` | how a connection begins, and why it does not |
//! | `challenges` | by what an authority sees that a name leads here |

mod by_name;
mod certificates;
mod challenges;
mod files;
mod handshake;
mod server;
mod shelf;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring::Ticketer;
use rustls::server::ProducesTickets;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::certificates::Certificates;
pub(crate) use self::challenges::{ChallengeError, Challenges};
pub(crate) use self::files::{load, read_small};
pub(super) use self::handshake::accept;
use self::shelf::{Looks, Shelf, Unread, When};
use crate::config::{ClientCertificates, ListenerSettings, TlsSettings};
use crate::metrics::Metrics;

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What outlives a configuration: tickets, and files that were read.
pub(crate) struct Tls {
    state: Mutex<State>,
    challenges: Arc<Challenges>,
    metrics: Arc<Metrics>,
}

struct State {
    shelf: Shelf,
    /// For all listeners that ask for no client certificate. They rotate every 6 hours.
    tickets: Arc<dyn ProducesTickets>,
    challenges: Arc<Challenges>,
    in_force: Vec<(String, Arc<ListenerTls>)>,
}

/// TLS of a listener. Those with the same settings share it.
pub(crate) struct ListenerTls {
    settings: TlsSettings,
    certificates: Arc<Certificates>,
    config: ArcSwap<ServerConfig>,
    /// Where an authority may look here.
    challenges: Option<Arc<Challenges>>,
    authorities: Mutex<Looks>,
}

impl std::fmt::Debug for ListenerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ListenerTls").field(&self.settings).finish()
    }
}

/// TLS of all listeners of a configuration.
#[derive(Default)]
pub(crate) struct Prepared {
    listeners: Vec<(String, Arc<ListenerTls>)>,
    /// What the operator should know, though it is in nobody's way.
    pub(crate) warnings: Vec<String>,
}

impl Prepared {
    /// TLS of a listener, by its name.
    pub(crate) fn of(&self, name: &str) -> Option<Arc<ListenerTls>> {
        find(&self.listeners, |known, _| known == name)
    }

    /// What certificates there are, a line each.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (name, tls) in &self.listeners {
            for certificate in &tls.certificates.current.load().all {
                let file = certificate.files.certificate.display();
                let names = certificate.names.join(", ");
                let until = certificate.not_after;
                let days = (until - OffsetDateTime::now_utc()).whole_days();
                notes.push(format!(
                    "listeners.{name}.tls: {file}: {names}: until {} ({days} days)",
                    until.date()
                ));
            }
        }
        notes
    }
}

fn find(
    listeners: &[(String, Arc<ListenerTls>)],
    is_it: impl Fn(&str, &ListenerTls) -> bool,
) -> Option<Arc<ListenerTls>> {
    let found = listeners.iter().find(|(name, tls)| is_it(name, tls));
    found.map(|(_, tls)| Arc::clone(tls))
}

impl Tls {
    /// Without any listener yet.
    ///
    /// # Errors
    /// When the operating system has no randomness.
    pub(crate) fn new(metrics: Arc<Metrics>) -> Result<Self, rustls::Error> {
        let challenges = Arc::<Challenges>::default();
        let state = State {
            shelf: Shelf::new(metrics.tls.certificate_errors.clone()),
            tickets: Ticketer::new()?,
            challenges: Arc::clone(&challenges),
            in_force: Vec::new(),
        };
        Ok(Self {
            state: Mutex::new(state),
            challenges,
            metrics,
        })
    }

    /// Where names are proven, for all listeners that take part in that.
    pub(crate) fn challenges(&self) -> Arc<Challenges> {
        Arc::clone(&self.challenges)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what these listeners need. What is in force already, stays in force where it cannot be read now.
    ///
    /// # Errors
    /// One line for each thing that cannot be used.
    pub(crate) fn prepare(&self, listeners: &[ListenerSettings]) -> Result<Prepared, Vec<String>> {
        let mut prepared = Prepared::default();
        let mut problems = Vec::new();
        let mut state = self.state();
        for listener in listeners {
            let Some(settings) = &listener.tls else {
                continue;
            };
            let section = format!("listeners.{}.tls", listener.name);
            let mut told = Told {
                section: &section,
                problems: &mut problems,
                warnings: &mut prepared.warnings,
            };
            let tls = state.listener(settings, &prepared.listeners, &mut told);
            prepared
                .listeners
                .extend(tls.map(|tls| (listener.name.clone(), tls)));
        }
        drop(state);
        if problems.is_empty() {
            Ok(prepared)
        } else {
            Err(problems)
        }
    }

    /// Keeps reading the files of these listeners, and no others'.
    pub(crate) fn put_in_force(&self, prepared: &Prepared) {
        for warning in &prepared.warnings {
            warn!("{warning}");
        }
        let mut state = self.state();
        state.in_force.clone_from(&prepared.listeners);
        self.tidy(&mut state);
    }

    /// Reads the files that have changed.
    fn refresh(&self) {
        let mut state = self.state();
        let State {
            shelf,
            tickets,
            in_force,
            ..
        } = &mut *state;
        for (name, tls) in in_force.iter() {
            // Told already, when it was found.
            let _ = tls.certificates.refresh(shelf, When::Settled);
            if let Err(error) = tls.refresh_authorities(tickets, When::Settled) {
                warn!(listener = name, %error, "client_ca_file was not read, what was in it stays in use");
                self.metrics.tls.certificate_errors.increment(1);
            }
        }
        self.tidy(&mut state);
    }

    fn tidy(&self, state: &mut State) {
        let mut used = Vec::<&Arc<Certificates>>::new();
        for (_, tls) in &state.in_force {
            if !used
                .iter()
                .any(|known| Arc::ptr_eq(known, &tls.certificates))
            {
                used.push(&tls.certificates);
            }
        }
        state
            .shelf
            .keep(|pair| used.iter().any(|certificates| certificates.uses(pair)));
        let all: Vec<_> = used.iter().map(|used| used.current.load_full()).collect();
        let count = all.iter().map(|by_name| by_name.all.len()).sum::<usize>();
        let metrics = &self.metrics.tls;
        metrics
            .certificates
            .set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
        let shown = all.iter().flat_map(|by_name| by_name.shown());
        metrics.expire(shown.map(|certificate| {
            let name = certificate.names.first().cloned();
            let name = name.unwrap_or_else(|| certificate.files.certificate.display().to_string());
            (name, certificate.not_after.unix_timestamp())
        }));
    }
}

/// Looks after the files until `stop`.
pub(crate) async fn keep_fresh(tls: Arc<Tls>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => return,
        }
        let tls = Arc::clone(&tls);
        // A folder may be large, and its disk slow.
        if let Err(error) = tokio::task::spawn_blocking(move || tls.refresh()).await {
            warn!(%error, "the files of certificates could not be looked at");
        }
    }
}

/// Where what is found goes.
struct Told<'a> {
    section: &'a str,
    problems: &'a mut Vec<String>,
    warnings: &'a mut Vec<String>,
}

impl State {
    /// TLS with these settings: what is in force or has just been made, brought up to date, or else anew.
    fn listener(
        &mut self,
        settings: &TlsSettings,
        made: &[(String, Arc<ListenerTls>)],
        told: &mut Told<'_>,
    ) -> Option<Arc<ListenerTls>> {
        let section = told.section;
        let find = |is_it: &dyn Fn(&ListenerTls) -> bool| {
            let is_it = |_: &str, tls: &ListenerTls| is_it(tls);
            find(made, is_it).or_else(|| find(&self.in_force, is_it))
        };
        let same = find(&|tls| tls.settings == *settings);
        let certificates = find(&|tls| tls.settings.sources == settings.sources).map_or_else(
            || Arc::new(Certificates::new(settings.sources.clone())),
            |tls| Arc::clone(&tls.certificates),
        );
        let in_use = !certificates.current.load().all.is_empty();
        let found = certificates.refresh(&mut self.shelf, When::Now);
        let problems = found.problems.into_iter();
        let problems = problems.map(|problem| format!("{section}.{problem}"));
        if in_use {
            told.warnings.extend(problems);
        } else {
            told.problems.extend(problems);
        }
        let warnings = found.warnings.into_iter();
        told.warnings
            .extend(warnings.map(|warning| format!("{section}.{warning}")));
        let now = certificates.current.load();
        if now.all.is_empty() {
            let none = "no certificate is there yet: handshakes fail until one is";
            told.warnings.push(format!("{section}: {none}"));
        }
        let troubles = now.all.iter();
        let troubles = troubles.filter_map(|one| one.trouble(OffsetDateTime::now_utc()));
        told.warnings
            .extend(troubles.map(|trouble| format!("{section}: {trouble}")));
        if let Some(same) = same {
            if let Err(error) = same.refresh_authorities(&self.tickets, When::Now) {
                told.warnings
                    .push(format!("{section}.client_ca_file: {error}"));
            }
            return Some(same);
        }
        let made = ListenerTls::new(settings, certificates, self);
        made.map_err(|problem| told.problems.push(format!("{section}.{problem}")))
            .ok()
            .map(Arc::new)
    }
}

impl ListenerTls {
    fn new(
        settings: &TlsSettings,
        certificates: Arc<Certificates>,
        state: &State,
    ) -> Result<Self, String> {
        let mut looks = Looks::default();
        let authorities = match &settings.clients {
            None => None,
            Some(clients) => {
                let file = clients.ca_file.as_path();
                let read = || server::read_authorities(file);
                let read = looks.read([file, file], When::Now, read);
                read.map_err(|Unread { error, .. }| format!("client_ca_file: {error}"))?
            }
        };
        let clients = settings.clients.as_ref().zip(authorities);
        let config = server::config(
            &certificates.current,
            clients,
            settings.min_version,
            &state.tickets,
        );
        let config = config.map_err(|error| format!("client_ca_file: {error}"))?;
        Ok(Self {
            settings: settings.clone(),
            certificates,
            config: ArcSwap::from_pointee(config),
            challenges: settings.acme.then(|| Arc::clone(&state.challenges)),
            authorities: Mutex::new(looks),
        })
    }

    /// Reads the authorities of client certificates if their file has changed. Connections that are open stay so.
    ///
    /// # Errors
    /// When they cannot be read, the first time that this is found.
    fn refresh_authorities(
        &self,
        tickets: &Arc<dyn ProducesTickets>,
        when: When,
    ) -> Result<(), String> {
        let Some(clients) = &self.settings.clients else {
            return Ok(());
        };
        let ClientCertificates { ca_file, .. } = clients;
        let mut looks = self
            .authorities
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let read = || {
            let authorities = server::read_authorities(ca_file)?;
            let config = server::config(
                &self.certificates.current,
                Some((clients, authorities)),
                self.settings.min_version,
                tickets,
            );
            config.map_err(|error| format!("{}: {error}", ca_file.display()))
        };
        match looks.read([ca_file, ca_file], when, read) {
            Ok(Some(config)) => {
                self.config.store(Arc::new(config));
                info!(file = %ca_file.display(), "the authorities of client certificates were read");
                Ok(())
            }
            Err(Unread { error, is_new }) if is_new => Err(error),
            Ok(None) | Err(_) => Ok(()),
        }
    }
}
