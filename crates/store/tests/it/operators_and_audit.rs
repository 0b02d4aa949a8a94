//! Who may use the admin API, who did what, who uses a key, and what is forgotten in time.

use std::time::Duration;

use model::{ApiKey, KeyId};
use store::{AuditFilter, KeyUse, KeyUses, NewOperator, Operator, OperatorScopes, Seen, UsedBy};
use time::OffsetDateTime;

use crate::world::{NOW, World, actor, new_key, tenant_id};

const DAY: Duration = Duration::from_hours(24);

crate::in_both_databases!(
    operators_are_listed_page_by_page,
    an_operator_is_revoked_once,
    the_audit_log_is_read_by_tenant_and_by_key,
    those_who_used_a_key_last_come_first,
    what_is_old_is_forgotten_and_nothing_else,
);

async fn operator(world: &World, id: &str) -> Operator {
    let new = NewOperator {
        id: id.to_owned(),
        name: format!("operator {id}"),
        digest: ApiKey::generate().unwrap().digest(),
        scopes: OperatorScopes::ADMIN,
        expires_at: None,
    };
    let made = world.store.operator_insert(new, NOW, &actor()).await;
    made.unwrap()
}

async fn operators_are_listed_page_by_page(world: World) {
    let mut made = Vec::new();
    for id in ["B", "a", "b", "c", "d"] {
        made.push(operator(&world, id).await);
    }
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = world.store.operator_list(after.as_deref(), 2).await;
        let page = page.unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 2);
        after = Some(last.id.clone());
        found.extend(page);
    }
    assert_eq!(found, made);
}

async fn an_operator_is_revoked_once(world: World) {
    operator(&world, "op1").await;
    let other = operator(&world, "op2").await;
    let revoke = async |id, at| world.store.operator_revoke(id, at, &actor()).await.unwrap();
    let first = revoke("op1", NOW).await.unwrap();
    assert_eq!(first.revoked_at, Some(first.created_at));
    assert_eq!(revoke("op1", NOW + DAY).await.as_ref(), Some(&first));
    assert_eq!(revoke("nobody", NOW).await, None);
    let listed = world.store.operator_list(None, 10).await.unwrap();
    assert_eq!(listed, [first, other]);
    let log = world
        .store
        .audit_list(&AuditFilter::default(), None, 10)
        .await;
    let log = log.unwrap();
    assert_eq!(log.len(), 3, "{log:?}");
    assert_eq!(log[0].action, "operator.revoke");
    assert!(log[0].detail.contains("op1"), "{log:?}");
}

async fn the_audit_log_is_read_by_tenant_and_by_key(world: World) {
    let (tenant, key, _) = world.tenant("acme").await;
    let (_, others, _) = world.tenant("other").await;
    let second = new_key(&ApiKey::generate().unwrap());
    let second = world
        .store
        .key_insert(&tenant.id, second, NOW, &actor())
        .await;
    let second = second.unwrap();
    for key_id in [key.key_id, others.key_id] {
        let revoked = world.store.key_revoke(key_id, NOW, &actor()).await;
        revoked.unwrap();
    }
    operator(&world, "op1").await;
    let read = async |tenant: Option<&str>, key_id: Option<KeyId>, before, limit| {
        let filter = AuditFilter {
            tenant: tenant.map(tenant_id),
            key_id,
        };
        world
            .store
            .audit_list(&filter, before, limit)
            .await
            .unwrap()
    };
    let all = read(None, None, None, 100).await;
    assert_eq!(all.len(), 8);
    assert!(all.is_sorted_by(|a, b| a.seq > b.seq), "newest first");
    let acme = read(Some("acme"), None, None, 100).await;
    let actions: Vec<_> = acme.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(
        actions,
        ["key.revoke", "key.create", "key.create", "tenant.create"]
    );
    assert!(acme.iter().all(|e| e.tenant_id.as_deref() == Some("acme")));
    let of_key = read(None, Some(key.key_id), None, 100).await;
    let actions: Vec<_> = of_key.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["key.revoke", "key.create"]);
    assert_eq!(read(Some("other"), Some(key.key_id), None, 100).await, []);
    assert_eq!(
        read(Some("acme"), Some(second.key_id), None, 100)
            .await
            .len(),
        1
    );
    // By pages, filtered.
    let first = read(Some("acme"), None, None, 3).await;
    let rest = read(Some("acme"), None, Some(first[2].seq), 3).await;
    assert_eq!([first, rest].concat(), acme);
}

fn seen(value: &str, requests: u64, at: OffsetDateTime) -> Seen {
    Seen {
        value: value.to_owned(),
        requests,
        first_at: at - Duration::from_secs(5),
        last_at: at,
    }
}

async fn those_who_used_a_key_last_come_first(world: World) {
    let (_, key, _) = world.tenant("acme").await;
    let (_, unused, _) = world.tenant("other").await;
    let written = KeyUse {
        key_id: key.key_id,
        last_used_at: NOW + DAY * 2,
        user_agents: vec![
            seen("old/1", 900, NOW),
            seen("new/2", 1, NOW + DAY * 2),
            seen("mid/3", 7, NOW + DAY),
        ],
        addresses: vec![seen("192.0.2.1", 3, NOW), seen("2001:db8::1", 4, NOW)],
    };
    world.store.key_uses_write(&[written]).await.unwrap();
    let uses = world.store.key_uses(key.key_id, 10).await.unwrap();
    let values =
        |list: &[UsedBy]| -> Vec<String> { list.iter().map(|used| used.value.clone()).collect() };
    assert_eq!(values(&uses.user_agents), ["new/2", "mid/3", "old/1"]);
    assert_eq!(
        values(&uses.addresses),
        ["2001:db8::1", "192.0.2.1"],
        "of those seen together, who asked more"
    );
    let newest = &uses.user_agents[0];
    assert_eq!(newest.requests, 1);
    assert_eq!(newest.last_at - newest.first_at, time::Duration::seconds(5));
    let two = world.store.key_uses(key.key_id, 2).await.unwrap();
    assert_eq!(values(&two.user_agents), ["new/2", "mid/3"]);
    let none = world.store.key_uses(unused.key_id, 10).await.unwrap();
    assert_eq!(none, KeyUses::default());
}

async fn what_is_old_is_forgotten_and_nothing_else(world: World) {
    let (tenant, key, _) = world.tenant("acme").await;
    let recent = KeyUse {
        key_id: key.key_id,
        last_used_at: NOW,
        user_agents: vec![
            seen("gone", 1, NOW - DAY * 91),
            seen("kept", 1, NOW - DAY * 89),
        ],
        addresses: vec![seen("192.0.2.1", 1, NOW - DAY * 91)],
    };
    world.store.key_uses_write(&[recent]).await.unwrap();
    // The feed is stamped by the database itself, so old means before today.
    let now = OffsetDateTime::now_utc();
    let eight_days_ago = world.past();
    world
        .sql(&format!(
            "insert into changes (kind, at) values ('all', {eight_days_ago})"
        ))
        .await
        .unwrap();
    let position = world.store.feed_position().await.unwrap();

    let forgotten = world.store.forget(NOW).await.unwrap();
    assert_eq!((forgotten.changes, forgotten.key_uses), (0, 2));
    let uses = world.store.key_uses(key.key_id, 10).await.unwrap();
    assert_eq!(uses.user_agents.len(), 1);
    assert_eq!(uses.user_agents[0].value, "kept");
    assert_eq!(uses.addresses, []);

    let forgotten = world.store.forget(now).await.unwrap();
    assert_eq!(forgotten.changes, 1);
    assert_eq!(world.store.forget(now).await.unwrap().changes, 0);
    // A reader that was up to date reads on from where it was.
    world
        .store
        .key_revoke(key.key_id, NOW, &actor())
        .await
        .unwrap();
    let read = world.store.changes_since(&position, 10).await.unwrap();
    assert!(!read.went_back);
    assert_eq!(read.changes.len(), 1);
    // The log and the rest stay.
    let log = world
        .store
        .audit_list(&AuditFilter::default(), None, 10)
        .await;
    assert_eq!(log.unwrap().len(), 3);
    let kept = world.store.tenant_fetch(&tenant.id).await.unwrap();
    assert_eq!(kept, Some(tenant));
}
