//! Making, listing and revoking keys, and who uses them.

use std::time::Duration;

use model::{ApiKey, KeyId};
use serde_json::json;
use store::{KeyUse, Seen};
use time::macros::datetime;

use crate::harness::{World, key_id};

crate::in_both_databases!(
    a_key_has_the_name_scopes_and_end_it_was_asked_for,
    a_revoked_key_stays_listed_as_revoked,
    a_key_is_shown_with_those_who_used_it_last,
    what_does_not_exist_is_named,
);

async fn a_key_has_the_name_scopes_and_end_it_was_asked_for(world: World) {
    world.tenant("acme").await;
    let wish = json!({"name": "prod", "scopes": ["logs:write", "logs:read"], "expires_at": "2090-01-01T00:00:00Z"});
    let answer = world.post("/api/v1/tenants/acme/keys", wish).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let key = answer.json();
    assert_eq!(key["name"], "prod");
    assert_eq!(key["scopes"], json!(["logs:write", "logs:read"]));
    assert_eq!(key["expires_at"], "2090-01-01T00:00:00Z");
    assert_eq!(key["status"], "active");
    assert_eq!(key["last_used_at"], json!(null));
    key["key"].as_str().unwrap().parse::<ApiKey>().unwrap();
}

async fn a_revoked_key_stays_listed_as_revoked(world: World) {
    let tenant = world.tenant("acme").await;
    let key_id = tenant["key"]["key_id"].as_str().unwrap();
    let path = format!("/api/v1/keys/{key_id}/revoke");
    let first = world.post(&path, json!({})).await;
    assert_eq!(
        (first.status.as_u16(), &first.json()["status"]),
        (200, &json!("revoked"))
    );
    let second = world.post(&path, json!({})).await;
    assert_eq!(
        second.json()["revoked_at"],
        first.json()["revoked_at"],
        "revoking twice is revoking once"
    );
    let listed = world.get("/api/v1/tenants/acme/keys").await.json();
    assert_eq!(listed, json!([first.json()]));
    let key_id: KeyId = key_id.parse().unwrap();
    assert!(
        world
            .store
            .key_fetch(key_id)
            .await
            .unwrap()
            .unwrap()
            .revoked_at
            .is_some()
    );
}

async fn a_key_is_shown_with_those_who_used_it_last(world: World) {
    let tenant = world.tenant("acme").await;
    let id = key_id(&tenant["key"]);
    let path = format!("/api/v1/keys/{id}");
    let unused = world.get(&path).await.json();
    assert_eq!(
        (&unused["user_agents"], &unused["addresses"]),
        (&json!([]), &json!([]))
    );
    assert!(unused.get("key").is_none());

    let first_at = datetime!(2026-01-02 03:04:05 UTC);
    let seen = |value: String, minutes: u64| Seen {
        value,
        requests: minutes + 1,
        first_at,
        last_at: first_at + Duration::from_mins(minutes),
    };
    let written = KeyUse {
        key_id: id.parse().unwrap(),
        last_used_at: first_at + Duration::from_mins(30),
        user_agents: (0..10)
            .map(|n| seen(format!("agent/{n} <b>\u{2192}"), n))
            .collect(),
        addresses: vec![
            seen("192.0.2.1".to_owned(), 1),
            seen("2001:db8::1".to_owned(), 30),
        ],
    };
    world.store.key_uses_write(&[written]).await.unwrap();
    let used = world.get(&path).await.json();
    assert_eq!(used["last_used_at"], "2026-01-02T03:34:05Z");
    let agents: Vec<_> = used["user_agents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|used| &used["value"])
        .collect();
    let expected: Vec<_> = (0..10)
        .rev()
        .map(|n| json!(format!("agent/{n} <b>\u{2192}")))
        .collect();
    assert_eq!(agents, expected.iter().collect::<Vec<_>>());
    let address = json!({
        "value": "2001:db8::1", "requests": 31, "first_at": "2026-01-02T03:04:05Z", "last_at": "2026-01-02T03:34:05Z",
    });
    assert_eq!(used["addresses"][0], address);
    let listed = world.get("/api/v1/tenants/acme/keys").await.json();
    assert!(
        listed[0].get("addresses").is_none(),
        "lists are short: {listed}"
    );
}

async fn what_does_not_exist_is_named(world: World) {
    for (path, what) in [
        ("/api/v1/tenants/nobody/keys", "nobody"),
        ("/api/v1/keys/0123456789ab/revoke", "0123456789ab"),
        ("/api/v1/keys/obs_short/revoke", "12 characters"),
    ] {
        let problem = world.post(path, json!({})).await.problem(404);
        assert!(
            problem["detail"].as_str().unwrap().contains(what),
            "{problem}"
        );
    }
    for path in [
        "/api/v1/tenants/nobody",
        "/api/v1/tenants/nobody/keys",
        "/api/v1/tenants/a%7Cb",
        "/api/v1/tenants/..%2f..%2fetc",
        "/api/v1/tenants/a%00b",
        "/api/v1/tenants/%ff",
        "/api/v1/tenants/%E2%80%AEacme",
        "/api/v1/keys/0123456789ab",
        "/api/v1/keys/0123456789a%00",
        "/api/v1/keys/'or'1'='1'--",
    ] {
        world.get(path).await.problem(404);
    }
}
