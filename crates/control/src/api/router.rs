//! The one page with every route and the access it needs. A route without access cannot be written down.

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, patch, post};
use store::{Actor, Operator, OperatorScope, Store};
use time::OffsetDateTime;

use crate::api::problem::{Code, Problem};
use crate::api::{keys, operators, tenants};
use crate::operator::authorize;

/// The largest body, in bytes: the objects of this API are small.
pub(crate) const BODY_BYTES_MAX: usize = 64 * 1024;

/// What a route needs of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing: anybody may ask.
    Anybody,
    /// An operator token with the scope `read` or `admin`.
    Read,
    /// An operator token with the scope `admin`.
    Admin,
}

/// One route, for tests and documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path, parameters in braces.
    pub path: &'static str,
    /// What the caller needs.
    pub access: Access,
}

type Entry = (Method, &'static str, Access, MethodRouter<Deps>);

#[rustfmt::skip] // one route, one line
fn table() -> Vec<Entry> {
    use Access::{Admin, Anybody, Read};
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    const PATCH: Method = Method::PATCH;
    const DELETE: Method = Method::DELETE;
    vec![
        (GET, "/livez", Anybody, get(livez)),
        (GET, "/readyz", Anybody, get(readyz)),
        (GET, "/api/openapi.json", Anybody, get(openapi)),
        (POST, "/api/v1/tenants", Admin, post(tenants::create)),
        (GET, "/api/v1/tenants", Read, get(tenants::list)),
        (GET, "/api/v1/tenants/{id}", Read, get(tenants::show)),
        (PATCH, "/api/v1/tenants/{id}", Admin, patch(tenants::update)),
        (DELETE, "/api/v1/tenants/{id}", Admin, delete(tenants::delete)),
        (POST, "/api/v1/tenants/{id}/keys", Admin, post(keys::create)),
        (GET, "/api/v1/tenants/{id}/keys", Read, get(keys::list)),
        (POST, "/api/v1/tenants/{id}/keys/rotate", Admin, post(keys::rotate)),
        (GET, "/api/v1/keys/{key_id}", Read, get(keys::show)),
        (POST, "/api/v1/keys/{key_id}/revoke", Admin, post(keys::revoke)),
        (GET, "/api/v1/operators", Read, get(operators::list)),
        (POST, "/api/v1/operators/{id}/revoke", Admin, post(operators::revoke)),
        (GET, "/api/v1/audit", Read, get(operators::audit)),
    ]
}

/// Every route the admin API has.
pub fn routes() -> Vec<Route> {
    let route = |(method, path, access, _)| Route {
        method,
        path,
        access,
    };
    table().into_iter().map(route).collect()
}

/// What the handlers need.
#[derive(Debug, Clone)]
pub(crate) struct Deps {
    pub(crate) store: Store,
}

pub(crate) fn router(deps: Deps) -> Router {
    let mut router = Router::new();
    for (_, path, access, handler) in table() {
        let handler = match scope_needed(access) {
            None => handler,
            Some(scope) => handler.route_layer(from_fn_with_state((deps.clone(), scope), admit)),
        };
        router = router.route(path, handler);
    }
    router
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn(never_stored))
        .with_state(deps)
}

const fn scope_needed(access: Access) -> Option<OperatorScope> {
    match access {
        Access::Anybody => None,
        Access::Read => Some(OperatorScope::Read),
        Access::Admin => Some(OperatorScope::Admin),
    }
}

async fn admit(
    State((deps, scope)): State<(Deps, OperatorScope)>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let now = OffsetDateTime::now_utc();
    let operator = authorize(&deps.store, request.headers(), scope, now).await?;
    request.extensions_mut().insert(Caller(operator));
    Ok(next.run(request).await)
}

/// The operator who asks, as the route's access let them in.
#[derive(Debug, Clone)]
pub(crate) struct Caller(Operator);

impl Caller {
    pub(crate) fn actor(&self) -> Actor {
        Actor::operator(&self.0.id, &self.0.name)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| Problem::unauthorized("this route needs an operator token"))
    }
}

/// Answers may hold a key, so no cache may keep them.
async fn never_stored(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let no_store = HeaderValue::from_static("no-store");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, no_store);
    response
}

/// What this API is, for programs (`OpenAPI` 3.1). Kept by hand; tests hold it against the routes and their answers.
async fn openapi() -> impl IntoResponse {
    let media_type = HeaderValue::from_static("application/json");
    (
        [(header::CONTENT_TYPE, media_type)],
        include_str!("openapi.json"),
    )
}

async fn livez() -> &'static str {
    "live\n"
}

async fn readyz(State(deps): State<Deps>) -> Response {
    match deps.store.schema_check().await {
        Ok(()) => "ready\n".into_response(),
        Err(error) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("database: {error}\n"),
        )
            .into_response(),
    }
}

async fn unknown_path(uri: Uri) -> Problem {
    Problem::not_found(format!(
        "there is nothing at {}: the API is under /api/v1",
        uri.path()
    ))
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let detail = format!(
        "{} has no {method}: the header Allow lists what it has",
        uri.path()
    );
    Problem::new(Code::Method, detail)
}
