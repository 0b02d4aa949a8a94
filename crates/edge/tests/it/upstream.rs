//! A backend that does as it is told and remembers what it saw. HTTP/1.1 is spoken byte by byte, so that it can misbehave;
//! HTTP/2 is spoken by `h2`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Response};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use testkit::certificates::Authority;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

/// What a backend does with each request.
#[derive(Clone)]
pub(crate) enum Script {
    /// Reads the body, then answers.
    Answer(Reply),
    /// Answers when it has the head, and goes on reading after that.
    AnswerEarly(Reply),
    /// Answers when it has the head, and never reads the body; closes soon after.
    AnswerAndClose(Reply),
    /// Reads the body and says nothing.
    Hang,
    /// Closes the connection when it has the head.
    Die,
    /// Begins its answer, and closes in the middle of it; over HTTP/2 it falls silent there.
    DieMidAnswer,
    /// Never reads more than the head.
    Stall,
    /// Refuses the stream. HTTP/2 only.
    Refuse,
    /// Answers, and lets nothing more begin on the connection. HTTP/2 only.
    AnswerAndGo(Reply),
    /// Reads the body, writes these bytes as its answer and closes. HTTP/1.1 only.
    Raw(&'static str),
}

/// An answer.
#[derive(Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, &'static str)>,
    pub(crate) body: Bytes,
    /// HTTP/2 only.
    pub(crate) trailers: Vec<(&'static str, &'static str)>,
}

impl Reply {
    pub(crate) fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
            trailers: Vec::new(),
        }
    }

    /// A gRPC call that went well.
    pub(crate) fn grpc() -> Self {
        Self {
            headers: vec![("content-type", "application/grpc")],
            body: Bytes::from_static(&[0; 5]),
            trailers: vec![("grpc-status", "0")],
            ..Self::new(200)
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
}

/// A request as the backend saw it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) path: String,
    /// Names in lower case, in the order they came.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether the body came to its proper end.
    pub(crate) whole: bool,
}

impl Seen {
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let values = self.headers.iter().filter(|(known, _)| known == name);
        values.map(|(_, value)| value.as_str()).collect()
    }
}

/// A running backend.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    script: Mutex<Script>,
    heads: AtomicUsize,
    seen: Mutex<Vec<Seen>>,
}

impl State {
    fn new(script: Script) -> Arc<Self> {
        Arc::new(Self {
            script: Mutex::new(script),
            heads: AtomicUsize::new(0),
            seen: Mutex::default(),
        })
    }

    /// What to do with the request whose head has come.
    fn begin(&self) -> Script {
        self.heads.fetch_add(1, Ordering::Relaxed);
        self.script.lock().unwrap().clone()
    }

    fn remember(&self, seen: Seen) {
        self.seen.lock().unwrap().push(seen);
    }
}

impl Upstream {
    pub(crate) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = State::new(script);
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let state = Arc::clone(&shared);
                tokio::spawn(async move {
                    let mut start = [0; 3];
                    let n = stream.peek(&mut start).await.unwrap_or(0);
                    if &start[..n] == b"PRI" {
                        serve_http2(stream, state).await;
                    } else {
                        serve_http1(stream, state).await;
                    }
                });
            }
        });
        Self { address, state }
    }

    /// As [`Upstream::start`], over TLS for `localhost`; also its certificate, as PEM.
    pub(crate) async fn start_tls(script: Script) -> (Self, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = tls_builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
        (Self::serve_tls(script, config).await, made.cert.pem())
    }

    /// As [`Upstream::start`], over TLS for `name`, with clients only that have a certificate of the same authority.
    pub(crate) async fn start_mutual_tls(
        script: Script,
        authority: &Authority,
        name: &str,
    ) -> Self {
        let issued = authority.issue(&[name]);
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.der().into()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
        let config = tls_builder()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(vec![issued.der.into()], key)
            .unwrap();
        Self::serve_tls(script, config).await
    }

    async fn serve_tls(script: Script, mut config: rustls::ServerConfig) -> Self {
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = State::new(script);
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, acceptor) = (Arc::clone(&shared), acceptor.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                        serve_http2(stream, state).await;
                    } else {
                        serve_http1(stream, state).await;
                    }
                });
            }
        });
        Self { address, state }
    }

    /// What it does from now on.
    pub(crate) fn does(&self, script: Script) {
        *self.state.script.lock().unwrap() = script;
    }

    /// How many requests have begun to arrive.
    pub(crate) fn heads(&self) -> usize {
        self.state.heads.load(Ordering::Relaxed)
    }

    /// What it saw since the last call.
    pub(crate) fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state.seen.lock().unwrap())
    }
}

fn tls_builder() -> rustls::ConfigBuilder<rustls::ServerConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
}

/// A connection, plain or TLS.
trait Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Socket for T {}

async fn serve_http1(mut stream: impl Socket, state: Arc<State>) {
    let mut buffer = Vec::new();
    while let Some((mut seen, chunked, length)) = read_head(&mut stream, &mut buffer).await {
        let script = state.begin();
        match script {
            Script::Die | Script::Refuse | Script::AnswerAndGo(_) => return state.remember(seen),
            Script::Stall => {
                state.remember(seen);
                std::future::pending::<()>().await;
            }
            Script::AnswerAndClose(reply) => {
                state.remember(seen);
                let _ = stream.write_all(&http1_answer(&reply)).await;
                let _ = stream.shutdown().await;
                return;
            }
            Script::AnswerEarly(reply) => {
                let _ = stream.write_all(&http1_answer(&reply)).await;
                let whole =
                    read_body(&mut stream, &mut buffer, chunked, length, &mut seen.body).await;
                seen.whole = whole;
                state.remember(seen);
                if !whole {
                    return;
                }
            }
            Script::Raw(answer) => {
                seen.whole =
                    read_body(&mut stream, &mut buffer, chunked, length, &mut seen.body).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                drop(stream);
                // Whoever waits for this request to be seen knows that the connection is closed.
                return state.remember(seen);
            }
            Script::Answer(_) | Script::Hang | Script::DieMidAnswer => {
                seen.whole =
                    read_body(&mut stream, &mut buffer, chunked, length, &mut seen.body).await;
                let whole = seen.whole;
                state.remember(seen);
                match script {
                    Script::Answer(reply) if whole => {
                        if stream.write_all(&http1_answer(&reply)).await.is_err() {
                            return;
                        }
                    }
                    Script::Hang => std::future::pending::<()>().await,
                    Script::DieMidAnswer => {
                        let _ = stream
                            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
                            .await;
                        return;
                    }
                    _ => return,
                }
            }
        }
    }
}

fn http1_answer(reply: &Reply) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 {} Reason\r\n", reply.status);
    for (name, value) in &reply.headers {
        answer += &format!("{name}: {value}\r\n");
    }
    if reply.status != 204 {
        answer += &format!("content-length: {}\r\n", reply.body.len());
    }
    answer += "\r\n";
    [answer.as_bytes(), &reply.body].concat()
}

/// Reads a head; what else was read stays in `buffer`.
async fn read_head(stream: &mut impl Socket, buffer: &mut Vec<u8>) -> Option<(Seen, bool, usize)> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
            return None;
        }
    };
    let head = String::from_utf8(buffer.drain(..end + 4).collect()).unwrap();
    let mut lines = head.split("\r\n").filter(|line| !line.is_empty());
    let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    let headers: Vec<_> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let seen = Seen {
        path,
        headers,
        ..Seen::default()
    };
    let chunked = seen.all("transfer-encoding") == ["chunked"];
    let length = seen.all("content-length").first().map(|n| n.parse());
    let length = length.map_or(0, |length| length.unwrap());
    Some((seen, chunked, length))
}

/// Reads a body; false if it did not come to its end.
async fn read_body(
    stream: &mut impl Socket,
    buffer: &mut Vec<u8>,
    chunked: bool,
    length: usize,
    body: &mut Vec<u8>,
) -> bool {
    loop {
        if !chunked && buffer.len() >= length {
            body.extend(buffer.drain(..length));
            return true;
        }
        if chunked {
            while let Some(line) = buffer.windows(2).position(|bytes| bytes == b"\r\n") {
                let size = std::str::from_utf8(&buffer[..line]).unwrap();
                let size = usize::from_str_radix(size, 16).unwrap();
                if buffer.len() < line + 2 + size + 2 {
                    break;
                }
                buffer.drain(..line + 2);
                body.extend(buffer.drain(..size));
                buffer.drain(..2);
                if size == 0 {
                    return true;
                }
            }
        }
        if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
            body.append(buffer);
            return false;
        }
    }
}

async fn serve_http2(stream: impl Socket, state: Arc<State>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let script = state.begin();
        match script {
            Script::Die => return,
            Script::AnswerAndGo(_) => connection.graceful_shutdown(),
            _ => {}
        }
        tokio::spawn(serve_stream(request, respond, script, Arc::clone(&state)));
    }
}

async fn serve_stream(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    script: Script,
    state: Arc<State>,
) {
    let (parts, mut body) = request.into_parts();
    let headers = parts.headers.iter();
    let mut seen = Seen {
        path: parts.uri.path().to_owned(),
        headers: headers
            .map(|(n, v)| {
                (
                    n.to_string(),
                    String::from_utf8_lossy(v.as_bytes()).into_owned(),
                )
            })
            .collect(),
        ..Seen::default()
    };
    match script {
        Script::AnswerEarly(reply) | Script::AnswerAndClose(reply) => {
            state.remember(seen);
            answer_http2(&mut respond, &reply);
            // Dropping the body unread resets the stream with NO_ERROR, as gRPC servers do.
        }
        Script::Stall => {
            state.remember(seen);
            std::future::pending::<()>().await;
        }
        Script::Refuse => respond.send_reset(h2::Reason::REFUSED_STREAM),
        Script::Answer(_)
        | Script::AnswerAndGo(_)
        | Script::Hang
        | Script::DieMidAnswer
        | Script::Die
        | Script::Raw(_) => {
            seen.whole = loop {
                match body.data().await {
                    Some(Ok(data)) => {
                        let _ = body.flow_control().release_capacity(data.len());
                        seen.body.extend_from_slice(&data);
                    }
                    Some(Err(_)) => break false,
                    None => break true,
                }
            };
            state.remember(seen);
            match script {
                Script::Answer(reply) | Script::AnswerAndGo(reply) => {
                    answer_http2(&mut respond, &reply);
                }
                Script::DieMidAnswer => {
                    let head = Response::builder()
                        .header("content-type", "application/grpc")
                        .body(())
                        .unwrap();
                    let mut stream = respond.send_response(head, false).unwrap();
                    stream
                        .send_data(Bytes::from_static(&[0; 5]), false)
                        .unwrap();
                    // A reset could overtake what was sent; silence cannot.
                    std::future::pending::<()>().await;
                }
                _ => std::future::pending::<()>().await,
            }
        }
    }
}

fn answer_http2(respond: &mut h2::server::SendResponse<Bytes>, reply: &Reply) {
    let mut head = Response::builder().status(reply.status).body(()).unwrap();
    for (name, value) in &reply.headers {
        head.headers_mut().append(*name, value.parse().unwrap());
    }
    let bare = reply.body.is_empty() && reply.trailers.is_empty();
    let Ok(mut stream) = respond.send_response(head, bare) else {
        return;
    };
    if bare {
        return;
    }
    let _ = stream.send_data(reply.body.clone(), reply.trailers.is_empty());
    if !reply.trailers.is_empty() {
        let trailers: HeaderMap = reply
            .trailers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        let _ = stream.send_trailers(trailers);
    }
}
