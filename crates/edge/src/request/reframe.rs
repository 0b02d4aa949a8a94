//! OTLP/gRPC towards a backend that only speaks HTTP (Mimir, Loki): the message is taken out of its frame and posted, the
//! answer put into one, and neither is decoded. Follows `docs/ARCHITECTURE.md`, "Re-framing".

use std::future::poll_fn;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use ops::config::ByteSize;
use wire::grpc::{EMPTY_MESSAGE, PREFIX_LEN, Prefix};
use wire::rpc::Status;

use super::admit::Admitted;
use super::body::Body;
use super::forward;
use super::upload::Upload;
use crate::config::Kind;
use crate::protocol::otlp_grpc::{self, GRPC_ENCODING, GRPC_TIMEOUT};
use crate::refusal::Refusal;
use crate::upstream::{Answer, Download, HeaderList, UpstreamRequest};
use crate::worker::{Settings, Worker};

/// The most of an answer that is kept: its length goes before it. What gRPC clients take by default.
const ANSWER_MAX: usize = 4 * 1024 * 1024;
/// How much of an error that is plain text is passed on, in bytes.
const TEXT_MAX: usize = 1024;

/// Makes the call within the client's own deadline, if it gave one.
pub(crate) async fn call(
    worker: &Worker,
    settings: &Settings,
    admitted: &Admitted,
    parts: &Parts,
    upload: Upload,
) -> Result<Response<Body>, Refusal> {
    let calling = post(worker, settings, admitted, parts, upload);
    let timeout = parts.headers.get(&GRPC_TIMEOUT).map(HeaderValue::as_bytes);
    match timeout.and_then(wire::grpc::parse_timeout) {
        Some(timeout) => tokio::time::timeout(timeout, calling)
            .await
            .unwrap_or(Err(Refusal::UpstreamTimeout { by_client: true })),
        None => calling.await,
    }
}

async fn post(
    worker: &Worker,
    settings: &Settings,
    admitted: &Admitted,
    parts: &Parts,
    mut upload: Upload,
) -> Result<Response<Body>, Refusal> {
    let (prefix, ahead) = read_prefix(&mut upload, settings.body_idle_max).await?;
    let length = u64::from(prefix.length);
    if length > admitted.body_max.0 {
        return Err(Refusal::TooLarge {
            limit: admitted.body_max,
        });
    }
    let encoding = encoding(prefix, &parts.headers, admitted.routed.target.upstream.kind)?;
    let mut upload = upload.into_message(ahead, length);
    if length == 0 {
        // OTLP wants success for an empty request, Loki would refuse one.
        return match poll_fn(|cx| upload.poll_data(cx)).await {
            None => Ok(success(&[])),
            Some(Err(refusal)) => Err(refusal),
            Some(Ok(_)) => Err(Refusal::SecondMessage),
        };
    }
    let mut headers = forward::request_headers(admitted, &HeaderMap::new());
    for (name, value) in &mut headers {
        if *name == header::CONTENT_TYPE {
            *value = HeaderValue::from_static("application/x-protobuf");
        }
    }
    headers.retain(|(name, _)| *name != header::TE);
    if let Some(agent) = parts.headers.get(header::USER_AGENT) {
        headers.insert(0, (header::USER_AGENT, agent.clone()));
    }
    if let Some(encoding) = encoding {
        headers.insert(0, (header::CONTENT_ENCODING, encoding));
    }
    let mut trace = HeaderList::new();
    forward::pass_trace_context(&parts.headers, &mut trace);
    headers.splice(0..0, trace);
    let target = &admitted.routed.target;
    let request = UpstreamRequest {
        path: &target.path,
        headers: &headers,
        length: Some(length),
    };
    let fail = |error| forward::refusal(worker, target, error);
    let answer = target.send(request, upload).await.map_err(fail)?;
    forward::check_trust(worker, &admitted.routed, answer.status)?;
    let Answer {
        status,
        headers,
        mut download,
    } = answer;
    let body = collect(&mut download).await.map_err(fail)?;
    Ok(if !status.is_success() {
        failure(status, &headers, &body)
    } else if status == StatusCode::OK && is_protobuf(&headers) {
        success(&body)
    } else {
        success(&[])
    })
}

/// Reads the five bytes before the message, and gives back what came with them.
async fn read_prefix(upload: &mut Upload, patience: Duration) -> Result<(Prefix, Bytes), Refusal> {
    let mut read = BytesMut::new();
    while read.len() < PREFIX_LEN {
        let next = poll_fn(|cx| upload.poll_data(cx));
        let next = tokio::time::timeout(patience, next)
            .await
            .map_err(|_| Refusal::BodyTimeout)?;
        match next {
            Some(data) => read.extend_from_slice(&data?),
            None => {
                return Err(Refusal::BadFraming {
                    problem: "the call ended before its message",
                });
            }
        }
    }
    let ahead = read.split_off(PREFIX_LEN).freeze();
    let mut bytes = [0; PREFIX_LEN];
    bytes.copy_from_slice(&read);
    let prefix = Prefix::parse(bytes).map_err(|_| Refusal::BadFraming {
        problem: "the message's flag is neither 0 nor 1",
    })?;
    Ok((prefix, ahead))
}

/// The content encoding that says what `grpc-encoding` says of a compressed message.
fn encoding(
    prefix: Prefix,
    headers: &HeaderMap,
    kind: Kind,
) -> Result<Option<HeaderValue>, Refusal> {
    if !prefix.compressed {
        return Ok(None);
    }
    match headers.get(&GRPC_ENCODING).map(HeaderValue::as_bytes) {
        Some(b"gzip") => Ok(Some(HeaderValue::from_static("gzip"))),
        Some(b"zstd") => Ok(Some(HeaderValue::from_static("zstd"))),
        // gRPC's snappy is the framed format in the Collector's clients, and only the Collector takes that over HTTP.
        Some(b"snappy") if kind == Kind::Collector => {
            Ok(Some(HeaderValue::from_static("x-snappy-framed")))
        }
        None | Some(b"identity") => Err(Refusal::BadFraming {
            problem: "the message is marked as compressed, but grpc-encoding is missing",
        }),
        Some(_) => Err(Refusal::MediaType {
            problem: "this route takes grpc-encoding gzip, zstd or identity",
        }),
    }
}

async fn collect(download: &mut Download) -> Result<Bytes, crate::upstream::UpstreamError> {
    let mut body = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| download.poll_frame(cx)).await {
        if let Ok(data) = frame?.into_data() {
            if body.len() + data.len() > ANSWER_MAX {
                let reason = format!("the answer is larger than {}", ByteSize(ANSWER_MAX as u64));
                return Err(crate::upstream::UpstreamError::Unreachable(reason));
            }
            body.extend_from_slice(&data);
        }
    }
    Ok(body.freeze())
}

fn is_protobuf(headers: &HeaderMap) -> bool {
    media_is(headers, &["application/x-protobuf"])
}

fn media_is(headers: &HeaderMap, types: &[&str]) -> bool {
    let media = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    media.is_some_and(|media| types.contains(&media.split(';').next().unwrap_or_default().trim()))
}

/// One message, then status 0. The message must be there even when it is empty: .NET fails without one.
fn success(message: &[u8]) -> Response<Body> {
    let data = if message.is_empty() {
        Bytes::from_static(&EMPTY_MESSAGE)
    } else {
        let prefix = Prefix {
            compressed: false,
            // Answers are capped far below 4 GiB.
            length: u32::try_from(message.len()).unwrap_or(u32::MAX),
        };
        Bytes::from([&prefix.to_bytes()[..], message].concat())
    };
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(
        otlp_grpc::GRPC_STATUS.clone(),
        HeaderValue::from_static("0"),
    );
    let mut response = Response::new(Body::message(data, trailers));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, otlp_grpc::CONTENT_TYPE);
    response
}

/// The backend's own words with the code that makes senders do what its HTTP status would.
fn failure(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Response<Body> {
    let (code, retry) = otlp_grpc::code_of_status(status.as_u16());
    let told = media_is(
        headers,
        &["application/x-protobuf", "application/octet-stream"],
    )
    .then(|| Status::from_protobuf(body))
    .flatten()
    .map(|status| status.message);
    let text = told.unwrap_or_else(|| {
        let start = body.get(..TEXT_MAX).unwrap_or(body);
        String::from_utf8_lossy(start).trim().to_owned()
    });
    let seconds = headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    otlp_grpc::error_after(code, &text, retry.then(|| seconds.unwrap_or(2)))
}
