//! The requests of a run, built once: heads rotate over the keys, bodies over a handful of variants.

use std::cell::Cell;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Uri};

use super::Args;
use crate::keys::KeyPair;
use crate::payload::Protocol;

/// Memory for body variants; at least two are made, at most [`VARIANTS_MAX`].
const VARIANTS_BYTES: usize = 4 << 20;
const VARIANTS_MAX: usize = 64;
const USER_AGENT: &str = concat!("loadtest/", env!("CARGO_PKG_VERSION"));

pub(crate) struct Requests {
    heads: Heads,
    bodies: Vec<Bytes>,
    sent: Cell<usize>,
}

enum Heads {
    /// Everything up to `content-length: `'s place, which goes before the body because it is the body's.
    Http1(Vec<Bytes>),
    Http2(Uri, Vec<HeaderMap>),
}

impl Requests {
    pub(crate) fn new(args: &Args) -> anyhow::Result<Self> {
        let keys = args.keys.load()?;
        let size = args.size as usize;
        let variants = (VARIANTS_BYTES / size).clamp(2, VARIANTS_MAX);
        let mut bodies = args.protocol.bodies(args.signal, size, variants);
        let path = args.protocol.path(args.signal);
        let heads = if args.protocol == Protocol::OtlpGrpc {
            let uri = format!("http://{}{path}", args.target)
                .parse()
                .with_context(|| format!("--target {}", args.target))?;
            let heads = keys
                .iter()
                .map(|pair| http2_head(args, pair))
                .collect::<Result<_, _>>()?;
            Heads::Http2(uri, heads)
        } else {
            for body in &mut bodies {
                let mut framed = format!("content-length: {}\r\n\r\n", body.len()).into_bytes();
                framed.extend_from_slice(body);
                *body = framed.into();
            }
            Heads::Http1(
                keys.iter()
                    .map(|pair| http1_head(args, path, pair))
                    .collect(),
            )
        };
        Ok(Self {
            heads,
            bodies,
            sent: Cell::new(0),
        })
    }

    /// The first body as it goes on the wire, for HTTP/1.1 without its head.
    pub(crate) fn first_body(&self) -> &[u8] {
        let body = self.bodies.first().map(Bytes::as_ref).unwrap_or_default();
        match &self.heads {
            Heads::Http2(..) => body,
            Heads::Http1(_) => body
                .windows(4)
                .position(|w| w == b"\r\n\r\n")
                .and_then(|at| body.get(at + 4..))
                .unwrap_or_default(),
        }
    }

    fn next(&self) -> (usize, Bytes) {
        let n = self.sent.replace(self.sent.get().wrapping_add(1));
        (n, rotate(&self.bodies, n).cloned().unwrap_or_default())
    }

    /// The next HTTP/1.1 request in two parts.
    pub(crate) fn next_http1(&self) -> (Bytes, Bytes) {
        let (n, body) = self.next();
        let head = match &self.heads {
            Heads::Http1(heads) => rotate(heads, n).cloned(),
            Heads::Http2(..) => None,
        };
        (head.unwrap_or_default(), body)
    }

    /// The next HTTP/2 request and its body.
    pub(crate) fn next_http2(&self) -> (Request<()>, Bytes) {
        let (n, body) = self.next();
        let mut request = Request::new(());
        *request.method_mut() = http::Method::POST;
        *request.version_mut() = http::Version::HTTP_2;
        if let Heads::Http2(uri, heads) = &self.heads {
            *request.uri_mut() = uri.clone();
            *request.headers_mut() = rotate(heads, n).cloned().unwrap_or_default();
        }
        (request, body)
    }
}

fn rotate<T>(all: &[T], n: usize) -> Option<&T> {
    all.get(n % all.len().max(1))
}

fn http1_head(args: &Args, path: &str, pair: &KeyPair) -> Bytes {
    let (name, value) = args.credential.header(pair);
    let mut head = format!(
        "POST {path} HTTP/1.1\r\nhost: {}\r\nuser-agent: {USER_AGENT}\r\n{name}: {value}\r\n",
        args.target
    );
    for (name, value) in args.protocol.headers() {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.into()
}

fn http2_head(args: &Args, pair: &KeyPair) -> anyhow::Result<HeaderMap> {
    let (name, value) = args.credential.header(pair);
    let mut credential = HeaderValue::try_from(value).with_context(|| {
        format!(
            "a key has characters that no header can carry: {:?}",
            pair.key
        )
    })?;
    // Secrets stay out of HPACK's table, as careful senders keep them.
    credential.set_sensitive(true);
    let mut headers = HeaderMap::new();
    headers.insert(name, credential);
    headers.insert("user-agent", HeaderValue::from_static(USER_AGENT));
    for (name, value) in args.protocol.headers() {
        headers.insert(*name, HeaderValue::from_static(value));
    }
    Ok(headers)
}
