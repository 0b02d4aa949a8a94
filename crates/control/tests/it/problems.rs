//! Whatever is wrong with a request, the answer is a problem that says what and how to put it right.

use hyper::Method;
use hyper::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE};
use serde_json::json;

use crate::harness::{World, bearer};

const TENANTS: &str = "/api/v1/tenants";

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let world = World::sqlite().await;
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
    let world = World::sqlite().await;
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
    let deep = 10_000;
    for body in [
        "",
        "{",
        "[]",
        "\"x\"",
        "{\"name\": }",
        "\u{0}",
        "{} {}",
        "{\"name\": \"\\ud800\"}",
        "{\"name\": \"a\", \"name\": \"b\"}",
        "{\"name\": \"a\", \"na\\u006de\": \"a\"}",
        "{\"limits\": {\"body_max_bytes\": 1, \"body_max_bytes\": 2}}",
        &format!("{}1{}", "{\"a\":".repeat(deep), "}".repeat(deep)),
        &format!("{{\"a\":{}{}}}", "[".repeat(30_000), "]".repeat(30_000)),
    ] {
        let problem = post("application/json", body.to_owned()).await.problem(400);
        assert_eq!(problem["code"], "bad_json", "{body:?}");
    }
    post("application/json; charset=utf-8", object)
        .await
        .problem(422);
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_named() {
    let world = World::sqlite().await;
    world.tenant("acme").await;
    world
        .by_hand("update tenants set created_at = 'yesterday'")
        .await;
    let problem = world.get("/api/v1/tenants/acme").await.problem(500);
    assert_eq!(problem["code"], "bad_row");
    let detail = problem["detail"].as_str().unwrap();
    for part in ["acme", "created_at", "yesterday"] {
        assert!(detail.contains(part), "{part} in {detail}");
    }
}

#[tokio::test]
async fn a_database_that_is_gone_is_said_so_and_worth_another_try() {
    let world = World::sqlite().await;
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
