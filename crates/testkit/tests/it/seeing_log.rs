//! What the edge's log tells of requests: enough to find each failure, never so much that it fills a disk or holds requests up.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::control::id_of;
use testkit::edge::{Edge, Settings, agent};
use testkit::key_rows::fresh_key;
use testkit::{eventually, peers};

use crate::world::{World, answers_soon};

const SOON: Duration = Duration::from_secs(10);
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const BODY: &str = "{}";

fn edge(world: &World, log_lines: &'static str) -> Edge {
    let mut edge = Edge::new(Settings {
        log_lines,
        ..world.settings()
    });
    edge.start();
    edge
}

/// Posts a body with these headers: status and request id.
fn ask(edge: &Edge, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let mut request = agent().post(format!("{}{path}", edge.url()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.content_type("application/json").send(BODY).unwrap();
    let id = answer.headers()["x-request-id"].to_str().unwrap();
    (answer.status().as_u16(), id.to_owned())
}

/// Everything logged so far; each line must be a JSON object.
fn lines(edge: &Edge) -> Vec<Value> {
    let output = edge.output();
    let lines = output.lines().map(|line| match serde_json::from_str(line) {
        Ok(line @ Value::Object(_)) => line,
        other => panic!("{line}: {other:?}"),
    });
    lines.collect()
}

fn matching(edge: &Edge, fields: &Value) -> Vec<Value> {
    let has = |line: &Value| {
        let mut fields = fields.as_object().unwrap().iter();
        fields.all(|(name, value)| line.get(name).unwrap_or(&Value::Null) == value)
    };
    lines(edge).into_iter().filter(has).collect()
}

/// The one line with these fields, which comes after the answer.
#[track_caller]
fn line(edge: &Edge, fields: &Value) -> Value {
    eventually(SOON, &format!("one line with {fields}"), || {
        let found = matching(edge, fields);
        match found.as_slice() {
            [one] => Ok(one.clone()),
            _ => Err(format!("{found:#?} of {:#?}", lines(edge))),
        }
    })
}

#[test]
fn every_end_has_one_line_that_says_whose_request_it_was_and_what_came_of_it() {
    let world = World::start();
    let key = world.control.create_tenant("acme");
    let revoked = world.control.create_tenant("gone");
    let edge = edge(&world, "accepted_one_in = 1");
    answers_soon([&edge], &revoked, 200, SOON, "made");
    world.control.revoke(&revoked);
    answers_soon([&edge], &revoked, 401, SOON, "revoked");
    let unknown = fresh_key().reveal().to_owned();
    let bearer = |key: &str| format!("Bearer {key}");
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-00");
    let traced = ("traceparent", parent.as_str());

    let (status, id) = ask(
        &edge,
        "/v1/logs",
        &[("authorization", &bearer(&key)), traced],
    );
    assert_eq!(status, 200);
    let told = line(&edge, &json!({"request.id": id}));
    let mut expected = json!({
        "level": "INFO", "message": "request accepted", "target": "edge::request::tell",
        "request.id": id, "outcome": "accepted", "status": 200, "protocol": "otlp_http",
        "signal": "logs", "tenant": "acme", "key.id": id_of(&key), "listener": "all",
        "upstream": "next", "received_bytes": BODY.len(), "trace.id": TRACE,
    });
    assert!(
        told["peer"].as_str().unwrap().starts_with("127.0.0.1:"),
        "{told}"
    );
    let took = told["duration_ms"].as_f64().unwrap();
    assert!(took > 0.0 && took < 600_000.0, "{told}");
    for varies in ["peer", "duration_ms", "timestamp"] {
        expected[varies] = told[varies].clone();
    }
    assert_eq!(told, expected);

    let revoked_id = id_of(&revoked);
    let unknown_id = id_of(&unknown);
    let (revoked, unknown_key) = (bearer(&revoked), bearer(&unknown));
    let authorized = ("authorization", bearer(&key));
    let authorized = (authorized.0, authorized.1.as_str());
    for (path, headers, expected) in [
        (
            "/v1/logs",
            vec![("authorization", revoked.as_str()), traced],
            json!({"cause": "revoked_key", "status": 401, "tenant": "gone", "key.id": revoked_id,
                   "protocol": "otlp_http", "signal": "logs", "trace.id": TRACE}),
        ),
        (
            "/v1/traces",
            vec![("authorization", unknown_key.as_str())],
            json!({"cause": "unknown_key", "status": 401, "tenant": null, "key.id": unknown_id,
                   "signal": "traces", "trace.id": null}),
        ),
        (
            "/v1/logs",
            vec![("authorization", "Bearer obs_nonsense")],
            json!({"cause": "malformed_credential", "status": 401, "tenant": null, "key.id": null}),
        ),
        (
            "/v1/metrics",
            vec![authorized, ("x-scope-orgid", "other")],
            json!({"cause": "tenant_mismatch", "status": 403, "tenant": "acme", "signal": "metrics"}),
        ),
        (
            "/nothing",
            vec![authorized],
            json!({"cause": "not_found", "status": 404, "tenant": null, "protocol": null}),
        ),
    ] {
        let (status, id) = ask(&edge, path, &headers);
        assert_eq!(expected["status"], status);
        let told = line(&edge, &json!({"request.id": id}));
        assert_eq!(told["message"], "request refused");
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(
                told.get(name).unwrap_or(&Value::Null),
                value,
                "{name}: {told}"
            );
        }
    }
    assert_eq!(edge.grpc(&unknown), 16);
    // curl may have had to ask again; each of its requests has a line of its own.
    let calls = json!({"protocol": "otlp_grpc", "cause": "unknown_key"});
    let id = eventually(SOON, "a line of a call", || {
        let told = matching(&edge, &calls);
        told.first()
            .map(|told| told["request.id"].clone())
            .ok_or("none")
    });
    let told = line(&edge, &json!({"request.id": id}));
    assert_eq!(
        (&told["status"], &told["grpc.status"]),
        (&json!(200), &json!(16))
    );
}

#[test]
fn accepted_requests_are_not_logged_unless_asked_for() {
    let world = World::start();
    let key = world.control.create_tenant("acme");
    let edge = edge(&world, "");
    answers_soon([&edge], &key, 200, SOON, "made");
    let (status, id) = ask(&edge, "/nothing", &[]);
    assert_eq!(status, 404);
    line(&edge, &json!({"request.id": id}));
    assert_eq!(matching(&edge, &json!({"outcome": "accepted"})).len(), 0);
}

/// How many of the failures with this cause have a line, and how many are told to have none.
fn told(edge: &Edge, cause: &str, whose: &str, name: &str) -> (u64, u64) {
    let of_cause = matching(edge, &json!({"cause": cause}));
    let of_it: Vec<_> = of_cause
        .iter()
        .filter(|line| line[whose].as_str().is_some_and(|it| it.starts_with(name)))
        .collect();
    let suppressed = of_it.iter().filter_map(|line| line["suppressed"].as_u64());
    let written = of_it.iter().filter(|line| line.get("suppressed").is_none());
    (written.count() as u64, suppressed.sum())
}

#[test]
fn failures_fill_as_many_lines_as_they_may_and_the_rest_is_told_in_one() {
    let world = World::start();
    let (loud, quiet) = (
        world.control.create_tenant("loud"),
        world.control.create_tenant("quiet"),
    );
    let mut edge = edge(&world, "failures_per_minute = 3");
    answers_soon([&edge], &quiet, 200, SOON, "made");
    let unknown = format!("Bearer {}", fresh_key().reveal());
    let mismatch = |key: &str| {
        let key = format!("Bearer {key}");
        ask(
            &edge,
            "/v1/logs",
            &[("authorization", &key), ("x-scope-orgid", "x")],
        )
        .0
    };
    for _ in 0..20 {
        assert_eq!(mismatch(&loud), 403);
        assert_eq!(
            ask(&edge, "/v1/logs", &[("authorization", &unknown)]).0,
            401
        );
    }
    assert_eq!(mismatch(&quiet), 403);
    let refused = edge.metric("okmon_edge_refusals_total");
    assert!(
        (refused - 41.0).abs() < 0.5,
        "the metrics have all: {refused}"
    );
    edge.stop();
    for (cause, whose, name) in [
        ("tenant_mismatch", "tenant", "loud"),
        ("unknown_key", "peer", "127.0.0.1"),
    ] {
        let (written, suppressed) = told(&edge, cause, whose, name);
        assert_eq!(written + suppressed, 20, "{cause}: {:#?}", lines(&edge));
        // A minute may have ended meanwhile.
        assert!((3..=6).contains(&written), "{cause}: {written} lines");
    }
    assert_eq!(told(&edge, "tenant_mismatch", "tenant", "quiet"), (1, 0));
}

#[test]
fn failures_of_an_upstream_fill_as_few_lines() {
    let world = World::start();
    let key = world.control.create_tenant("acme");
    let nobody = format!("127.0.0.1:{}", peers::free_port());
    let mut edge = Edge::new(Settings {
        upstream: nobody.parse().unwrap(),
        log_lines: "failures_per_minute = 3",
        ..world.settings()
    });
    edge.start();
    answers_soon([&edge], &key, 503, SOON, "made");
    for _ in 0..19 {
        assert_eq!(edge.post(&key), Ok(503));
    }
    edge.stop();
    let warned = matching(
        &edge,
        &json!({"level": "WARN", "upstream": "next", "suppressed": null}),
    );
    assert!((3..=6).contains(&warned.len()), "{warned:#?}");
    let (_, suppressed) = told(&edge, "upstream_unreachable", "upstream", "next");
    assert!(suppressed >= 14, "{suppressed} of 20: {:#?}", lines(&edge));
}

#[test]
fn a_log_that_nobody_reads_holds_no_request_up_and_what_is_lost_is_counted() {
    let world = World::start();
    let key = world.control.create_tenant("acme");
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    // Somebody holds the other end, and never reads.
    let script = format!(
        "mkfifo {pipe}; sleep 600 <>{pipe} & trap \"kill $!\" EXIT; exec 2>{pipe}; \"$0\" \"$@\"& \
         trap \"kill -TERM $!\" TERM; wait $!; wait $!",
        pipe = pipe.display()
    );
    let mut edge = Edge::new(Settings {
        log: "trace",
        before: ["sh", "-c", &script].map(str::to_owned).to_vec(),
        ..world.settings()
    });
    edge.start();
    answers_soon([&edge], &key, 200, SOON, "made");
    let lost = eventually(Duration::from_mins(2), "lines to be lost", || {
        for _ in 0..100 {
            assert_eq!(edge.post(&key), Ok(200));
        }
        let lost = edge.metric("okmon_edge_log_lines_lost_total");
        (lost > 0.0).then_some(lost).ok_or("none")
    });
    for _ in 0..100 {
        assert_eq!(edge.post(&key), Ok(200));
    }
    eventually(SOON, "more to be lost", || {
        let more = edge.metric("okmon_edge_log_lines_lost_total");
        (more > lost).then_some(()).ok_or(more)
    });
    edge.stop();
}
