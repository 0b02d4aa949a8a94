//! Whatever is wrong with a request, the answer is a problem that says what and how to put it right.

use hyper::Method;
use hyper::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE};
use serde_json::json;

use crate::harness::{World, bearer};

const TENANTS: &str = "/api/v1/tenants";

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let world = World::new().await;
    for path in [
        "/",
        "/api/v1",
        "/api/v1/tenant",
        "/api/v1/tenants/",
        "/api/v2/tenants",
    ] {
        world.get(path).await.problem(404);
    }
    let answer = world.send(&Method::PUT, TENANTS, &[], "").await;
    answer.problem(405);
    let allow = answer.header(ALLOW.as_str());
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
}

#[tokio::test]
async fn a_body_that_is_not_a_json_object_is_a_problem() {
    let world = World::new().await;
    let authorization = bearer(&world.admin);
    let post = async |media_type: &'static str, body: String| {
        let headers = [
            (AUTHORIZATION.as_str(), authorization.as_str()),
            (CONTENT_TYPE.as_str(), media_type),
        ];
        world.send(&Method::POST, TENANTS, &headers, body).await
    };
    let object = json!({}).to_string();
    let problem = post("text/plain", object.clone()).await.problem(415);
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("application/json"),
        "{problem}"
    );
    let too_large = format!("{{\"name\": \"{}\"}}", "x".repeat(100_000));
    let problem = post("application/json", too_large).await.problem(413);
    assert!(
        problem["detail"].as_str().unwrap().contains("65536"),
        "{problem}"
    );
    for body in ["", "{", "[]", "\"x\"", "{\"name\": }", "\u{0}"] {
        let problem = post("application/json", body.to_owned()).await.problem(400);
        assert_eq!(problem["code"], "bad_json", "{body:?}");
    }
    post("application/json; charset=utf-8", object)
        .await
        .problem(422);
}

#[tokio::test]
async fn every_wrong_field_is_named_with_what_would_be_right() {
    let world = World::new().await;
    let wrong = json!({"name": "", "email": "x", "colour": "red"});
    let problem = world.post(TENANTS, wrong).await.problem(422);
    let fields: Vec<_> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["field"].as_str().unwrap())
        .collect();
    assert_eq!(fields, ["name", "email", "id", "colour"]);
    world.tenant("acme").await;
    let wrong = json!({"scopes": ["logs:delete"]});
    let problem = world
        .post("/api/v1/tenants/acme/keys", wrong)
        .await
        .problem(422);
    assert!(
        problem["detail"].as_str().unwrap().contains("logs:write"),
        "{problem}"
    );
}

#[tokio::test]
async fn a_page_that_cannot_be_is_a_problem() {
    let world = World::new().await;
    for query in ["limit=0", "limit=1001", "limit=x", "after=a%7Cb"] {
        world.get(&format!("{TENANTS}?{query}")).await.problem(422);
    }
    world.get(&format!("{TENANTS}?page=2")).await.problem(400);
}

#[tokio::test]
async fn a_database_that_is_gone_is_said_so_and_worth_another_try() {
    let world = World::new().await;
    world.store.close().await;
    let answer = world.get(TENANTS).await;
    answer.problem(503);
    assert_eq!(answer.header("retry-after"), "5");
    let ready = world.send(&Method::GET, "/readyz", &[], "").await;
    assert_eq!(ready.status, 503);
    assert!(ready.text.contains("database"), "{}", ready.text);
    assert_eq!(
        world.send(&Method::GET, "/livez", &[], "").await.status,
        200
    );
}
