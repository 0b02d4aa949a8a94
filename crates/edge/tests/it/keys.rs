//! Keys in memory: fetched once, followed when they change, and never guessed at.

use std::sync::Arc;

use model::{ApiKey, ScopeSet, TenantId};
use store::{Actor, NewKey};
use time::OffsetDateTime;

use crate::harness::{Setup, TENANT, World, eventually, post};
use crate::upstream::{Reply, Script};

async fn status(world: &World, key: &ApiKey) -> u16 {
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("x-api-key", key.reveal()),
    ];
    post(world.api, "/v1/traces", &headers, b"x").await.status
}

/// Gives the first tenant `key`.
async fn make_key(world: &World, key: &ApiKey) {
    let row = NewKey {
        key_id: key.id(),
        digest: key.digest(),
        name: String::new(),
        scopes: ScopeSet::WRITE,
        expires_at: None,
    };
    let (tenant, actor) = (TenantId::parse(TENANT).unwrap(), Actor::command("test"));
    let now = OffsetDateTime::now_utc();
    world
        .store
        .key_insert(&tenant, row, now, &actor)
        .await
        .unwrap();
}

/// The number of keys asked of the database so far.
async fn fetches(world: &World) -> f64 {
    world.metric("okmon_edge_key_fetches_total", "").await
}

/// An edge that is told of no change.
async fn deaf() -> World {
    let setup = Setup {
        poll_every: "1h",
        ..Setup::PATIENT
    };
    World::start_with(Script::Answer(Reply::new(200)), setup).await
}

async fn becomes(world: &World, key: &ApiKey, wanted: u16) {
    eventually("the key's new state", async || {
        match status(world, key).await {
            status if status == wanted => Ok(()),
            status => Err(format!("status {status}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_is_asked_for_once_however_many_bring_it() {
    let world = Arc::new(deaf().await);
    let key = ApiKey::generate().unwrap();
    make_key(&world, &key).await;
    let before = fetches(&world).await;
    let senders = (0..50).map(|_| {
        let (world, key) = (Arc::clone(&world), key.clone());
        tokio::spawn(async move { status(&world, &key).await })
    });
    for sender in senders.collect::<Vec<_>>() {
        assert_eq!(sender.await.unwrap(), 200);
    }
    let fetched = fetches(&world).await - before;
    assert!(fetched <= 1.5, "{fetched} questions about one new key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_is_in_memory_before_it_is_used() {
    let world = World::start(Script::Answer(Reply::new(200))).await;
    let held = world.metric("okmon_edge_keys_held", "").await;
    let key = ApiKey::generate().unwrap();
    make_key(&world, &key).await;
    eventually("the key to be held", async || {
        let now = world.metric("okmon_edge_keys_held", "").await;
        (now > held)
            .then_some(())
            .ok_or_else(|| format!("{now} keys"))
    })
    .await;
    let before = fetches(&world).await;
    assert_eq!(status(&world, &key).await, 200);
    assert!(
        fetches(&world).await - before < 0.5,
        "asked at its first use"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key_is_remembered_and_works_once_it_is_made() {
    let world = World::start(Script::Answer(Reply::new(200))).await;
    let before = fetches(&world).await;
    for _ in 0..20 {
        assert_eq!(status(&world, &world.keys.unknown).await, 401);
    }
    let fetched = fetches(&world).await - before;
    assert!(fetched <= 1.0, "{fetched} questions about one unknown key");
    make_key(&world, &world.keys.unknown).await;
    becomes(&world, &world.keys.unknown, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_by_hand_is_followed() {
    let world = World::start(Script::Answer(Reply::new(200))).await;
    assert_eq!(status(&world, &world.keys.valid).await, 200);
    world
        .by_hand("update tenants set status = 'suspended' where id = 'tenant-a'")
        .await;
    becomes(&world, &world.keys.valid, 503).await;
    world
        .by_hand("update tenants set status = 'active' where id = 'tenant-a'")
        .await;
    becomes(&world, &world.keys.valid, 200).await;
    world
        .by_hand("update api_keys set revoked_at = datetime('now') where tenant_id = 'tenant-a'")
        .await;
    becomes(&world, &world.keys.valid, 401).await;
    assert_eq!(status(&world, &world.keys.other).await, 200);
    world
        .by_hand("delete from api_keys where tenant_id = 'tenant-b'")
        .await;
    becomes(&world, &world.keys.other, 401).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_broken_known_keys_work_and_unknown_ones_are_told_to_wait() {
    let world = World::start(Script::Answer(Reply::new(200))).await;
    world
        .by_hand("alter table api_keys rename to elsewhere")
        .await;
    assert_eq!(status(&world, &world.keys.valid).await, 200);
    assert_eq!(
        status(&world, &world.keys.unknown).await,
        503,
        "never 401 when we do not know"
    );
    world
        .by_hand("alter table elsewhere rename to api_keys")
        .await;
    becomes(&world, &world.keys.unknown, 401).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_not_valid_leaves_the_last_good_state_and_a_revocation_still_counts() {
    let world = World::start(Script::Answer(Reply::new(200))).await;
    let bad = async || world.metric("okmon_edge_key_rows_bad_total", "").await;
    world
        .by_hand("update api_keys set scopes = 'everything' where tenant_id = 'tenant-a'")
        .await;
    eventually("the rows to be noticed", async || {
        let rows = bad().await;
        (rows > 0.5)
            .then_some(())
            .ok_or_else(|| format!("{rows} rows"))
    })
    .await;
    assert_eq!(status(&world, &world.keys.valid).await, 200);
    // One that nothing good is known of waits, and is not asked for again and again.
    make_key(&world, &world.keys.unknown).await;
    becomes(&world, &world.keys.unknown, 200).await;
    let fresh = ApiKey::generate().unwrap();
    let world = deaf().await;
    make_key(&world, &fresh).await;
    world
        .by_hand("update api_keys set scopes = 'everything'")
        .await;
    let before = fetches(&world).await;
    for _ in 0..5 {
        assert_eq!(status(&world, &fresh).await, 503, "not known to be wrong");
    }
    assert!(fetches(&world).await - before < 1.5);
    let world = World::start(Script::Answer(Reply::new(200))).await;
    world
        .by_hand("update api_keys set scopes = 'everything', revoked_at = 'yes' where tenant_id = 'tenant-a'")
        .await;
    becomes(&world, &world.keys.valid, 401).await;
}
