//! Loki push, protobuf and JSON, as Loki's `pkg/loghttp/push/push.go` reads it: the path tells the JSON's schema, protobuf
//! is always a snappy block, and `deflate` has no zlib header.

mod json;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use model::Signal;
use prost::Message as _;
use wire::loki::{PushRequest, StreamAdapter};

use crate::sink::head::{Head, NoTenant};
use crate::sink::inflate::{Encoding, InflateError};
use crate::sink::store::{Protocol, Sink};
use json::{Entry, Push, Stream};

type Refused = (StatusCode, String);

pub(super) fn routes() -> Router<Sink> {
    Router::new()
        .route("/loki/api/v1/push", post(push))
        .route("/api/prom/push", post(push))
}

async fn push(State(sink): State<Sink>, request: Request) -> Response {
    match take(&sink, request).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err((status, text)) => (status, format!("{text}\n")).into_response(),
    }
}

async fn take(sink: &Sink, request: Request) -> Result<(), Refused> {
    let bad = |text: String| (StatusCode::BAD_REQUEST, text);
    let path = request.uri().path().to_owned();
    let head = Head::read(Protocol::Loki, &path, request.headers()).map_err(|error| {
        let status = match error {
            NoTenant::Missing => StatusCode::UNAUTHORIZED,
            NoTenant::Invalid(_) => StatusCode::BAD_REQUEST,
        };
        (status, error.to_string())
    })?;
    let content_type = head.content_type().unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if media_type.is_empty() {
        return Err(bad("mime: no media type".to_owned()));
    }
    let is_json = media_type.eq_ignore_ascii_case("application/json");
    let encoding = encoding(head.content_encoding().as_deref().unwrap_or_default())?;
    let body = Bytes::from_request(request, &())
        .await
        .map_err(|rejection| (rejection.status(), rejection.body_text()))?;
    let body = encoding.inflate(body).map_err(|error| refuse(&error))?;
    let push = match (is_json, path.starts_with("/loki/api/v1")) {
        (true, true) => json::parse_v1(&body).map_err(bad)?,
        (true, false) => json::parse_v0(&body).map_err(bad)?,
        (false, _) => {
            let block = Encoding::SnappyBlock
                .inflate(body)
                .map_err(|error| refuse(&error))?;
            readable(PushRequest::decode(block).map_err(|error| bad(error.to_string()))?)
        }
    };
    let item_count = push.streams.iter().map(|stream| stream.entries.len()).sum();
    if item_count == 0 {
        let text = "error at least one valid stream is required for ingestion".to_owned();
        return Err((StatusCode::UNPROCESSABLE_ENTITY, text));
    }
    head.keep(sink, Signal::Logs, item_count, &push)
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// What is around the JSON, or around the snappy block of protobuf; `snappy` is that block itself.
fn encoding(name: &str) -> Result<Encoding, Refused> {
    match name {
        "" | "snappy" => Ok(Encoding::Identity),
        "gzip" => Ok(Encoding::Gzip),
        "deflate" => Ok(Encoding::RawDeflate),
        other => {
            let text = format!("Content-Encoding {other:?} not supported");
            Err((StatusCode::BAD_REQUEST, text))
        }
    }
}

fn refuse(error: &InflateError) -> Refused {
    let status = match error {
        InflateError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        InflateError::Damaged(_) => StatusCode::BAD_REQUEST,
    };
    (status, error.to_string())
}

fn readable(request: PushRequest) -> Push {
    let entries = |stream: &StreamAdapter| {
        let entry = |entry: &wire::loki::EntryAdapter| Entry {
            timestamp: entry.timestamp.map_or(0, |at| {
                i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos)
            }),
            line: entry.line.clone(),
            structured_metadata: entry
                .structured_metadata
                .iter()
                .map(|pair| (pair.name.clone(), pair.value.clone()))
                .collect(),
        };
        stream.entries.iter().map(entry).collect()
    };
    let stream = |stream: StreamAdapter| Stream {
        entries: entries(&stream),
        labels: stream.labels,
    };
    Push {
        streams: request.streams.into_iter().map(stream).collect(),
    }
}
