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

pub(super) fn upstreams(section: &Section<'_>) -> Vec<(String, UpstreamSettings)> {
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
