//! The real edge on free ports, over a database of its own, in front of a scripted upstream.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use model::{ApiKey, Scope, ScopeSet, TenantId};
use store::{Actor, NewKey, NewTenant, Store};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::upstream::{Script, Seen, Upstream};

/// Nothing in these tests should take longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Keys in every state a key can be in.
pub(crate) struct Keys {
    pub(crate) valid: ApiKey,
    /// Of the other tenant.
    pub(crate) other: ApiKey,
    pub(crate) revoked: ApiKey,
    pub(crate) expired: ApiKey,
    /// Its tenant is suspended.
    pub(crate) suspended: ApiKey,
    /// May write logs and nothing else.
    pub(crate) logs_only: ApiKey,
    /// Nobody was given it.
    pub(crate) unknown: ApiKey,
}

pub(crate) const TENANT: &str = "tenant-a";
pub(crate) const OTHER: &str = "tenant-b";
/// The largest body the edge takes here.
pub(crate) const BODY_MAX: usize = 16 << 20;

pub(crate) struct World {
    pub(crate) api: SocketAddr,
    /// The listener that overwrites tenant headers.
    pub(crate) lenient: SocketAddr,
    pub(crate) ops: SocketAddr,
    pub(crate) upstream: Upstream,
    pub(crate) keys: Keys,
    pub(crate) store: Store,
    sql: sqlx::SqlitePool,
    edge: Option<edge::Running>,
    upstream_url: String,
    setup: Setup,
    directory: TempDir,
}

/// How a world differs from the usual one.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    /// How the upstream of OTLP/gRPC is spoken to.
    pub(crate) speaks: &'static str,
    /// What that upstream is.
    pub(crate) kind: &'static str,
    pub(crate) body_idle_max: &'static str,
    pub(crate) response_timeout: &'static str,
    /// How often the feed of changes is looked at.
    pub(crate) poll_every: &'static str,
    /// How many tenants have labels of their own.
    pub(crate) tenant_labels: u32,
    /// How many failed authentications an address may bring at once; they are forgiven at one a minute.
    pub(crate) auth_failures: u32,
    /// Connections without a valid key that an address may have at once.
    pub(crate) strangers: u32,
    /// Lines for the section `[connections]`.
    pub(crate) connections: &'static str,
    /// Lines for the section `[runtime]`.
    pub(crate) runtime: &'static str,
}

impl Setup {
    /// Waits longer than a test does, on a machine however busy.
    pub(crate) const PATIENT: Self = Self {
        speaks: "grpc",
        kind: "collector",
        body_idle_max: "1m",
        response_timeout: "1m",
        poll_every: "100ms",
        tenant_labels: 1000,
        auth_failures: 1_000_000,
        strangers: 1_000_000,
        connections: "",
        runtime: "",
    };

    /// For tests of waiting that ends.
    pub(crate) const IMPATIENT: Self = Self {
        body_idle_max: "400ms",
        response_timeout: "800ms",
        ..Self::PATIENT
    };

    pub(crate) const fn speaking(self, speaks: &'static str) -> Self {
        Self { speaks, ..self }
    }
}

impl World {
    /// Every route leads to an upstream that does `script`: gRPC routes to one that speaks gRPC.
    pub(crate) async fn start(script: Script) -> Self {
        Self::start_with(script, Setup::PATIENT).await
    }

    pub(crate) async fn start_with(script: Script, setup: Setup) -> Self {
        let upstream = Upstream::start(script).await;
        let url = format!("http://{}", upstream.address);
        Self::start_at(upstream, &url, setup, tempfile::tempdir().unwrap()).await
    }

    /// Every route leads to `address`.
    pub(crate) async fn start_against(address: SocketAddr, setup: Setup) -> Self {
        let upstream = Upstream::start(Script::Hang).await;
        let url = format!("http://{address}");
        Self::start_at(upstream, &url, setup, tempfile::tempdir().unwrap()).await
    }

    /// Every route leads to an upstream over TLS; `trusted` is whether its certificate is.
    pub(crate) async fn start_tls(script: Script, trusted: bool) -> Self {
        let (upstream, certificate) = Upstream::start_tls(script).await;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        let (_, other) = Upstream::start_tls(Script::Hang).await;
        std::fs::write(&file, if trusted { certificate } else { other }).unwrap();
        let url = format!(
            "https://localhost:{}'\nca_file = '{}",
            upstream.address.port(),
            file.display()
        );
        Self::start_at(upstream, &url, Setup::PATIENT, directory).await
    }

    async fn start_at(upstream: Upstream, url: &str, setup: Setup, directory: TempDir) -> Self {
        let database = database_in(directory.path());
        let store = Store::connect(&database.parse().unwrap(), 4).await.unwrap();
        store.migrate().await.unwrap();
        let keys = seed(&store).await;
        let sql = sqlx::SqlitePool::connect(&database).await.unwrap();
        sqlx::query("update tenants set status = 'suspended' where id = 'suspended'")
            .execute(&sql)
            .await
            .unwrap();
        let edge = start_edge(&database, url, setup, directory.path()).await;
        Self {
            api: edge.listener("api").unwrap(),
            lenient: edge.listener("lenient").unwrap(),
            ops: edge.ops_address,
            upstream,
            keys,
            store,
            sql,
            edge: Some(edge),
            upstream_url: url.to_owned(),
            setup,
            directory,
        }
    }

    /// Has the edge take over its configuration with what `change` makes of the text.
    pub(crate) async fn reload(&mut self, change: impl Fn(String) -> String) -> Result<(), String> {
        let snapshot = self.directory.path().join(SNAPSHOT);
        let text = config(&self.database(), &self.upstream_url, self.setup, &snapshot);
        let changed = change(text.clone());
        assert_ne!(changed, text, "the change changes nothing");
        let config = edge::Config::parse("test", &changed).unwrap();
        let edge = self.edge.as_mut().expect("a running edge");
        edge.reload(config).await.map_err(|error| error.to_string())
    }

    /// Where a listener listens, if there is one of this name.
    pub(crate) fn listener(&self, name: &str) -> Option<SocketAddr> {
        self.edge.as_ref()?.listener(name).ok()
    }

    /// Tells the edge to stop; how many connections it cut off, when it has.
    pub(crate) fn stopping(&mut self) -> tokio::task::JoinHandle<usize> {
        tokio::spawn(self.edge.take().expect("a running edge").stop())
    }

    /// Stops the edge as an operator would.
    pub(crate) async fn stop(&mut self) {
        if let Some(edge) = self.edge.take() {
            edge.stop().await;
        }
    }

    /// Starts an edge on the saved keys of the one that was stopped, with the database at `database`.
    pub(crate) async fn start_again(&mut self, database: &str) {
        assert!(self.edge.is_none(), "stop it first");
        let edge = start_edge(
            database,
            &self.upstream_url,
            self.setup,
            self.directory.path(),
        )
        .await;
        self.api = edge.listener("api").unwrap();
        self.lenient = edge.listener("lenient").unwrap();
        self.ops = edge.ops_address;
        self.edge = Some(edge);
    }

    /// Starts an edge as [`Self::start_again`], whose listener `api` takes over a socket.
    pub(crate) async fn start_inheriting(&mut self, api: &std::net::TcpListener) {
        assert!(self.edge.is_none(), "stop it first");
        let named = vec![("api".to_owned(), api.try_clone().unwrap())];
        let inherited = ops::inherited::Inherited::new(named).unwrap();
        let text = config(
            &self.database(),
            &self.upstream_url,
            self.setup,
            &self.snapshot(),
        );
        let config = edge::Config::parse("test", &text).unwrap();
        let edge = edge::start(config, inherited).await.unwrap();
        edge.ready().await;
        self.api = edge.listener("api").unwrap();
        self.ops = edge.ops_address;
        self.edge = Some(edge);
    }

    /// A folder for whatever a test needs.
    pub(crate) fn folder(&self) -> &Path {
        self.directory.path()
    }

    /// The file with the saved keys.
    pub(crate) fn snapshot(&self) -> PathBuf {
        self.directory.path().join(SNAPSHOT)
    }

    /// The database that the keys are in.
    pub(crate) fn database(&self) -> String {
        database_in(self.directory.path())
    }

    /// Changes the database behind everybody's back.
    pub(crate) async fn by_hand(&self, statement: &'static str) {
        sqlx::query(statement).execute(&self.sql).await.unwrap();
    }

    /// The database, for questions that nobody else asks.
    pub(crate) fn sql(&self) -> &sqlx::SqlitePool {
        &self.sql
    }

    /// What `/metrics` says.
    pub(crate) async fn metrics(&self) -> String {
        let request = b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        String::from_utf8(raw(self.ops, request).await).unwrap()
    }

    /// The value of a metric, summed over the series whose labels contain `labels`.
    pub(crate) async fn metric(&self, name: &str, labels: &str) -> f64 {
        let text = self.metrics().await;
        let lines = text
            .lines()
            .filter(|line| line.starts_with(name) && line.contains(labels));
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }

    /// Waits until so many requests are in flight.
    pub(crate) async fn in_flight(&self, wanted: usize) {
        eventually("requests in flight", async || {
            let text = self.metrics().await;
            let line = format!("okmon_edge_requests_in_flight {wanted}\n");
            text.contains(&line).then_some(()).ok_or(line)
        })
        .await;
    }

    /// A request that the upstream has seen the end of, the proper one or not.
    pub(crate) async fn seen_soon(&self) -> Seen {
        eventually("a request at the upstream", async || {
            let seen = self.upstream.take_seen().pop();
            seen.ok_or_else(|| "none".to_owned())
        })
        .await
    }
}

const SNAPSHOT: &str = "keys.snapshot";

fn database_in(directory: &Path) -> String {
    format!("sqlite://{}", directory.join("okmon.db").display())
}

async fn start_edge(
    database: &str,
    upstream: &str,
    setup: Setup,
    directory: &Path,
) -> edge::Running {
    let config = config(database, upstream, setup, &directory.join(SNAPSHOT));
    let edge = edge::start(
        edge::Config::parse("test", &config).unwrap(),
        ops::inherited::Inherited::default(),
    )
    .await
    .unwrap();
    edge.ready().await;
    edge
}

async fn seed(store: &Store) -> Keys {
    let now = OffsetDateTime::now_utc();
    let actor = Actor::command("test");
    let new = |scopes| {
        let key = ApiKey::generate().unwrap();
        let row = NewKey {
            key_id: key.id(),
            digest: key.digest(),
            name: String::new(),
            scopes,
            expires_at: None,
        };
        (key, row)
    };
    let mut first = Vec::new();
    for id in [TENANT, OTHER, "suspended"] {
        let (key, row) = new(ScopeSet::WRITE);
        let tenant = NewTenant {
            id: TenantId::parse(id).unwrap(),
            name: id.to_owned(),
            email: "a@example.com".to_owned(),
        };
        store.tenant_insert(tenant, row, now, &actor).await.unwrap();
        first.push(key);
    }
    let tenant = TenantId::parse(TENANT).unwrap();
    let (expired, row) = new(ScopeSet::WRITE);
    let row = NewKey {
        expires_at: Some(now - Duration::from_secs(1)),
        ..row
    };
    store.key_insert(&tenant, row, now, &actor).await.unwrap();
    let (revoked, row) = new(ScopeSet::WRITE);
    store.key_insert(&tenant, row, now, &actor).await.unwrap();
    store.key_revoke(revoked.id(), now, &actor).await.unwrap();
    let (logs_only, row) = new(ScopeSet::EMPTY.with(Scope::LogsWrite));
    store.key_insert(&tenant, row, now, &actor).await.unwrap();
    let mut first = first.into_iter();
    Keys {
        valid: first.next().unwrap(),
        other: first.next().unwrap(),
        suspended: first.next().unwrap(),
        revoked,
        expired,
        logs_only,
        unknown: ApiKey::generate().unwrap(),
    }
}

fn config(database: &str, upstream: &str, setup: Setup, snapshot: &Path) -> String {
    let Setup {
        speaks,
        kind,
        body_idle_max,
        response_timeout,
        poll_every,
        tenant_labels,
        auth_failures,
        strangers,
        connections,
        runtime,
    } = setup;
    let snapshot = snapshot.display();
    format!(
        "[listeners.api]\naddress = '127.0.0.1:0'\n[listeners.lenient]\naddress = '127.0.0.1:0'\ntenant_header = 'ignore'\n\
         [ops]\naddress = '127.0.0.1:0'\ntenant_labels_max = {tenant_labels}\n[database]\nurl = '{database}'\n[keys]\npoll_every = '{poll_every}'\nsnapshot_file = '{snapshot}'\n\
         [auth_failures]\nburst = {auth_failures}\nper_minute = 1\n\
         [strangers]\nburst = {strangers}\nper_minute = 1\n\
         [limits]\nbody_max = '16MiB'\nbody_idle_max = '{body_idle_max}'\n[runtime]\nworkers = 2\n{runtime}\n[connections]\n{connections}\n\
         [upstreams.grpc]\nurl = '{upstream}'\nspeaks = '{speaks}'\nkind = '{kind}'\nfirst_byte_timeout = '{response_timeout}'\nidle_timeout = '{response_timeout}'\n\
         [upstreams.http]\nurl = '{upstream}'\nkind = 'mimir'\nfirst_byte_timeout = '{response_timeout}'\nidle_timeout = '{response_timeout}'\n\
         [upstreams.loki]\nurl = '{upstream}'\nkind = 'loki'\nfirst_byte_timeout = '{response_timeout}'\nidle_timeout = '{response_timeout}'\n\
         [routes.otlp_grpc]\ntraces = 'grpc'\nmetrics = 'grpc'\nlogs = 'grpc'\nprofiles = 'grpc'\n\
         [routes.otlp_http]\ntraces = 'http'\nmetrics = 'http'\nlogs = 'loki'\nprofiles = 'http'\n\
         [routes.remote_write]\nmetrics = 'http'\n[routes.loki_push]\nlogs = 'loki'\n"
    )
}

/// A connection that sends what it is given at once.
pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends bytes on a connection of their own, and reads until the edge closes it.
pub(crate) async fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(address).await;
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
    read.expect("the edge neither answered nor closed").ok();
    answer
}

/// An answer over either version of HTTP.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
    /// Whether it was one header block that ended the stream.
    pub(crate) trailers_only: bool,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The gRPC status, wherever it stands.
    pub(crate) fn grpc_status(&self) -> Option<&str> {
        let value = self
            .headers
            .get("grpc-status")
            .or(self.trailers.get("grpc-status"));
        value.map(|value| value.to_str().unwrap())
    }
}

/// Reads one HTTP/1.1 answer; `None` if the connection ends before its end.
pub(crate) async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> Option<Answer> {
    read_pipelined(stream, &mut BytesMut::new()).await
}

/// As [`read_answer`]; what was read of the answers after it stays in `buffer`.
pub(crate) async fn read_pipelined(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> Option<Answer> {
    let reading = async {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut head = httparse::Response::new(&mut headers);
            if let Ok(httparse::Status::Complete(end)) = head.parse(buffer) {
                let status = head.code.unwrap();
                let mut map = HeaderMap::new();
                for header in head.headers.iter() {
                    let name: http::HeaderName = header.name.parse().unwrap();
                    map.append(name, header.value.try_into().unwrap());
                }
                let _ = buffer.split_to(end);
                if status == 100 {
                    continue;
                }
                let length = map
                    .get("content-length")
                    .map_or(0, |value| value.to_str().unwrap().parse().unwrap());
                while buffer.len() < length {
                    if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
                        return None;
                    }
                }
                return Some(Answer {
                    status,
                    headers: map,
                    body: buffer.split_to(length).freeze(),
                    trailers: HeaderMap::new(),
                    trailers_only: false,
                });
            }
            if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    };
    tokio::time::timeout(DEADLINE, reading)
        .await
        .expect("no answer")
}

/// Sends one HTTP/1.1 request with a body of known length on a connection of its own.
pub(crate) async fn post(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut stream = connect(address).await;
    let head = head(path, headers, body.len());
    stream
        .write_all(&[head.as_bytes(), body].concat())
        .await
        .ok();
    read_answer(&mut stream).await.expect("an answer")
}

/// The head of a POST with a body of `length` bytes.
pub(crate) fn head(path: &str, headers: &[(&str, &str)], length: usize) -> String {
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    format!("POST {path} HTTP/1.1\r\nhost: edge\r\n{headers}content-length: {length}\r\n\r\n")
}

/// A connection over HTTP/2.
pub(crate) async fn http2(address: SocketAddr) -> h2::client::SendRequest<Bytes> {
    let stream = connect(address).await;
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    send
}

/// A request head for HTTP/2.
pub(crate) fn request2(path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut builder = Request::post(format!("http://edge{path}"));
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap()
}

/// Sends one HTTP/2 request on a connection of its own, the body cut into `frames`.
pub(crate) async fn post2(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    frames: &[&[u8]],
) -> Answer {
    let mut send = http2(address).await.ready().await.unwrap();
    let (response, mut stream) = send
        .send_request(request2(path, headers), frames.is_empty())
        .unwrap();
    for (n, frame) in frames.iter().enumerate() {
        let last = n + 1 == frames.len();
        // The edge may have answered and reset the stream by now; the answer tells.
        let _ = stream.send_data(Bytes::copy_from_slice(frame), last);
    }
    let answering = collect2(response);
    tokio::time::timeout(DEADLINE, answering)
        .await
        .expect("no answer")
        .expect("an answer")
}

/// Reads an HTTP/2 answer to its end.
pub(crate) async fn collect2(response: h2::client::ResponseFuture) -> Result<Answer, h2::Error> {
    let (parts, mut body): (_, h2::RecvStream) = Response::into_parts(response.await?);
    let trailers_only = body.is_end_stream();
    let mut data = BytesMut::new();
    while let Some(frame) = body.data().await {
        let frame = frame?;
        let _ = body.flow_control().release_capacity(frame.len());
        data.extend_from_slice(&frame);
    }
    Ok(Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: data.freeze(),
        trailers: body.trailers().await?.unwrap_or_default(),
        trailers_only,
    })
}

/// Polls until `state` gives something; the last state is in the failure text.
pub(crate) async fn eventually<T>(
    what: &str,
    mut state: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        match state().await {
            Ok(reached) => return reached,
            Err(last) => assert!(tokio::time::Instant::now() < deadline, "{what}: {last}"),
        }
        tokio::task::yield_now().await;
    }
}
