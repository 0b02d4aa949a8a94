//! Every route refuses every bad request from its headers alone, in the sender's protocol, and the upstream sees nothing.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use wire::rpc::Status;

use crate::harness::{Answer, BODY_MAX, OTHER, World, head, post, post2, read_answer};
use crate::upstream::{Reply, Script};

/// How a route's senders expect to be refused.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    Grpc,
    Protobuf,
    Json,
    Text,
}

/// A route with the headers that make a request to it a good one, the credential left out.
struct Route {
    path: &'static str,
    form: Form,
    headers: &'static [(&'static str, &'static str)],
}

const PROTOBUF: &[(&str, &str)] = &[("content-type", "application/x-protobuf")];
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
const GRPC: &[(&str, &str)] = &[("content-type", "application/grpc"), ("te", "trailers")];
const REMOTE_WRITE: &[(&str, &str)] = &[
    ("content-type", "application/x-protobuf"),
    ("content-encoding", "snappy"),
    ("x-prometheus-remote-write-version", "0.1.0"),
];

fn routes() -> Vec<Route> {
    let route = |path, form, headers| Route {
        path,
        form,
        headers,
    };
    let mut routes = Vec::new();
    for path in [
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
    ] {
        routes.push(route(path, Form::Grpc, GRPC));
    }
    for path in [
        "/v1/traces",
        "/v1/metrics",
        "/v1/logs",
        "/v1development/profiles",
        "/otlp/v1/traces",
        "/otlp/v1/metrics",
        "/otlp/v1/logs",
        "/otlp/v1development/profiles",
        "/api/v1/otlp/v1/metrics",
        "/opentelemetry/v1/metrics",
    ] {
        routes.push(route(path, Form::Protobuf, PROTOBUF));
        routes.push(route(path, Form::Json, JSON));
    }
    for path in ["/api/v1/push", "/api/v1/write", "/api/prom/push"] {
        routes.push(route(path, Form::Text, REMOTE_WRITE));
    }
    routes.push(route("/loki/api/v1/push", Form::Text, PROTOBUF));
    routes.push(route("/loki/api/v1/push", Form::Text, JSON));
    routes.push(route("/api/prom/push", Form::Text, JSON));
    routes
}

impl Route {
    /// Sends a request with these further headers, by HTTP/2 where the route needs it and by both otherwise.
    async fn send(&self, world: &World, extra: &[(&str, &str)]) -> Vec<Answer> {
        let headers = [self.headers, extra].concat();
        if self.form == Form::Grpc {
            return vec![post2(world.api, self.path, &headers, &[&[0; 5]]).await];
        }
        vec![
            post(world.api, self.path, &headers, b"body").await,
            post2(world.api, self.path, &headers, &[b"body"]).await,
        ]
    }
}

/// What a cause comes to: the HTTP status, the gRPC code, and whether the sender is told to come back soon.
struct Expected {
    status: u16,
    code: &'static str,
    soon: bool,
}

const UNAUTHENTICATED: Expected = Expected {
    status: 401,
    code: "16",
    soon: false,
};
const FORBIDDEN: Expected = Expected {
    status: 403,
    code: "7",
    soon: false,
};
const LATER: Expected = Expected {
    status: 503,
    code: "14",
    soon: true,
};

/// Checks an answer's form and hints; its text.
fn check(route: &Route, answer: &Answer, expected: &Expected) -> String {
    let context = format!("{} as {:?}: {answer:?}", route.path, route.form);
    assert_eq!(
        answer.header("x-request-id").map(str::len),
        Some(26),
        "{context}"
    );
    let wait = answer
        .header("retry-after")
        .map(|seconds| seconds.parse::<u64>().unwrap());
    match route.form {
        Form::Grpc => {
            assert_eq!(
                (answer.status, answer.header("grpc-status")),
                (200, Some(expected.code)),
                "{context}"
            );
            assert!(answer.trailers_only, "{context}");
            assert_eq!(
                answer.header("content-type"),
                Some("application/grpc"),
                "{context}"
            );
            let both = ["grpc-status-details-bin", "google.rpc.retryinfo-bin"]
                .map(|name| answer.header(name).is_some());
            assert_eq!(both, [expected.soon; 2], "{context}");
            answer.header("grpc-message").unwrap().to_owned()
        }
        Form::Protobuf | Form::Json => {
            assert_eq!(answer.status, expected.status, "{context}");
            assert_eq!(
                wait.is_some_and(|wait| (1..=4).contains(&wait)),
                expected.soon,
                "{context}"
            );
            if route.form == Form::Protobuf {
                assert_eq!(
                    answer.header("content-type"),
                    Some("application/x-protobuf"),
                    "{context}"
                );
                let status = Status::from_protobuf(&answer.body).expect("a google.rpc.Status");
                assert_eq!(
                    (
                        status.code.to_string().as_str(),
                        status.retry_info().is_some()
                    ),
                    (expected.code, expected.soon)
                );
                return status.message;
            }
            assert_eq!(
                answer.header("content-type"),
                Some("application/json"),
                "{context}"
            );
            let status: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
            assert_eq!(status["code"].to_string(), expected.code, "{context}");
            assert_eq!(
                status["details"][0]["retryDelay"].is_string(),
                expected.soon,
                "{context}"
            );
            status["message"].as_str().expect("a message").to_owned()
        }
        Form::Text => {
            assert_eq!(answer.status, expected.status, "{context}");
            assert_eq!(
                answer.header("content-type"),
                Some("text/plain; charset=utf-8"),
                "{context}"
            );
            assert!(
                !expected.soon || wait.is_some_and(|wait| (1..=4).contains(&wait)),
                "{context}"
            );
            let text = String::from_utf8(answer.body.to_vec()).unwrap();
            assert!(text.lines().count() == 1 && text.len() < 256, "{context}");
            text
        }
    }
}

async fn world() -> World {
    World::start(Script::Answer(Reply::new(200))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_refuses_every_bad_credential_alike() {
    let world = world().await;
    let keys = &world.keys;
    let mut misspelt = keys.valid.reveal().to_owned().into_bytes();
    misspelt[20] = if misspelt[20] == b'x' { b'y' } else { b'x' };
    let misspelt = String::from_utf8(misspelt).unwrap();
    let bearer = |key: &str| format!("Bearer {key}");
    let bad: Vec<Vec<(&str, String)>> = vec![
        vec![],
        vec![("authorization", "Bearer".to_owned())],
        vec![("authorization", "Basic %%%".to_owned())],
        vec![("authorization", "Basic bm9jb2xvbg==".to_owned())],
        vec![("authorization", format!("Digest {}", keys.valid.reveal()))],
        vec![("authorization", bearer("obs_short"))],
        vec![("authorization", bearer(&misspelt))],
        vec![("authorization", bearer(keys.unknown.reveal()))],
        vec![("authorization", bearer(keys.revoked.reveal()))],
        vec![("authorization", bearer(keys.expired.reveal()))],
        vec![("x-api-key", keys.unknown.reveal().to_owned())],
    ];
    for route in routes() {
        let mut texts = Vec::new();
        for headers in &bad {
            let headers: Vec<_> = headers
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            for answer in route.send(&world, &headers).await {
                texts.push(check(&route, &answer, &UNAUTHENTICATED));
                if route.form != Form::Grpc {
                    assert!(
                        answer
                            .header("www-authenticate")
                            .unwrap()
                            .starts_with("Bearer ")
                    );
                }
            }
        }
        assert!(
            texts.iter().all(|text| *text == texts[0]),
            "{}: {texts:?}",
            route.path
        );
        let (one, two) = (bearer(keys.valid.reveal()), keys.other.reveal());
        for answer in route
            .send(&world, &[("authorization", &one), ("x-api-key", two)])
            .await
        {
            assert!(check(&route, &answer, &UNAUTHENTICATED).contains("more than one"));
        }
    }
    assert!(world.upstream.take_seen().is_empty());
    assert!(
        world
            .metric("okmon_edge_refusals_total", "cause=\"revoked_key\"")
            .await
            > 0.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_refuses_what_a_key_may_not_do() {
    let world = world().await;
    for route in routes() {
        let suspended = world.keys.suspended.reveal();
        for answer in route.send(&world, &[("x-api-key", suspended)]).await {
            check(&route, &answer, &LATER);
        }
        let key = world.keys.valid.reveal();
        for other in [OTHER, "tenant-a|tenant-b", "tenant-a:x=y", "", "TENANT-A"] {
            for answer in route
                .send(&world, &[("x-api-key", key), ("x-scope-orgid", other)])
                .await
            {
                check(&route, &answer, &FORBIDDEN);
            }
        }
        if route.path.contains("ogs")
            || route.path.contains("loki")
            || route.headers == JSON && route.form == Form::Text
        {
            continue;
        }
        for answer in route
            .send(&world, &[("x-api-key", world.keys.logs_only.reveal())])
            .await
        {
            assert!(check(&route, &answer, &FORBIDDEN).contains(":write"));
        }
    }
    assert!(world.upstream.take_seen().is_empty());
    assert!(
        world
            .metric("okmon_edge_refusals_total", "cause=\"tenant_mismatch\"")
            .await
            > 0.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_refuses_a_wrong_media_type_and_a_wrong_method() {
    let world = world().await;
    let key = ("x-api-key", world.keys.valid.reveal());
    let media = Expected {
        status: 415,
        code: "12",
        soon: false,
    };
    for mut route in routes() {
        let good = route.headers;
        for bad in [
            &[("content-type", "text/plain")][..],
            &[
                ("content-type", "application/x-protobuf"),
                ("content-encoding", "br"),
            ],
        ] {
            route.headers = bad;
            for answer in route.send(&world, &[key]).await {
                if route.form == Form::Grpc || route.form == Form::Text {
                    check(&route, &answer, &media);
                }
                assert!(
                    answer.status == 415 || answer.grpc_status() == Some("12"),
                    "{}: {answer:?}",
                    route.path
                );
            }
        }
        route.headers = good;
        if route.form != Form::Grpc {
            let request = format!(
                "GET {} HTTP/1.1\r\nhost: a\r\nx-api-key: {}\r\n\r\n",
                route.path, key.1
            );
            let mut stream = TcpStream::connect(world.api).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let answer = read_answer(&mut stream).await.unwrap();
            assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
        }
    }
    assert!(world.upstream.take_seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_is_refused_declared_or_not() {
    let world = world().await;
    let key = ("x-api-key", world.keys.valid.reveal());
    for route in routes()
        .into_iter()
        .filter(|route| route.form != Form::Grpc)
    {
        let headers = [route.headers, &[key]].concat();
        let mut stream = TcpStream::connect(world.api).await.unwrap();
        // The head alone: the answer must not wait for the body.
        stream
            .write_all(head(route.path, &headers, BODY_MAX + 1).as_bytes())
            .await
            .unwrap();
        let answer = read_answer(&mut stream).await.unwrap();
        let status = if route.headers == REMOTE_WRITE {
            400
        } else {
            413
        };
        let text = check(
            &route,
            &answer,
            &Expected {
                status,
                code: "8",
                soon: false,
            },
        );
        assert!(text.contains("16 MiB"), "{text}");
    }
    assert!(world.upstream.take_seen().is_empty());

    let headers = [PROTOBUF, &[key]].concat();
    let frames: Vec<&[u8]> = vec![&[7; 16 * 1024]; BODY_MAX / (16 * 1024) + 1];
    let answer = post2(world.api, "/v1/traces", &headers, &frames).await;
    assert_eq!(answer.status, 413);
    assert!(
        world.upstream.take_seen().iter().all(|seen| !seen.whole),
        "the upstream must not see a proper end"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_goes_on_where_the_body_is_small() {
    let world = world().await;
    let mut stream = TcpStream::connect(world.api).await.unwrap();
    for key in [
        world.keys.unknown.reveal(),
        world.keys.valid.reveal(),
        world.keys.revoked.reveal(),
    ] {
        let head = head("/v1/traces", &[PROTOBUF[0], ("x-api-key", key)], 4);
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(b"body").await.unwrap();
        let answer = read_answer(&mut stream).await.unwrap();
        assert_eq!(answer.status == 200, key == world.keys.valid.reveal());
    }
    assert_eq!(world.upstream.take_seen().len(), 1);
}
