//! Prometheus remote write 1.0 and 2.0: its paths and its media types. Refusals are one line of plain text.
//! Sources: the two specifications (prometheus.io/docs/specs/prw), `protocols.md` of receivers for what they compare.

use http::{HeaderMap, HeaderName, HeaderValue};
use wire::count::{Coding, Format, Framing, Written};

use crate::refusal::Refusal;
use crate::request::route::Media;

/// `X-Prometheus-Remote-Write-Version`
pub(crate) static VERSION: HeaderName =
    HeaderName::from_static("x-prometheus-remote-write-version");
/// `X-VictoriaMetrics-Remote-Write-Version`
pub(crate) static VICTORIA_VERSION: HeaderName =
    HeaderName::from_static("x-victoriametrics-remote-write-version");
/// `Retry-Attempt`, which Prometheus counts up and Mimir scales its delay by.
pub(crate) static RETRY_ATTEMPT: HeaderName = HeaderName::from_static("retry-attempt");

/// Receivers split at `;` and `=` without trimming, so the forms without a space are the only ones all of them read.
const V1: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const V2: HeaderValue =
    HeaderValue::from_static("application/x-protobuf;proto=io.prometheus.write.v2.Request");
const SNAPPY: HeaderValue = HeaderValue::from_static("snappy");

/// Whether a path takes remote write. `/api/prom/push` is shared with Loki's first API: see [`claims_shared_path`].
pub(crate) fn takes(path: &str) -> bool {
    matches!(path, "/api/v1/push" | "/api/v1/write")
}

/// The path that Grafana Cloud and Cortex take remote write on, and Loki its legacy push.
pub(crate) const SHARED_PATH: &str = "/api/prom/push";

/// Whether a request to [`SHARED_PATH`] says of itself that it is remote write.
pub(crate) fn claims_shared_path(headers: &HeaderMap) -> bool {
    headers.contains_key(&VERSION)
        || headers.contains_key(&VICTORIA_VERSION)
        || super::parameter(headers, "proto").is_some()
}

/// Checks content type and encoding, and gives the canonical form of both.
pub(crate) fn check_media_type(headers: &HeaderMap) -> Result<Media, Refusal> {
    let wrong_type = || Refusal::MediaType {
        problem: "this path takes Content-Type application/x-protobuf, with proto=prometheus.WriteRequest, \
                  proto=io.prometheus.write.v2.Request or without",
    };
    let media = super::media_type(headers).ok_or_else(wrong_type)?;
    if !media.eq_ignore_ascii_case("application/x-protobuf") {
        return Err(wrong_type());
    }
    let (content_type, format) = match super::parameter(headers, "proto") {
        None | Some("prometheus.WriteRequest") => (V1, Format::RemoteWrite1),
        Some("io.prometheus.write.v2.Request") => (V2, Format::RemoteWrite2),
        Some(_) => return Err(wrong_type()),
    };
    match super::content_encoding(headers, &["snappy"]) {
        // Senders that leave the header out mean snappy too: no receiver takes anything else.
        Ok(_) => Ok(Media {
            content_type,
            content_encoding: Some(SNAPPY),
            written: Written::Protobuf(format),
            coding: Coding::SnappyBlock,
            framing: Framing::None,
        }),
        Err(()) => Err(Refusal::MediaType {
            problem: "this path takes Content-Encoding snappy (block format) only",
        }),
    }
}
