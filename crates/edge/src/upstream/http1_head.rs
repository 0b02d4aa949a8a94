//! The heads of upstreams' HTTP/1.1 answers: what they say about the body after them and about the connection.

use std::mem::MaybeUninit;

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use wire::chunked::Decoder;

use super::UpstreamError;

/// The most an answer's head may have, in bytes.
const HEAD_BYTES: usize = 64 * 1024;
const HEADERS_MAX: usize = 100;

/// The head of an answer.
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Reading,
    pub(super) keep_alive: bool,
}

/// What of an answer's body is still to be read.
pub(super) enum Reading {
    Length(u64),
    Chunked(Decoder),
    UntilClose,
    Done,
}

impl Head {
    /// Takes a head off the front of `buffer`, and interim answers before it.
    pub(super) fn parse(buffer: &mut BytesMut) -> Result<Option<Self>, UpstreamError> {
        loop {
            let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
            let mut response = httparse::Response::new(&mut []);
            let parsed = httparse::ParserConfig::default()
                .parse_response_with_uninit_headers(&mut response, buffer, &mut headers)
                .map_err(|error| {
                    UpstreamError::Unreachable(format!("not an HTTP/1 answer: {error}"))
                })?;
            let httparse::Status::Complete(length) = parsed else {
                if buffer.len() > HEAD_BYTES {
                    return Err(UpstreamError::unreachable("the answer's head is too large"));
                }
                return Ok(None);
            };
            let status = StatusCode::from_u16(response.code.unwrap_or_default())
                .map_err(UpstreamError::unreachable)?;
            if status == StatusCode::SWITCHING_PROTOCOLS {
                return Err(UpstreamError::unreachable("switched protocols unasked"));
            }
            if status.is_informational() {
                let _ = buffer.split_to(length);
                continue;
            }
            let is_11 = response.version == Some(1);
            let mut map = HeaderMap::with_capacity(response.headers.len());
            for header in response.headers.iter() {
                let name = HeaderName::from_bytes(header.name.as_bytes())
                    .map_err(UpstreamError::unreachable)?;
                let value =
                    HeaderValue::from_bytes(header.value).map_err(UpstreamError::unreachable)?;
                map.append(name, value);
            }
            let _ = buffer.split_to(length);
            let (body, delimited) = Reading::of(status, &map)?;
            return Ok(Some(Self {
                status,
                keep_alive: delimited && is_11 && !closes(&map),
                body,
                headers: map,
            }));
        }
    }
}

impl Reading {
    /// How the body is delimited, and whether the connection can be used after it (RFC 9112 section 6.3).
    fn of(status: StatusCode, headers: &HeaderMap) -> Result<(Self, bool), UpstreamError> {
        if matches!(status.as_u16(), 204 | 304) {
            return Ok((Self::Length(0), true));
        }
        let lengths = headers.contains_key(header::CONTENT_LENGTH);
        if let Some(coding) = headers.get(header::TRANSFER_ENCODING) {
            if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
                return Err(UpstreamError::unreachable("an unknown transfer coding"));
            }
            return Ok((Self::Chunked(Decoder::default()), !lengths));
        }
        let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
        let Some(length) = lengths.next() else {
            return Ok((Self::UntilClose, false));
        };
        let parsed = length.to_str().ok().and_then(|text| text.parse().ok());
        match parsed {
            Some(length) if lengths.next().is_none() => Ok((Self::Length(length), true)),
            _ => Err(UpstreamError::unreachable("an unreadable Content-Length")),
        }
    }
}

fn closes(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONNECTION).iter().any(|value| {
        let mut options = value.as_bytes().split(|b| *b == b',');
        options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
    })
}
