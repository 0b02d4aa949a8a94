//! What the edge reads.

use std::error::Error as _;
use std::time::Duration;

use model::{ApiKey, KeyId, TenantStatus, Verdict};
use store::{DatabaseUrl, Store, StoreError};

use crate::world::{NOW, World, actor, new_key, tenant_id};

crate::in_both_databases!(
    a_key_that_was_made_is_found_by_its_digest_with_its_tenant,
    a_key_revoked_by_hand_is_revoked,
    a_key_deleted_by_hand_is_unknown,
    a_tenant_suspended_by_hand_suspends_its_keys,
    a_row_that_is_not_valid_is_named_and_spares_the_others,
    all_keys_that_may_work_are_read_page_by_page,
    a_database_that_is_away_is_a_temporary_error,
);

async fn a_key_that_was_made_is_found_by_its_digest_with_its_tenant(world: World) {
    let (_, key, secret) = world.tenant("acme").await;
    let grant = world
        .store
        .grant_fetch(&secret.digest())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(grant.tenant.as_str(), "acme");
    assert_eq!(grant.key_id, key.key_id);
    assert_eq!(grant.scopes, key.scopes);
    assert_eq!(grant.tenant_status, TenantStatus::Active);
    assert_eq!(grant.verdict(NOW, Duration::ZERO), Verdict::Valid);
    let unknown = ApiKey::generate().unwrap().digest();
    assert_eq!(world.store.grant_fetch(&unknown).await.unwrap(), None);
}

async fn a_key_revoked_by_hand_is_revoked(world: World) {
    let mut times = vec![world.now()];
    if !world.is_postgres() {
        times.extend(["'yes'", "''", "0", "x'00'"]);
    }
    for (n, time) in times.into_iter().enumerate() {
        let (_, key, secret) = world.tenant(&format!("acme-{n}")).await;
        world
            .sql(&format!(
                "update api_keys set revoked_at = {time} where key_id = '{}'",
                key.key_id
            ))
            .await
            .unwrap();
        let grant = world
            .store
            .grant_fetch(&secret.digest())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            grant.verdict(NOW, Duration::ZERO),
            Verdict::Revoked,
            "{time}"
        );
    }
    assert_eq!(all(&world).await, []);
}

async fn a_key_deleted_by_hand_is_unknown(world: World) {
    let (_, _, secret) = world.tenant("acme").await;
    world.sql("delete from api_keys").await.unwrap();
    assert_eq!(
        world.store.grant_fetch(&secret.digest()).await.unwrap(),
        None
    );
}

async fn a_tenant_suspended_by_hand_suspends_its_keys(world: World) {
    let (_, _, secret) = world.tenant("acme").await;
    let now = world.now();
    world
        .sql(&format!(
            "update tenants set status = 'suspended', suspended_at = {now}"
        ))
        .await
        .unwrap();
    let grant = world
        .store
        .grant_fetch(&secret.digest())
        .await
        .unwrap()
        .unwrap();
    assert!(grant.suspended_at.is_some());
    assert_eq!(grant.verdict(NOW, Duration::ZERO), Verdict::Suspended);
    let refused = world.sql("update tenants set status = 'paused'").await;
    assert!(
        refused.is_err(),
        "an unknown status is refused where it is typed"
    );
}

async fn a_row_that_is_not_valid_is_named_and_spares_the_others(world: World) {
    let (_, good, _) = world.tenant("good").await;
    let (_, bad, secret) = world.tenant("bad").await;
    let column = if world.is_postgres() {
        "scopes"
    } else {
        "expires_at"
    };
    world
        .sql(&format!(
            "update api_keys set {column} = 'soon' where key_id = '{}'",
            bad.key_id
        ))
        .await
        .unwrap();
    match world.store.grant_fetch(&secret.digest()).await.unwrap_err() {
        StoreError::BadRow { table, row, reason } => {
            assert_eq!((table, row), ("api_keys", bad.key_id.to_string()));
            assert!(
                reason.contains(column) && reason.contains("soon"),
                "{reason}"
            );
        }
        other => panic!("{other:?}"),
    }
    let tenant = tenant_id("bad");
    for (read, good_rows) in [
        (world.store.grants_page(None, 10).await.unwrap().grants, 1),
        (world.store.grants_of_tenant(&tenant).await.unwrap(), 0),
        (
            world.store.grants_fetch(&[secret.digest()]).await.unwrap(),
            0,
        ),
    ] {
        let found: Vec<_> = read.good.iter().map(|(_, grant)| grant.key_id).collect();
        assert_eq!(found, vec![good.key_id; good_rows]);
        assert_eq!(read.bad.len(), 1);
        assert_eq!(read.bad[0].key_id, bad.key_id.to_string());
        assert_eq!(read.bad[0].digest, secret.digest());
    }
    let now = world.now();
    world
        .sql(&format!("update api_keys set revoked_at = {now}"))
        .await
        .unwrap();
    let revoked = world.store.grant_fetch(&secret.digest()).await.unwrap();
    assert!(
        revoked.unwrap().revoked_at.is_some(),
        "whatever else the row says"
    );
}

/// Every key that may work, read in pages of two.
async fn all(world: &World) -> Vec<KeyId> {
    let (mut found, mut next) = (Vec::new(), None);
    loop {
        let page = world.store.grants_page(next.as_ref(), 2).await.unwrap();
        assert!(page.grants.bad.is_empty());
        found.extend(page.grants.good.iter().map(|(_, grant)| grant.key_id));
        next = page.next;
        if next.is_none() {
            return found;
        }
    }
}

async fn all_keys_that_may_work_are_read_page_by_page(world: World) {
    let (_, first, _) = world.tenant("acme").await;
    let tenant = tenant_id("acme");
    let mut ids = vec![first.key_id];
    for _ in 0..4 {
        let new = new_key(&ApiKey::generate().unwrap());
        let key = world.store.key_insert(&tenant, new, NOW, &actor()).await;
        ids.push(key.unwrap().key_id);
    }
    let mut expired = new_key(&ApiKey::generate().unwrap());
    expired.expires_at = Some(NOW - Duration::from_secs(1));
    world
        .store
        .key_insert(&tenant, expired, NOW, &actor())
        .await
        .unwrap();
    let revoked = world.store.key_revoke(ids.remove(1), NOW, &actor()).await;
    revoked.unwrap().unwrap();
    ids.sort_by_key(KeyId::to_string);
    assert_eq!(all(&world).await, ids);
    let of_tenant = world.store.grants_of_tenant(&tenant).await.unwrap();
    assert_eq!(of_tenant.good.len(), 6, "with those that do not work");

    world
        .sql("update tenants set status = 'inactive'")
        .await
        .unwrap();
    assert_eq!(all(&world).await, []);
}

async fn a_database_that_is_away_is_a_temporary_error(world: World) {
    let away = if world.is_postgres() {
        "postgres://okmon@127.0.0.1:1/okmon"
    } else {
        "sqlite:///nowhere/at/all.db"
    };
    let url: DatabaseUrl = away.parse().unwrap();
    let store = Store::open(&url, 1);
    let digest = ApiKey::generate().unwrap().digest();
    let error = store.grant_fetch(&digest).await.unwrap_err();
    assert!(error.is_temporary(), "{error:?}");
    let error = Store::connect(&url, 1).await.unwrap_err();
    assert!(error.is_temporary(), "{error:?}");
    let cause = error.source().unwrap().to_string();
    let expected = if world.is_postgres() {
        "Connection refused"
    } else {
        "unable to open"
    };
    assert!(cause.contains(expected), "the cause is told: {cause}");
}
