//! OTLP over HTTP: its paths, its media types, and refusals as a `google.rpc.Status` in the request's own encoding
//! (opentelemetry-proto `docs/specification.md`, "Failures").

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response, header};
use model::Signal;
use wire::count::{Coding, Format, Framing, JsonFormat, Written};
use wire::rpc::{RetryInfo, Status};

use super::Dialect;
use crate::refusal::Refusal;
use crate::request::body::Body;
use crate::request::route::Media;

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The signal of a path: the specification's own, the ones below a base URL of `/otlp`, and those that Prometheus and
/// VictoriaMetrics gave their users.
pub(crate) fn signal(path: &str) -> Option<Signal> {
    Some(match path {
        "/v1/traces" | "/otlp/v1/traces" => Signal::Traces,
        "/v1/metrics"
        | "/otlp/v1/metrics"
        | "/api/v1/otlp/v1/metrics"
        | "/opentelemetry/v1/metrics" => Signal::Metrics,
        "/v1/logs" | "/otlp/v1/logs" => Signal::Logs,
        "/v1development/profiles" | "/otlp/v1development/profiles" => Signal::Profiles,
        _ => return None,
    })
}

/// The encoding an answer should have, by the request's content type; protobuf when it names neither.
pub(crate) fn dialect(headers: &HeaderMap) -> Dialect {
    match super::media_type(headers) {
        Some(media) if media.eq_ignore_ascii_case("application/json") => Dialect::OtlpJson,
        _ => Dialect::OtlpProtobuf,
    }
}

/// Checks content type and encoding, and gives both in the bare, lower-case form that every backend takes.
pub(crate) fn check_media_type(headers: &HeaderMap, signal: Signal) -> Result<Media, Refusal> {
    let (content_type, written) = match super::media_type(headers) {
        Some(media) if media.eq_ignore_ascii_case("application/x-protobuf") => {
            (PROTOBUF, Written::Protobuf(format(signal)))
        }
        Some(media) if media.eq_ignore_ascii_case("application/json") => {
            (JSON, Written::Json(json_format(signal)))
        }
        _ => {
            return Err(Refusal::MediaType {
                problem: "this path takes Content-Type application/x-protobuf or application/json",
            });
        }
    };
    let known = [
        "gzip",
        "zstd",
        "deflate",
        "zlib",
        "snappy",
        "x-snappy-framed",
        "lz4",
    ];
    let content_encoding = super::content_encoding(headers, &known).map_err(|()| Refusal::MediaType {
        problem: "this path takes one Content-Encoding: gzip, zstd, deflate, zlib, snappy, x-snappy-framed, lz4 or none",
    })?;
    let coding = match content_encoding.as_ref().map(HeaderValue::as_bytes) {
        None => Coding::Identity,
        Some(b"gzip") => Coding::Gzip,
        Some(b"zstd") => Coding::Zstd,
        Some(b"deflate" | b"zlib") => Coding::Zlib,
        Some(b"snappy") => Coding::Snappy,
        Some(b"x-snappy-framed") => Coding::SnappyFramed,
        Some(_) => Coding::Other,
    };
    Ok(Media {
        content_type,
        content_encoding,
        written,
        coding,
        framing: Framing::None,
    })
}

/// The message of a signal.
pub(super) const fn format(signal: Signal) -> Format {
    match signal {
        Signal::Traces => Format::Traces,
        Signal::Metrics => Format::Metrics,
        Signal::Logs => Format::Logs,
        Signal::Profiles => Format::Profiles,
    }
}

const fn json_format(signal: Signal) -> JsonFormat {
    match signal {
        Signal::Traces => JsonFormat::Traces,
        Signal::Metrics => JsonFormat::Metrics,
        Signal::Logs => JsonFormat::Logs,
        Signal::Profiles => JsonFormat::Profiles,
    }
}

/// Writes a refusal as protobuf.
pub(crate) fn render_protobuf(refusal: &Refusal, wait_seconds: Option<u64>) -> Response<Body> {
    answer(PROTOBUF, status(refusal, wait_seconds).to_protobuf())
}

/// Writes a refusal as JSON.
pub(crate) fn render_json(refusal: &Refusal, wait_seconds: Option<u64>) -> Response<Body> {
    answer(JSON, status(refusal, wait_seconds).to_json().into_bytes())
}

fn status(refusal: &Refusal, wait_seconds: Option<u64>) -> Status {
    let text = format!("ok-monitoring: {}", refusal.text());
    let status = Status::new(refusal.row().code as i32, text);
    match wait_seconds {
        Some(seconds) => status.with_retry_info(&RetryInfo::after(Duration::from_secs(seconds))),
        None => status,
    }
}

fn answer(content_type: HeaderValue, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::full(body.into()));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}
