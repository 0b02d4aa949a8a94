//! Who may do what: every route, asked by everybody.

use control::{Access, OperatorToken, routes};
use hyper::header::AUTHORIZATION;
use hyper::{Method, StatusCode};
use serde_json::json;
use store::OperatorScopes;

use crate::harness::{World, bearer, key_id};

crate::in_both_databases!(every_route_answers_each_caller_by_the_access_it_needs);

/// Every route and what it needs. A route that is not in this list fails the tests.
const ROUTES: [(&str, &str, Access); 16] = [
    ("GET", "/livez", Access::Anybody),
    ("GET", "/readyz", Access::Anybody),
    ("GET", "/api/openapi.json", Access::Anybody),
    ("POST", "/api/v1/tenants", Access::Admin),
    ("GET", "/api/v1/tenants", Access::Read),
    ("GET", "/api/v1/tenants/{id}", Access::Read),
    ("PATCH", "/api/v1/tenants/{id}", Access::Admin),
    ("DELETE", "/api/v1/tenants/{id}", Access::Admin),
    ("POST", "/api/v1/tenants/{id}/keys", Access::Admin),
    ("GET", "/api/v1/tenants/{id}/keys", Access::Read),
    ("POST", "/api/v1/tenants/{id}/keys/rotate", Access::Admin),
    ("GET", "/api/v1/keys/{key_id}", Access::Read),
    ("POST", "/api/v1/keys/{key_id}/revoke", Access::Admin),
    ("GET", "/api/v1/operators", Access::Read),
    ("POST", "/api/v1/operators/{id}/revoke", Access::Admin),
    ("GET", "/api/v1/audit", Access::Read),
];

#[test]
fn every_route_is_in_the_list_with_what_it_needs() {
    let found: Vec<_> = routes()
        .iter()
        .map(|route| (route.method.to_string(), route.path, route.access))
        .collect();
    let listed = ROUTES.map(|(method, path, access)| (method.to_owned(), path, access));
    assert_eq!(found, listed);
}

#[test]
fn the_routes_open_to_anybody_are_the_probes_and_the_description() {
    let open: Vec<_> = ROUTES
        .iter()
        .filter(|(_, _, access)| *access == Access::Anybody)
        .map(|(method, path, _)| (*method, *path))
        .collect();
    assert_eq!(
        open,
        [
            ("GET", "/livez"),
            ("GET", "/readyz"),
            ("GET", "/api/openapi.json")
        ],
        "this list may only shrink"
    );
}

/// What callers send who may do nothing.
async fn credentials_of_nobody(world: &World, key: &str) -> Vec<Vec<String>> {
    let hour = time::Duration::HOUR;
    let admin = OperatorScopes::ADMIN;
    let expired = world.operator("expired", admin, Some(-hour)).await;
    let revoked = world.operator("revoked", admin, None).await;
    let path = format!("/api/v1/operators/{}/revoke", revoked.id());
    assert_eq!(world.post(&path, json!({})).await.status, 200);
    let unknown = OperatorToken::generate().unwrap();
    let valid = world.admin.reveal();
    let one = |text: String| vec![text];
    vec![
        Vec::new(),
        one(String::new()),
        one("Bearer".to_owned()),
        one("Bearer ".to_owned()),
        one(valid.to_owned()),
        one(format!("Basic {valid}")),
        one("Basic b2xnYTp4".to_owned()),
        one(format!("Bearer {}", &valid[..valid.len() - 1])),
        one(format!("Bearer {valid}x")),
        one(format!("Bearer {}", valid.to_uppercase())),
        one(format!("Bearer {} {valid}", unknown.reveal())),
        one("Bearer okop_' or '1'='1".to_owned()),
        one(format!("Bearer {}", "x".repeat(8000))),
        one(format!("Bearer {key}")),
        one(bearer(&unknown)),
        one(bearer(&expired)),
        one(bearer(&revoked)),
        vec![bearer(&world.admin), bearer(&unknown)],
        vec![bearer(&world.admin), bearer(&world.admin)],
    ]
}

async fn every_route_answers_each_caller_by_the_access_it_needs(world: World) {
    let tenant = world.tenant("acme").await;
    let key = tenant["key"]["key"].as_str().unwrap();
    let nobody = credentials_of_nobody(&world, key).await;
    let powerless = world
        .operator("powerless", OperatorScopes::default(), None)
        .await;
    let before = world.state().await;
    for (method, path, access) in ROUTES {
        let method: Method = method.parse().unwrap();
        let id = if path.contains("operators") {
            world.admin.id()
        } else {
            "acme"
        };
        let path = path
            .replace("{id}", id)
            .replace("{key_id}", &key_id(&tenant["key"]));
        assert!(!path.contains('{'), "{path}");
        for credentials in &nobody {
            let headers: Vec<_> = credentials
                .iter()
                .map(|value| (AUTHORIZATION.as_str(), value.as_str()))
                .collect();
            let answer = world.send(&method, &path, &headers, "").await;
            if access == Access::Anybody {
                assert_eq!(answer.status, StatusCode::OK, "{method} {path}");
                continue;
            }
            let problem = answer.problem(401);
            assert_eq!(problem["code"], "unauthorized");
            assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"okmon\"");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains("operator token"), "{problem}");
        }
        if method == Method::GET && access != Access::Anybody {
            let answer = world.send(&Method::HEAD, &path, &[], "").await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "HEAD {path}");
        }
        let as_reader = world.ask(&world.reader, &method, &path, None).await;
        let as_powerless = world.ask(&powerless, &method, &path, None).await;
        match access {
            Access::Admin => {
                for answer in [as_reader, as_powerless] {
                    lacks(&answer.problem(403), "admin");
                }
            }
            Access::Read => {
                assert_eq!(as_reader.status, StatusCode::OK, "{method} {path}");
                lacks(&as_powerless.problem(403), "read");
            }
            Access::Anybody => {}
        }
    }
    assert_eq!(
        world.state().await,
        before,
        "refused callers change nothing"
    );
}

#[track_caller]
fn lacks(problem: &serde_json::Value, scope: &str) {
    assert_eq!(problem["code"], "scope");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(&format!("--scopes {scope}")), "{problem}");
}

#[tokio::test]
async fn the_scheme_is_known_in_any_case() {
    let world = World::sqlite().await;
    for scheme in ["bearer", "BEARER", "Bearer "] {
        let authorization = format!("{scheme} {}", world.reader.reveal());
        let headers = [(AUTHORIZATION.as_str(), authorization.as_str())];
        let answer = world
            .send(&Method::GET, "/api/v1/tenants", &headers, "")
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{scheme}");
    }
}

#[tokio::test]
async fn no_answer_may_be_kept_by_a_cache() {
    let world = World::sqlite().await;
    for path in ["/api/v1/tenants", "/nowhere", "/livez"] {
        assert_eq!(
            world.get(path).await.header("cache-control"),
            "no-store",
            "{path}"
        );
    }
}
