//! Loki push: its paths and its media types. Refusals are one line of plain text. Source: grafana/loki
//! `pkg/loghttp/push/push.go`.

use http::{HeaderMap, HeaderValue};

use crate::refusal::Refusal;
use crate::request::route::Media;

/// Where all current senders push.
pub(crate) const PATH: &str = "/loki/api/v1/push";

/// Whether the body is JSON, which on the legacy path means Loki's first schema.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    super::media_type(headers).is_some_and(|media| media.eq_ignore_ascii_case("application/json"))
}

/// Checks content type and encoding, and gives the canonical form of both. Protobuf without an encoding is snappy all
/// the same: Promtail sends it so and Loki reads it so.
pub(crate) fn check_media_type(headers: &HeaderMap) -> Result<Media, Refusal> {
    let (content_type, encodings): (_, &[&str]) = match super::media_type(headers) {
        Some(media) if media.eq_ignore_ascii_case("application/json") => (
            HeaderValue::from_static("application/json"),
            &["gzip", "deflate"],
        ),
        Some(media) if media.eq_ignore_ascii_case("application/x-protobuf") => (
            HeaderValue::from_static("application/x-protobuf"),
            &["snappy", "gzip"],
        ),
        _ => {
            return Err(Refusal::MediaType {
                problem: "this path takes Content-Type application/x-protobuf or application/json",
            });
        }
    };
    let content_encoding = super::content_encoding(headers, encodings).map_err(|()| Refusal::MediaType {
        problem: "this path takes protobuf with Content-Encoding snappy, gzip or none, and JSON with gzip, deflate or none",
    })?;
    Ok(Media {
        content_type,
        content_encoding,
    })
}
