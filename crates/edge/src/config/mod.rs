//! The edge's configuration: what `edge.toml` may say, and what it means as a whole. `config/edge/edge.toml` documents every
//! key; a test reads it.

mod acme;
mod budgets;
mod connections;
mod counting;
mod keys;
mod listeners;
mod log;
mod proxies;
mod runtime;
mod spans;
mod tls;
mod upstreams;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use model::Signal;
use ops::config::{ByteSize, ConfigError, Section, read};
use ops::log::LogSettings;
use store::DatabaseUrl;

pub(crate) use self::acme::{AcmeSettings, ExternalAccount};
pub(crate) use self::budgets::BudgetSettings;
pub(crate) use self::connections::ConnectionSettings;
pub(crate) use self::counting::CountSettings;
pub(crate) use self::keys::KeySettings;
pub(crate) use self::listeners::{ListenerSettings, TenantHeader};
pub(crate) use self::log::RequestLogSettings;
pub(crate) use self::proxies::TrustedProxies;
pub(crate) use self::runtime::{DrainSettings, RuntimeSettings};
pub(crate) use self::spans::SpanSettings;
pub(crate) use self::tls::{
    CertificateSources, ClientAuth, ClientCertificates, MinVersion, PairFiles, TlsSettings,
};
pub(crate) use self::upstreams::{Kind, Speaks, UpstreamSettings};
use crate::protocol::Protocol;

/// Everything the edge is told.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) listeners: Vec<ListenerSettings>,
    pub(crate) acme: Option<AcmeSettings>,
    pub(crate) trusted: Arc<TrustedProxies>,
    /// Where `/metrics`, `/livez` and `/readyz` are served.
    pub ops_address: SocketAddr,
    /// Where the keys are.
    pub database: DatabaseUrl,
    /// How many connections to it may be open.
    pub database_connections: u32,
    pub(crate) keys: KeySettings,
    pub(crate) auth_failures: BudgetSettings,
    /// Connections that ended without a valid key.
    pub(crate) strangers: BudgetSettings,
    pub(crate) suspend_grace: Duration,
    pub(crate) body_max: ByteSize,
    pub(crate) body_idle_max: Duration,
    /// A second; 0 is any.
    pub(crate) body_rate_min: ByteSize,
    pub(crate) connections: ConnectionSettings,
    pub(crate) runtime: RuntimeSettings,
    pub(crate) upstreams: Vec<(String, UpstreamSettings)>,
    pub(crate) replay: ReplaySettings,
    pub(crate) counting: CountSettings,
    /// Protocol, signal and the upstream's place in `upstreams`.
    pub(crate) routes: Vec<(Protocol, Signal, usize)>,
    /// What is logged, and how.
    pub log: LogSettings,
    pub(crate) request_log: RequestLogSettings,
    pub(crate) spans: Option<SpanSettings>,
    pub(crate) tenant_labels_max: u32,
}

/// What is kept of bodies on their way, so that a request can be sent once more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReplaySettings {
    /// Of one request; 0 keeps none.
    pub(crate) body_max: ByteSize,
    /// Of all requests in flight.
    pub(crate) budget: ByteSize,
}

impl Config {
    /// Reads a configuration; `file` is its name for messages.
    ///
    /// The environment variable `OKMON_DATABASE_URL` goes before the file, so that the password need not be in it.
    ///
    /// # Errors
    /// Every problem at once, each with its line and its fix.
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        read(file, text, build)
    }
}

fn build(root: &Section<'_>) -> Option<Config> {
    let trusted = Arc::new(proxies::proxies(&root.section("proxies")));
    let acme_section = root.section("acme");
    let acme = acme::acme(&acme_section);
    let listeners = listeners::listeners(&root.section("listeners"), &trusted, acme.as_ref());
    let is_shown = |listener: &ListenerSettings| listener.tls.as_ref().is_some_and(|tls| tls.acme);
    match (acme_section.exists(), listeners.iter().any(is_shown)) {
        (true, false) => {
            let fix = "no listener proves or shows them: write acme = true in [listeners.X.tls]";
            acme_section.problem("names", fix);
        }
        (false, true) => {
            let fix =
                "a listener has acme = true: write [acme] with names = [\"otlp.example.com\"]";
            acme_section.problem("names", fix);
        }
        _ => {}
    }
    let upstreams = upstreams::upstreams(&root.section("upstreams"));
    let routes = upstreams::routes(&root.section("routes"), &upstreams);
    let replay = root.section("replay");
    let replayed = ReplaySettings {
        body_max: replay.or("body_max", ByteSize(256 << 10)),
        budget: replay.or("budget", ByteSize(64 << 20)),
    };
    replay.finish();
    let counting = counting::counting(&root.section("counting"));
    let ops = root.section("ops");
    let ops_address = ops.or("address", SocketAddr::from(([127, 0, 0, 1], 9600)));
    let tenant_labels_max = ops.or("tenant_labels_max", 1000);
    ops.finish();
    let (log, request_log) = log::log(&root.section("log"));
    let spans = spans::spans(&root.section("spans"));
    let (database, database_connections) = keys::database(&root.section("database"));
    let keys = keys::keys(&root.section("keys"), database.as_ref());
    let auth_failures = budgets::auth_failures(&root.section("auth_failures"));
    let strangers = budgets::strangers(&root.section("strangers"));
    let tenants = root.section("tenants");
    let suspend_grace = tenants.or("suspend_grace", Duration::from_hours(72));
    tenants.finish();
    let limits = root.section("limits");
    let body_max = limits.or("body_max", ByteSize(64 << 20));
    let body_idle_max = longer_than_0(&limits, "body_idle_max", Duration::from_secs(30));
    let body_rate_min = limits.or("body_rate_min", ByteSize(240));
    limits.finish();
    let connections = connections::connections(&root.section("connections"));
    let runtime = runtime::runtime(&root.section("runtime"));
    Some(Config {
        listeners,
        acme,
        trusted,
        ops_address,
        database: database?,
        database_connections,
        keys,
        auth_failures,
        strangers,
        suspend_grace,
        body_max,
        body_idle_max,
        body_rate_min,
        connections,
        runtime,
        upstreams,
        replay: replayed,
        counting,
        routes,
        log,
        request_log,
        spans,
        tenant_labels_max,
    })
}

/// A time without which nothing can happen.
fn longer_than_0(section: &Section<'_>, key: &str, default: Duration) -> Duration {
    let duration = section.or(key, default);
    if duration.is_zero() {
        section.problem(key, "must be longer than 0");
    }
    duration
}

#[cfg(test)]
mod tests;
