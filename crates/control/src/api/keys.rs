//! `/tenants/{id}/keys` and `/keys`: from HTTP to the rules and the store, and back.

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::http::StatusCode;
use axum::response::Response;
use model::{ApiKey, KeyId};
use time::OffsetDateTime;

use crate::api::input::{Body, Id, Page};
use crate::api::objects::{KeyObject, page};
use crate::api::problem::Problem;
use crate::api::router::{Caller, Deps};
use crate::api::tenants::{no_tenant, tenant_id};
use crate::rules::keys::key_wish;

pub(crate) async fn create(
    State(deps): State<Deps>,
    caller: Caller,
    Id(id): Id,
    Body(fields): Body,
) -> Result<(StatusCode, Json<KeyObject>), Problem> {
    let tenant = tenant_id(&id)?;
    let now = OffsetDateTime::now_utc();
    let wish = key_wish(fields, now).map_err(Problem::invalid)?;
    let secret = ApiKey::generate().map_err(|error| Problem::internal(&error))?;
    let key = deps
        .store
        .key_insert(&tenant, wish.for_secret(&secret), now, &caller.actor())
        .await?;
    tracing::info!(%tenant, key_id = %key.key_id, actor = caller.actor().as_str(), "key created");
    let object = KeyObject::new(&key, now).with_secret(&secret);
    Ok((StatusCode::CREATED, Json(object)))
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
    let keys = deps.store.key_list(&tenant, after, asked.limit).await?;
    let now = OffsetDateTime::now_utc();
    let objects: Vec<_> = keys.iter().map(|key| KeyObject::new(key, now)).collect();
    let last = keys.last().map(|key| key.key_id);
    Ok(page(
        &objects,
        asked.limit,
        &uri,
        last.as_ref().map(KeyId::as_str),
    ))
}

pub(crate) async fn revoke(
    State(deps): State<Deps>,
    caller: Caller,
    Id(id): Id,
) -> Result<Json<KeyObject>, Problem> {
    let unknown = || {
        Problem::not_found(format!(
            "there is no key {id:?}: send the 12 characters after obs_, as okmon key list shows them"
        ))
    };
    let key_id = id.parse::<KeyId>().map_err(|_| unknown())?;
    let now = OffsetDateTime::now_utc();
    let key = deps.store.key_revoke(key_id, now, &caller.actor()).await?;
    let key = key.ok_or_else(unknown)?;
    tracing::info!(tenant = %key.tenant, %key_id, actor = caller.actor().as_str(), "key revoked");
    Ok(Json(KeyObject::new(&key, now)))
}
