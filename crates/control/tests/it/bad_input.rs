//! Every field and parameter of every route, wrong in every way: a problem that names it, and nothing half-written.

use std::collections::BTreeSet;

use hyper::Method;
use serde_json::{Map, Value, json};

use crate::bad_values::{Row, table};
use crate::harness::World;

crate::in_both_databases!(
    a_wrong_field_is_named_and_changes_nothing,
    a_wrong_parameter_is_named,
    an_id_that_cannot_be_is_not_found,
    every_wrong_field_is_named_at_once,
);

const TENANTS: &str = "/api/v1/tenants";
const KEYS: &str = "/api/v1/tenants/{id}/keys";
const ROTATE: &str = "/api/v1/tenants/{id}/keys/rotate";

/// The fields in an answer that names them.
#[track_caller]
fn fields(problem: &Value) -> Vec<&str> {
    let errors = problem["errors"].as_array();
    let errors = errors.unwrap_or_else(|| panic!("{problem}"));
    for error in errors {
        let message = error["message"].as_str().unwrap();
        assert!(message.len() > 5, "{problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(message), "{problem}");
    }
    errors
        .iter()
        .map(|error| error["field"].as_str().unwrap())
        .collect()
}

async fn a_wrong_field_is_named_and_changes_nothing(world: World) {
    world.tenant("acme").await;
    let before = world.state().await;
    for Row {
        method,
        path,
        good,
        wrong,
    } in table()
    {
        let real = path.replace("{id}", "acme");
        for (field, values) in wrong {
            for value in values {
                let mut body = good.clone();
                match field.split_once('.') {
                    None => body[field] = value,
                    Some((outer, inner)) => body[outer] = json!({ inner: value }),
                }
                let answer = world
                    .ask(&world.admin, &method, &real, Some(body.clone()))
                    .await;
                assert_eq!(
                    answer.status, 422,
                    "{method} {path} {body}: {}",
                    answer.text
                );
                let problem = answer.problem(422);
                assert_eq!(problem["code"], "invalid_field");
                assert_eq!(fields(&problem), [field], "{method} {path} {body}");
            }
        }
        let mut unknown = good.clone();
        unknown["colour"] = "red".into();
        unknown["na\u{202e}me"] = json!([{}]);
        let problem = world
            .ask(&world.admin, &method, &real, Some(unknown))
            .await
            .problem(422);
        assert_eq!(fields(&problem), ["colour", "na\u{202e}me"]);
    }
    let both = json!({"expires_at": "2090-01-01T00:00:00Z", "expires_in_seconds": 60});
    for path in [KEYS, ROTATE] {
        let problem = world
            .post(&path.replace("{id}", "acme"), both.clone())
            .await
            .problem(422);
        assert_eq!(fields(&problem), ["expires_in_seconds"]);
    }
    let inner = json!({"limits": {"colour": 1}});
    let problem = world
        .patch("/api/v1/tenants/acme", inner)
        .await
        .problem(422);
    assert_eq!(fields(&problem), ["limits.colour"]);
    assert_eq!(world.state().await, before);
}

/// The names of a schema's properties, those of objects in it as `outer.inner` too.
fn names(properties: &Map<String, Value>) -> Vec<String> {
    let mut names = Vec::new();
    for (name, schema) in properties {
        names.push(name.clone());
        let inner = schema["properties"].as_object();
        names.extend(
            inner
                .iter()
                .flat_map(|o| o.keys())
                .map(|inner| format!("{name}.{inner}")),
        );
    }
    names
}

#[test]
fn every_field_of_every_route_is_in_the_table() {
    let document: Value = serde_json::from_str(include_str!("../../src/api/openapi.json")).unwrap();
    let mut described = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"]["$ref"];
            let Some(schema) = schema.as_str() else {
                continue;
            };
            let properties = document
                .pointer(&format!("{}/properties", &schema[1..]))
                .unwrap();
            for name in names(properties.as_object().unwrap()) {
                described.insert((method.to_uppercase(), path.clone(), name));
            }
        }
    }
    let mut tried = BTreeSet::new();
    for Row {
        method,
        path,
        wrong,
        ..
    } in table()
    {
        for (field, _) in wrong {
            tried.insert((method.to_string(), path.to_owned(), field.to_owned()));
        }
    }
    assert_eq!(tried, described);
}

async fn a_wrong_parameter_is_named(world: World) {
    world.tenant("acme").await;
    let before = world.state().await;
    let limits = [
        "0",
        "1001",
        "-1",
        "x",
        "",
        "1.5",
        "1e2",
        "99999999999999999999",
        "%00",
        "%EF%BC%91",
    ];
    for path in [
        TENANTS,
        "/api/v1/tenants/acme/keys",
        "/api/v1/operators",
        "/api/v1/audit",
    ] {
        for limit in limits {
            let problem = world
                .get(&format!("{path}?limit={limit}"))
                .await
                .problem(422);
            assert_eq!(fields(&problem), ["limit"], "{path} {limit}");
        }
        for query in [
            "page=2",
            "limit=1&limit=2",
            "after=a&after=b",
            "Limit=1",
            "limit%00=1",
            "%FF=1",
        ] {
            let problem = world.get(&format!("{path}?{query}")).await.problem(400);
            assert_eq!(problem["code"], "bad_query", "{path} {query}");
        }
    }
    let no_tenants = [
        "",
        "a%7Cb",
        "a%00",
        "%FF",
        "..",
        "%E2%80%AEa",
        "a%20b",
        "a%0d%0aX:%20y",
    ];
    let no_keys = ["", "short", "0123456789a%00", "'or'1'='1'--", "%FF"];
    let no_seqs = ["", "x", "1.5", "99999999999999999999", "%00", "1;drop"];
    for (path, field, values) in [
        (TENANTS, "after", &no_tenants[..]),
        ("/api/v1/tenants/acme/keys", "after", &no_keys),
        ("/api/v1/operators", "after", &no_keys),
        ("/api/v1/audit", "after", &no_seqs),
        ("/api/v1/audit", "tenant", &no_tenants),
        ("/api/v1/audit", "key_id", &no_keys),
    ] {
        for value in values {
            let problem = world
                .get(&format!("{path}?{field}={value}"))
                .await
                .problem(422);
            assert_eq!(fields(&problem), [field], "{path} {value}");
        }
    }
    for far in ["-9223372036854775808", "-1", "0", "9223372036854775807"] {
        assert_eq!(
            world
                .get(&format!("/api/v1/audit?after={far}"))
                .await
                .status,
            200
        );
    }
    assert_eq!(world.state().await, before);
}

async fn an_id_that_cannot_be_is_not_found(world: World) {
    world.tenant("acme").await;
    let before = world.state().await;
    let long = "x".repeat(5000);
    for id in [
        "nobody",
        "ACME",
        "%00",
        "a%00b",
        "%FF",
        "%2e%2e",
        "..%2fetc",
        "%E2%80%AEacme",
        "acme%20",
        "a%7Cb",
        "0123456789ab",
        "'%20or%20'1'='1",
        "acme%0d%0aX-A:%20b",
        "__markers__",
        &long,
    ] {
        for route in control::routes()
            .iter()
            .filter(|route| route.path.contains('{'))
        {
            let path = route.path.replace("{id}", id).replace("{key_id}", id);
            let sends = route.method == Method::PATCH
                || route.path.ends_with("keys")
                || route.path.ends_with("rotate");
            let body = (sends && route.method != Method::GET).then(|| json!({"name": "x"}));
            let answer = world.ask(&world.admin, &route.method, &path, body).await;
            assert_eq!(
                answer.problem(404)["code"],
                "not_found",
                "{} {path}",
                route.method
            );
        }
    }
    assert_eq!(world.state().await, before);
}

async fn every_wrong_field_is_named_at_once(world: World) {
    world.tenant("acme").await;
    let wrong = json!({"name": "", "email": "x", "colour": "red"});
    let problem = world.post(TENANTS, wrong).await.problem(422);
    assert_eq!(fields(&problem), ["name", "email", "id", "colour"]);
    let wrong = json!({"name": "\n", "email": 1, "status": "off", "limits": {"body_max_bytes": -1, "x": 1}});
    let problem = world
        .patch("/api/v1/tenants/acme", wrong)
        .await
        .problem(422);
    let expected = [
        "name",
        "email",
        "status",
        "limits.body_max_bytes",
        "limits.x",
    ];
    assert_eq!(fields(&problem), expected);
    let wrong =
        json!({"name": 1, "scopes": [], "expires_at": "x", "key_id": "x", "grace_seconds": -1});
    let problem = world
        .post("/api/v1/tenants/acme/keys/rotate", wrong)
        .await
        .problem(422);
    assert_eq!(fields(&problem).len(), 5, "{problem}");
}
