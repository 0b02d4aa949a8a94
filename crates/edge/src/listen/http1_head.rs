//! HTTP/1.1 heads: requests' are parsed, responses' are written. Strict where parsers disagree (RFC 9112 sections 2.2, 6.3
//! and 11.2): a request that two servers could read as two different ones is refused.

use std::mem::MaybeUninit;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version, header};
use httparse::Status;
use memchr::memchr_iter;
use ops::config::ByteSize;

use crate::refusal::Refusal;

/// More headers than any sender has: what `connections.headers_max` may be at most.
pub(crate) const HEADERS_MAX: usize = 100;

/// A request's head.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) parts: Parts,
    /// How long the body is, or why that cannot be told.
    pub(crate) framing: Result<Framing, Refusal>,
    pub(crate) keep_alive: bool,
    pub(crate) expects_continue: bool,
}

/// How a body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// By its length in bytes.
    Length(u64),
    Chunked,
}

/// Bytes that are no request's head at all; there is nothing to route an answer by.
#[derive(Debug)]
pub(crate) struct BadHead(pub(crate) Refusal);

const MALFORMED: BadHead = BadHead(Refusal::BadFraming {
    problem: "the request's head is not well-formed HTTP/1.1",
});

/// Takes a head off the front of `buffer`; `None` when it is not complete yet.
pub(crate) fn parse(buffer: &mut BytesMut, head_max: ByteSize) -> Result<Option<Head>, BadHead> {
    if buffer.is_empty() {
        return Ok(None);
    }
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let status = request.parse_with_uninit_headers(buffer, &mut headers);
    let too_large = || BadHead(Refusal::HeadTooLarge { limit: head_max });
    let length = match status {
        Ok(Status::Complete(length)) if length as u64 > head_max.0 => return Err(too_large()),
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) if buffer.len() as u64 > head_max.0 => return Err(too_large()),
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(too_large()),
        Err(_) => return Err(MALFORMED),
    };
    let version = if request.version == Some(1) {
        Version::HTTP_11
    } else {
        Version::HTTP_10
    };
    let method = request.method.map(str::as_bytes).map(Method::from_bytes);
    let Some(Ok(method)) = method else {
        return Err(MALFORMED);
    };
    let base = buffer.as_ptr() as usize;
    let place = |bytes: &[u8]| Place {
        start: bytes.as_ptr() as usize - base,
        length: bytes.len(),
    };
    let path = place(request.path.unwrap_or_default().as_bytes());
    let mut places = [(Place::default(), Place::default()); HEADERS_MAX];
    let n_headers = request.headers.len();
    for (to, header) in places.iter_mut().zip(request.headers.iter()) {
        *to = (place(header.name.as_bytes()), place(header.value));
    }
    let text = buffer.split_to(length).freeze();
    if has_bare_line_feed(&text) {
        return Err(MALFORMED);
    }
    let uri = Uri::from_maybe_shared(path.of(&text)).map_err(|_| MALFORMED)?;
    let mut map = HeaderMap::with_capacity(n_headers);
    for (name, value) in places.iter().take(n_headers) {
        let name = HeaderName::from_bytes(&name.of(&text)).map_err(|_| MALFORMED)?;
        let value = HeaderValue::from_maybe_shared(value.of(&text)).map_err(|_| MALFORMED)?;
        map.append(name, value);
    }
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = method;
    parts.uri = uri;
    parts.version = version;
    parts.headers = map;
    let framing = framing(&parts);
    Ok(Some(Head {
        keep_alive: framing.is_ok() && keep_alive(&parts),
        expects_continue: version == Version::HTTP_11 && expects_continue(&parts.headers),
        framing,
        parts,
    }))
}

/// Where in the head something stands.
#[derive(Clone, Copy, Default)]
struct Place {
    start: usize,
    length: usize,
}

impl Place {
    fn of(self, text: &Bytes) -> Bytes {
        text.slice(self.start..self.start + self.length)
    }
}

fn has_bare_line_feed(text: &[u8]) -> bool {
    memchr_iter(b'\n', text).any(|at| at == 0 || text.get(at - 1) != Some(&b'\r'))
}

/// How the body is delimited (RFC 9112 section 6.3), with every doubt an error.
fn framing(parts: &Parts) -> Result<Framing, Refusal> {
    let bad = |problem| Err(Refusal::BadFraming { problem });
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    if parts.version == Version::HTTP_11 && (hosts.next().is_none() || hosts.next().is_some()) {
        return bad("an HTTP/1.1 request has exactly one Host header");
    }
    let mut codings = parts.headers.get_all(header::TRANSFER_ENCODING).iter();
    let mut lengths = parts.headers.get_all(header::CONTENT_LENGTH).iter();
    match (codings.next(), lengths.next()) {
        (Some(_), Some(_)) => {
            bad("Content-Length and Transfer-Encoding exclude each other: send one")
        }
        (Some(_), _) if parts.version == Version::HTTP_10 => {
            bad("HTTP/1.0 has no Transfer-Encoding")
        }
        (Some(coding), None)
            if coding.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none() =>
        {
            Ok(Framing::Chunked)
        }
        (Some(_), None) => bad("the only Transfer-Encoding taken is chunked"),
        (None, Some(length)) => {
            let digits = length.as_bytes();
            let plain =
                !digits.is_empty() && digits.len() <= 18 && digits.iter().all(u8::is_ascii_digit);
            if !plain || lengths.next().is_some() {
                return bad("Content-Length is not one plain number");
            }
            Ok(Framing::Length(
                digits
                    .iter()
                    .fold(0, |n, digit| n * 10 + u64::from(digit - b'0')),
            ))
        }
        (None, None) => Ok(Framing::Length(0)),
    }
}

fn keep_alive(parts: &Parts) -> bool {
    let mut keep = parts.version == Version::HTTP_11;
    for value in parts.headers.get_all(header::CONNECTION) {
        for option in value
            .as_bytes()
            .split(|b| *b == b',')
            .map(<[u8]>::trim_ascii)
        {
            if option.eq_ignore_ascii_case(b"close") {
                return false;
            }
            keep |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }
    keep
}

fn expects_continue(headers: &HeaderMap) -> bool {
    headers
        .get(header::EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Writes status line and headers, without those that [`write_framing`] decides.
pub(crate) fn write(
    out: &mut BytesMut,
    version: Version,
    status: StatusCode,
    headers: &HeaderMap,
    date: &[u8],
) {
    out.put_slice(if version == Version::HTTP_10 {
        b"HTTP/1.0 "
    } else {
        b"HTTP/1.1 "
    });
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(status.canonical_reason().unwrap_or("").as_bytes());
    out.put_slice(b"\r\n");
    for (name, value) in headers {
        if name != header::CONTENT_LENGTH {
            out.put_slice(name.as_str().as_bytes());
            out.put_slice(b": ");
            out.put_slice(value.as_bytes());
            out.put_slice(b"\r\n");
        }
    }
    if !headers.contains_key(header::DATE) {
        out.put_slice(b"date: ");
        out.put_slice(date);
        out.put_slice(b"\r\n");
    }
}

/// Writes how the body is delimited and whether the connection stays, and ends the head.
pub(crate) fn write_framing(
    out: &mut BytesMut,
    length: Option<u64>,
    chunked: bool,
    keep_alive: bool,
    version: Version,
) {
    if let Some(length) = length {
        out.put_slice(b"content-length: ");
        out.put_slice(itoa::Buffer::new().format(length).as_bytes());
        out.put_slice(b"\r\n");
    }
    if chunked {
        out.put_slice(b"transfer-encoding: chunked\r\n");
    }
    if !keep_alive {
        out.put_slice(b"connection: close\r\n");
    } else if version == Version::HTTP_10 {
        out.put_slice(b"connection: keep-alive\r\n");
    }
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: ByteSize = ByteSize(4096);

    fn parse_one(text: &str) -> Result<Option<Head>, BadHead> {
        parse(&mut BytesMut::from(text), MAX)
    }

    fn framing_of(headers: &str) -> Result<Framing, Refusal> {
        parse_one(&format!("POST / HTTP/1.1\r\nhost: a\r\n{headers}\r\n"))
            .unwrap()
            .unwrap()
            .framing
    }

    #[test]
    fn a_head_is_taken_off_and_the_rest_stays() {
        let mut buffer = BytesMut::from(
            "POST /v1/traces?q HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        );
        let head = parse(&mut buffer, MAX).unwrap().unwrap();
        assert_eq!(head.parts.uri.path(), "/v1/traces");
        assert_eq!(head.framing, Ok(Framing::Length(5)));
        assert!(head.keep_alive);
        assert_eq!(&buffer[..], b"hello");
    }

    #[test]
    fn a_head_cut_anywhere_is_not_complete() {
        let text = "POST / HTTP/1.1\r\nHost: a\r\n\r\n";
        for end in 0..text.len() {
            assert!(parse_one(&text[..end]).unwrap().is_none(), "{end}");
        }
    }

    #[test]
    fn framing_that_parsers_disagree_about_is_refused() {
        assert_eq!(framing_of(""), Ok(Framing::Length(0)));
        assert_eq!(
            framing_of("Transfer-Encoding: Chunked\r\n"),
            Ok(Framing::Chunked)
        );
        for headers in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: \r\n",
            "Content-Length: 1234567890123456789\r\n",
            "Host: b\r\n",
        ] {
            assert!(framing_of(headers).is_err(), "{headers}");
        }
        let head = parse_one("POST / HTTP/1.1\r\n\r\n").unwrap().unwrap();
        assert!(head.framing.is_err() && !head.keep_alive);
        let head = parse_one("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n")
            .unwrap()
            .unwrap();
        assert!(head.framing.is_err());
    }

    #[test]
    fn heads_that_are_none_are_refused() {
        for text in [
            "POST / HTTP/1.1\nhost: a\n\n",
            "POST / HTTP/1.1\r\nhost: a\n\r\n",
            "POST / HTTP/1.1\r\nhost : a\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\n folded\r\n\r\n",
            "POST  / HTTP/1.1\r\n\r\n",
            "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0",
            "POST / HTTP/2.0\r\n\r\n",
        ] {
            assert!(parse_one(text).is_err(), "{text:?}");
        }
        let large = format!("POST / HTTP/1.1\r\nhost: {}\r\n", "a".repeat(5000));
        assert!(matches!(
            parse_one(&large),
            Err(BadHead(Refusal::HeadTooLarge { .. }))
        ));
        let many = format!("POST / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101));
        assert!(matches!(
            parse_one(&many),
            Err(BadHead(Refusal::HeadTooLarge { .. }))
        ));
    }

    #[test]
    fn connections_stay_as_version_and_header_say() {
        let keeps = |text: &str| parse_one(text).unwrap().unwrap().keep_alive;
        assert!(keeps("POST / HTTP/1.1\r\nhost: a\r\n\r\n"));
        assert!(!keeps(
            "POST / HTTP/1.1\r\nhost: a\r\nconnection: x, Close\r\n\r\n"
        ));
        assert!(!keeps("POST / HTTP/1.0\r\n\r\n"));
        assert!(keeps("POST / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n"));
    }
}
