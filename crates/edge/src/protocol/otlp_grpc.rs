//! OTLP over gRPC: which methods there are, what their headers may say, and how a refusal is written as a trailers-only
//! answer (one header block that ends the stream; Java senders decide on a retry from it alone).

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use model::Signal;
use wire::count::{Coding, Framing, Written};
use wire::rpc::{RetryInfo, Status};

use super::otlp_http;
use crate::refusal::{Code, Refusal};
use crate::request::body::Body;
use crate::request::route::Media;

/// `grpc-status`
pub(crate) static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// `grpc-message`
pub(crate) static GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// `grpc-encoding`
pub(crate) static GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// `grpc-accept-encoding`
pub(crate) static GRPC_ACCEPT_ENCODING: HeaderName =
    HeaderName::from_static("grpc-accept-encoding");
/// `grpc-timeout`
pub(crate) static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
static DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
/// Python's exporter reads the delay from here only, not from the details.
static RETRY_INFO: HeaderName = HeaderName::from_static("google.rpc.retryinfo-bin");

/// The content type of every gRPC answer.
pub(crate) const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

/// The signal of a gRPC method's path.
pub(crate) fn signal(path: &str) -> Option<Signal> {
    Some(match path {
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => Signal::Traces,
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => Signal::Metrics,
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => Signal::Logs,
        "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export" => {
            Signal::Profiles
        }
        _ => return None,
    })
}

/// The path of a signal's method; the inverse of [`signal`].
pub(crate) const fn path(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        Signal::Profiles => {
            "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export"
        }
    }
}

/// Whether a request speaks gRPC, whatever its path.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Checks the content type of a request to a gRPC method.
pub(crate) fn check_media_type(headers: &HeaderMap, signal: Signal) -> Result<Media, Refusal> {
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    match content_type {
        Some(b"application/grpc" | b"application/grpc+proto") => Ok(Media {
            content_type: CONTENT_TYPE,
            content_encoding: None,
            written: Written::Protobuf(otlp_http::format(signal)),
            coding: match headers.get(&GRPC_ENCODING).map(HeaderValue::as_bytes) {
                None | Some(b"identity") => Coding::Identity,
                Some(b"gzip") => Coding::Gzip,
                Some(b"zstd") => Coding::Zstd,
                Some(b"snappy") => Coding::SnappyFramed,
                Some(_) => Coding::Other,
            },
            framing: Framing::Grpc,
        }),
        _ => Err(Refusal::MediaType {
            problem: "this gRPC method takes content-type application/grpc or application/grpc+proto",
        }),
    }
}

/// Writes a refusal as a trailers-only answer with the retry hint in both places that senders look at.
pub(crate) fn render(refusal: &Refusal, wait_seconds: Option<u64>) -> Response<Body> {
    let text = format!("ok-monitoring: {}", refusal.text());
    let mut response = error_after(refusal.row().code as u8, &text, wait_seconds);
    if matches!(refusal, Refusal::MediaType { .. }) {
        let accepted = HeaderValue::from_static("identity,gzip,zstd");
        response
            .headers_mut()
            .insert(GRPC_ACCEPT_ENCODING.clone(), accepted);
    }
    response
}

/// An upstream's error, as a trailers-only answer.
pub(crate) fn error(code: u8, text: &str, retry: bool) -> Response<Body> {
    error_after(code, text, retry.then_some(2))
}

/// An upstream's error with the delay that it asks for, in seconds.
pub(crate) fn error_after(code: u8, text: &str, wait_seconds: Option<u64>) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, CONTENT_TYPE);
    status_headers(headers, code, text);
    if let Some(seconds) = wait_seconds {
        retry_headers(headers, code, text, seconds);
    }
    response
}

/// Sets `grpc-status` and `grpc-message`.
pub(crate) fn status_headers(headers: &mut HeaderMap, code: u8, text: &str) {
    headers.insert(GRPC_STATUS.clone(), HeaderValue::from(u16::from(code)));
    let message = HeaderValue::try_from(wire::grpc::encode_message(text));
    if let Ok(message) = message {
        headers.insert(GRPC_MESSAGE.clone(), message);
    }
}

/// Sets the status details with a `RetryInfo`, and the bare `RetryInfo` beside them.
pub(crate) fn retry_headers(headers: &mut HeaderMap, code: u8, text: &str, seconds: u64) {
    let info = RetryInfo::after(Duration::from_secs(seconds));
    let status = Status::new(i32::from(code), text).with_retry_info(&info);
    for (name, value) in [
        (&DETAILS, status.to_metadata()),
        (&RETRY_INFO, info.to_metadata()),
    ] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name.clone(), value);
        }
    }
}

/// The gRPC status for an HTTP status from a backend that only speaks HTTP, and whether a delay belongs to it.
///
/// 401 and 403 are our own credential failing, not the customer's: the data must be kept.
pub(crate) const fn code_of_status(status: u16) -> (u8, bool) {
    match status {
        400 | 422 => (3, false),
        413 => (Code::ResourceExhausted as u8, false),
        404 | 415 => (Code::Unimplemented as u8, false),
        429 => (Code::ResourceExhausted as u8, true),
        401 | 403 | 502 | 503 | 504 | 529 => (Code::Unavailable as u8, true),
        499 => (Code::Cancelled as u8, false),
        _ => (Code::Internal as u8, false),
    }
}
