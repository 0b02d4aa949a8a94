//! The edge's configuration: what `edge.toml` may say, and what it means as a whole. `config/edge/edge.toml` documents every
//! key; a test reads it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use model::Signal;
use ops::config::{ByteSize, ConfigError, Section, read};
use store::DatabaseUrl;

use crate::protocol::Protocol;
use crate::upstream_url::UpstreamUrl;

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

/// How keys are kept in memory.
#[derive(Debug, Clone)]
pub(crate) struct KeySettings {
    pub(crate) held_max: u32,
    pub(crate) refresh_after: Duration,
    pub(crate) stale_for: Duration,
    pub(crate) poll_every: Duration,
    pub(crate) unknown_max: u32,
    pub(crate) unknown_for: Duration,
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

/// One backend or collector.
#[derive(Debug, Clone)]
pub(crate) struct UpstreamSettings {
    pub(crate) url: UpstreamUrl,
    pub(crate) kind: Kind,
    pub(crate) speaks: Speaks,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
    pub(crate) ca_file: Option<PathBuf>,
}

/// What software an upstream is, which decides the paths it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Collector,
    Mimir,
    Loki,
    Tempo,
    Prometheus,
    VictoriaMetrics,
}

/// How an upstream is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// HTTP/1.1.
    Http1,
    /// HTTP over HTTP/2, with prior knowledge or by ALPN.
    Http2,
    /// OTLP over gRPC.
    Grpc,
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
    let upstreams = upstreams(&root.section("upstreams"));
    let routes = routes(&root.section("routes"), &upstreams);
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
    let (database, database_connections) = database(&root.section("database"));
    let keys = keys(&root.section("keys"));
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

fn database(section: &Section<'_>) -> (Option<DatabaseUrl>, u32) {
    let from_file = section.optional::<String>("url");
    let url = std::env::var("OKMON_DATABASE_URL").ok().or(from_file);
    let parsed = match url {
        None => {
            section.problem(
                "url",
                "is missing: write the URL of the database, or set OKMON_DATABASE_URL",
            );
            None
        }
        Some(url) => match url.parse() {
            Ok(url) => Some(url),
            Err(error) => {
                section.problem("url", format!("{error}"));
                None
            }
        },
    };
    let connections = section.or("connections_max", 4_u32);
    if connections == 0 {
        section.problem("connections_max", "must be at least 1");
    }
    section.finish();
    (parsed, connections)
}

fn keys(section: &Section<'_>) -> KeySettings {
    let settings = KeySettings {
        held_max: section.or("held_max", 1_000_000),
        refresh_after: section.or("refresh_after", Duration::from_mins(1)),
        stale_for: section.or("stale_for", Duration::from_hours(24)),
        poll_every: longer_than_0(section, "poll_every", Duration::from_secs(1)),
        unknown_max: section.or("unknown_max", 100_000),
        unknown_for: section.or("unknown_for", Duration::from_secs(10)),
    };
    if settings.stale_for < settings.refresh_after {
        section.problem("stale_for", "must not be shorter than refresh_after");
    }
    section.finish();
    settings
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

fn upstreams(section: &Section<'_>) -> Vec<(String, UpstreamSettings)> {
    let mut upstreams = Vec::new();
    for name in section.names() {
        let upstream = section.section(&name);
        let url =
            upstream.required::<String>("url", "write where it is, such as \"http://mimir:8080\"");
        let kinds = [
            ("collector", Kind::Collector),
            ("mimir", Kind::Mimir),
            ("loki", Kind::Loki),
            ("tempo", Kind::Tempo),
            ("prometheus", Kind::Prometheus),
            ("victoriametrics", Kind::VictoriaMetrics),
        ];
        let speaks = [
            ("http1", Speaks::Http1),
            ("http2", Speaks::Http2),
            ("grpc", Speaks::Grpc),
        ];
        let settings = UpstreamSettings {
            kind: upstream.choice("kind", &kinds, Kind::Collector),
            speaks: upstream.choice("speaks", &speaks, Speaks::Http1),
            connect_timeout: longer_than_0(&upstream, "connect_timeout", Duration::from_secs(3)),
            response_timeout: longer_than_0(&upstream, "response_timeout", Duration::from_secs(30)),
            ca_file: upstream.optional::<String>("ca_file").map(PathBuf::from),
            url: UpstreamUrl::default(),
        };
        if settings.speaks == Speaks::Grpc
            && !matches!(settings.kind, Kind::Collector | Kind::Tempo)
        {
            upstream.problem(
                "speaks",
                "this kind takes OTLP over HTTP only: write \"http1\" or \"http2\"",
            );
        }
        match url.map(|url| UpstreamUrl::parse(&url)) {
            Some(Ok(url)) => upstreams.push((name, UpstreamSettings { url, ..settings })),
            Some(Err(error)) => upstream.problem("url", error.to_string()),
            None => {}
        }
        upstream.finish();
    }
    upstreams
}

fn routes(
    section: &Section<'_>,
    upstreams: &[(String, UpstreamSettings)],
) -> Vec<(Protocol, Signal, usize)> {
    let mut routes = Vec::new();
    for protocol in Protocol::ALL {
        let of_protocol = section.section(protocol.as_str());
        for signal in Signal::ALL {
            let takes = match protocol {
                Protocol::OtlpGrpc | Protocol::OtlpHttp => true,
                Protocol::RemoteWrite => signal == Signal::Metrics,
                Protocol::LokiPush => signal == Signal::Logs,
            };
            if !takes {
                continue;
            }
            let Some(name) = of_protocol.optional::<String>(signal.as_str()) else {
                continue;
            };
            let Some(upstream) = upstreams.iter().position(|(known, _)| *known == name) else {
                of_protocol.problem(signal.as_str(), format!("there is no [upstreams.{name}]"));
                continue;
            };
            let speaks = upstreams.get(upstream).map(|(_, settings)| settings.speaks);
            if speaks == Some(Speaks::Grpc) && protocol != Protocol::OtlpGrpc {
                let message =
                    format!("{name} speaks gRPC only: name an upstream that speaks http1 or http2");
                of_protocol.problem(signal.as_str(), message);
            }
            routes.push((protocol, signal, upstream));
        }
        of_protocol.finish();
    }
    section.finish();
    if routes.is_empty() {
        section.problem(
            "otlp_grpc",
            "no route is set: name an upstream per protocol and signal",
        );
    }
    routes
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    const DOCUMENTED: &str = include_str!("../../../config/edge/edge.toml");

    #[test]
    fn the_documented_defaults_are_the_real_ones() {
        let documented = Config::parse("edge.toml", DOCUMENTED).unwrap();
        let required = [
            "address = \"0.0.0.0",
            "url",
            "kind = \"m",
            "kind = \"l",
            "speaks",
            "traces",
            "metrics",
            "logs",
            "profiles",
        ];
        let kept = |line: &&str| {
            let is_setting = line.contains(" = ") && !line.starts_with('#');
            !is_setting || required.iter().any(|start| line.starts_with(start))
        };
        let bare: Vec<_> = DOCUMENTED.lines().filter(kept).collect();
        assert!(bare.len() < DOCUMENTED.lines().count() - 15);
        let bare = Config::parse("edge.toml", &bare.join("\n")).unwrap();
        assert_eq!(format!("{documented:#?}"), format!("{bare:#?}"));
    }

    /// The keys of each section as the documented file shows them. Names of one's own choice count as `x`.
    fn documented_keys() -> BTreeMap<String, BTreeSet<String>> {
        let mut sections = BTreeMap::<_, BTreeSet<_>>::new();
        let mut section = String::new();
        for line in DOCUMENTED.lines() {
            if let Some(name) = line.strip_prefix('[') {
                name.trim_end_matches(']').clone_into(&mut section);
                for parent in ["listeners.", "upstreams."] {
                    if section.starts_with(parent) {
                        section = format!("{parent}x");
                    }
                }
            } else if let Some((key, _)) = line.trim_start_matches("# ").split_once(" = ")
                && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
            {
                let keys = sections.entry(section.clone()).or_default();
                keys.insert(key.to_owned());
            }
        }
        sections
    }

    /// The keys of a section as an unknown one is told of them.
    fn known_keys(section: &str) -> BTreeSet<String> {
        let text = format!("[{section}]\nunknown = 1\n");
        let error = Config::parse("edge.toml", &text).unwrap_err();
        let key = format!("{section}.unknown");
        let mut found = error.problems.iter().filter(|problem| problem.key == key);
        let told = &found.next().expect(section).message;
        let (_, known) = told.split_once("here are ").expect(told);
        known.split(", ").map(str::to_owned).collect()
    }

    #[test]
    fn the_keys_that_are_read_are_those_that_are_documented() {
        let documented = documented_keys();
        for (section, keys) in &documented {
            assert_eq!(*keys, known_keys(section), "[{section}]");
        }
        let error = Config::parse("edge.toml", "unknown = 1").unwrap_err();
        let told = error.to_string();
        let (_, known) = told
            .split_once("unknown: is not a known key: here are ")
            .expect(&told);
        let known: BTreeSet<_> = known.lines().next().unwrap().split(", ").collect();
        let sections = documented
            .keys()
            .map(|name| name.split('.').next().unwrap());
        assert_eq!(sections.collect::<BTreeSet<_>>(), known);
    }

    #[test]
    fn every_mistake_is_reported_once_with_its_line() {
        let text = "\
[listeners.a]
adress = '0.0.0.0:1'
[ops]
log_format = 'xml'
[database]
url = 'mysql://x'
connections_max = 0
[keys]
poll_every = '0s'
refresh_after = 5
[limits]
body_max = '1GB'
[connections]
streams_max = 0
stream_window = '1KiB'
[upstreams.m]
url = 'mimir:8080'
kind = 'mimir'
speaks = 'grpc'
response_timeout = '0ms'
[upstreams.l]
url = 'http://loki:3100'
[routes.otlp_http]
logs = 'l'
traces = 'nowhere'
";
        let error = Config::parse("edge.toml", text).unwrap_err();
        let problems = error.problems.iter();
        let found: Vec<_> = problems
            .map(|problem| (problem.line, problem.key.as_str()))
            .collect();
        let expected = [
            (1, "listeners.a.address"),
            (2, "listeners.a.adress"),
            (4, "ops.log_format"),
            (6, "database.url"),
            (7, "database.connections_max"),
            (9, "keys.poll_every"),
            (10, "keys.refresh_after"),
            (12, "limits.body_max"),
            (14, "connections.streams_max"),
            (15, "connections.stream_window"),
            (17, "upstreams.m.url"),
            (19, "upstreams.m.speaks"),
            (20, "upstreams.m.response_timeout"),
            (25, "routes.otlp_http.traces"),
        ];
        assert_eq!(found, expected, "{error}");
    }
}
