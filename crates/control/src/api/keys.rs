//! `/tenants/{id}/keys` and `/keys`: from HTTP to the rules and the store, and back.

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::http::StatusCode;
use axum::response::Response;
use model::{ApiKey, KeyId};
use store::{Key, Rotation};
use time::OffsetDateTime;

use crate::api::input::{Body, Id, Page};
use crate::api::objects::{KeyObject, page};
use crate::api::problem::Problem;
use crate::api::router::{Caller, Deps};
use crate::api::tenants::{no_tenant, tenant_id};
use crate::rules::keys::{key_wish, rotation_wish};

/// User agents, and addresses, shown of a key.
const USES_SHOWN: u32 = 10;

pub(crate) async fn create(
    State(deps): State<Deps>,
    caller: Caller,
    Id(id): Id,
    Body(fields): Body,
) -> Result<(StatusCode, Json<KeyObject>), Problem> {
    let tenant = tenant_id(&id)?;
    let now = OffsetDateTime::now_utc();
    let wish = key_wish(fields, now).map_err(Problem::invalid)?;
    let actor = caller.actor();
    if let Some((key_id, digest)) = wish.made_elsewhere {
        let new = wish.known_by(key_id, digest);
        let (key, is_new) = deps.store.key_import(&tenant, new, now, &actor).await?;
        if !is_new {
            return Ok((StatusCode::OK, Json(KeyObject::new(&key, now))));
        }
        tracing::info!(%tenant, %key_id, actor = actor.as_str(), "key imported");
        return Ok((StatusCode::CREATED, Json(KeyObject::new(&key, now))));
    }
    let secret = ApiKey::generate().map_err(|error| Problem::internal(&error))?;
    let new = wish.for_secret(&secret);
    let key = deps.store.key_insert(&tenant, new, now, &actor).await?;
    tracing::info!(%tenant, key_id = %key.key_id, actor = actor.as_str(), "key created");
    let object = KeyObject::new(&key, now).with_secret(&secret);
    Ok((StatusCode::CREATED, Json(object)))
}

pub(crate) async fn rotate(
    State(deps): State<Deps>,
    caller: Caller,
    Id(id): Id,
    Body(fields): Body,
) -> Result<(StatusCode, Json<KeyObject>), Problem> {
    let tenant = tenant_id(&id)?;
    let now = OffsetDateTime::now_utc();
    let wish = rotation_wish(fields, now).map_err(Problem::invalid)?;
    let secret = ApiKey::generate().map_err(|error| Problem::internal(&error))?;
    let rotation = Rotation {
        old: wish.old,
        old_until: now + wish.grace,
    };
    let actor = caller.actor();
    let make = |old: &Key| wish.in_place_of(old, &secret, now);
    let (key, old) = deps
        .store
        .key_rotate(&tenant, rotation, make, now, &actor)
        .await?;
    tracing::info!(%tenant, key_id = %key.key_id, replaces = %old.key_id, actor = actor.as_str(), "key rotated");
    let object = KeyObject::new(&key, now)
        .with_secret(&secret)
        .with_replaced(KeyObject::new(&old, now));
    Ok((StatusCode::CREATED, Json(object)))
}

pub(crate) async fn show(State(deps): State<Deps>, Id(id): Id) -> Result<Json<KeyObject>, Problem> {
    let key_id = key_id(&id)?;
    let key = deps.store.key_fetch(key_id).await?;
    let key = key.ok_or_else(|| no_key(&id))?;
    let uses = deps.store.key_uses(key_id, USES_SHOWN).await?;
    let now = OffsetDateTime::now_utc();
    Ok(Json(KeyObject::new(&key, now).with_uses(uses)))
}

pub(crate) async fn list(
    State(deps): State<Deps>,
    OriginalUri(uri): OriginalUri,
    Id(id): Id,
    asked: Page,
) -> Result<Response, Problem> {
    let tenant = tenant_id(&id)?;
    let after = asked.after.map(|id| id.parse::<KeyId>()).transpose();
    let after = after.map_err(|error| Problem::invalid_field("after", error.to_string()))?;
    if deps.store.tenant_fetch(&tenant).await?.is_none() {
        return Err(no_tenant(&id));
    }
    if let Some(after) = after {
        let known = deps.store.key_fetch(after).await?;
        if known.is_none_or(|key| key.tenant != tenant) {
            let fix =
                "is no key of this tenant: send the key_id of the last key of the page before";
            return Err(Problem::invalid_field("after", fix));
        }
    }
    let keys = deps.store.key_list(&tenant, after, asked.limit).await?;
    let now = OffsetDateTime::now_utc();
    let objects: Vec<_> = keys.iter().map(|key| KeyObject::new(key, now)).collect();
    let last = keys.last().map(|key| key.key_id);
    let last = last.as_ref().map(KeyId::as_str);
    Ok(page(&objects, asked.limit, last, uri.path(), &[]))
}

pub(crate) async fn revoke(
    State(deps): State<Deps>,
    caller: Caller,
    Id(id): Id,
) -> Result<Json<KeyObject>, Problem> {
    let key_id = key_id(&id)?;
    let now = OffsetDateTime::now_utc();
    let key = deps.store.key_revoke(key_id, now, &caller.actor()).await?;
    let key = key.ok_or_else(|| no_key(&id))?;
    tracing::info!(tenant = %key.tenant, %key_id, actor = caller.actor().as_str(), "key revoked");
    Ok(Json(KeyObject::new(&key, now)))
}

/// A key id from a path: what cannot be one names no key.
fn key_id(text: &str) -> Result<KeyId, Problem> {
    text.parse().map_err(|_| no_key(text))
}

/// The text is not repeated where it may be a whole key.
fn no_key(id: &str) -> Problem {
    let shown = match id.parse::<KeyId>() {
        Ok(id) => format!("there is no key {id}"),
        Err(_) => "that is not the id of a key".to_owned(),
    };
    Problem::not_found(format!(
        "{shown}: send the 12 characters after obs_, as okmon key list shows them"
    ))
}
