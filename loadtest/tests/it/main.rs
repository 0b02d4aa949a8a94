//! The program as its users run it: a generator, an upstream, and what they say of each other.

// `cfg(test)` holds anyway; it tells clippy that this file is test code.
#[cfg(test)]
mod attacks;
#[cfg(test)]
mod certificates;
#[cfg(test)]
mod program;
#[cfg(test)]
mod replicas;

use std::time::Duration;

use serde_json::Value;

use program::{Upstream, keys_file, run, run_against};

const PROTOCOLS: [&str; 4] = ["otlp-grpc", "otlp-http", "remote-write", "loki"];

#[test]
fn every_protocol_is_answered_and_every_body_arrives_whole() {
    for protocol in PROTOCOLS {
        let upstream = Upstream::start(&[]);
        let report = run_against(&upstream, &["--protocol", protocol, "--size", "40000"]);
        assert_eq!(report["other"], serde_json::json!({}), "{protocol}");
        let accepted = report["accepted"].as_u64().unwrap();
        assert!(accepted > 0, "{protocol}: {report}");

        let (stats, _) = upstream.stop();
        assert_eq!(stats["requests"], accepted, "{protocol}: {stats}");
        assert_eq!(stats["cut_short"], 0, "{protocol}: {stats}");
        let mean = stats["body_bytes"].as_u64().unwrap() / accepted;
        assert!(
            (38_000..42_000).contains(&mean),
            "{protocol}: bodies of {mean} bytes"
        );
    }
}

#[test]
fn connections_are_opened_anew_after_as_many_requests_as_asked() {
    for protocol in ["otlp-grpc", "otlp-http"] {
        let upstream = Upstream::start(&[]);
        let report = run_against(&upstream, &["--protocol", protocol, "--renew-after", "10"]);
        let [accepted, reconnects] =
            ["accepted", "reconnects"].map(|of| report[of].as_u64().unwrap());
        // The four first connections have 2, 5, 7 and 10 requests, which makes up for what the four last ones lack; each of these may
        // have had its last request, and not be opened anew yet.
        let expected = (accepted / 10).saturating_sub(6)..=accepted / 10 + 4;
        assert!(expected.contains(&reconnects), "{protocol}: {report}");
    }
}

#[test]
fn an_upstream_that_answers_before_the_body_is_read_costs_no_request() {
    for protocol in PROTOCOLS {
        let upstream = Upstream::start(&["--early"]);
        let report = run_against(&upstream, &["--protocol", protocol, "--size", "1000000"]);
        assert_eq!(report["other"], serde_json::json!({}), "{protocol}");
        assert_eq!(report["reconnects"], 0, "{protocol}: {report}");
        let (stats, _) = upstream.stop();
        assert_eq!(stats["requests"], report["accepted"], "{protocol}: {stats}");
    }
}

#[test]
fn a_request_without_a_tenant_or_with_two_is_counted_and_fails_the_upstream() {
    let upstream = Upstream::start(&[]);
    for headers in [
        "",
        "X-Scope-OrgID: a\r\n",
        "X-Scope-OrgID: a\r\nx-scope-orgid: b\r\n",
        "X-Scope-OrgID: a\r\nX_Scope_OrgID: a\r\n",
        "X-Scope-OrgID:\r\n",
    ] {
        let answer = upstream.exchange(&format!(
            "POST /v1/logs HTTP/1.1\r\n{headers}content-length: 2\r\nconnection: close\r\n\r\nab"
        ));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let (stats, success) = upstream.stop();
    assert_eq!(stats["no_tenant"], 2, "{stats}");
    assert_eq!(stats["several_tenants"], 2, "{stats}");
    assert_eq!(stats["tenants"], 1, "{stats}");
    assert!(!success, "violations must show in the exit status");
}

#[test]
fn a_body_cut_short_is_counted_as_such() {
    let upstream = Upstream::start(&[]);
    upstream.exchange("POST /v1/logs HTTP/1.1\r\nX-Scope-OrgID: a\r\ncontent-length: 9\r\n\r\nab");
    let (stats, _) = upstream.stop();
    assert_eq!(
        (&stats["requests"], &stats["cut_short"]),
        (&0.into(), &1.into())
    );
}

#[test]
fn requests_rotate_over_the_keys_in_the_asked_form() {
    let keys = keys_file("first one\nsecond two\n");
    for (form, expected) in [
        (
            "bearer",
            [
                "authorization: Bearer first",
                "authorization: Bearer second",
            ],
        ),
        (
            "basic",
            // one:first and two:second
            [
                "authorization: Basic b25lOmZpcnN0",
                "authorization: Basic dHdvOnNlY29uZA==",
            ],
        ),
        ("x-api-key", ["x-api-key: first", "x-api-key: second"]),
    ] {
        let (address, heads) = program::record_heads(2);
        let path = keys.path().display().to_string();
        run(&[
            "--target",
            &address,
            "--protocol",
            "loki",
            "--connections",
            "1",
            "--credential",
            form,
            "--keys",
            &path,
        ]);
        let heads = heads.join().unwrap();
        for (head, expected) in heads.iter().zip(expected) {
            assert!(
                head.contains(&format!("\r\n{expected}\r\n")),
                "{form}: {head}"
            );
            assert!(
                head.starts_with("POST /loki/api/v1/push HTTP/1.1\r\n"),
                "{head}"
            );
        }
    }
}

#[test]
fn refusals_are_counted_by_status_and_fail_the_run() {
    let address =
        program::answer_all("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy");
    let (report, success) = run(&[
        "--target",
        &address,
        "--protocol",
        "otlp-http",
        "--connections",
        "2",
    ]);
    assert_eq!(report["accepted"], 0, "{report}");
    assert!(
        report["other"]["http 503"].as_u64().unwrap() > 0,
        "{report}"
    );
    assert!(!success);
}

#[test]
fn a_refusal_that_comes_before_the_body_is_read_is_counted_though_the_body_is_stuck() {
    let address = program::refuse_unread(
        "HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    );
    // More than the sockets' buffers hold.
    let (report, _) = run(&[
        "--target",
        &address,
        "--protocol",
        "otlp-http",
        "--connections",
        "1",
        "--size",
        "16000000",
        "--patience",
        "20",
    ]);
    assert!(
        report["other"]["http 413"].as_u64().is_some_and(|n| n > 0),
        "{report}"
    );
    assert_eq!(
        report["other"]["no answer in time"],
        Value::Null,
        "{report}"
    );
}

#[test]
fn open_loop_sends_at_the_rate_and_counts_latency_from_the_time_each_request_was_due() {
    let upstream = Upstream::start(&[]);
    let (report, _) = run(&[
        "--target",
        &upstream.address,
        "--protocol",
        "otlp-http",
        "--rate",
        "500",
    ]);
    // A busy machine may leave the last few unsent; they are due all the same.
    let late = report["other"]["due but never sent"].as_u64().unwrap_or(0);
    let due = report["accepted"].as_u64().unwrap() + late;
    assert!(
        (148..=150).contains(&due),
        "300 ms at 500/s: {due} due: {report}"
    );

    // A target that takes 50 ms for each answer on one connection serves 20 requests a second: of those that fall due at 500/s
    // the last have waited for almost the whole run, and most were never sent.
    let address = program::answer_slowly(Duration::from_millis(50));
    let (report, success) = run(&[
        "--target",
        &address,
        "--protocol",
        "otlp-http",
        "--connections",
        "1",
        "--rate",
        "500",
    ]);
    assert!(
        report["other"]["due but never sent"].as_u64().unwrap() > 100,
        "{report}"
    );
    let p50 = report["latency_micros"]["p50"].as_f64().unwrap();
    assert!(
        p50 > 100_000.0,
        "waiting for a free connection must count: {report}"
    );
    assert!(!success);
}

#[test]
fn open_loop_charges_a_stall_to_every_request_that_was_due_meanwhile() {
    let address = program::stall_first(Duration::from_millis(200));
    let (report, _) = run(&[
        "--target",
        &address,
        "--protocol",
        "otlp-http",
        "--connections",
        "1",
        "--rate",
        "200",
    ]);
    // 40 of 60 requests fell due during the stall; only the first one was on its way.
    let p50 = report["latency_micros"]["p50"].as_f64().unwrap();
    assert!(p50 > 20_000.0, "{report}");
}

#[test]
fn a_target_that_is_not_there_is_named_in_the_error() {
    let output = program::loadtest(&["run", "--target", "127.0.0.1:1", "--protocol", "otlp-grpc"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("--target 127.0.0.1:1: cannot connect"),
        "{text}"
    );
}

#[test]
fn streams_on_http1_are_refused_with_what_to_do_instead() {
    let output = program::loadtest(&[
        "run",
        "--target",
        "127.0.0.1:1",
        "--protocol",
        "loki",
        "--streams",
        "2",
    ]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("raise --connections"), "{text}");
}
