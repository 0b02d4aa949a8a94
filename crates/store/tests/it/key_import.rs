//! Keys that were made elsewhere.

use std::time::Duration;

use model::{ApiKey, TenantId};
use store::{AuditFilter, Key, NewKey, StoreError};

use crate::world::{NOW, World, actor, new_key, tenant_id};

crate::in_both_databases!(
    a_key_made_elsewhere_is_taken_in,
    the_same_key_again_changes_nothing,
    a_key_that_is_not_the_same_or_does_not_work_is_refused_with_the_reason,
    only_a_tenant_that_lives_takes_a_key_in,
    of_two_imports_at_once_one_is_done,
);

async fn import(world: &World, tenant: &TenantId, new: NewKey) -> Result<(Key, bool), StoreError> {
    world.store.key_import(tenant, new, NOW, &actor()).await
}

/// Why an import was refused.
#[track_caller]
fn why(refused: Result<(Key, bool), StoreError>) -> &'static str {
    match refused {
        Err(StoreError::KeyTaken { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

async fn a_key_made_elsewhere_is_taken_in(world: World) {
    let (tenant, ..) = world.tenant("acme").await;
    let secret = ApiKey::generate().unwrap();
    let new = NewKey {
        name: "from git".to_owned(),
        scopes: "logs:write,logs:read".parse().unwrap(),
        expires_at: Some(NOW + Duration::from_mins(1)),
        ..new_key(&secret)
    };
    let (key, is_new) = import(&world, &tenant.id, new).await.unwrap();
    assert!(is_new);
    assert_eq!((key.key_id, key.name.as_str()), (secret.id(), "from git"));
    let kept = world.store.key_fetch(key.key_id).await.unwrap();
    assert_eq!(kept.as_ref(), Some(&key));
    let grant = world.store.grant_fetch(&secret.digest()).await.unwrap();
    assert_eq!(grant.unwrap().tenant, tenant.id);
    let newest = world
        .store
        .audit_list(&AuditFilter::default(), None, 1)
        .await;
    let newest = newest.unwrap();
    assert_eq!(newest[0].action, "key.import");
    assert_eq!(newest[0].key_id.as_deref(), Some(key.key_id.as_str()));
    assert_eq!(newest[0].actor, actor().as_str());
}

async fn the_same_key_again_changes_nothing(world: World) {
    let (tenant, ..) = world.tenant("acme").await;
    let secret = ApiKey::generate().unwrap();
    let (first, _) = import(&world, &tenant.id, new_key(&secret)).await.unwrap();
    let another_name = NewKey {
        name: "other".to_owned(),
        ..new_key(&secret)
    };
    let again = import(&world, &tenant.id, another_name).await.unwrap();
    assert_eq!(again, (first, false));
    let log = world
        .store
        .audit_list(&AuditFilter::default(), None, 10)
        .await;
    assert_eq!(log.unwrap().len(), 3);
}

async fn a_key_that_is_not_the_same_or_does_not_work_is_refused_with_the_reason(world: World) {
    let (tenant, ..) = world.tenant("acme").await;
    let (other, ..) = world.tenant("other").await;
    let secret = ApiKey::generate().unwrap();
    let new = || new_key(&secret);
    let made = import(&world, &tenant.id, new()).await.unwrap();
    let elsewhere = import(&world, &other.id, new()).await;
    assert_eq!(why(elsewhere), "it belongs to another tenant");
    let other_secret = ApiKey::generate().unwrap();
    let other_digest = NewKey {
        digest: other_secret.digest(),
        ..new()
    };
    assert_eq!(
        why(import(&world, &tenant.id, other_digest).await),
        "its id is that of another key"
    );
    let other_id = NewKey {
        key_id: other_secret.id(),
        ..new()
    };
    assert_eq!(
        why(import(&world, &tenant.id, other_id).await),
        "its SHA-256 is that of a key with another id"
    );
    // Both are somebody's, but not the same key's.
    let second = import(&world, &tenant.id, new_key(&other_secret)).await;
    second.unwrap();
    let mixed = NewKey {
        digest: other_secret.digest(),
        ..new()
    };
    import(&world, &tenant.id, mixed).await.unwrap_err();

    let expire = format!(
        "update api_keys set expires_at = '2026-01-01T00:00:00Z' where key_id = '{}'",
        secret.id()
    );
    world.sql(&expire).await.unwrap();
    let expired = import(&world, &tenant.id, new()).await;
    assert_eq!(why(expired), "it has expired");
    let revoked = world.store.key_revoke(secret.id(), NOW, &actor()).await;
    let revoked = revoked.unwrap();
    let refused = import(&world, &tenant.id, new()).await;
    assert_eq!(why(refused), "it was revoked, which is for good");
    let kept = world.store.key_fetch(made.0.key_id).await.unwrap();
    assert_eq!(kept, revoked);
}

async fn only_a_tenant_that_lives_takes_a_key_in(world: World) {
    let new = || new_key(&ApiKey::generate().unwrap());
    let refused = import(&world, &tenant_id("nobody"), new()).await;
    assert!(
        matches!(refused, Err(StoreError::NoSuchTenant(_))),
        "{refused:?}"
    );
    let (tenant, ..) = world.tenant("acme").await;
    let deleted = world.store.tenant_delete(&tenant.id, NOW, &actor()).await;
    deleted.unwrap();
    let refused = import(&world, &tenant.id, new()).await;
    assert!(
        matches!(refused, Err(StoreError::TenantInactive(_))),
        "{refused:?}"
    );
}

async fn of_two_imports_at_once_one_is_done(world: World) {
    let (tenant, ..) = world.tenant("acme").await;
    let (other, ..) = world.tenant("other").await;
    for _ in 0..10 {
        let secret = ApiKey::generate().unwrap();
        let (one, two) = tokio::join!(
            import(&world, &tenant.id, new_key(&secret)),
            import(&world, &tenant.id, new_key(&secret)),
        );
        assert_ne!(one.unwrap().1, two.unwrap().1, "one of them was new");
        let secret = ApiKey::generate().unwrap();
        let (one, two) = tokio::join!(
            import(&world, &tenant.id, new_key(&secret)),
            import(&world, &other.id, new_key(&secret)),
        );
        let (done, refused) = if one.is_ok() { (one, two) } else { (two, one) };
        assert!(done.unwrap().1);
        assert!(
            matches!(
                refused,
                Err(StoreError::KeyTaken { .. } | StoreError::KeyExists(_))
            ),
            "{refused:?}"
        );
    }
}
