//! What the edge reads.

use std::error::Error as _;
use std::time::Duration;

use model::{ApiKey, TenantStatus, Verdict};
use store::{DatabaseUrl, Store, StoreError};

use crate::world::{NOW, World, actor, new_key, tenant_id};

crate::in_both_databases!(
    a_key_that_was_made_is_found_by_its_digest_with_its_tenant,
    a_key_revoked_by_hand_is_revoked,
    a_key_deleted_by_hand_is_unknown,
    a_tenant_suspended_by_hand_suspends_its_keys,
    a_row_that_is_not_valid_is_named_and_spares_the_others,
    only_keys_that_may_work_are_loaded_the_newest_first,
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
    assert!(world.store.grants_load(10).await.unwrap().grants.is_empty());
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
    let loaded = world.store.grants_load(10).await.unwrap();
    assert_eq!(loaded.grants.len(), 1);
    assert_eq!(loaded.grants[0].1.key_id, good.key_id);
    assert_eq!(loaded.bad.len(), 1);
    assert_eq!(loaded.bad[0].key_id, bad.key_id.to_string());
}

async fn only_keys_that_may_work_are_loaded_the_newest_first(world: World) {
    let (_, oldest, _) = world.tenant("acme").await;
    let tenant = tenant_id("acme");
    let mut ids = vec![oldest.key_id];
    for age in 1..=3 {
        let new = new_key(&ApiKey::generate().unwrap());
        let at = NOW + Duration::from_secs(age);
        let key = world
            .store
            .key_insert(&tenant, new, at, &actor())
            .await
            .unwrap();
        ids.insert(0, key.key_id);
    }
    let mut expired = new_key(&ApiKey::generate().unwrap());
    expired.expires_at = Some(NOW - Duration::from_secs(1));
    world
        .store
        .key_insert(&tenant, expired, NOW, &actor())
        .await
        .unwrap();
    world
        .store
        .key_revoke(ids.remove(1), NOW, &actor())
        .await
        .unwrap()
        .unwrap();

    let loaded = world.store.grants_load(10).await.unwrap();
    let found: Vec<_> = loaded
        .grants
        .iter()
        .map(|(_, grant)| grant.key_id)
        .collect();
    assert_eq!(found, ids);
    assert!(loaded.complete && loaded.bad.is_empty());

    let bounded = world.store.grants_load(2).await.unwrap();
    assert_eq!(bounded.grants.len(), 2);
    assert!(!bounded.complete);

    world
        .sql("update tenants set status = 'inactive'")
        .await
        .unwrap();
    assert!(world.store.grants_load(10).await.unwrap().grants.is_empty());
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
