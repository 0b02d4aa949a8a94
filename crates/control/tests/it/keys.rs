//! Making, listing and revoking keys.

use model::{ApiKey, KeyId};
use serde_json::json;

use crate::harness::World;

#[tokio::test]
async fn a_key_has_the_name_scopes_and_end_it_was_asked_for() {
    let world = World::new().await;
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

#[tokio::test]
async fn a_revoked_key_stays_listed_as_revoked() {
    let world = World::new().await;
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

#[tokio::test]
async fn what_does_not_exist_is_named() {
    let world = World::new().await;
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
    ] {
        world.get(path).await.problem(404);
    }
}
