//! A control plane on a free port over a database of its own, and a client for it.

use std::net::SocketAddr;

use control::{OperatorToken, Running, operator_create};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use store::{Actor, OperatorScopes, Store};
use tempfile::TempDir;
use tokio::net::TcpListener;

pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) admin: OperatorToken,
    pub(crate) reader: OperatorToken,
    addr: SocketAddr,
    _running: Running,
    _dir: TempDir,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// Checks that this is a problem with `status` whose fields say the same.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["status"], status, "{problem}");
        for field in ["type", "title", "code", "detail"] {
            assert!(problem[field].is_string(), "{field} in {problem}");
        }
        problem
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("okmon.db").display());
        let store = Store::connect(&url.parse().unwrap(), 4).await.unwrap();
        store.migrate().await.unwrap();
        let actor = Actor::command("test");
        let (_, admin) = operator_create(&store, "olga", OperatorScopes::ADMIN, &actor)
            .await
            .unwrap();
        let (_, reader) = operator_create(&store, "rita", OperatorScopes::READ, &actor)
            .await
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let running = control::start(listener, store.clone()).await.unwrap();
        Self {
            store,
            admin,
            reader,
            addr: running.addr,
            _running: running,
            _dir: dir,
        }
    }

    pub(crate) async fn send(
        &self,
        method: &Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.addr));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let client = Client::builder(TokioExecutor::new()).build_http();
        let request = request.body(Full::new(body.into())).unwrap();
        let (head, body) = client.request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: head.status,
            headers: head.headers,
            text: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        let authorization = bearer(&self.admin);
        let headers = [(AUTHORIZATION.as_str(), authorization.as_str())];
        self.send(&Method::GET, path, &headers, "").await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        let authorization = bearer(&self.admin);
        let headers = [
            (AUTHORIZATION.as_str(), authorization.as_str()),
            (CONTENT_TYPE.as_str(), "application/json"),
        ];
        self.send(&Method::POST, path, &headers, body.to_string())
            .await
    }

    /// Makes tenant `id`: the answer's object.
    pub(crate) async fn tenant(&self, id: &str) -> Value {
        let answer = self.post("/api/v1/tenants", new_tenant(id)).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        answer.json()
    }
}

pub(crate) fn bearer(token: &OperatorToken) -> String {
    format!("Bearer {}", token.reveal())
}

pub(crate) fn new_tenant(id: &str) -> Value {
    json!({"id": id, "name": format!("Tenant {id}"), "email": "ops@example.com"})
}
