//! What the control plane reads and writes.

use std::time::Duration;

use model::ApiKey;
use store::{NewOperator, NewTenant, OperatorScope, OperatorScopes, StoreError};

use crate::world::{NOW, World, actor, new_key, tenant_id};

crate::in_both_databases!(
    what_is_written_is_read_back,
    a_tenant_and_its_first_key_are_made_together_or_not_at_all,
    an_id_is_given_once,
    only_a_tenant_that_exists_gets_keys,
    lists_are_paged_without_gaps_or_repeats,
    a_key_is_revoked_once,
    every_change_is_in_the_audit_log,
    an_operator_is_found_by_the_digest_of_the_token,
    a_dump_holds_no_usable_secret,
);

async fn what_is_written_is_read_back(world: World) {
    let (tenant, key, _) = world.tenant("a!-_.*'()z").await;
    let fetched = world.store.tenant_fetch(&tenant.id).await.unwrap();
    assert_eq!(fetched, Some(tenant));
    assert_eq!(world.store.key_fetch(key.key_id).await.unwrap(), Some(key));
    assert_eq!(
        world.store.tenant_fetch(&tenant_id("other")).await.unwrap(),
        None
    );
}

async fn a_tenant_and_its_first_key_are_made_together_or_not_at_all(world: World) {
    let (_, key, secret) = world.tenant("acme").await;
    let new = NewTenant {
        id: tenant_id("other"),
        name: "Other".to_owned(),
        email: "o@example.com".to_owned(),
    };
    let refused = world
        .store
        .tenant_insert(new, new_key(&secret), NOW, &actor())
        .await;
    assert!(
        matches!(refused, Err(StoreError::KeyExists(id)) if id == key.key_id),
        "{refused:?}"
    );
    assert_eq!(
        world.store.tenant_fetch(&tenant_id("other")).await.unwrap(),
        None
    );
    assert_eq!(
        world
            .store
            .audit_list(&store::AuditFilter::default(), None, 10)
            .await
            .unwrap()
            .len(),
        2
    );
}

async fn an_id_is_given_once(world: World) {
    let (tenant, ..) = world.tenant("acme").await;
    let new = NewTenant {
        id: tenant.id.clone(),
        name: "Another".to_owned(),
        email: "b@example.com".to_owned(),
    };
    let key = new_key(&ApiKey::generate().unwrap());
    let refused = world.store.tenant_insert(new, key, NOW, &actor()).await;
    assert!(
        matches!(refused, Err(StoreError::TenantExists(_))),
        "{refused:?}"
    );
    assert_eq!(
        world.store.tenant_fetch(&tenant.id).await.unwrap(),
        Some(tenant)
    );
}

async fn only_a_tenant_that_exists_gets_keys(world: World) {
    let key = || new_key(&ApiKey::generate().unwrap());
    let nobody = tenant_id("nobody");
    let refused = world.store.key_insert(&nobody, key(), NOW, &actor()).await;
    assert!(
        matches!(refused, Err(StoreError::NoSuchTenant(_))),
        "{refused:?}"
    );
    let (tenant, ..) = world.tenant("acme").await;
    world
        .sql("update tenants set status = 'inactive'")
        .await
        .unwrap();
    let refused = world
        .store
        .key_insert(&tenant.id, key(), NOW, &actor())
        .await;
    assert!(
        matches!(refused, Err(StoreError::TenantInactive(_))),
        "{refused:?}"
    );
}

async fn lists_are_paged_without_gaps_or_repeats(world: World) {
    let ids = ["B", "a", "b", "b-1", "c"];
    for id in ids {
        world.tenant(id).await;
    }
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = world.store.tenant_list(after.as_ref(), 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id.clone());
        found.extend(page.into_iter().map(|tenant| tenant.id.to_string()));
    }
    assert_eq!(found, ids);

    // Keys made at the same moment must not make a page end in their middle.
    for _ in 0..4 {
        let new = new_key(&ApiKey::generate().unwrap());
        world
            .store
            .key_insert(&tenant_id("a"), new, NOW, &actor())
            .await
            .unwrap();
    }
    let (mut keys, mut after) = (Vec::new(), None);
    loop {
        let page = world
            .store
            .key_list(&tenant_id("a"), after, 2)
            .await
            .unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.key_id);
        keys.extend(page.into_iter().map(|key| key.key_id));
    }
    assert_eq!(keys.len(), 5);
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 5);
}

async fn a_key_is_revoked_once(world: World) {
    let (_, key, _) = world.tenant("acme").await;
    let first = world
        .store
        .key_revoke(key.key_id, NOW, &actor())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        first.revoked_at,
        world
            .store
            .key_fetch(key.key_id)
            .await
            .unwrap()
            .unwrap()
            .revoked_at
    );
    assert!(first.revoked_at.is_some());
    let later = NOW + Duration::from_mins(1);
    let second = world
        .store
        .key_revoke(key.key_id, later, &actor())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(second, first);
    let unknown = ApiKey::generate().unwrap().id();
    assert_eq!(
        world
            .store
            .key_revoke(unknown, NOW, &actor())
            .await
            .unwrap(),
        None
    );
    let revocations = world
        .store
        .audit_list(&store::AuditFilter::default(), None, 10)
        .await
        .unwrap();
    let revocations = revocations
        .iter()
        .filter(|entry| entry.action == "key.revoke");
    assert_eq!(revocations.count(), 1);
}

async fn every_change_is_in_the_audit_log(world: World) {
    let (tenant, key, _) = world.tenant("acme").await;
    world
        .store
        .key_revoke(key.key_id, NOW, &actor())
        .await
        .unwrap();
    let log = world
        .store
        .audit_list(&store::AuditFilter::default(), None, 10)
        .await
        .unwrap();
    let actions: Vec<_> = log.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["key.revoke", "key.create", "tenant.create"]);
    for entry in &log {
        assert_eq!(entry.actor, actor().as_str());
        assert_eq!(entry.at, tenant.created_at);
        assert_eq!(entry.tenant_id.as_deref(), Some("acme"));
    }
    let older = world
        .store
        .audit_list(&store::AuditFilter::default(), Some(log[0].seq), 1)
        .await
        .unwrap();
    assert_eq!(older, log[1..2]);
}

async fn an_operator_is_found_by_the_digest_of_the_token(world: World) {
    let digest = ApiKey::generate().unwrap().digest();
    let new = NewOperator {
        id: "op1".to_owned(),
        name: "olga".to_owned(),
        digest,
        scopes: OperatorScopes::READ,
        expires_at: Some(NOW),
    };
    let made = world
        .store
        .operator_insert(new, NOW, &actor())
        .await
        .unwrap();
    let found = world.store.operator_fetch(&digest).await.unwrap();
    assert_eq!(found.as_ref(), Some(&made));
    assert!(made.scopes.allows(OperatorScope::Read) && !made.scopes.allows(OperatorScope::Admin));
    let unknown = ApiKey::generate().unwrap().digest();
    assert_eq!(world.store.operator_fetch(&unknown).await.unwrap(), None);
}

async fn a_dump_holds_no_usable_secret(world: World) {
    let (_, _, secret) = world.tenant("acme").await;
    let secret_part = secret.reveal()[16..52].to_owned();
    if world.is_postgres() {
        let column = sqlx::AssertSqlSafe(format!(
            "select (select count(*) from api_keys where api_keys::text like '%{secret_part}%') \
             + (select count(*) from audit where audit::text like '%{secret_part}%') \
             + (select count(*) from changes where changes::text like '%{secret_part}%')"
        ));
        let pool = sqlx::PgPool::connect(&world.url).await.unwrap();
        let found: i64 = sqlx::query_scalar(column).fetch_one(&pool).await.unwrap();
        assert_eq!(found, 0);
    } else {
        world.store.close().await;
        let file = world.url.trim_start_matches("sqlite://");
        let dump = std::fs::read(file).unwrap();
        let found = dump
            .windows(secret_part.len())
            .any(|window| window == secret_part.as_bytes());
        assert!(!found);
    }
}
