//! A key is taken in every form that senders can be made to send it in.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use crate::harness::{OTHER, TENANT, World, post, post2};
use crate::upstream::{Reply, Script};

const MEDIA: (&str, &str) = ("content-type", "application/x-protobuf");
const METHOD: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_credential_finds_the_tenant() {
    let world = World::start(Script::Answer(Reply::new(200))).await;
    let key = world.keys.valid.reveal();
    let basic = |user: &str| STANDARD.encode(format!("{user}:{key}"));
    let mut forms = vec![
        vec![("Authorization", format!("Bearer {key}"))],
        vec![("AUTHORIZATION", format!("bEARER   {key}"))],
        vec![("X-API-Key", key.to_owned())],
        vec![("x-api-KEY", format!(" {key} "))],
        vec![(
            "authorization",
            format!("Basic {}", STANDARD_NO_PAD.encode(format!("a:{key}"))),
        )],
        vec![
            ("authorization", format!("Bearer {key}")),
            ("x-api-key", key.to_owned()),
        ],
    ];
    for user in ["", TENANT, "anything at all", "no-such-tenant"] {
        forms.push(vec![("authorization", format!("basic {}", basic(user)))]);
    }
    for form in &forms {
        let headers: Vec<_> = form
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .chain([MEDIA])
            .collect();
        assert_eq!(
            post(world.api, "/v1/traces", &headers, b"x").await.status,
            200,
            "{form:?}"
        );
        let seen = world.upstream.take_seen();
        assert_eq!(seen[0].all("x-scope-orgid"), [TENANT], "{form:?}");
    }
    let other = format!("Basic {}", basic(OTHER));
    let answer = post(
        world.api,
        "/v1/traces",
        &[MEDIA, ("authorization", &other)],
        b"x",
    )
    .await;
    assert_eq!(answer.status, 403, "the user name is another tenant's id");
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_metadata_are_read_alike() {
    let world = World::start(Script::Answer(Reply::grpc())).await;
    let key = world.keys.valid.reveal();
    let basic = STANDARD.encode(format!(":{key}"));
    for (name, value) in [
        ("authorization", format!("Bearer {key}")),
        ("authorization", format!("Basic {basic}")),
        ("x-api-key", key.to_owned()),
    ] {
        let headers = [
            ("content-type", "application/grpc+proto"),
            ("te", "trailers"),
            (name, value.as_str()),
        ];
        let answer = post2(world.api, METHOD, &headers, &[&[0; 5]]).await;
        assert_eq!(answer.grpc_status(), Some("0"), "{answer:?}");
        let seen = world.upstream.take_seen();
        assert_eq!(seen[0].all("x-scope-orgid"), [TENANT]);
        assert_eq!(seen[0].path, METHOD);
        assert!(seen[0].all(name).is_empty(), "the credential stays with us");
    }
}
