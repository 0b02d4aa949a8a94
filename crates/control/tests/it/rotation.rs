//! A key in the place of another, and keys that were made elsewhere.

use hyper::StatusCode;
use model::ApiKey;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::harness::{Answer, World, key_id};

crate::in_both_databases!(
    the_new_key_is_like_the_old_one_which_goes_on_for_a_day,
    a_rotation_is_as_it_was_asked_for,
    a_key_made_for_a_time_is_followed_by_one_for_as_long,
    which_key_is_meant_must_be_clear,
    a_key_made_elsewhere_is_known_by_its_digest,
    importing_again_is_no_error_while_the_key_works,
);

const ROTATE: &str = "/api/v1/tenants/acme/keys/rotate";
const KEYS: &str = "/api/v1/tenants/acme/keys";

/// A field that is a time, in seconds from now.
fn seconds_from_now(object: &Value, field: &str) -> f64 {
    let at = OffsetDateTime::parse(object[field].as_str().unwrap(), &Rfc3339).unwrap();
    (at - OffsetDateTime::now_utc()).as_seconds_f64()
}

#[track_caller]
fn is_near(seconds: f64, expected: f64) {
    assert!((seconds - expected).abs() < 60.0, "{seconds} s");
}

#[track_caller]
fn made(answer: &Answer) -> Value {
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    answer.json()
}

async fn the_new_key_is_like_the_old_one_which_goes_on_for_a_day(world: World) {
    let first = key_id(&world.tenant("acme").await["key"]);
    let new = made(&world.post(ROTATE, json!({})).await);
    let secret: ApiKey = new["key"].as_str().unwrap().parse().unwrap();
    assert_eq!(new["key_id"], secret.id().as_str());
    let grant = world.store.grant_fetch(&secret.digest()).await.unwrap();
    assert_eq!(grant.unwrap().tenant.as_str(), "acme");
    assert_eq!(
        (&new["name"], &new["expires_at"]),
        (&json!("default"), &Value::Null)
    );
    assert_eq!(new["scopes"].as_array().unwrap().len(), 4);
    let old = &new["replaces"];
    assert_eq!(
        (&old["key_id"], &old["status"]),
        (&json!(first), &json!("active"))
    );
    assert_eq!(old["replaced_by"], new["key_id"]);
    assert!(old.get("key").is_none());
    is_near(seconds_from_now(old, "expires_at"), 86400.0);
    let listed = world.get(KEYS).await.json();
    assert_eq!(listed[0], *old);
    assert_eq!(listed[1]["key_id"], new["key_id"]);
}

async fn a_rotation_is_as_it_was_asked_for(world: World) {
    let first = key_id(&world.tenant("acme").await["key"]);
    made(&world.post(KEYS, json!({"name": "other"})).await);
    let wish = json!({
        "key_id": first, "grace_seconds": 0, "name": "new", "scopes": ["logs:read"],
        "expires_at": "2090-01-01T01:00:00+01:00",
    });
    let new = made(&world.post(ROTATE, wish).await);
    assert_eq!(new["name"], "new");
    assert_eq!(new["scopes"], json!(["logs:read"]));
    assert_eq!(new["expires_at"], "2090-01-01T00:00:00Z");
    assert_eq!(new["replaces"]["key_id"], first);
    assert_eq!(new["replaces"]["status"], "revoked");
    let wish =
        json!({"key_id": new["key_id"], "grace_seconds": 31_536_000, "expires_in_seconds": 60});
    let newer = made(&world.post(ROTATE, wish).await);
    is_near(seconds_from_now(&newer, "expires_at"), 60.0);
    is_near(
        seconds_from_now(&newer["replaces"], "expires_at"),
        31_536_000.0,
    );
}

async fn a_key_made_for_a_time_is_followed_by_one_for_as_long(world: World) {
    let first = key_id(&world.tenant("acme").await["key"]);
    world
        .post(&format!("/api/v1/keys/{first}/revoke"), json!({}))
        .await;
    made(&world.post(KEYS, json!({"expires_in_seconds": 3600})).await);
    let new = made(&world.post(ROTATE, json!({})).await);
    is_near(seconds_from_now(&new, "expires_at"), 3600.0);
    is_near(seconds_from_now(&new["replaces"], "expires_at"), 3600.0);
}

async fn which_key_is_meant_must_be_clear(world: World) {
    let first = key_id(&world.tenant("acme").await["key"]);
    let others = key_id(&world.tenant("other").await["key"]);
    let second = key_id(&made(&world.post(KEYS, json!({"name": "second"})).await));
    for wish in [
        json!({}),
        json!({"key_id": null}),
        json!({"key_id": others}),
        json!({"key_id": "0123456789ab"}),
    ] {
        let problem = world.post(ROTATE, wish).await.problem(409);
        assert_eq!(problem["code"], "rotate_which");
        let detail = problem["detail"].as_str().unwrap();
        for part in [&first, &second, "default", "second"] {
            assert!(detail.contains(part), "{part} in {detail}");
        }
    }
    made(&world.post(ROTATE, json!({"key_id": first})).await);
    let again = world.post(ROTATE, json!({"key_id": first})).await;
    assert_eq!(again.problem(409)["code"], "rotate_which");
    world.delete("/api/v1/tenants/acme").await;
    let gone = world.post(ROTATE, json!({})).await;
    assert_eq!(gone.problem(409)["code"], "tenant_inactive");
    let gone = world.post(KEYS, json!({})).await;
    assert_eq!(gone.problem(409)["code"], "tenant_inactive");
}

/// What is sent of a key that was made elsewhere.
fn import(secret: &ApiKey) -> Value {
    let digits = secret.digest().as_bytes().map(|byte| format!("{byte:02x}"));
    json!({"key_id": secret.id().as_str(), "sha256": digits.concat()})
}

async fn a_key_made_elsewhere_is_known_by_its_digest(world: World) {
    world.tenant("acme").await;
    let secret = ApiKey::generate().unwrap();
    let mut wish = import(&secret);
    wish["name"] = "from git".into();
    wish["scopes"] = json!(["traces:write"]);
    let key = made(&world.post(KEYS, wish).await);
    assert_eq!(key["key_id"], secret.id().as_str());
    assert_eq!(
        (&key["name"], &key["scopes"]),
        (&json!("from git"), &json!(["traces:write"]))
    );
    assert!(key.get("key").is_none(), "control has never seen it: {key}");
    let grant = world.store.grant_fetch(&secret.digest()).await.unwrap();
    assert_eq!(grant.unwrap().key_id, secret.id());
}

async fn importing_again_is_no_error_while_the_key_works(world: World) {
    world.tenant("acme").await;
    world.tenant("other").await;
    let secret = ApiKey::generate().unwrap();
    let wish = import(&secret);
    let first = made(&world.post(KEYS, wish.clone()).await);
    let mut upper = wish.clone();
    upper["sha256"] = wish["sha256"].as_str().unwrap().to_uppercase().into();
    upper["name"] = "ignored".into();
    let again = world.post(KEYS, upper).await;
    assert_eq!((again.status, again.json()), (StatusCode::OK, first));

    let refused = async |tenant: &str, wish: Value, reason: &str| {
        let path = format!("/api/v1/tenants/{tenant}/keys");
        let problem = world.post(&path, wish).await.problem(409);
        assert_eq!(problem["code"], "key_exists");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(reason), "{reason} in {detail}");
    };
    refused("other", wish.clone(), "another tenant").await;
    let mut other_digest = wish.clone();
    other_digest["sha256"] = "ab".repeat(32).into();
    refused("acme", other_digest, "id is that of another key").await;
    let revoke = format!("/api/v1/keys/{}/revoke", secret.id());
    world.post(&revoke, json!({})).await;
    refused("acme", wish, "revoked").await;
}
