//! Which upstream a route leads to, and the path there.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use model::Signal;

use super::{Answer, Shared, Upstream, UpstreamError, UpstreamRequest};
use crate::config::{Kind, Speaks, UpstreamSettings};
use crate::metrics::Metrics;
use crate::protocol::{Protocol, loki_push, otlp_grpc, remote_write};
use crate::request::upload::Upload;

/// One place a route can lead to: an upstream and the path there.
pub(crate) struct Target {
    pub(crate) upstream: Rc<Upstream>,
    pub(crate) path: String,
}

impl Target {
    /// Sends a request and waits for the answer's head.
    ///
    /// Dropping the future, or the answer's body before its end, resets the exchange; so does an `upload` that fails.
    pub(crate) async fn send(
        &self,
        request: UpstreamRequest<'_>,
        upload: Upload,
    ) -> Result<Answer, UpstreamError> {
        self.upstream.send(request, upload).await
    }
}

/// All targets of a worker, by protocol and signal.
pub(crate) struct Targets {
    targets: Vec<(Protocol, Signal, Rc<Target>)>,
    loki_legacy: Option<Rc<Target>>,
}

impl Targets {
    pub(crate) fn find(
        &self,
        protocol: Protocol,
        signal: Signal,
        legacy: bool,
    ) -> Option<Rc<Target>> {
        if legacy {
            return self.loki_legacy.clone();
        }
        let found = self
            .targets
            .iter()
            .find(|(p, s, _)| (*p, *s) == (protocol, signal));
        found.map(|(_, _, target)| Rc::clone(target))
    }

    /// Builds one worker's targets.
    pub(crate) fn new(
        upstreams: &[Arc<Shared>],
        routes: &[(Protocol, Signal, usize)],
        body_idle: Duration,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let upstreams: Vec<_> = upstreams
            .iter()
            .map(|shared| {
                let upstream = Rc::new(Upstream::new(shared, body_idle, metrics));
                (&shared.settings, upstream)
            })
            .collect();
        let target = |upstream: usize, path: &dyn Fn(&UpstreamSettings) -> String| {
            upstreams.get(upstream).map(|(settings, upstream)| {
                Rc::new(Target {
                    upstream: Rc::clone(upstream),
                    path: path(settings),
                })
            })
        };
        let targets = routes
            .iter()
            .filter_map(|(protocol, signal, upstream)| {
                let target = target(*upstream, &|settings| path(settings, *protocol, *signal))?;
                Some((*protocol, *signal, target))
            })
            .collect();
        let loki_legacy = routes
            .iter()
            .find(|(protocol, ..)| *protocol == Protocol::LokiPush)
            .and_then(|(_, _, upstream)| {
                target(*upstream, &|settings| {
                    format!("{}{}", base(settings), remote_write::SHARED_PATH)
                })
            });
        Self {
            targets,
            loki_legacy,
        }
    }
}

/// What goes before every path.
fn base(settings: &UpstreamSettings) -> &str {
    settings.urls.first().map_or("", |url| &url.base)
}

/// The path of a route at an upstream: its base, then what the backend of that kind serves.
fn path(settings: &UpstreamSettings, protocol: Protocol, signal: Signal) -> String {
    use Kind::{Collector, Loki, Mimir, Prometheus, Tempo, VictoriaMetrics};
    if protocol == Protocol::OtlpGrpc && settings.speaks == Speaks::Grpc {
        return format!("{}{}", base(settings), otlp_grpc::path(signal));
    }
    let path = match (protocol, settings.kind, signal) {
        (Protocol::RemoteWrite, Prometheus | VictoriaMetrics, _) => "/api/v1/write",
        (Protocol::RemoteWrite, _, _) => "/api/v1/push",
        (Protocol::LokiPush, _, _) => loki_push::PATH,
        (_, Mimir, Signal::Metrics) => "/otlp/v1/metrics",
        (_, Loki, Signal::Logs) => "/otlp/v1/logs",
        (_, Prometheus, Signal::Metrics) => "/api/v1/otlp/v1/metrics",
        (_, VictoriaMetrics, Signal::Metrics) => "/opentelemetry/v1/metrics",
        (_, Collector | Tempo | Mimir | Loki | Prometheus | VictoriaMetrics, Signal::Traces) => {
            "/v1/traces"
        }
        (_, _, Signal::Metrics) => "/v1/metrics",
        (_, _, Signal::Logs) => "/v1/logs",
        (_, _, Signal::Profiles) => "/v1development/profiles",
    };
    format!("{}{path}", base(settings))
}
