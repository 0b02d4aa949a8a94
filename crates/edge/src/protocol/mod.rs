//! The wire protocols: how each names itself, and how an answer of ours is written for its senders. The decisions
//! themselves never look at a protocol.

pub(crate) mod loki_push;
pub(crate) mod otlp_grpc;
pub(crate) mod otlp_http;
pub(crate) mod remote_write;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use crate::refusal::Refusal;
use crate::request::body::Body;

/// What senders speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    OtlpGrpc,
    OtlpHttp,
    RemoteWrite,
    LokiPush,
}

impl Protocol {
    pub(crate) const ALL: [Self; 4] = [
        Self::OtlpGrpc,
        Self::OtlpHttp,
        Self::RemoteWrite,
        Self::LokiPush,
    ];

    /// The name that configuration, metrics and logs use.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::OtlpGrpc => "otlp_grpc",
            Self::OtlpHttp => "otlp_http",
            Self::RemoteWrite => "remote_write",
            Self::LokiPush => "loki_push",
        }
    }
}

/// How an answer of ours is written: in the sender's protocol and encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    OtlpGrpc,
    OtlpProtobuf,
    OtlpJson,
    RemoteWrite,
    LokiPush,
    /// For requests that no protocol claims.
    Plain,
}

impl Dialect {
    /// The protocol this dialect belongs to.
    pub(crate) const fn protocol(self) -> Option<Protocol> {
        match self {
            Self::OtlpGrpc => Some(Protocol::OtlpGrpc),
            Self::OtlpProtobuf | Self::OtlpJson => Some(Protocol::OtlpHttp),
            Self::RemoteWrite => Some(Protocol::RemoteWrite),
            Self::LokiPush => Some(Protocol::LokiPush),
            Self::Plain => None,
        }
    }

    /// Writes `refusal` for senders of this dialect. `jitter` spreads those who are told to come back; any number will do.
    pub(crate) fn render(self, refusal: &Refusal, jitter: u64) -> Response<Body> {
        let wait = refusal.row().retry.seconds(jitter);
        let mut response = match self {
            Self::OtlpGrpc => return otlp_grpc::render(refusal, wait),
            Self::OtlpProtobuf => otlp_http::render_protobuf(refusal, wait),
            Self::OtlpJson => otlp_http::render_json(refusal, wait),
            Self::RemoteWrite | Self::LokiPush | Self::Plain => plain(refusal),
        };
        *response.status_mut() = StatusCode::from_u16(refusal.status(self.protocol()))
            .unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        http_hints(response.headers_mut(), refusal, wait);
        response
    }
}

/// One line of plain text, as remote-write and Loki senders log it.
fn plain(refusal: &Refusal) -> Response<Body> {
    let mut response = Response::new(Body::full(
        format!("ok-monitoring: {}\n", refusal.text()).into(),
    ));
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
}

/// The headers that say when to come back and how to do better (RFC 9110 sections 10.2.3, 10.2.1 and 11.6.1).
fn http_hints(headers: &mut HeaderMap, refusal: &Refusal, wait: Option<u64>) {
    if let Some(seconds) = wait {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    match refusal.row().status {
        401 => {
            let challenge = HeaderValue::from_static(
                "Bearer realm=\"ok-monitoring\", Basic realm=\"ok-monitoring\"",
            );
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        405 => {
            headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        _ => {}
    }
}

/// The media type of the body without its parameters; `None` when there is none, or more than one header.
fn media_type(headers: &HeaderMap) -> Option<&str> {
    content_type(headers)?.split(';').next().map(str::trim)
}

/// The value of a parameter of the content type.
fn parameter<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    content_type(headers)?
        .split(';')
        .skip(1)
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(key, _)| key.trim().eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim().trim_matches('"'))
}

fn content_type(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let first = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(first)
}

/// The content encoding in lower case, `None` for no encoding; an error for one not in `known`, or several.
fn content_encoding(
    headers: &HeaderMap,
    known: &[&'static str],
) -> Result<Option<HeaderValue>, ()> {
    let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
    let Some(first) = values.next() else {
        return Ok(None);
    };
    let first = first.to_str().map_err(|_| ())?.trim();
    if values.next().is_some() {
        return Err(());
    }
    if first.is_empty() || first.eq_ignore_ascii_case("identity") {
        return Ok(None);
    }
    known
        .iter()
        .find(|name| name.eq_ignore_ascii_case(first))
        .map(|name| Some(HeaderValue::from_static(name)))
        .ok_or(())
}
