//! Prometheus remote write 1.0 and 2.0. `/api/v1/push` is Mimir's: only the `proto` parameter is read, the body is a
//! snappy block whatever the headers say. `/api/v1/write` is Prometheus': headers must be right, else 415.
//!
//! Answers to 2.0 carry the counts written, without which Prometheus reports data loss; answers to 1.0 must not.

mod readable;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use model::Signal;
use prost::Message as _;
use serde_json::Value;
use wire::prometheus::{v1, v2};

use crate::sink::head::{Head, NoTenant};
use crate::sink::inflate::Encoding;
use crate::sink::store::{Protocol, Sink};

/// The version of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// What a request held.
#[derive(Debug, Clone, Copy, Default)]
struct Written {
    samples: usize,
    histograms: usize,
    exemplars: usize,
}

type Refused = (StatusCode, String);

pub(super) fn routes() -> Router<Sink> {
    Router::new()
        .route("/api/v1/push", post(mimir))
        .route("/api/v1/write", post(prometheus))
}

async fn mimir(State(sink): State<Sink>, request: Request) -> Response {
    let version = match parameter(&content_type(&request)) {
        Some("io.prometheus.write.v2.Request") => Version::V2,
        _ => Version::V1,
    };
    answer(version, take(&sink, version, request).await)
}

async fn prometheus(State(sink): State<Sink>, request: Request) -> Response {
    match prometheus_version(&request) {
        Ok(version) => answer(version, take(&sink, version, request).await),
        Err(text) => answer(Version::V1, Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, text))),
    }
}

async fn take(sink: &Sink, version: Version, request: Request) -> Result<Written, Refused> {
    let bad = |text: String| (StatusCode::BAD_REQUEST, text);
    let head = Head::read(
        Protocol::RemoteWrite,
        request.uri().path(),
        request.headers(),
    )
    .map_err(|error: NoTenant| (StatusCode::UNAUTHORIZED, error.to_string()))?;
    // Too large is a 400 as well: vmagent would repeat after a 413 for ever.
    let body = Bytes::from_request(request, &())
        .await
        .map_err(|rejection| bad(rejection.body_text()))?;
    let body = Encoding::SnappyBlock
        .inflate(body)
        .map_err(|error| bad(error.to_string()))?;
    let (written, readable) = match version {
        Version::V1 => read_v1(body),
        Version::V2 => read_v2(body),
    }
    .map_err(bad)?;
    head.keep(
        sink,
        Signal::Metrics,
        written.samples + written.histograms,
        &readable,
    )
    .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(written)
}

fn read_v1(body: Bytes) -> Result<(Written, Value), String> {
    let request = v1::WriteRequest::decode(body).map_err(|error| error.to_string())?;
    let mut written = Written::default();
    for series in &request.timeseries {
        written.samples += series.samples.len();
        written.histograms += series.histograms.len();
        written.exemplars += series.exemplars.len();
    }
    Ok((written, readable::v1(&request)))
}

fn read_v2(body: Bytes) -> Result<(Written, Value), String> {
    let request = v2::Request::decode(body).map_err(|error| error.to_string())?;
    let mut written = Written::default();
    for series in &request.timeseries {
        written.samples += series.samples.len();
        written.histograms += series.histograms.len();
        written.exemplars += series.exemplars.len();
    }
    let readable = readable::v2(&request).map_err(|error| error.to_string())?;
    Ok((written, readable))
}

fn answer(version: Version, outcome: Result<Written, Refused>) -> Response {
    let written = outcome.as_ref().copied().unwrap_or_default();
    let answer = match outcome {
        Ok(_) => StatusCode::NO_CONTENT.into_response(),
        Err((status, text)) => (status, format!("{text}\n")).into_response(),
    };
    match version {
        Version::V1 => answer,
        Version::V2 => (written.headers(), answer).into_response(),
    }
}

impl Written {
    fn headers(self) -> [(&'static str, String); 3] {
        [
            (
                "x-prometheus-remote-write-samples-written",
                self.samples.to_string(),
            ),
            (
                "x-prometheus-remote-write-histograms-written",
                self.histograms.to_string(),
            ),
            (
                "x-prometheus-remote-write-exemplars-written",
                self.exemplars.to_string(),
            ),
        ]
    }
}

/// What Prometheus' receiver accepts: no content type at all, or the protobuf type with a `proto` it knows; no encoding, or
/// snappy. Anything else is the text of a 415.
fn prometheus_version(request: &Request) -> Result<Version, String> {
    let encoding = request.headers().get(header::CONTENT_ENCODING);
    if let Some(encoding) = encoding.filter(|encoding| *encoding != "snappy") {
        return Err(format!(
            "{encoding:?} encoding (compression) is not accepted by this server; only snappy is acceptable"
        ));
    }
    let content_type = content_type(request);
    let media_type = content_type.split(';').next().unwrap_or_default();
    match (media_type, parameter(&content_type)) {
        ("", _) | ("application/x-protobuf", None | Some("prometheus.WriteRequest")) => {
            Ok(Version::V1)
        }
        ("application/x-protobuf", Some("io.prometheus.write.v2.Request")) => Ok(Version::V2),
        _ => Err(format!(
            "{content_type:?} content type is not accepted by this server"
        )),
    }
}

fn content_type(request: &Request) -> String {
    let value = request.headers().get(header::CONTENT_TYPE);
    value.map_or_else(String::new, |value| {
        String::from_utf8_lossy(value.as_bytes()).into_owned()
    })
}

/// The `proto` parameter. Receivers do not trim, so `; proto=...` with a space is no parameter.
fn parameter(content_type: &str) -> Option<&str> {
    content_type
        .split(';')
        .skip(1)
        .find_map(|parameter| parameter.strip_prefix("proto="))
}
