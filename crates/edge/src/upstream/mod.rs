//! Where requests go: the backends and the collector, per worker. Knows connections, HTTP towards them and their limits in
//! time; what is sent, and what an answer means to a sender, is for `request::forward` to say.

mod connect;
mod http1;
mod http1_head;
mod http2;

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body::Frame;
use metrics::Counter;
use model::Signal;

pub(crate) use self::connect::{Connector, Shared};
use crate::config::{Kind, Speaks, UpstreamSettings};
use crate::protocol::{Protocol, loki_push, otlp_grpc, remote_write};
use crate::refusal::Refusal;
use crate::request::body::Upload;

/// Why an upstream gave no answer, or broke one off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// It refused the connection, reset it, or spoke no HTTP.
    #[error("upstream unreachable: {0}")]
    Unreachable(String),
    /// It kept silent for longer than its setting allows.
    #[error("upstream timed out")]
    Timeout,
    /// The client's body could not be passed on to its end.
    #[error("the body ended early")]
    Upload(Refusal),
}

impl UpstreamError {
    fn unreachable(error: impl std::fmt::Display) -> Self {
        Self::Unreachable(error.to_string())
    }
}

/// One backend as one worker sees it.
pub(crate) struct Upstream {
    pub(crate) name: String,
    pub(crate) speaks: Speaks,
    pub(crate) kind: Kind,
    client: Client,
}

enum Client {
    Http1(http1::Client),
    Http2(http2::Client),
}

/// Limits in time towards an upstream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// For a connection to be made, TLS included.
    pub(crate) connect: Duration,
    /// For the upstream to take a byte or to give one.
    pub(crate) response: Duration,
    /// For the client to send a byte of its body.
    pub(crate) body_idle: Duration,
}

impl Upstream {
    fn new(
        name: &str,
        settings: &UpstreamSettings,
        connector: Connector,
        timeouts: Timeouts,
    ) -> Self {
        let client = match settings.speaks {
            Speaks::Http1 => Client::Http1(http1::Client::new(connector, timeouts)),
            Speaks::Grpc | Speaks::Http2 => Client::Http2(http2::Client::new(connector, timeouts)),
        };
        Self {
            name: name.to_owned(),
            speaks: settings.speaks,
            kind: settings.kind,
            client,
        }
    }
}

/// What goes upstream, before its body. The headers are all there will be: nothing is copied from the client wholesale.
pub(crate) struct UpstreamRequest<'a> {
    pub(crate) path: &'a str,
    pub(crate) headers: &'a HeaderList,
    /// The body's length, if it is known.
    pub(crate) length: Option<u64>,
}

/// Headers in the order they are sent.
pub(crate) type HeaderList = Vec<(HeaderName, HeaderValue)>;

/// An upstream's answer, its body still to come.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) download: Download,
}

/// The body of an upstream's answer; also carries on with the upload where the answer began before its end.
pub(crate) enum Download {
    /// Came together with the head.
    Whole(Option<Bytes>),
    Http1(Box<http1::Download>),
    Http2(Box<http2::Download>),
}

impl Download {
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        match self {
            Self::Whole(data) => Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
            Self::Http1(download) => download.poll_data(cx).map_ok(Frame::data),
            Self::Http2(download) => download.poll_frame(cx),
        }
    }

    /// Whether nothing more will come, as far as is known without reading.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Self::Whole(data) => data.is_none(),
            Self::Http1(download) => download.is_over(),
            Self::Http2(download) => download.is_over(),
        }
    }

    /// How many bytes are still to come, if that is known.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            Self::Whole(data) => Some(data.as_ref().map_or(0, |data| data.len() as u64)),
            Self::Http1(download) => download.length(),
            Self::Http2(download) => download.length(),
        }
    }
}

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
        match &self.upstream.client {
            Client::Http1(client) => client.send(request, upload).await,
            Client::Http2(client) => client.send(request, upload).await,
        }
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
        upstreams: &[(String, UpstreamSettings)],
        routes: &[(Protocol, Signal, usize)],
        connectors: &[Arc<Shared>],
        body_idle: Duration,
        connections: &Counter,
    ) -> Self {
        let upstreams: Vec<_> = upstreams
            .iter()
            .zip(connectors)
            .map(|((name, settings), shared)| {
                let connector = Connector::new(Arc::clone(shared), connections.clone());
                let timeouts = Timeouts {
                    connect: settings.connect_timeout,
                    response: settings.response_timeout,
                    body_idle,
                };
                (
                    settings,
                    Rc::new(Upstream::new(name, settings, connector, timeouts)),
                )
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
                    format!("{}{}", settings.url.base, remote_write::SHARED_PATH)
                })
            });
        Self {
            targets,
            loki_legacy,
        }
    }
}

/// Connects to an upstream once, TLS included; the error says what is wrong.
pub(crate) async fn try_connection(settings: &UpstreamSettings) -> Result<(), String> {
    let shared = Shared::new(settings).map_err(|error| error.to_string())?;
    let connector = Connector::new(Arc::new(shared), Counter::noop());
    connector
        .connect()
        .await
        .map(drop)
        .map_err(|error| error.to_string())
}

/// The path of a route at an upstream: its base, then what the backend of that kind serves.
fn path(settings: &UpstreamSettings, protocol: Protocol, signal: Signal) -> String {
    use Kind::{Collector, Loki, Mimir, Prometheus, Tempo, VictoriaMetrics};
    if protocol == Protocol::OtlpGrpc && settings.speaks == Speaks::Grpc {
        return format!("{}{}", settings.url.base, otlp_grpc::path(signal));
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
    format!("{}{path}", settings.url.base)
}

/// What every exchange with an upstream is polled for: the time it may stand still, by whom it stands still.
fn waits_for(upload_pending_on_client: bool, timeouts: Timeouts) -> (Duration, bool) {
    if upload_pending_on_client {
        (timeouts.body_idle, true)
    } else {
        (timeouts.response, false)
    }
}

/// The error of an exchange that stood still.
fn stood_still(by_client: bool) -> UpstreamError {
    if by_client {
        UpstreamError::Upload(Refusal::BodyTimeout)
    } else {
        UpstreamError::Timeout
    }
}
