//! The feed of changes: whatever is done to a key or a tenant, by whom ever, is in it.

use std::fmt::Write as _;

use model::{ApiKey, TenantId};
use store::{Change, Changed, Key};

use crate::world::{NOW, World, actor, tenant_id};

crate::in_both_databases!(
    everything_the_store_does_to_a_key_is_in_the_feed,
    everything_done_by_hand_is_in_the_feed,
    what_no_cache_holds_is_not_in_the_feed,
    a_changed_digest_names_the_old_key_and_the_new_one,
    the_feed_is_read_in_bounded_steps,
);

fn key_changed(key: &Key, secret: &ApiKey) -> Changed {
    Changed::Key {
        tenant: key.tenant.clone(),
        key_id: key.key_id,
        digest: secret.digest(),
    }
}

/// The digest as SQL writes it.
fn hex(secret: &ApiKey) -> String {
    secret
        .digest()
        .as_bytes()
        .iter()
        .fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
}

/// What the feed has after `seq`, and where it ends.
async fn since(world: &World, seq: i64) -> (Vec<Changed>, i64) {
    let changes = world.store.changes_since(seq, 100).await.unwrap();
    assert!(changes.is_sorted_by_key(|change| change.seq));
    let end = changes.last().map_or(seq, |change| change.seq);
    assert_eq!(end, world.store.change_seq_latest().await.unwrap());
    (
        changes
            .into_iter()
            .map(|Change { changed, .. }| changed)
            .collect(),
        end,
    )
}

async fn everything_the_store_does_to_a_key_is_in_the_feed(world: World) {
    assert_eq!(world.store.change_seq_latest().await.unwrap(), 0);
    let (_, key, secret) = world.tenant("acme").await;
    let (changes, end) = since(&world, 0).await;
    let made = [
        Changed::Tenant(tenant_id("acme")),
        key_changed(&key, &secret),
    ];
    assert_eq!(changes, made);
    world
        .store
        .key_revoke(key.key_id, NOW, &actor())
        .await
        .unwrap();
    assert_eq!(since(&world, end).await.0, [key_changed(&key, &secret)]);
}

async fn everything_done_by_hand_is_in_the_feed(world: World) {
    let (_, key, secret) = world.tenant("acme").await;
    let mut end = world.store.change_seq_latest().await.unwrap();
    let now = world.now();
    let tenant = Changed::Tenant(TenantId::parse("acme").unwrap());
    for (sql, expected) in [
        (
            format!("update api_keys set revoked_at = {now}"),
            key_changed(&key, &secret),
        ),
        (
            "update api_keys set revoked_at = null".to_owned(),
            key_changed(&key, &secret),
        ),
        (
            format!("update api_keys set expires_at = {now}"),
            key_changed(&key, &secret),
        ),
        (
            "update api_keys set scopes = 'logs:write'".to_owned(),
            key_changed(&key, &secret),
        ),
        (
            "update tenants set status = 'suspended'".to_owned(),
            tenant.clone(),
        ),
        (
            "delete from api_keys".to_owned(),
            key_changed(&key, &secret),
        ),
        ("delete from tenants".to_owned(), tenant),
    ] {
        world.sql(&sql).await.unwrap();
        let (changes, next) = since(&world, end).await;
        assert_eq!(changes, [expected], "{sql}");
        end = next;
    }
    if world.is_postgres() {
        world.sql("truncate api_keys").await.unwrap();
        assert_eq!(since(&world, end).await.0, [Changed::Everything]);
    }
}

async fn what_no_cache_holds_is_not_in_the_feed(world: World) {
    world.tenant("acme").await;
    let end = world.store.change_seq_latest().await.unwrap();
    let now = world.now();
    world
        .sql(&format!("update api_keys set last_used_at = {now}, name = 'new'; update tenants set name = 'new'"))
        .await
        .unwrap();
    assert_eq!(since(&world, end).await.0, []);
}

async fn a_changed_digest_names_the_old_key_and_the_new_one(world: World) {
    let (_, key, old) = world.tenant("acme").await;
    let mut end = world.store.change_seq_latest().await.unwrap();
    let new = ApiKey::generate().unwrap();
    let (hex, hex_of_old) = (hex(&new), hex(&old));
    let id = key.key_id;
    let blob = if world.is_postgres() {
        format!("'\\x{hex}'")
    } else {
        format!("x'{hex}'")
    };
    let mut statements = vec![format!("update api_keys set digest = {blob}")];
    if !world.is_postgres() {
        statements.push(format!(
            "insert or replace into api_keys (key_id, tenant_id, digest) values ('{id}', 'acme', {blob})"
        ));
        statements.insert(1, format!("update api_keys set digest = x'{hex_of_old}'"));
    }
    for sql in statements {
        world.sql(&sql).await.unwrap();
        let (changes, next) = since(&world, end).await;
        assert_eq!(changes.len(), 2, "{sql}: {changes:?}");
        assert!(changes.contains(&key_changed(&key, &old)), "{sql}");
        assert!(changes.contains(&key_changed(&key, &new)), "{sql}");
        end = next;
    }
}

async fn the_feed_is_read_in_bounded_steps(world: World) {
    for id in ["a", "b", "c"] {
        world.tenant(id).await;
    }
    let first = world.store.changes_since(0, 4).await.unwrap();
    assert_eq!(first.len(), 4);
    let rest = world.store.changes_since(first[3].seq, 4).await.unwrap();
    assert_eq!(rest.len(), 2);
}
