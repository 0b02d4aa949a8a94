//! Loki push: its paths and its media types. Refusals are one line of plain text. Source: grafana/loki
//! `pkg/loghttp/push/push.go`.

use http::{HeaderMap, HeaderValue};
use wire::count::{Coding, Format, Framing, JsonFormat, Written};

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
pub(crate) fn check_media_type(headers: &HeaderMap, is_legacy: bool) -> Result<Media, Refusal> {
    let (content_type, written, encodings): (_, _, &[&str]) = match super::media_type(headers) {
        Some(media) if media.eq_ignore_ascii_case("application/json") => (
            HeaderValue::from_static("application/json"),
            Written::Json(if is_legacy {
                JsonFormat::LokiLegacyPush
            } else {
                JsonFormat::LokiPush
            }),
            &["gzip", "deflate"],
        ),
        Some(media) if media.eq_ignore_ascii_case("application/x-protobuf") => (
            HeaderValue::from_static("application/x-protobuf"),
            Written::Protobuf(Format::LokiPush),
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
    let encoding = content_encoding.as_ref().map(HeaderValue::as_bytes);
    let coding = match (written, encoding) {
        (Written::Protobuf(_), None | Some(b"snappy")) => Coding::SnappyBlock,
        // Loki reads a snappy block inside of the gzip, which nobody sends.
        (Written::Protobuf(_), Some(_)) => Coding::Other,
        (Written::Json(_), None) => Coding::Identity,
        (Written::Json(_), Some(b"gzip")) => Coding::Gzip,
        (Written::Json(_), Some(_)) => Coding::RawDeflate,
    };
    Ok(Media {
        content_type,
        content_encoding,
        written,
        coding,
        framing: Framing::None,
    })
}
