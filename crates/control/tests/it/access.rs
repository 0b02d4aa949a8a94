//! Who may do what: every route, asked by everybody.

use control::{Access, OperatorToken, routes};
use hyper::StatusCode;
use hyper::header::AUTHORIZATION;

use crate::harness::{World, bearer};

#[tokio::test]
async fn every_route_answers_each_caller_by_the_access_it_needs() {
    let world = World::new().await;
    let tenant = world.tenant("acme").await;
    let key_id = tenant["key"]["key_id"].as_str().unwrap().to_owned();
    let stranger = bearer(&OperatorToken::generate().unwrap());
    let reader = bearer(&world.reader);
    for route in routes() {
        let path = route
            .path
            .replace("{id}", "acme")
            .replace("{key_id}", &key_id);
        let ask =
            async |headers: &[(&str, &str)]| world.send(&route.method, &path, headers, "").await;
        let name = AUTHORIZATION.as_str();
        let key = format!("Bearer {}", tenant["key"]["key"].as_str().unwrap());
        let without: [&[(&str, &str)]; 6] = [
            &[],
            &[(name, "Bearer ")],
            &[(name, "Basic b2xnYTp4")],
            &[(name, &stranger)],
            &[(name, &key)],
            &[(name, &reader), (name, &stranger)],
        ];
        for headers in without {
            let answer = ask(headers).await;
            if route.access == Access::Anybody {
                assert_eq!(answer.status, StatusCode::OK, "{route:?}");
            } else {
                let problem = answer.problem(401);
                assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"okmon\"");
                assert!(
                    problem["detail"]
                        .as_str()
                        .unwrap()
                        .contains("operator token"),
                    "{problem}"
                );
            }
        }
        let answer = ask(&[(name, &reader)]).await;
        match route.access {
            Access::Admin => {
                let problem = answer.problem(403);
                assert!(
                    problem["detail"]
                        .as_str()
                        .unwrap()
                        .contains("--scopes admin"),
                    "{problem}"
                );
            }
            Access::Read | Access::Anybody => {
                assert_eq!(answer.status, StatusCode::OK, "{route:?}");
            }
        }
    }
    let log = world
        .store
        .audit_list(&store::AuditFilter::default(), None, 10)
        .await
        .unwrap();
    assert_eq!(log.len(), 4, "refused callers change nothing: {log:?}");
}

#[tokio::test]
async fn the_routes_open_to_anybody_are_the_probes() {
    let open: Vec<_> = routes()
        .into_iter()
        .filter(|route| route.access == Access::Anybody)
        .map(|route| route.path)
        .collect();
    assert_eq!(
        open,
        ["/livez", "/readyz", "/api/openapi.json"],
        "this list may only shrink"
    );
}

#[tokio::test]
async fn no_answer_may_be_kept_by_a_cache() {
    let world = World::new().await;
    for path in ["/api/v1/tenants", "/nowhere", "/livez"] {
        assert_eq!(
            world.get(path).await.header("cache-control"),
            "no-store",
            "{path}"
        );
    }
}
