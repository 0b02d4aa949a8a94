//! The edge's configuration: what `edge.toml` may say, and what it means as a whole. `config/edge/edge.toml` documents every
//! key; a test reads it.

mod auth_failures;
mod keys;
mod upstreams;

use std::net::SocketAddr;
use std::time::Duration;

use model::Signal;
use ops::config::{ByteSize, ConfigError, Section, read};
use store::DatabaseUrl;

pub(crate) use self::auth_failures::AuthFailureSettings;
pub(crate) use self::keys::KeySettings;
pub(crate) use self::upstreams::{Kind, Speaks, UpstreamSettings};
use crate::protocol::Protocol;

/// Everything the edge is told.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) listeners: Vec<ListenerSettings>,
    /// Where `/metrics`, `/livez` and `/readyz` are served.
    pub ops_address: SocketAddr,
    /// Where the keys are.
    pub database: DatabaseUrl,
    /// How many connections to it may be open.
    pub database_connections: u32,
    pub(crate) keys: KeySettings,
    pub(crate) auth_failures: AuthFailureSettings,
    pub(crate) suspend_grace: Duration,
    pub(crate) body_max: ByteSize,
    pub(crate) body_idle_max: Duration,
    pub(crate) connections: ConnectionSettings,
    pub(crate) drain_max: Duration,
    /// Worker threads; as many as there are cores when the file says 0.
    pub(crate) workers: usize,
    pub(crate) upstreams: Vec<(String, UpstreamSettings)>,
    /// Protocol, signal and the upstream's place in `upstreams`.
    pub(crate) routes: Vec<(Protocol, Signal, usize)>,
    /// What is logged, as `RUST_LOG` would say it.
    pub log_level: String,
    /// How it is written.
    pub log_format: ops::log::Format,
}

/// One port for senders.
#[derive(Debug, Clone)]
pub(crate) struct ListenerSettings {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) tenant_header: TenantHeader,
}

/// What is done with a tenant header that is not the key's tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TenantHeader {
    /// The request is refused.
    Strict,
    /// The header is overwritten and counted.
    Ignore,
}

/// Limits of one connection.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionSettings {
    pub(crate) head_max: ByteSize,
    pub(crate) head_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) streams_max: u32,
    pub(crate) stream_window: u32,
    pub(crate) connection_window: u32,
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
    let listeners = listeners(&root.section("listeners"));
    let upstreams = upstreams::upstreams(&root.section("upstreams"));
    let routes = upstreams::routes(&root.section("routes"), &upstreams);
    let ops = root.section("ops");
    let ops_address = ops.or("address", SocketAddr::from(([127, 0, 0, 1], 9600)));
    let log_level = ops.or("log", "info".to_owned());
    let formats = [
        ("auto", ops::log::Format::Auto),
        ("text", ops::log::Format::Text),
        ("json", ops::log::Format::Json),
    ];
    let log_format = ops.choice("log_format", &formats, ops::log::Format::Auto);
    ops.finish();
    let (database, database_connections) = keys::database(&root.section("database"));
    let keys = keys::keys(&root.section("keys"), database.as_ref());
    let auth_failures = auth_failures::auth_failures(&root.section("auth_failures"));
    let tenants = root.section("tenants");
    let suspend_grace = tenants.or("suspend_grace", Duration::from_hours(72));
    tenants.finish();
    let limits = root.section("limits");
    let body_max = limits.or("body_max", ByteSize(64 << 20));
    let body_idle_max = longer_than_0(&limits, "body_idle_max", Duration::from_secs(30));
    limits.finish();
    let connections = connections(&root.section("connections"));
    let runtime = root.section("runtime");
    let workers = runtime.or("workers", 0_u32);
    let drain_max = runtime.or("drain_max", Duration::from_secs(20));
    runtime.finish();
    Some(Config {
        listeners,
        ops_address,
        database: database?,
        database_connections,
        keys,
        auth_failures,
        suspend_grace,
        body_max,
        body_idle_max,
        connections,
        drain_max,
        workers: match workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n as usize,
        },
        upstreams,
        routes,
        log_level,
        log_format,
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

fn listeners(section: &Section<'_>) -> Vec<ListenerSettings> {
    let names = section.names();
    if names.is_empty() {
        section.problem(
            "otlp_grpc",
            "no listener is set: write [listeners.otlp_grpc] with address = \"0.0.0.0:4317\"",
        );
    }
    let mut listeners = Vec::with_capacity(names.len());
    for name in names {
        let listener = section.section(&name);
        let address =
            listener.required("address", "write where to listen, such as \"0.0.0.0:4317\"");
        let headers = [
            ("strict", TenantHeader::Strict),
            ("ignore", TenantHeader::Ignore),
        ];
        let tenant_header = listener.choice("tenant_header", &headers, TenantHeader::Strict);
        listener.finish();
        if let Some(address) = address {
            listeners.push(ListenerSettings {
                name,
                address,
                tenant_header,
            });
        }
    }
    listeners
}

fn connections(section: &Section<'_>) -> ConnectionSettings {
    let window = |key, default| {
        let ByteSize(bytes) = section.or(key, ByteSize(default));
        u32::try_from(bytes)
            .ok()
            .filter(|bytes| (65_535..=0x7fff_ffff).contains(bytes))
            .unwrap_or_else(|| {
                section.problem(
                    key,
                    "must be from 64 KiB to 2 GiB - 1 B (RFC 9113 section 6.9.1)",
                );
                65_535
            })
    };
    let settings = ConnectionSettings {
        head_max: section.or("head_max", ByteSize(32 << 10)),
        head_timeout: longer_than_0(section, "head_timeout", Duration::from_secs(10)),
        idle_timeout: longer_than_0(section, "idle_timeout", Duration::from_secs(400)),
        streams_max: section.or("streams_max", 200),
        stream_window: window("stream_window", 1 << 20),
        connection_window: window("connection_window", 8 << 20),
    };
    if settings.head_max == ByteSize(0) {
        section.problem("head_max", "must be at least 1 B");
    }
    if settings.streams_max == 0 {
        section.problem("streams_max", "must be at least 1");
    }
    section.finish();
    settings
}

#[cfg(test)]
mod tests;
