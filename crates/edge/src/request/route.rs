//! ROUTE: from path and method to protocol, signal and upstream. Exact match on the raw path; one trailing slash is
//! forgiven on HTTP routes, because per-signal endpoint settings are often typed with one. Nothing else is: the path sent
//! upstream is a constant of the route.

use std::rc::Rc;

use http::request::Parts;
use http::{HeaderValue, Method, Version};
use model::Signal;
use wire::count::{Coding, Framing, Written};

use crate::protocol::{Dialect, Protocol, loki_push, otlp_grpc, otlp_http, remote_write};
use crate::refusal::Refusal;
use crate::upstream::{Target, Targets};

/// A request that has a place to go.
pub(crate) struct Routed {
    pub(crate) protocol: Protocol,
    pub(crate) signal: Signal,
    pub(crate) target: Rc<Target>,
    shared_path: bool,
}

/// Content type and encoding in the one form that every backend takes, and what they say of the body.
pub(crate) struct Media {
    pub(crate) content_type: HeaderValue,
    pub(crate) content_encoding: Option<HeaderValue>,
    pub(crate) written: Written,
    pub(crate) coding: Coding,
    pub(crate) framing: Framing,
}

/// What a path claims to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Path {
    OtlpGrpc(Signal),
    OtlpHttp(Signal),
    RemoteWrite,
    LokiPush,
    /// Remote write or Loki's legacy push, by the headers.
    Shared,
    Unknown,
}

impl Path {
    fn of(raw: &str) -> Self {
        if let Some(signal) = otlp_grpc::signal(raw) {
            return Self::OtlpGrpc(signal);
        }
        let path = raw.strip_suffix('/').unwrap_or(raw);
        if let Some(signal) = otlp_http::signal(path) {
            Self::OtlpHttp(signal)
        } else if remote_write::takes(path) {
            Self::RemoteWrite
        } else if path == loki_push::PATH {
            Self::LokiPush
        } else if path == remote_write::SHARED_PATH {
            Self::Shared
        } else {
            Self::Unknown
        }
    }
}

/// How an answer to this request is written, whatever it will be.
pub(crate) fn dialect(parts: &Parts) -> Dialect {
    match Path::of(parts.uri.path()) {
        _ if otlp_grpc::is_grpc(&parts.headers) => Dialect::OtlpGrpc,
        Path::OtlpGrpc(_) => Dialect::OtlpGrpc,
        Path::OtlpHttp(_) => otlp_http::dialect(&parts.headers),
        Path::LokiPush => Dialect::LokiPush,
        Path::Shared if loki_push::is_json(&parts.headers) => Dialect::LokiPush,
        Path::RemoteWrite | Path::Shared => Dialect::RemoteWrite,
        Path::Unknown => Dialect::Plain,
    }
}

/// Finds the route of a request and checks that its method is the route's.
pub(crate) fn route(targets: &Targets, parts: &Parts) -> Result<Routed, Refusal> {
    let place = place(parts)?;
    let target = targets
        .find(place.protocol, place.signal, place.legacy)
        .ok_or(Refusal::NotFound {
            hint: "this server has no storage for this signal",
        })?;
    Ok(Routed {
        protocol: place.protocol,
        signal: place.signal,
        target,
        shared_path: place.shared_path,
    })
}

/// What a request asks for, whether or not it is served here.
pub(crate) struct Place {
    pub(crate) protocol: Protocol,
    pub(crate) signal: Signal,
    /// Loki's first JSON schema.
    legacy: bool,
    shared_path: bool,
}

/// Reads path and method.
pub(crate) fn place(parts: &Parts) -> Result<Place, Refusal> {
    let path = Path::of(parts.uri.path());
    let headers = &parts.headers;
    let (protocol, signal, legacy) = match path {
        Path::OtlpGrpc(signal) => (Protocol::OtlpGrpc, signal, false),
        Path::OtlpHttp(signal) => (Protocol::OtlpHttp, signal, false),
        Path::Shared if loki_push::is_json(headers) => (Protocol::LokiPush, Signal::Logs, true),
        Path::RemoteWrite | Path::Shared => (Protocol::RemoteWrite, Signal::Metrics, false),
        Path::LokiPush => (Protocol::LokiPush, Signal::Logs, false),
        Path::Unknown => return Err(not_found(parts.uri.path())),
    };
    if parts.method != Method::POST {
        return Err(Refusal::Method);
    }
    Ok(Place {
        protocol,
        signal,
        legacy,
        shared_path: path == Path::Shared,
    })
}

impl Routed {
    /// Checks that the body is of a type and encoding that the route takes. Not part of [`route`], so that a request
    /// without a valid key learns nothing but that.
    pub(crate) fn media(&self, parts: &Parts) -> Result<Media, Refusal> {
        let headers = &parts.headers;
        match self.protocol {
            Protocol::OtlpGrpc if parts.version < Version::HTTP_2 => Err(Refusal::BadFraming {
                problem: "gRPC needs HTTP/2: over TLS offer ALPN h2, without TLS use prior knowledge",
            }),
            Protocol::OtlpGrpc => otlp_grpc::check_media_type(headers, self.signal),
            Protocol::OtlpHttp => otlp_http::check_media_type(headers, self.signal),
            Protocol::RemoteWrite
                if self.shared_path && !remote_write::claims_shared_path(headers) =>
            {
                Err(Refusal::MediaType {
                    problem: "/api/prom/push takes remote write (with X-Prometheus-Remote-Write-Version) and Loki's \
                              legacy JSON; use /api/v1/push for remote write and /loki/api/v1/push for logs",
                })
            }
            Protocol::RemoteWrite => remote_write::check_media_type(headers),
            // The shared path is Loki's first API where it is not remote write.
            Protocol::LokiPush => loki_push::check_media_type(headers, self.shared_path),
        }
    }
}

/// Says which path would have been right, where that can be guessed.
fn not_found(path: &str) -> Refusal {
    let hint = match path {
        "/" => {
            "nothing is served at /: OTLP goes to /v1/traces, /v1/metrics or /v1/logs, remote write to /api/v1/push, \
             Loki push to /loki/api/v1/push"
        }
        _ => {
            "no such path: OTLP goes to /v1/traces, /v1/metrics or /v1/logs, remote write to /api/v1/push, Loki push to \
             /loki/api/v1/push"
        }
    };
    Refusal::NotFound { hint }
}
