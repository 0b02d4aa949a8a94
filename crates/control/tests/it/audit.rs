//! Every change is in the audit log: who did what, and when. And operators, whose names stand there.

use serde_json::{Value, json};
use store::OperatorScopes;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::harness::{World, key_id};

crate::in_both_databases!(
    every_change_says_who_did_what_and_when,
    an_operator_whose_token_is_revoked_is_out_at_once,
    operators_are_shown_without_their_tokens,
);

async fn every_change_says_who_did_what_and_when(world: World) {
    let began = OffsetDateTime::now_utc() - time::Duration::SECOND;
    let first = key_id(&world.tenant("acme").await["key"]);
    let path = "/api/v1/tenants/acme";
    world.patch(path, json!({"name": "Acme 2"})).await;
    world.patch(path, json!({"status": "suspended"})).await;
    world.patch(path, json!({"status": "active"})).await;
    let keys = "/api/v1/tenants/acme/keys";
    let second = key_id(&world.post(keys, json!({"name": "second"})).await.json());
    let import = json!({"key_id": "0123456789ab", "sha256": "5e".repeat(32)});
    assert_eq!(world.post(keys, import).await.status, 201);
    let rotation = json!({"key_id": first});
    let rotated = world.post(&format!("{keys}/rotate"), rotation).await;
    let third = key_id(&rotated.json());
    let revoke = format!("/api/v1/keys/{second}/revoke");
    world.post(&revoke, json!({})).await;
    let other = world.operator("other", OperatorScopes::READ, None).await;
    let revoke = format!("/api/v1/operators/{}/revoke", other.id());
    world.post(&revoke, json!({})).await;
    world.delete(path).await;

    let log = world.get("/api/v1/audit").await.json();
    let log = log.as_array().unwrap();
    let expected = [
        ("tenant.delete", json!("acme"), Value::Null),
        ("key.revoke", json!("acme"), json!(null)),
        ("key.revoke", json!("acme"), json!(null)),
        ("key.revoke", json!("acme"), json!(null)),
        ("operator.revoke", Value::Null, Value::Null),
        ("operator.create", Value::Null, Value::Null),
        ("key.revoke", json!("acme"), json!(second)),
        ("key.replace", json!("acme"), json!(first)),
        ("key.rotate", json!("acme"), json!(third)),
        ("key.import", json!("acme"), json!("0123456789ab")),
        ("key.create", json!("acme"), json!(second)),
        ("tenant.resume", json!("acme"), Value::Null),
        ("tenant.suspend", json!("acme"), Value::Null),
        ("tenant.update", json!("acme"), Value::Null),
        ("key.create", json!("acme"), json!(first)),
        ("tenant.create", json!("acme"), Value::Null),
        // The operators of the test itself.
        ("operator.create", Value::Null, Value::Null),
        ("operator.create", Value::Null, Value::Null),
    ];
    assert_eq!(log.len(), expected.len(), "{log:#?}");
    let olga = format!("operator {} (olga)", world.admin.id());
    let ended = OffsetDateTime::now_utc() + time::Duration::SECOND;
    for (entry, (action, tenant, key_id)) in log.iter().zip(&expected) {
        assert_eq!(entry["action"], *action, "{log:#?}");
        assert_eq!(entry["tenant"], *tenant, "{entry}");
        let by = if *action == "operator.create" {
            "command test"
        } else {
            &olga
        };
        assert_eq!(entry["actor"], by, "{entry}");
        let at = OffsetDateTime::parse(entry["at"].as_str().unwrap(), &Rfc3339).unwrap();
        assert!(began <= at && at <= ended, "{entry}");
        if log.iter().position(|e| e == entry).unwrap() > 3 {
            assert_eq!(entry["key_id"], *key_id, "{entry}");
        }
    }
    // Those that the tenant took with it, in whatever order.
    let mut ended: Vec<_> = log[1..4].iter().map(key_id).collect();
    ended.sort();
    let mut expected = vec![first, third, "0123456789ab".to_owned()];
    expected.sort();
    assert_eq!(ended, expected);
}

async fn an_operator_whose_token_is_revoked_is_out_at_once(world: World) {
    let id = world.admin.id().to_owned();
    let path = format!("/api/v1/operators/{id}/revoke");
    let answer = world.post(&path, json!({})).await;
    assert_eq!(answer.status, 200, "one's own may be revoked");
    assert_eq!(answer.json()["status"], "revoked");
    world.get("/api/v1/tenants").await.problem(401);
    world.post(&path, json!({})).await.problem(401);
}

async fn operators_are_shown_without_their_tokens(world: World) {
    let life = time::Duration::HOUR;
    let both: OperatorScopes = "read,admin".parse().unwrap();
    let token = world.operator("tim", both, Some(life)).await;
    world
        .operator("late", OperatorScopes::READ, Some(-life))
        .await;
    let answer = world.get("/api/v1/operators").await;
    assert!(!answer.text.contains("okop_"), "{}", answer.text);
    assert!(!answer.text.contains(&token.reveal()[17..]));
    let operators = answer.json();
    let operators = operators.as_array().unwrap();
    assert_eq!(operators.len(), 4);
    let named = |name: &str| operators.iter().find(|o| o["name"] == name).unwrap();
    assert_eq!(named("tim")["id"], token.id());
    assert_eq!(named("tim")["scopes"], json!(["admin", "read"]));
    assert_eq!(named("tim")["status"], "active");
    assert!(named("tim")["expires_at"].is_string());
    assert_eq!(named("late")["status"], "expired");
    assert_eq!(named("rita")["scopes"], json!(["read"]));
    assert_eq!(named("rita")["expires_at"], Value::Null);
    let revoke = |id: &str| format!("/api/v1/operators/{id}/revoke");
    let first = world.post(&revoke(token.id()), json!({})).await.json();
    let again = world.post(&revoke(token.id()), json!({})).await.json();
    assert_eq!(first, again, "revoking twice is revoking once");
    for unknown in ["0123456789ab", "short", token.reveal()] {
        let problem = world.post(&revoke(unknown), json!({})).await.problem(404);
        assert_eq!(problem["code"], "not_found");
    }
}
