//! Every route refuses every bad request from its headers alone, in the sender's protocol, and the upstream sees nothing.

use http::Method;
use tokio::io::AsyncWriteExt;

use crate::harness::{OTHER, World, collect2, connect, head, http2, raw, read_answer, request2};
use crate::routes::{Expected, Form, GRPC, PROTOBUF, Retry, Route, check, routes};
use crate::upstream::{Reply, Script};

const UNAUTHENTICATED: Expected = Expected {
    status: 401,
    code: "16",
    retry: Retry::Late,
};
/// As above, for a key that is well-formed.
const DEAD: Expected = Expected {
    retry: Retry::Longer,
    ..UNAUTHENTICATED
};
const FORBIDDEN: Expected = Expected {
    status: 403,
    code: "7",
    retry: Retry::Late,
};
const LATER: Expected = Expected {
    status: 503,
    code: "14",
    retry: Retry::Soon,
};
const MEDIA_TYPE: Expected = Expected {
    status: 415,
    code: "12",
    retry: Retry::Never,
};
const METHOD: Expected = Expected {
    status: 405,
    code: "12",
    retry: Retry::Never,
};

async fn world() -> World {
    World::start(Script::Answer(Reply::new(200))).await
}

/// That the upstream saw nothing so far, and that a good request on a fresh connection gets there.
async fn only_good_requests_arrive(world: &World) {
    assert!(world.upstream.take_seen().is_empty());
    let key = ("x-api-key", world.keys.valid.reveal());
    let answer = crate::harness::post(world.api, "/v1/traces", &[PROTOBUF[0], key], b"x").await;
    assert_eq!((answer.status, world.upstream.take_seen().len()), (200, 1));
}

/// That the operator can tell these causes apart.
async fn are_counted(world: &World, causes: &[&str]) {
    for cause in causes {
        let label = format!("cause=\"{cause}\"");
        let counted = world.metric("okmon_edge_refusals_total", &label).await;
        assert!(counted > 0.0, "{cause}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_refuses_every_bad_credential_alike() {
    let world = world().await;
    let keys = &world.keys;
    let mut misspelt = keys.valid.reveal().to_owned().into_bytes();
    misspelt[20] = if misspelt[20] == b'x' { b'y' } else { b'x' };
    let misspelt = String::from_utf8(misspelt).unwrap();
    let bearer = |key: &str| format!("Bearer {key}");
    let bad: [&[(&str, String)]; 14] = [
        &[],
        &[("authorization", String::new())],
        &[("authorization", "Bearer".to_owned())],
        &[("authorization", "Basic %%%".to_owned())],
        &[("authorization", "Basic bm9jb2xvbg==".to_owned())],
        &[("authorization", format!("Digest {}", keys.valid.reveal()))],
        &[("authorization", bearer("obs_short"))],
        &[("authorization", bearer(&misspelt))],
        &[("authorization", bearer(keys.unknown.reveal()))],
        &[("authorization", bearer(keys.revoked.reveal()))],
        &[("authorization", bearer(keys.expired.reveal()))],
        &[("x-api-key", keys.unknown.reveal().to_owned())],
        // A good one does not make up for a bad one.
        &[
            ("authorization", bearer(keys.valid.reveal())),
            ("x-api-key", misspelt.clone()),
        ],
        &[
            ("authorization", "Basic %%%".to_owned()),
            ("authorization", bearer(keys.valid.reveal())),
        ],
    ];
    let (one, two) = (bearer(keys.valid.reveal()), bearer(keys.other.reveal()));
    let two_keys: [[(&str, &str); 2]; 3] = [
        [("authorization", &one), ("x-api-key", keys.other.reveal())],
        [("authorization", &one), ("authorization", &two)],
        [
            ("x-api-key", keys.valid.reveal()),
            ("x-api-key", keys.unknown.reveal()),
        ],
    ];
    for route in routes() {
        let mut texts = Vec::new();
        for headers in bad {
            let is_dead = |(_, value): &(_, String)| {
                let dead = [&keys.unknown, &keys.revoked, &keys.expired];
                dead.iter().any(|key| value.contains(key.reveal()))
            };
            let expected = if headers.iter().any(is_dead) {
                &DEAD
            } else {
                &UNAUTHENTICATED
            };
            let headers = headers.iter().map(|(name, value)| (*name, value.as_str()));
            for answer in route.send(&world, &headers.collect::<Vec<_>>()).await {
                texts.push(check(&route, &answer, expected));
            }
        }
        texts.dedup();
        assert_eq!(texts.len(), 1, "{}: {texts:?}", route.path);
        for headers in two_keys {
            for answer in route.send(&world, &headers).await {
                assert!(check(&route, &answer, &UNAUTHENTICATED).contains("more than one"));
            }
        }
    }
    only_good_requests_arrive(&world).await;
    are_counted(
        &world,
        &["no_credential", "malformed_credential", "unknown_key"],
    )
    .await;
}

/// The bytes of an answer's head without what differs from request to request. How long a key is asked to wait depends on
/// how often it was refused, and is spread.
fn blanked(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer).into_owned();
    let head = text.split("\r\n\r\n").next().unwrap();
    let lines = head.split("\r\n").map(|line| match line.split_once(": ") {
        Some((name @ ("x-request-id" | "date" | "retry-after" | "content-length"), _)) => name,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_never_were_that_ran_out_and_that_were_revoked_cannot_be_told_apart() {
    let world = world().await;
    let keys = [
        &world.keys.unknown,
        &world.keys.expired,
        &world.keys.revoked,
    ];
    for route in routes() {
        let mut answers = Vec::new();
        for key in keys {
            let extra = [("x-api-key", key.reveal()), ("connection", "close")];
            let mut answer = route.send(&world, &extra[..1]).await.remove(0);
            let text = check(&route, &answer, &DEAD);
            if route.form == Form::Grpc {
                for varies in [
                    "x-request-id",
                    "date",
                    "grpc-status-details-bin",
                    "google.rpc.retryinfo-bin",
                ] {
                    assert!(answer.headers.remove(varies).is_some(), "{varies}");
                }
                answers.push(format!("{:?} {text}", answer.headers));
            } else {
                let head = head(route.path, &[route.headers, &extra].concat(), 0);
                let answer = blanked(&raw(world.api, head.as_bytes()).await);
                answers.push(format!("{answer} {text}"));
            }
        }
        answers.dedup();
        assert_eq!(answers.len(), 1, "{}: {answers:#?}", route.path);
    }
    are_counted(&world, &["unknown_key", "expired_key", "revoked_key"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_refuses_what_a_key_may_not_do() {
    let world = world().await;
    let key = world.keys.valid.reveal();
    for route in routes() {
        let suspended = world.keys.suspended.reveal();
        for answer in route.send(&world, &[("x-api-key", suspended)]).await {
            check(&route, &answer, &LATER);
        }
        for other in [OTHER, "tenant-a|tenant-b", "tenant-a:x=y", "", "TENANT-A"] {
            let headers = [("x-api-key", key), ("x-scope-orgid", other)];
            for answer in route.send(&world, &headers).await {
                check(&route, &answer, &FORBIDDEN);
            }
        }
        if !route.takes_logs() {
            let logs_only = world.keys.logs_only.reveal();
            for answer in route.send(&world, &[("x-api-key", logs_only)]).await {
                assert!(check(&route, &answer, &FORBIDDEN).contains(":write"));
            }
        }
    }
    only_good_requests_arrive(&world).await;
    are_counted(&world, &["tenant_suspended", "tenant_mismatch", "scope"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_refuses_a_wrong_media_type() {
    let world = world().await;
    let key = ("x-api-key", world.keys.valid.reveal());
    for route in routes() {
        // A sender that names no type of OTLP's is answered in protobuf.
        let form = match route.form {
            Form::Json => Form::Protobuf,
            form => form,
        };
        let types: [&[(&str, &str)]; 3] = [
            &[],
            &[("content-type", "text/plain")],
            &[("content-type", "application/grpc-web+proto")],
        ];
        for headers in types {
            let grpc = headers.iter().any(|(_, value)| value.contains("grpc"));
            let wrong = Route {
                headers,
                form: if grpc { Form::Grpc } else { form },
                ..route
            };
            for answer in wrong.send(&world, &[key]).await {
                check(&wrong, &answer, &MEDIA_TYPE);
                if wrong.form == Form::Grpc {
                    let accepted = answer.header("grpc-accept-encoding");
                    assert_eq!(accepted, Some("identity,gzip,zstd"), "{}", route.path);
                }
            }
        }
        if route.form != Form::Grpc {
            for encoding in ["br", "gzip, gzip"] {
                let headers = [key, ("content-encoding", encoding)];
                for answer in route.send(&world, &headers).await {
                    check(&route, &answer, &MEDIA_TYPE);
                }
            }
        }
    }
    only_good_requests_arrive(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_takes_post_only() {
    let world = world().await;
    let key = ("x-api-key", world.keys.valid.reveal());
    for route in routes() {
        let headers = [route.headers, &[key]].concat();
        for method in ["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"] {
            let mut request = request2(route.path, &headers);
            *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
            let mut client = http2(world.api).await.ready().await.unwrap();
            let (response, _) = client.send_request(request, true).unwrap();
            let mut answers = vec![collect2(response).await.unwrap()];
            if route.form != Form::Grpc {
                let head = head(route.path, &headers, 0).replace("POST", method);
                let mut stream = connect(world.api).await;
                stream.write_all(head.as_bytes()).await.unwrap();
                answers.push(read_answer(&mut stream).await.unwrap());
            }
            for answer in answers {
                check(&route, &answer, &METHOD);
                let allow = (route.form != Form::Grpc).then_some("POST");
                assert_eq!(answer.header("allow"), allow, "{method} {}", route.path);
            }
        }
    }
    only_good_requests_arrive(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_outlives_a_refusal_whose_body_is_small() {
    let world = world().await;
    let keys = [
        &world.keys.unknown,
        &world.keys.valid,
        &world.keys.revoked,
        &world.keys.valid,
    ];
    let mut stream = connect(world.api).await;
    for (n, key) in keys.into_iter().enumerate() {
        let head = head("/v1/traces", &[PROTOBUF[0], ("x-api-key", key.reveal())], 4);
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(b"body").await.unwrap();
        let answer = read_answer(&mut stream).await.unwrap();
        assert_eq!(answer.status == 200, n % 2 == 1, "{n}: {answer:?}");
    }
    assert_eq!(world.upstream.take_seen().len(), 2);

    world.upstream.does(Script::Answer(Reply::grpc()));
    let mut client = http2(world.api).await;
    for (n, key) in keys.into_iter().enumerate() {
        client = client.ready().await.unwrap();
        let path = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
        let request = request2(path, &[GRPC, &[("x-api-key", key.reveal())]].concat());
        let (response, mut stream) = client.send_request(request, false).unwrap();
        // A refused call may be over by now; its answer tells.
        let _ = stream.send_data([0; 5][..].into(), true);
        let answer = collect2(response).await.unwrap();
        assert_eq!(
            answer.grpc_status() == Some("0"),
            n % 2 == 1,
            "{n}: {answer:?}"
        );
    }
    assert_eq!(world.upstream.take_seen().len(), 2);
}
