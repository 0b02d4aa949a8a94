//! `/metrics` tells what each tenant sends, once a key has shown who it is, and stays bounded.

use std::time::Duration;

use model::{ApiKey, ScopeSet, TenantId};
use store::{Actor, NewKey, NewTenant};
use time::OffsetDateTime;

use crate::harness::{OTHER, Setup, TENANT, World, eventually, post};
use crate::upstream::{Reply, Script};

const REQUESTS: &str = "okmon_edge_tenant_requests_total";
const BYTES: &str = "okmon_edge_tenant_received_bytes_total";

async fn send(world: &World, key: &ApiKey, extra: &[(&str, &str)]) -> u16 {
    let media = ("content-type", "application/x-protobuf");
    let headers = [&[media, ("x-api-key", key.reveal())], extra].concat();
    post(world.api, "/v1/logs", &headers, &[1; 100])
        .await
        .status
}

/// Makes a tenant; its key works once it is known.
async fn tenant(world: &World, id: &str) -> ApiKey {
    let key = ApiKey::generate().unwrap();
    let row = NewKey {
        key_id: key.id(),
        digest: key.digest(),
        name: String::new(),
        scopes: ScopeSet::WRITE,
        expires_at: None,
    };
    let tenant = NewTenant {
        id: TenantId::parse(id).unwrap(),
        name: id.to_owned(),
        email: "a@example.com".to_owned(),
    };
    let actor = Actor::command("test");
    let now = OffsetDateTime::now_utc() - Duration::from_secs(1);
    world
        .store
        .tenant_insert(tenant, row, now, &actor)
        .await
        .unwrap();
    key
}

/// Waits until a metric has this value: an answer can be here before its account is.
async fn becomes(world: &World, name: &str, labels: &str, expected: f64) {
    eventually(&format!("{name}{{{labels}}}"), async || {
        let value = world.metric(name, labels).await;
        let reached = (value - expected).abs() < 0.5;
        reached
            .then_some(())
            .ok_or(format!("{value}, not {expected}"))
    })
    .await;
}

fn labels(tenant: &str, outcome: &str) -> String {
    format!("tenant=\"{tenant}\",signal=\"logs\",outcome=\"{outcome}\"")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_requests_and_bytes_are_counted_by_how_they_ended() {
    let world = World::start(Script::Answer(Reply::new(200))).await;
    let keys = &world.keys;
    for _ in 0..3 {
        assert_eq!(send(&world, &keys.valid, &[]).await, 200);
    }
    // Another key of the same tenant; keys that work no more but show whose they are.
    assert_eq!(send(&world, &keys.logs_only, &[]).await, 200);
    assert_eq!(send(&world, &keys.revoked, &[]).await, 401);
    assert_eq!(send(&world, &keys.expired, &[]).await, 401);
    world.upstream.does(Script::Answer(Reply::new(400)));
    assert_eq!(send(&world, &keys.valid, &[]).await, 400);
    // Nobody's; and what a header says does not count.
    assert_eq!(
        send(&world, &keys.unknown, &[("x-scope-orgid", OTHER)]).await,
        401
    );
    becomes(&world, REQUESTS, &labels(TENANT, "accepted"), 4.0).await;
    becomes(&world, REQUESTS, &labels(TENANT, "refused"), 2.0).await;
    becomes(&world, REQUESTS, &labels(TENANT, "rejected"), 1.0).await;
    becomes(&world, REQUESTS, "signal=\"logs\"", 7.0).await;
    let bytes = format!("tenant=\"{TENANT}\",signal=\"logs\"");
    becomes(&world, BYTES, &bytes, 500.0).await;
    let text = world.metrics().await;
    assert!(!text.contains(OTHER), "{text}");
    let unused = format!("tenant=\"{TENANT}\",signal=\"traces\"");
    assert!(
        !text.contains(&unused),
        "no series of what it does not send"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_beyond_the_cap_count_together_and_one_called_other_does_not_count_with_them() {
    let setup = Setup {
        tenant_labels: 2,
        ..Setup::PATIENT
    };
    let world = World::start_with(Script::Answer(Reply::new(200)), setup).await;
    let other = tenant(&world, "other").await;
    assert_eq!(send(&world, &other, &[]).await, 200);
    assert_eq!(send(&world, &world.keys.valid, &[]).await, 200);
    for n in 0..20 {
        let key = tenant(&world, &format!("more-{n}")).await;
        assert_eq!(send(&world, &key, &[]).await, 200);
    }
    assert_eq!(send(&world, &world.keys.valid, &[]).await, 200);
    becomes(&world, REQUESTS, &labels("other", "accepted"), 20.0).await;
    becomes(&world, REQUESTS, &labels("other (tenant)", "accepted"), 1.0).await;
    becomes(&world, REQUESTS, &labels(TENANT, "accepted"), 2.0).await;
    assert!(!world.metrics().await.contains("more-"));
}
