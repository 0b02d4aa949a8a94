//! OTLP over HTTP, protobuf and JSON. Three backends take it and differ in what they accept and how they answer; the path
//! tells which one is meant ([`Dialect`]). Sources: the Collector's `receiver/otlpreceiver` and `config/confighttp`, Mimir's
//! `pkg/distributor/otel.go`, Loki's `pkg/loghttp/push/otlp.go`. lz4, which all three know, is refused as unknown.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use prost::Message as _;
use wire::rpc;

use super::{Export, Logs, Metrics, Profiles, Traces};
use crate::sink::head::{Head, NoTenant};
use crate::sink::inflate::{Encoding, InflateError};
use crate::sink::store::{Protocol, Sink};

/// Whose manners a path has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// Parameters on the content type are fine; every fault of the body is a 400. Tempo embeds this receiver.
    Collector,
    /// Header values are compared byte for byte.
    Mimir,
    /// As Mimir, but success is a 204, and errors are protobuf even for JSON.
    Loki,
}

/// The two encodings of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Protobuf,
    Json,
}

/// An answer other than success.
struct Refused {
    status: StatusCode,
    text: String,
}

pub(in crate::sink) fn routes() -> Router<Sink> {
    Router::new()
        .route("/v1/traces", post(collector::<Traces>))
        .route("/v1/metrics", post(collector::<Metrics>))
        .route("/v1/logs", post(collector::<Logs>))
        .route("/v1development/profiles", post(collector::<Profiles>))
        .route("/otlp/v1/traces", post(collector::<Traces>))
        .route("/otlp/v1/metrics", post(mimir))
        .route("/otlp/v1/logs", post(loki))
}

async fn collector<T: Export>(State(sink): State<Sink>, request: Request) -> Response {
    export::<T>(&sink, Dialect::Collector, request).await
}

async fn mimir(State(sink): State<Sink>, request: Request) -> Response {
    export::<Metrics>(&sink, Dialect::Mimir, request).await
}

async fn loki(State(sink): State<Sink>, request: Request) -> Response {
    export::<Logs>(&sink, Dialect::Loki, request).await
}

async fn export<T: Export>(sink: &Sink, dialect: Dialect, request: Request) -> Response {
    let head = match Head::read(Protocol::OtlpHttp, request.uri().path(), request.headers()) {
        Ok(head) => head,
        Err(error) => return dialect.no_tenant(&error, request.headers()),
    };
    let Some(format) = dialect.format(head.content_type().as_deref()) else {
        return dialect.unknown_format();
    };
    match take::<T>(sink, dialect, format, head, request).await {
        Ok(()) => dialect.success(format),
        Err(refused) => dialect.refusal(format, &refused),
    }
}

async fn take<T: Export>(
    sink: &Sink,
    dialect: Dialect,
    format: Format,
    head: Head,
    request: Request,
) -> Result<(), Refused> {
    let body = Bytes::from_request(request, &())
        .await
        .map_err(|rejection| Refused {
            status: if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                dialect.too_large()
            } else {
                StatusCode::BAD_REQUEST
            },
            text: rejection.body_text(),
        })?;
    let encoding = dialect.encoding(head.content_encoding().as_deref(), &body)?;
    let body = encoding.inflate(body).map_err(|error| Refused {
        status: match error {
            InflateError::TooLarge => dialect.too_large(),
            InflateError::Damaged(_) => StatusCode::BAD_REQUEST,
        },
        text: error.to_string(),
    })?;
    let message = match format {
        Format::Protobuf => T::decode(body).map_err(|error| error.to_string()),
        Format::Json => serde_json::from_slice(&body).map_err(|error| error.to_string()),
    };
    let message: T = message.map_err(|text| Refused {
        status: StatusCode::BAD_REQUEST,
        text,
    })?;
    let item_count = message.item_count();
    if dialect == Dialect::Loki && item_count == 0 {
        let text = "error at least one valid stream is required for ingestion".to_owned();
        return Err(Refused {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            text,
        });
    }
    head.keep(sink, T::SIGNAL, item_count, &message)
        .map_err(|error| Refused {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            text: error.to_string(),
        })
}

impl Dialect {
    fn format(self, content_type: Option<&str>) -> Option<Format> {
        let content_type = content_type?;
        let media_type = match self {
            Self::Collector => content_type.split(';').next().unwrap_or_default().trim(),
            Self::Mimir | Self::Loki => content_type,
        };
        match media_type {
            "application/x-protobuf" => Some(Format::Protobuf),
            "application/json" => Some(Format::Json),
            _ => None,
        }
    }

    fn encoding(self, name: Option<&str>, body: &[u8]) -> Result<Encoding, Refused> {
        match (self, name.unwrap_or_default()) {
            (_, "") => Ok(Encoding::Identity),
            (_, "gzip") => Ok(Encoding::Gzip),
            (_, "zstd") => Ok(Encoding::Zstd),
            (Self::Collector, "zlib" | "deflate") => Ok(Encoding::Zlib),
            (Self::Collector, "snappy") => Ok(Encoding::sniff_snappy(body)),
            (Self::Collector, "x-snappy-framed") => Ok(Encoding::SnappyFramed),
            (_, other) => Err(Refused {
                status: match self {
                    Self::Mimir => StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    Self::Collector | Self::Loki => StatusCode::BAD_REQUEST,
                },
                text: format!("unsupported Content-Encoding: {other}"),
            }),
        }
    }

    fn too_large(self) -> StatusCode {
        match self {
            Self::Collector => StatusCode::BAD_REQUEST,
            Self::Mimir | Self::Loki => StatusCode::PAYLOAD_TOO_LARGE,
        }
    }

    fn success(self, format: Format) -> Response {
        match (self, format) {
            (Self::Loki, _) => StatusCode::NO_CONTENT.into_response(),
            (_, Format::Protobuf) => typed("application/x-protobuf", Bytes::new()),
            (_, Format::Json) => typed("application/json", r#"{"partialSuccess":{}}"#.into()),
        }
    }

    /// Mimir and Loki check the tenant before they know that the request is OTLP, so they answer in plain text.
    fn no_tenant(self, error: &NoTenant, headers: &HeaderMap) -> Response {
        let status = match (self, error) {
            (Self::Mimir, _) | (_, NoTenant::Missing) => StatusCode::UNAUTHORIZED,
            (_, NoTenant::Invalid(_)) => StatusCode::BAD_REQUEST,
        };
        if self != Self::Collector {
            return (status, format!("{error}\n")).into_response();
        }
        let content_type = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let format = self.format(content_type).unwrap_or(Format::Protobuf);
        self.refusal(
            format,
            &Refused {
                status,
                text: error.to_string(),
            },
        )
    }

    fn unknown_format(self) -> Response {
        let text = "unsupported media type, supported: [application/json, application/x-protobuf]";
        match self {
            Self::Collector => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("415 {text}\n")).into_response()
            }
            Self::Mimir | Self::Loki => {
                let status = match self {
                    Self::Loki => StatusCode::BAD_REQUEST,
                    _ => StatusCode::UNSUPPORTED_MEDIA_TYPE,
                };
                self.refusal(
                    Format::Protobuf,
                    &Refused {
                        status,
                        text: text.to_owned(),
                    },
                )
            }
        }
    }

    /// A `google.rpc.Status` in the encoding of the request; Loki's is always protobuf, with code 0.
    fn refusal(self, format: Format, refused: &Refused) -> Response {
        let code = if self == Self::Loki {
            0
        } else {
            grpc_code(refused.status)
        };
        let status = rpc::Status::new(code, &*refused.text);
        let answer = match (self, format) {
            (Self::Loki, _) => typed("application/octet-stream", status.encode_to_vec().into()),
            (_, Format::Protobuf) => typed("application/x-protobuf", status.encode_to_vec().into()),
            (_, Format::Json) => typed("application/json", status.to_json().into()),
        };
        (refused.status, answer).into_response()
    }
}

fn typed(content_type: &'static str, body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}

/// The gRPC code that says the same as an HTTP status.
fn grpc_code(status: StatusCode) -> i32 {
    let code = match status.as_u16() {
        400 | 415 | 422 => tonic::Code::InvalidArgument,
        401 => tonic::Code::Unauthenticated,
        413 => tonic::Code::ResourceExhausted,
        _ => tonic::Code::Internal,
    };
    code as i32
}
