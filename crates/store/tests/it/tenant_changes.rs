//! What becomes of a tenant: changed, suspended, deleted.

use std::time::Duration;

use model::{ApiKey, TenantStatus};
use store::{AuditEntry, AuditFilter, Limit, StoreError, Tenant, TenantUpdate};
use time::OffsetDateTime;

use crate::world::{NOW, World, actor, new_key, tenant_id};

const LATER: Duration = Duration::from_mins(1);

crate::in_both_databases!(
    each_field_is_changed_by_itself,
    what_is_as_it_shall_be_leaves_no_trace,
    a_tenant_suspended_twice_is_suspended_since_the_first_time,
    several_changes_are_one_entry,
    only_a_tenant_that_lives_is_changed,
    a_deleted_tenant_has_no_key_that_works,
    deleting_twice_is_deleting_once,
    a_key_brought_back_by_hand_is_revoked_by_deleting_again,
);

async fn update(world: &World, update: TenantUpdate, at: OffsetDateTime) -> Tenant {
    let id = tenant_id("acme");
    let updated = world.store.tenant_update(&id, &update, at, &actor()).await;
    let updated = updated.unwrap();
    let fetched = world.store.tenant_fetch(&id).await.unwrap();
    assert_eq!(
        fetched.as_ref(),
        Some(&updated),
        "what is answered is what is kept"
    );
    updated
}

/// The entries since the tenant was made, oldest first.
async fn entries(world: &World) -> Vec<AuditEntry> {
    let filter = AuditFilter::default();
    let mut log = world.store.audit_list(&filter, None, 100).await.unwrap();
    log.reverse();
    log.split_off(2)
}

async fn each_field_is_changed_by_itself(world: World) {
    let (mut tenant, ..) = world.tenant("acme").await;
    tenant.updated_at += LATER;
    let at = NOW + LATER;

    let name = "Acme & Söhne".to_owned();
    let changed = update(
        &world,
        TenantUpdate {
            name: Some(name.clone()),
            ..TenantUpdate::default()
        },
        at,
    );
    tenant.name = name;
    assert_eq!(changed.await, tenant);

    let email = "new@acme.example".to_owned();
    let changed = update(
        &world,
        TenantUpdate {
            email: Some(email.clone()),
            ..TenantUpdate::default()
        },
        at,
    );
    tenant.email = email;
    assert_eq!(changed.await, tenant);

    for (limit, own) in [
        (Limit::Own(0), Some(0)),
        (Limit::Own(1 << 40), Some(1 << 40)),
        (Limit::Default, None),
    ] {
        let body_max_bytes = Some(limit);
        let changed = update(
            &world,
            TenantUpdate {
                body_max_bytes,
                ..TenantUpdate::default()
            },
            at,
        );
        tenant.limits.body_max_bytes = own;
        assert_eq!(changed.await, tenant);
    }

    for (suspended, status) in [
        (true, TenantStatus::Suspended),
        (false, TenantStatus::Active),
    ] {
        let changed = update(
            &world,
            TenantUpdate {
                suspended: Some(suspended),
                ..TenantUpdate::default()
            },
            at,
        );
        tenant.status = status;
        tenant.suspended_at = suspended.then_some(tenant.updated_at);
        assert_eq!(changed.await, tenant);
    }

    let entries = entries(&world).await;
    let done: Vec<_> = entries
        .iter()
        .map(|entry| (entry.action.as_str(), entry.detail.as_str()))
        .collect();
    let expected = [
        ("tenant.update", "name \"Tenant acme\" to \"Acme & Söhne\""),
        (
            "tenant.update",
            "email \"acme@example.com\" to \"new@acme.example\"",
        ),
        ("tenant.update", "body_max_bytes default to 0"),
        ("tenant.update", "body_max_bytes 0 to 1099511627776"),
        ("tenant.update", "body_max_bytes 1099511627776 to default"),
        ("tenant.suspend", ""),
        ("tenant.resume", ""),
    ];
    assert_eq!(done, expected);
    for entry in &entries {
        assert_eq!(entry.actor, actor().as_str());
        assert_eq!(entry.tenant_id.as_deref(), Some("acme"));
        assert_eq!((entry.at, &entry.key_id), (tenant.updated_at, &None));
    }
}

async fn what_is_as_it_shall_be_leaves_no_trace(world: World) {
    let (tenant, ..) = world.tenant("acme").await;
    let same = TenantUpdate {
        name: Some(tenant.name.clone()),
        email: Some(tenant.email.clone()),
        suspended: Some(false),
        body_max_bytes: Some(Limit::Default),
    };
    for unchanging in [same, TenantUpdate::default()] {
        assert_eq!(update(&world, unchanging, NOW + LATER).await, tenant);
    }
    assert_eq!(entries(&world).await, []);
}

async fn a_tenant_suspended_twice_is_suspended_since_the_first_time(world: World) {
    world.tenant("acme").await;
    let suspend = TenantUpdate {
        suspended: Some(true),
        ..TenantUpdate::default()
    };
    let first = update(&world, suspend.clone(), NOW).await;
    assert_eq!(update(&world, suspend.clone(), NOW + LATER).await, first);
    let rename = TenantUpdate {
        name: Some("Other".to_owned()),
        ..suspend
    };
    let renamed = update(&world, rename, NOW + LATER).await;
    assert_eq!(renamed.suspended_at, first.suspended_at);
    let done: Vec<_> = entries(&world).await;
    let done: Vec<_> = done.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(done, ["tenant.suspend", "tenant.update"]);
}

async fn several_changes_are_one_entry(world: World) {
    world.tenant("acme").await;
    let all = TenantUpdate {
        name: Some("New".to_owned()),
        email: Some("new@example.com".to_owned()),
        suspended: Some(true),
        body_max_bytes: Some(Limit::Own(7)),
    };
    update(&world, all, NOW).await;
    let entries = entries(&world).await;
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert_eq!(entries[0].action, "tenant.suspend");
    for part in ["\"New\"", "\"new@example.com\"", "body_max_bytes"] {
        assert!(entries[0].detail.contains(part), "{entries:?}");
    }
}

async fn only_a_tenant_that_lives_is_changed(world: World) {
    let rename = TenantUpdate {
        name: Some("New".to_owned()),
        ..TenantUpdate::default()
    };
    let id = tenant_id("acme");
    let change = async || world.store.tenant_update(&id, &rename, NOW, &actor()).await;
    let refused = change().await;
    assert!(
        matches!(&refused, Err(StoreError::NoSuchTenant(nobody)) if *nobody == id),
        "{refused:?}"
    );
    let refused = world.store.tenant_delete(&id, NOW, &actor()).await;
    assert!(
        matches!(refused, Err(StoreError::NoSuchTenant(_))),
        "{refused:?}"
    );
    world.tenant("acme").await;
    let deleted = world.store.tenant_delete(&id, NOW, &actor()).await.unwrap();
    let refused = change().await;
    assert!(
        matches!(refused, Err(StoreError::TenantInactive(_))),
        "{refused:?}"
    );
    let kept = world.store.tenant_fetch(&id).await.unwrap();
    assert_eq!(kept, Some(deleted));
}

async fn a_deleted_tenant_has_no_key_that_works(world: World) {
    let (tenant, key, _) = world.tenant("acme").await;
    let (_, others, _) = world.tenant("other").await;
    let store = &world.store;
    let second = new_key(&ApiKey::generate().unwrap());
    let second = store.key_insert(&tenant.id, second, NOW, &actor()).await;
    let second = second.unwrap();
    let third = new_key(&ApiKey::generate().unwrap());
    let third = store.key_insert(&tenant.id, third, NOW, &actor()).await;
    let third = third.unwrap().key_id;
    let third = store.key_revoke(third, NOW, &actor()).await.unwrap();
    let suspend = TenantUpdate {
        suspended: Some(true),
        ..TenantUpdate::default()
    };
    update(&world, suspend.clone(), NOW).await;

    let at = NOW + LATER;
    let deleted = store.tenant_delete(&tenant.id, at, &actor()).await.unwrap();
    assert_eq!(deleted.status, TenantStatus::Inactive);
    assert_eq!(deleted.suspended_at, None);
    assert_eq!(deleted.updated_at, tenant.updated_at + LATER);
    let kept = store.tenant_fetch(&tenant.id).await.unwrap();
    assert_eq!(kept, Some(deleted));
    let keys = store.key_list(&tenant.id, None, 10).await.unwrap();
    assert_eq!(keys.len(), 3);
    for key in keys {
        let since = match &third {
            Some(third) if third.key_id == key.key_id => third.revoked_at,
            _ => Some(tenant.updated_at + LATER),
        };
        assert_eq!(key.revoked_at, since, "{key:?}");
    }
    let untouched = store.key_fetch(others.key_id).await.unwrap();
    assert_eq!(untouched, Some(others));

    // Whoever asks about a key learns what became of it.
    for key_id in [key.key_id, second.key_id] {
        let filter = AuditFilter {
            tenant: None,
            key_id: Some(key_id),
        };
        let log = store.audit_list(&filter, None, 1).await.unwrap();
        assert_eq!(log[0].action, "key.revoke");
        assert_eq!(log[0].detail, "with its tenant");
    }
    let newest = store.audit_list(&AuditFilter::default(), None, 1).await;
    let newest = newest.unwrap();
    assert_eq!(newest[0].action, "tenant.delete");
    assert_eq!(newest[0].detail, "2 keys revoked");
    assert_eq!(newest[0].tenant_id.as_deref(), Some("acme"));
}

async fn deleting_twice_is_deleting_once(world: World) {
    let (tenant, ..) = world.tenant("acme").await;
    let delete = async |at| world.store.tenant_delete(&tenant.id, at, &actor()).await;
    let first = delete(NOW).await.unwrap();
    let before = entries(&world).await;
    assert_eq!(delete(NOW + LATER).await.unwrap(), first);
    assert_eq!(entries(&world).await, before);
}

async fn a_key_brought_back_by_hand_is_revoked_by_deleting_again(world: World) {
    let (tenant, key, _) = world.tenant("acme").await;
    let delete = async || world.store.tenant_delete(&tenant.id, NOW, &actor()).await;
    delete().await.unwrap();
    let by_hand = "update api_keys set revoked_at = null";
    world.sql(by_hand).await.unwrap();
    delete().await.unwrap();
    let key = world.store.key_fetch(key.key_id).await.unwrap().unwrap();
    assert!(key.revoked_at.is_some());
    let entries = entries(&world).await;
    assert_eq!(entries.last().unwrap().detail, "1 keys revoked");
}

/// SQLite has one writer at a time.
#[tokio::test]
async fn a_key_made_while_its_tenant_is_deleted_does_not_work_afterwards() {
    let world = World::postgres().await;
    for round in 0..20 {
        let (tenant, ..) = world.tenant(&format!("t{round}")).await;
        let new = new_key(&ApiKey::generate().unwrap());
        let by = actor();
        let (made, deleted) = tokio::join!(
            world.store.key_insert(&tenant.id, new, NOW, &by),
            world.store.tenant_delete(&tenant.id, NOW, &by),
        );
        deleted.unwrap();
        assert!(
            matches!(made, Ok(_) | Err(StoreError::TenantInactive(_))),
            "{made:?}"
        );
        let keys = world.store.key_list(&tenant.id, None, 10).await.unwrap();
        assert!(keys.iter().all(|key| key.revoked_at.is_some()), "{keys:?}");
        assert_eq!(keys.len(), 1 + usize::from(made.is_ok()));
    }
}
