//! `[upstreams]` and `[routes]`: where requests go, and how each place is spoken to.

use std::path::PathBuf;
use std::time::Duration;

use model::Signal;
use ops::config::Section;

use super::longer_than_0;
use crate::protocol::Protocol;
use crate::upstream_url::UpstreamUrl;

/// One backend or collector.
#[derive(Debug, Clone)]
pub(crate) struct UpstreamSettings {
    /// At least one; all with the same scheme and path.
    pub(crate) urls: Vec<UpstreamUrl>,
    pub(crate) kind: Kind,
    pub(crate) speaks: Speaks,
    pub(crate) connect_timeout: Duration,
    /// From the body's end to the answer's head.
    pub(crate) first_byte_timeout: Duration,
    /// For a byte to be taken or given.
    pub(crate) idle_timeout: Duration,
    /// From the choice of an endpoint to the answer's end.
    pub(crate) total_timeout: Duration,
    /// In flight, of all workers.
    pub(crate) requests_max: usize,
    pub(crate) ca_file: Option<PathBuf>,
    /// Certificate and key that we show.
    pub(crate) client_files: Option<(PathBuf, PathBuf)>,
    /// What a certificate has to be for, in place of the URL's host.
    pub(crate) server_name: Option<String>,
    pub(crate) resolve_every: Duration,
    /// Failures in a row.
    pub(crate) eject_after: u32,
    pub(crate) eject_for: Duration,
    pub(crate) eject_max: Duration,
    pub(crate) probe_every: Duration,
    /// Empty: a connection is enough.
    pub(crate) probe_path: String,
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

pub(super) fn upstreams(section: &Section<'_>) -> Vec<(String, UpstreamSettings)> {
    let mut upstreams = Vec::new();
    for name in section.names() {
        let upstream = section.section(&name);
        let urls = urls(&upstream);
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
        let timeout = |key, seconds| longer_than_0(&upstream, key, Duration::from_secs(seconds));
        let file = |key| upstream.optional::<String>(key).map(PathBuf::from);
        let settings = UpstreamSettings {
            kind: upstream.choice("kind", &kinds, Kind::Collector),
            speaks: upstream.choice("speaks", &speaks, Speaks::Http1),
            connect_timeout: timeout("connect_timeout", 3),
            first_byte_timeout: timeout("first_byte_timeout", 30),
            idle_timeout: timeout("idle_timeout", 30),
            total_timeout: timeout("total_timeout", 300),
            requests_max: upstream.or("requests_max", 4096_u32) as usize,
            ca_file: file("ca_file"),
            client_files: client_files(
                &upstream,
                file("client_cert_file"),
                file("client_key_file"),
            ),
            server_name: upstream.optional("server_name"),
            resolve_every: timeout("resolve_every", 10),
            eject_after: upstream.or("eject_after", 3),
            eject_for: timeout("eject_for", 1),
            eject_max: timeout("eject_max", 30),
            probe_every: timeout("probe_every", 1),
            probe_path: upstream.or("probe_path", String::new()),
            urls,
        };
        for (key, is_bad) in [
            ("requests_max", settings.requests_max == 0),
            ("eject_after", settings.eject_after == 0),
        ] {
            if is_bad {
                upstream.problem(key, "must be at least 1");
            }
        }
        if !settings.probe_path.is_empty() && !settings.probe_path.starts_with('/') {
            upstream.problem("probe_path", "must begin with a slash, or be empty");
        }
        if !settings.probe_path.is_empty() && settings.speaks != Speaks::Http1 {
            let fix = "probes speak HTTP/1.1, so that speaks must be \"http1\": leave it out";
            upstream.problem("probe_path", fix);
        }
        if settings.speaks == Speaks::Grpc
            && !matches!(settings.kind, Kind::Collector | Kind::Tempo)
        {
            upstream.problem(
                "speaks",
                "this kind takes OTLP over HTTP only: write \"http1\" or \"http2\"",
            );
        }
        upstream.finish();
        if !settings.urls.is_empty() {
            upstreams.push((name, settings));
        }
    }
    upstreams
}

/// `url`, or `urls`; none when that is reported as a problem.
fn urls(upstream: &Section<'_>) -> Vec<UpstreamUrl> {
    let one = upstream.optional::<String>("url");
    let several = upstream.optional::<Vec<String>>("urls").unwrap_or_default();
    let (key, texts) = match (one, several) {
        (Some(_), several) if !several.is_empty() => {
            upstream.problem("urls", "stands beside url: write one of the two");
            return Vec::new();
        }
        (Some(url), _) => ("url", vec![url]),
        (None, several) => ("urls", several),
    };
    if texts.is_empty() {
        let fix = "is missing: write where it is, such as \"http://mimir:8080\"";
        upstream.problem("url", fix);
    }
    let mut urls: Vec<UpstreamUrl> = Vec::with_capacity(texts.len());
    for text in texts {
        match UpstreamUrl::parse(&text) {
            Ok(url) => urls.push(url),
            Err(error) => {
                upstream.problem(key, error.to_string());
                return Vec::new();
            }
        }
    }
    let alike = |url: &UpstreamUrl| {
        let first = urls.first();
        first.is_some_and(|first| (first.https, &first.base) == (url.https, &url.base))
    };
    if !urls.iter().all(alike) {
        upstream.problem(key, "all must have the same scheme and the same path");
    }
    urls
}

fn client_files(
    upstream: &Section<'_>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Option<(PathBuf, PathBuf)> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => return Some((certificate, key)),
        (Some(_), None) => upstream.problem("client_cert_file", "needs client_key_file beside it"),
        (None, Some(_)) => upstream.problem("client_key_file", "needs client_cert_file beside it"),
        (None, None) => {}
    }
    None
}

pub(super) fn routes(
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
