//! A key in the place of another.

use std::time::Duration;

use model::{ApiKey, KeyId, TenantId};
use sqlx::{Connection as _, PgConnection};
use store::{AuditEntry, AuditFilter, Key, NewKey, Rotation, StoreError};
use time::OffsetDateTime;

use crate::world::{NOW, World, actor, new_key};

const DAY: Duration = Duration::from_hours(24);

crate::in_both_databases!(
    the_old_key_goes_on_for_the_grace_and_names_the_new_one,
    a_key_that_ends_before_the_grace_keeps_its_end,
    without_a_grace_the_old_key_is_revoked_at_once,
    without_a_name_the_one_key_that_can_be_replaced_is,
    which_key_must_be_clear,
    a_key_is_replaced_once,
    a_tenant_that_is_gone_gets_no_key,
    a_new_key_that_cannot_be_leaves_the_old_one_as_it_was,
    the_audit_log_has_the_rotation_under_both_keys,
);

async fn rotate(
    world: &World,
    tenant: &TenantId,
    old: Option<KeyId>,
    grace: Duration,
) -> Result<(Key, Key), StoreError> {
    rotate_to(world, tenant, old, grace, &ApiKey::generate().unwrap()).await
}

async fn rotate_to(
    world: &World,
    tenant: &TenantId,
    old: Option<KeyId>,
    grace: Duration,
    secret: &ApiKey,
) -> Result<(Key, Key), StoreError> {
    let rotation = Rotation {
        old,
        old_until: NOW + grace,
    };
    let make = |old: &Key| NewKey {
        name: format!("after {}", old.name),
        ..new_key(secret)
    };
    let rotated = world
        .store
        .key_rotate(tenant, rotation, make, NOW, &actor())
        .await;
    if let Ok((new, old)) = &rotated {
        for key in [new, old] {
            let kept = world.store.key_fetch(key.key_id).await.unwrap();
            assert_eq!(kept.as_ref(), Some(key), "what is answered is what is kept");
        }
        assert_eq!(old.replaced_by, Some(new.key_id));
    }
    rotated
}

async fn another_key(
    world: &World,
    tenant: &TenantId,
    expires_at: Option<OffsetDateTime>,
) -> KeyId {
    let new = NewKey {
        name: "another".to_owned(),
        expires_at,
        ..new_key(&ApiKey::generate().unwrap())
    };
    let made = world.store.key_insert(tenant, new, NOW, &actor()).await;
    made.unwrap().key_id
}

async fn of_key(world: &World, key_id: KeyId) -> Vec<AuditEntry> {
    let filter = AuditFilter {
        tenant: None,
        key_id: Some(key_id),
    };
    world.store.audit_list(&filter, None, 10).await.unwrap()
}

#[track_caller]
fn which(rotated: &Result<(Key, Key), StoreError>) -> Vec<KeyId> {
    match rotated {
        Err(StoreError::RotateWhich { candidates, .. }) => {
            candidates.iter().map(|(id, _)| *id).collect()
        }
        other => panic!("{other:?}"),
    }
}

async fn the_old_key_goes_on_for_the_grace_and_names_the_new_one(world: World) {
    let (tenant, key, _) = world.tenant("acme").await;
    let rotated = rotate(&world, &tenant.id, Some(key.key_id), DAY).await;
    let (new, old) = rotated.unwrap();
    assert_eq!((old.key_id, old.revoked_at), (key.key_id, None));
    assert_eq!(old.expires_at, Some(key.created_at + DAY));
    assert_eq!(new.name, "after default");
    assert_eq!((new.expires_at, new.replaced_by), (None, None));
    assert_eq!(new.tenant, tenant.id);
}

async fn a_key_that_ends_before_the_grace_keeps_its_end(world: World) {
    let (tenant, ..) = world.tenant("acme").await;
    let end = NOW + DAY / 2;
    let sooner = another_key(&world, &tenant.id, Some(end)).await;
    let later = another_key(&world, &tenant.id, Some(NOW + DAY * 2)).await;
    let rotated = rotate(&world, &tenant.id, Some(sooner), DAY).await.unwrap();
    assert_eq!(
        rotated.1.expires_at.map(|at| at - rotated.1.created_at),
        Some(time::Duration::hours(12))
    );
    let rotated = rotate(&world, &tenant.id, Some(later), DAY).await.unwrap();
    assert_eq!(
        rotated.1.expires_at.map(|at| at - rotated.1.created_at),
        Some(time::Duration::days(1))
    );
}

async fn without_a_grace_the_old_key_is_revoked_at_once(world: World) {
    let (tenant, key, _) = world.tenant("acme").await;
    let rotated = rotate(&world, &tenant.id, None, Duration::ZERO).await;
    let (new, old) = rotated.unwrap();
    assert_eq!(old.revoked_at, Some(key.created_at));
    assert_eq!(old.expires_at, None);
    let entries = of_key(&world, key.key_id).await;
    assert_eq!(entries[0].action, "key.revoke");
    assert_eq!(entries[0].detail, format!("replaced by {}", new.key_id));
}

async fn without_a_name_the_one_key_that_can_be_replaced_is(world: World) {
    let (tenant, key, _) = world.tenant("acme").await;
    // These cannot: expired, revoked, replaced.
    another_key(&world, &tenant.id, Some(NOW)).await;
    let revoked = another_key(&world, &tenant.id, None).await;
    let done = world.store.key_revoke(revoked, NOW, &actor()).await;
    done.unwrap();
    let (second, first) = rotate(&world, &tenant.id, Some(key.key_id), DAY)
        .await
        .unwrap();
    assert_eq!(first.key_id, key.key_id);
    let (_, replaced) = rotate(&world, &tenant.id, None, DAY).await.unwrap();
    assert_eq!(replaced.key_id, second.key_id);
}

async fn which_key_must_be_clear(world: World) {
    let (tenant, first, _) = world.tenant("acme").await;
    let (_, others, _) = world.tenant("other").await;
    let second = another_key(&world, &tenant.id, None).await;
    let mut candidates = vec![first.key_id, second];
    candidates.sort();
    let expired = another_key(&world, &tenant.id, Some(NOW)).await;
    let unknown = ApiKey::generate().unwrap().id();
    for old in [None, Some(others.key_id), Some(expired), Some(unknown)] {
        let refused = rotate(&world, &tenant.id, old, DAY).await;
        let mut listed = which(&refused);
        listed.sort();
        assert_eq!(listed, candidates);
        let text = refused.unwrap_err().to_string();
        for part in [
            format!("{} (\"default\")", first.key_id),
            format!("{second} (\"another\")"),
        ] {
            assert!(text.contains(&part), "{part} in {text}");
        }
    }
    let keys = world.store.key_list(&tenant.id, None, 10).await.unwrap();
    assert_eq!(keys.len(), 3, "nothing was made: {keys:?}");
    assert!(keys.iter().all(|key| key.replaced_by.is_none()));
    for key_id in [first.key_id, second] {
        let done = world.store.key_revoke(key_id, NOW, &actor()).await;
        done.unwrap();
    }
    let none = rotate(&world, &tenant.id, None, DAY).await;
    assert_eq!(which(&none), []);
    let text = none.unwrap_err().to_string();
    assert!(text.contains("make a new one"), "{text}");
}

async fn a_key_is_replaced_once(world: World) {
    let (tenant, key, _) = world.tenant("acme").await;
    let rotated = rotate(&world, &tenant.id, Some(key.key_id), DAY).await;
    let (new, _) = rotated.unwrap();
    let again = rotate(&world, &tenant.id, Some(key.key_id), DAY).await;
    assert_eq!(which(&again), [new.key_id]);
}

async fn a_tenant_that_is_gone_gets_no_key(world: World) {
    let (tenant, key, _) = world.tenant("acme").await;
    let nobody = crate::world::tenant_id("nobody");
    let refused = rotate(&world, &nobody, Some(key.key_id), DAY).await;
    assert!(
        matches!(refused, Err(StoreError::NoSuchTenant(_))),
        "{refused:?}"
    );
    let by_hand = "update tenants set status = 'inactive'";
    world.sql(by_hand).await.unwrap();
    let refused = rotate(&world, &tenant.id, Some(key.key_id), DAY).await;
    assert!(
        matches!(refused, Err(StoreError::TenantInactive(_))),
        "{refused:?}"
    );
    let kept = world.store.key_fetch(key.key_id).await.unwrap();
    assert_eq!(kept, Some(key));
}

async fn a_new_key_that_cannot_be_leaves_the_old_one_as_it_was(world: World) {
    let (tenant, key, _) = world.tenant("acme").await;
    let (_, _, taken) = world.tenant("other").await;
    let refused = rotate_to(&world, &tenant.id, None, DAY, &taken).await;
    assert!(
        matches!(refused, Err(StoreError::KeyExists(id)) if id == taken.id()),
        "{refused:?}"
    );
    let kept = world.store.key_fetch(key.key_id).await.unwrap();
    assert_eq!(kept, Some(key));
}

async fn the_audit_log_has_the_rotation_under_both_keys(world: World) {
    let (tenant, key, _) = world.tenant("acme").await;
    let (new, old) = rotate(&world, &tenant.id, None, DAY).await.unwrap();
    let of_new = of_key(&world, new.key_id).await;
    assert_eq!(of_new.len(), 1);
    assert_eq!(of_new[0].action, "key.rotate");
    let expected = format!(
        "replaces {}, name \"after default\", scopes {}",
        key.key_id, new.scopes
    );
    assert_eq!(of_new[0].detail, expected);
    let of_old = of_key(&world, old.key_id).await;
    assert_eq!(of_old[0].action, "key.replace");
    let expected = format!("by {}, works until 2026-01-03T03:04:05.678901Z", new.key_id);
    assert_eq!(of_old[0].detail, expected);
    for entry in [&of_new[0], &of_old[0]] {
        assert_eq!(entry.actor, actor().as_str());
        assert_eq!(entry.at, key.created_at);
        assert_eq!(entry.tenant_id.as_deref(), Some("acme"));
    }
}

/// SQLite has one writer at a time; what follows needs two.
#[tokio::test]
async fn of_two_rotations_of_a_key_at_once_one_is_done() {
    let world = World::postgres().await;
    for round in 0..20 {
        let (tenant, key, _) = world.tenant(&format!("t{round}")).await;
        let old = Some(key.key_id);
        let (one, two) = tokio::join!(
            rotate(&world, &tenant.id, old, DAY),
            rotate(&world, &tenant.id, old, DAY),
        );
        let (done, refused) = if one.is_ok() { (one, two) } else { (two, one) };
        let new = done.unwrap().0.key_id;
        assert_eq!(which(&refused), [new]);
        let keys = world.store.key_list(&tenant.id, None, 10).await.unwrap();
        assert_eq!(keys.len(), 2);
    }
}

#[tokio::test]
async fn a_key_revoked_while_it_is_replaced_stays_revoked() {
    let world = World::postgres().await;
    let (tenant, key, _) = world.tenant("acme").await;
    let mut shell = PgConnection::connect(&world.url).await.unwrap();
    let mut revocation = shell.begin().await.unwrap();
    let by_hand = "update api_keys set revoked_at = now()";
    sqlx::query(by_hand)
        .execute(&mut *revocation)
        .await
        .unwrap();
    let rotation = rotate(&world, &tenant.id, Some(key.key_id), DAY);
    let (rotated, ()) = tokio::join!(rotation, async {
        waits_for_a_lock(&world).await;
        revocation.commit().await.unwrap();
    });
    assert_eq!(which(&rotated), []);
    let kept = world.store.key_fetch(key.key_id).await.unwrap().unwrap();
    assert!(kept.revoked_at.is_some());
    assert_eq!(kept.replaced_by, None);
}

/// Until another session of this database waits for a lock.
async fn waits_for_a_lock(world: &World) {
    let mut shell = PgConnection::connect(&world.url).await.unwrap();
    let waiting = "select count(*) from pg_stat_activity \
                   where datname = current_database() and wait_event_type = 'Lock'";
    let looking = async {
        while sqlx::query_scalar::<_, i64>(waiting)
            .fetch_one(&mut shell)
            .await
            .unwrap()
            == 0
        {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), looking).await;
    assert!(waited.is_ok(), "the rotation waits for the revocation");
}
