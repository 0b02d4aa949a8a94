//! The edge while the database of the keys is away, or is not the one it was: it goes on with what it last knew, and never
//! calls a key wrong that it cannot check.

use std::os::unix::fs::PermissionsExt as _;

use model::ApiKey;
use store::Store;

use crate::harness::{World, eventually, post};
use crate::upstream::{Reply, Script};

/// Nothing listens there.
const AWAY: &str = "postgres://okmon@127.0.0.1:1/okmon";

async fn status(world: &World, key: &ApiKey) -> u16 {
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("x-api-key", key.reveal()),
    ];
    post(world.api, "/v1/traces", &headers, b"x").await.status
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

async fn start() -> World {
    World::start(Script::Answer(Reply::new(200))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_the_database_serves_the_saved_keys() {
    let mut world = start().await;
    world.stop().await;
    let mode = world.snapshot().metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    world.start_again(AWAY).await;
    assert_eq!(status(&world, &world.keys.valid).await, 200);
    assert_eq!(status(&world, &world.keys.other).await, 200);
    assert_eq!(status(&world, &world.keys.suspended).await, 503);
    assert_eq!(status(&world, &world.keys.unknown).await, 503, "never 401");
    let up = world.metric("okmon_edge_key_database_up", "").await;
    assert!(up < 0.5, "the operator can see it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_revoked_before_the_stop_is_not_among_the_saved_keys() {
    let mut world = start().await;
    assert_eq!(status(&world, &world.keys.valid).await, 200);
    world
        .by_hand("update api_keys set revoked_at = datetime('now') where tenant_id = 'tenant-a'")
        .await;
    becomes(&world, &world.keys.valid, 401).await;
    world.stop().await;
    world.start_again(AWAY).await;
    assert_ne!(status(&world, &world.keys.valid).await, 200);
    assert_eq!(status(&world, &world.keys.other).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_revoked_while_the_edge_was_down_is_refused_from_the_first_request() {
    let mut world = start().await;
    world.stop().await;
    world
        .by_hand("update api_keys set revoked_at = datetime('now') where tenant_id = 'tenant-a'")
        .await;
    let database = world.database();
    world.start_again(&database).await;
    assert_eq!(status(&world, &world.keys.valid).await, 401);
    assert_eq!(status(&world, &world.keys.other).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_saved_keys_are_not_used_and_do_not_stop_a_start() {
    let mut world = start().await;
    world.stop().await;
    let saved = std::fs::read(world.snapshot()).unwrap();
    for step in 0..50 {
        let cut = saved.len() * step / 50;
        std::fs::write(world.snapshot(), &saved[..cut]).unwrap();
        let database = world.database();
        world.start_again(&database).await;
        assert_eq!(status(&world, &world.keys.valid).await, 200, "cut to {cut}");
        assert_eq!(
            status(&world, &world.keys.revoked).await,
            401,
            "cut to {cut}"
        );
        let errors = world
            .metric("okmon_edge_key_snapshot_errors_total", "")
            .await;
        assert!(errors > 0.5, "cut to {cut}: the operator can see it");
        world.stop().await;
    }
    std::fs::write(world.snapshot(), &saved[..saved.len() / 2]).unwrap();
    world.start_again(&world.database()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_database_in_the_place_of_ours_changes_nothing() {
    let mut world = start().await;
    world.stop().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let empty = format!("sqlite://{}", elsewhere.path().join("empty.db").display());
    let store = Store::connect(&empty.parse().unwrap(), 1).await.unwrap();
    store.migrate().await.unwrap();
    world.start_again(&empty).await;
    assert_eq!(status(&world, &world.keys.valid).await, 200);
    assert_eq!(status(&world, &world.keys.unknown).await, 503, "never 401");
    world.stop().await;
    // An operator who means it removes the file.
    std::fs::remove_file(world.snapshot()).unwrap();
    world.start_again(&empty).await;
    assert_eq!(status(&world, &world.keys.valid).await, 401);
}
