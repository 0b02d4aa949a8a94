//! `/api/openapi.json` says what the API does: the same routes, the same answers, the same codes. And so does docs/API.md.

use std::collections::{BTreeMap, BTreeSet};

use control::{Access, problem_codes, routes};
use jsonschema::Validator;
use serde_json::{Map, Value, json};

use crate::harness::World;
use crate::walk::{Exchange, is_list, statuses, walk};

crate::in_both_databases!(every_answer_is_as_described);

fn document() -> Value {
    serde_json::from_str(include_str!("../../src/api/openapi.json")).unwrap()
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap_or_else(|| panic!("{value}"))
}

/// Every operation, with its method and path.
fn operations(document: &Value) -> Vec<(String, &str, &Value)> {
    let mut found = Vec::new();
    for (path, item) in object(&document["paths"]) {
        for (method, operation) in object(item) {
            if method != "parameters" {
                found.push((method.to_uppercase(), path.as_str(), operation));
            }
        }
    }
    found
}

/// What a `$ref` stands for.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        None => value,
        Some(reference) => {
            let pointer = reference.strip_prefix('#').unwrap();
            let target = document.pointer(pointer);
            target.unwrap_or_else(|| panic!("{reference} leads nowhere"))
        }
    }
}

/// Calls `seen` with every object in `value`.
fn every_object(value: &Value, seen: &mut impl FnMut(&Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            seen(object);
            object.values().for_each(|value| every_object(value, seen));
        }
        Value::Array(list) => list.iter().for_each(|value| every_object(value, seen)),
        _ => {}
    }
}

#[test]
fn it_has_the_routes_there_are_and_who_may_use_them() {
    let document = document();
    let described: BTreeSet<_> = operations(&document)
        .into_iter()
        .map(|(method, path, operation)| {
            let security = operation["security"].clone();
            (method, path.to_owned(), security.to_string())
        })
        .collect();
    let there_are: BTreeSet<_> = routes()
        .into_iter()
        .map(|route| {
            let security = match route.access {
                Access::Anybody => json!([]),
                Access::Read => json!([{"operatorToken": ["read"]}]),
                Access::Admin => json!([{"operatorToken": ["admin"]}]),
            };
            (
                route.method.to_string(),
                route.path.to_owned(),
                security.to_string(),
            )
        })
        .collect();
    assert_eq!(described, there_are);
}

#[test]
fn it_is_sound() {
    let document = document();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    for member in ["title", "version", "description"] {
        assert!(document["info"][member].is_string(), "{member}");
    }
    let mut used = BTreeSet::new();
    every_object(&document, &mut |object| {
        if let Some(reference) = object.get("$ref") {
            resolved(&document, &json!({"$ref": reference}).clone());
            used.insert(reference.as_str().unwrap().to_owned());
        }
    });
    for kind in ["parameters", "responses", "schemas"] {
        for name in object(&document["components"][kind]).keys() {
            let reference = format!("#/components/{kind}/{name}");
            assert!(used.contains(&reference), "nothing uses {reference}");
        }
    }
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let name = format!("{method} {path}");
        assert!(ids.insert(operation["operationId"].to_string()), "{name}");
        assert!(operation["summary"].is_string(), "{name}");
        let shared = document["paths"][path]["parameters"].as_array();
        let own = operation["parameters"].as_array();
        let named: BTreeSet<_> = shared
            .into_iter()
            .chain(own)
            .flatten()
            .map(|parameter| resolved(&document, parameter))
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| format!("{{{}}}", parameter["name"].as_str().unwrap()))
            .collect();
        let in_path: BTreeSet<_> = path
            .split('/')
            .filter(|part| part.starts_with('{'))
            .map(str::to_owned)
            .collect();
        assert_eq!(named, in_path, "{name}");
        for (status, response) in object(&operation["responses"]) {
            let response = resolved(&document, response);
            assert!(response["description"].is_string(), "{name} {status}");
            assert!(response["content"].is_object(), "{name} {status}");
        }
    }
}

/// The codes that a described problem may have.
fn codes(schema: &Value) -> Vec<&str> {
    let code = &schema["properties"]["code"];
    match code["const"].as_str() {
        Some(code) => vec![code],
        None => code["enum"]
            .as_array()
            .unwrap_or_else(|| panic!("{schema}"))
            .iter()
            .map(|code| code.as_str().unwrap())
            .collect(),
    }
}

#[test]
fn it_has_every_code_of_a_problem_with_its_status() {
    let document = document();
    let all: BTreeMap<_, _> = problem_codes().into_iter().collect();
    let listed = codes(&document["components"]["schemas"]["Problem"]);
    let expected: Vec<_> = problem_codes().into_iter().map(|(code, _)| code).collect();
    assert_eq!(listed, expected);
    let mut used = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        for (status, response) in object(&operation["responses"]) {
            let response = resolved(&document, response);
            let schema = &response["content"]["application/problem+json"]["schema"];
            if schema.is_null() {
                continue;
            }
            assert_eq!(schema["properties"]["status"]["const"].to_string(), *status);
            for code in codes(schema) {
                assert_eq!(all[code].to_string(), *status, "{code} of {method} {path}");
                used.insert(code.to_owned());
            }
        }
    }
    // No operation can answer that there is no such operation.
    used.insert("method".to_owned());
    assert_eq!(used.len(), all.len(), "{used:?}");
}

#[test]
fn the_page_for_people_has_every_code_with_its_status() {
    let page = include_str!("../../../../docs/API.md");
    let rows: Vec<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|row| {
            let mut cells = row.split('|').map(|cell| cell.trim().trim_matches('`'));
            let (code, status) = (cells.next()?, cells.next()?);
            Some((code.to_owned(), status.parse::<u16>().ok()?))
        })
        .collect();
    let expected: Vec<_> = problem_codes()
        .into_iter()
        .map(|(code, status)| (code.to_owned(), status))
        .collect();
    assert_eq!(rows, expected);
    for route in routes() {
        let named = format!("`{} {}`", route.method, route.path);
        assert!(page.contains(&named), "{named} is not in docs/API.md");
    }
}

/// The document, but no object may have a member that is not described. Schemas that others are made of stay open: what
/// they are part of is closed.
fn closed(mut document: Value) -> Value {
    let mut parts = BTreeSet::new();
    every_object(&document, &mut |object| {
        let all_of = object.get("allOf").and_then(Value::as_array);
        for part in all_of.into_iter().flatten() {
            parts.insert(part["$ref"].as_str().unwrap_or_default().to_owned());
        }
    });
    let schemas = document["components"]["schemas"].as_object_mut().unwrap();
    for (name, schema) in schemas {
        let is_object = schema.get("properties").is_some();
        if is_object && !parts.contains(&format!("#/components/schemas/{name}")) {
            schema["unevaluatedProperties"] = false.into();
        }
    }
    document
}

/// A check of values by `schema`, which may refer to the document's components.
fn validator(document: &Value, schema: &Value) -> Validator {
    let mut schema = schema.clone();
    if schema.get("$ref").is_some() || schema.get("allOf").is_some() {
        schema["unevaluatedProperties"] = false.into();
    }
    schema["components"] = document["components"].clone();
    jsonschema::draft202012::options()
        .should_validate_formats(true)
        .build(&schema)
        .unwrap()
}

async fn every_answer_is_as_described(world: World) {
    let document = closed(document());
    let exchanges = walk(&world).await;
    for exchange in &exchanges {
        check(&document, exchange);
    }
    let seen = statuses(&exchanges);
    for (method, path, operation) in operations(&document) {
        let described: Vec<u16> = object(&operation["responses"])
            .keys()
            .map(|status| status.parse().unwrap())
            // What fails inside cannot be asked for.
            .filter(|status| *status != 500)
            .collect();
        let (_, seen) = seen
            .iter()
            .find(|(route, _)| **route == (method.clone(), path))
            .unwrap_or_else(|| panic!("{method} {path} was not walked"));
        assert_eq!(*seen, described, "{method} {path}");
    }
}

fn check(document: &Value, exchange: &Exchange) {
    let Exchange {
        method,
        path,
        sent,
        answer,
    } = exchange;
    let name = format!(
        "{method} {path} {sent:?} answered {}: {}",
        answer.status, answer.text
    );
    let operation = &document["paths"][path][method.as_str().to_lowercase()];
    let response = &operation["responses"][answer.status.as_str()];
    assert!(response.is_object(), "not described: {name}");
    let response = resolved(document, response);
    let media_type = answer.header("content-type").split(';').next().unwrap();
    let schema = &response["content"][media_type]["schema"];
    assert!(schema.is_object(), "{media_type} is not described: {name}");
    let value = match media_type {
        "text/plain" => answer.text.clone().into(),
        _ => answer.json(),
    };
    conforms(document, schema, &value, &name);
    for (header, description) in response["headers"].as_object().into_iter().flatten() {
        let value = answer.header(header);
        if header == "Link" {
            continue;
        }
        let check = validator(document, &description["schema"]);
        assert!(check.is_valid(&value.into()), "{header}: {value}: {name}");
    }
    let request = &operation["requestBody"]["content"]["application/json"]["schema"];
    if let Some(sent) = sent.as_ref().filter(|_| answer.status.is_success()) {
        conforms(document, request, sent, &name);
    }
}

#[track_caller]
fn conforms(document: &Value, schema: &Value, value: &Value, name: &str) {
    let wrong: Vec<_> = validator(document, schema)
        .iter_errors(value)
        .map(|error| format!("{} is wrong: {error}", error.instance_path()))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}: {name}");
}

#[test]
fn its_examples_are_as_described() {
    let document = document();
    let mut examples = 0;
    for (method, path, operation) in operations(&document) {
        let body = &operation["requestBody"]["content"]["application/json"];
        if body.is_null() {
            continue;
        }
        let check = validator(&document, &body["schema"]);
        assert!(check.is_valid(&body["example"]), "{method} {path}");
        examples += 1;
    }
    assert_eq!(examples, 4);
}

#[test]
fn every_list_has_its_page_parameters() {
    let document = document();
    for route in routes().iter().filter(|route| is_list(route)) {
        let method = route.method.as_str().to_lowercase();
        let operation = &document["paths"][route.path][method];
        let names: Vec<_> = operation["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|parameter| resolved(&document, parameter)["name"].clone())
            .collect();
        for name in ["after", "limit"] {
            assert!(names.contains(&name.into()), "{name} of {}", route.path);
        }
    }
}

/// With curl, as the page shows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_walk_on_the_page_for_people_works() {
    let page = include_str!("../../../../docs/API.md");
    let (_, walk) = page.split_once("```sh\n").unwrap();
    let (walk, _) = walk.split_once("```").unwrap();
    let world = World::sqlite().await;
    let walked = tokio::process::Command::new("bash")
        .args(["-euo", "pipefail", "-c", walk])
        .env("OKMON_CONTROL_URL", world.origin())
        .env("OKMON_OPERATOR_TOKEN", world.admin.reveal())
        .output();
    let walked = walked.await.unwrap();
    let said = String::from_utf8(walked.stdout).unwrap();
    assert!(walked.status.success(), "{said}{:?}", walked.stderr);
    let log = world.get("/api/v1/audit?tenant=acme").await.json();
    let last = said.lines().last().unwrap();
    assert_eq!(serde_json::from_str::<Value>(last).unwrap(), log);
    assert_eq!(log.as_array().unwrap().len(), 12, "{log:#?}");
}
