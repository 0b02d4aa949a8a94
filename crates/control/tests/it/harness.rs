//! A control plane on a free port over a database of its own, and a client for it.

use std::net::SocketAddr;

use control::{OperatorToken, Running, operator_create_for};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use sqlx::{Connection as _, SqliteConnection};
use store::{Actor, Operator, OperatorScopes, Store};
use tempfile::TempDir;
use testkit::postgres::Postgres;
use tokio::net::TcpListener;

pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) admin: OperatorToken,
    pub(crate) reader: OperatorToken,
    url: String,
    addr: SocketAddr,
    _running: Running,
    _dir: Option<TempDir>,
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
    pub(crate) async fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("okmon.db").display());
        Self::over(&url, Some(dir)).await
    }

    pub(crate) async fn postgres() -> Self {
        Self::over(&Postgres::shared().database(), None).await
    }

    async fn over(url: &str, dir: Option<TempDir>) -> Self {
        let store = Store::connect(&url.parse().unwrap(), 4).await.unwrap();
        store.migrate().await.unwrap();
        let (_, admin) = operator(&store, "olga", OperatorScopes::ADMIN, None).await;
        let (_, reader) = operator(&store, "rita", OperatorScopes::READ, None).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let running = control::start(listener, store.clone()).await.unwrap();
        Self {
            store,
            admin,
            reader,
            url: url.to_owned(),
            addr: running.addr,
            _running: running,
            _dir: dir,
        }
    }

    /// Makes an operator whose token lives for `life`, which may be over.
    pub(crate) async fn operator(
        &self,
        name: &str,
        scopes: OperatorScopes,
        life: Option<time::Duration>,
    ) -> OperatorToken {
        operator(&self.store, name, scopes, life).await.1
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

    /// Where it listens.
    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// As the operator with `token`, JSON or nothing.
    pub(crate) async fn ask(
        &self,
        token: &OperatorToken,
        method: &Method,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        let authorization = bearer(token);
        let authorization = (AUTHORIZATION.as_str(), authorization.as_str());
        match body {
            None => self.send(method, path, &[authorization], "").await,
            Some(body) => {
                let headers = [authorization, (CONTENT_TYPE.as_str(), "application/json")];
                self.send(method, path, &headers, body.to_string()).await
            }
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(&self.admin, &Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(&self.admin, &Method::POST, path, Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.ask(&self.admin, &Method::PATCH, path, Some(body))
            .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.ask(&self.admin, &Method::DELETE, path, None).await
    }

    /// Runs SQL in the SQLite file as somebody with a shell would.
    pub(crate) async fn by_hand(&self, sql: &'static str) {
        let mut shell = SqliteConnection::connect(&self.url).await.unwrap();
        sqlx::raw_sql(sql).execute(&mut shell).await.unwrap();
    }

    /// The pages of a list from `path` on, as their links lead.
    pub(crate) async fn pages(&self, path: &str) -> Vec<Vec<Value>> {
        let (mut pages, mut path) = (Vec::new(), path.to_owned());
        loop {
            let answer = self.get(&path).await;
            assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
            pages.push(answer.json().as_array().unwrap().clone());
            assert!(pages.len() < 100, "{path} leads nowhere");
            let Some(next) = answer.header("link").strip_prefix('<') else {
                return pages;
            };
            let (next, relation) = next.split_once('>').unwrap();
            assert_eq!(relation, "; rel=\"next\"");
            next.clone_into(&mut path);
        }
    }

    /// Everything that the API has to show.
    pub(crate) async fn state(&self) -> Value {
        let list = async |path: &str| self.pages(path).await.concat();
        let tenants = list("/api/v1/tenants").await;
        let mut keys = Vec::new();
        for tenant in &tenants {
            let id = tenant["id"].as_str().unwrap();
            keys.push(list(&format!("/api/v1/tenants/{id}/keys")).await);
        }
        json!({
            "tenants": tenants,
            "keys": keys,
            "operators": list("/api/v1/operators").await,
            "audit": list("/api/v1/audit").await,
        })
    }

    /// Makes tenant `id`: the answer's object.
    pub(crate) async fn tenant(&self, id: &str) -> Value {
        let answer = self.post("/api/v1/tenants", new_tenant(id)).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        answer.json()
    }
}

async fn operator(
    store: &Store,
    name: &str,
    scopes: OperatorScopes,
    life: Option<time::Duration>,
) -> (Operator, OperatorToken) {
    let actor = Actor::command("test");
    let made = operator_create_for(store, name, scopes, life, &actor).await;
    made.unwrap()
}

/// The id of the key in an answer.
pub(crate) fn key_id(key: &Value) -> String {
    key["key_id"].as_str().unwrap().to_owned()
}

pub(crate) fn bearer(token: &OperatorToken) -> String {
    format!("Bearer {}", token.reveal())
}

pub(crate) fn new_tenant(id: &str) -> Value {
    json!({"id": id, "name": format!("Tenant {id}"), "email": "ops@example.com"})
}
