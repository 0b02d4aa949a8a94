//! `/tenants`: from HTTP to the rules and the store, and back.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use model::{ApiKey, TenantId};
use store::{StoreError, TenantUpdate};
use time::OffsetDateTime;

use crate::api::input::{Body, Id, Page};
use crate::api::objects::{KeyObject, TenantObject, page};
use crate::api::problem::{Code, Problem};
use crate::api::router::{Caller, Deps};
use crate::rules::keys::KeyWish;
use crate::rules::tenants::{new_tenant, tenant_update};

pub(crate) async fn create(
    State(deps): State<Deps>,
    caller: Caller,
    Body(fields): Body,
) -> Result<(StatusCode, Json<TenantObject>), Problem> {
    let new = new_tenant(fields).map_err(Problem::invalid)?;
    let secret = ApiKey::generate().map_err(|error| Problem::internal(&error))?;
    let now = OffsetDateTime::now_utc();
    let first_key = KeyWish::first().for_secret(&secret);
    let id = new.id.clone();
    let made = deps
        .store
        .tenant_insert(new, first_key, now, &caller.actor())
        .await;
    let (tenant, key) = match made {
        Err(error @ StoreError::TenantExists(_)) => {
            let existing = deps.store.tenant_fetch(&id).await?;
            return Err(Problem::from(error).with_existing(existing.map(TenantObject::new)));
        }
        made => made?,
    };
    tracing::info!(tenant = %tenant.id, key_id = %key.key_id, actor = caller.actor().as_str(), "tenant created");
    let key = KeyObject::new(&key, now).with_secret(&secret);
    Ok((
        StatusCode::CREATED,
        Json(TenantObject::new(tenant).with_key(key)),
    ))
}

pub(crate) async fn list(State(deps): State<Deps>, asked: Page) -> Result<Response, Problem> {
    let after = asked.after.map(|id| TenantId::parse(&id)).transpose();
    let after = after.map_err(|error| Problem::invalid_field("after", error.to_string()))?;
    let tenants = deps.store.tenant_list(after.as_ref(), asked.limit).await?;
    let last = tenants.last().map(|tenant| tenant.id.clone());
    let objects: Vec<_> = tenants.into_iter().map(TenantObject::new).collect();
    let last = last.as_ref().map(TenantId::as_str);
    Ok(page(&objects, asked.limit, last, "/api/v1/tenants", &[]))
}

pub(crate) async fn show(
    State(deps): State<Deps>,
    Id(id): Id,
) -> Result<Json<TenantObject>, Problem> {
    let id = tenant_id(&id)?;
    let tenant = deps.store.tenant_fetch(&id).await?;
    let tenant = tenant.ok_or_else(|| no_tenant(id.as_str()))?;
    Ok(Json(TenantObject::new(tenant)))
}

pub(crate) async fn update(
    State(deps): State<Deps>,
    caller: Caller,
    Id(id): Id,
    Body(fields): Body,
) -> Result<Json<TenantObject>, Problem> {
    let id = tenant_id(&id)?;
    let update = tenant_update(fields).map_err(Problem::invalid)?;
    if update == TenantUpdate::default() {
        let detail = "nothing to change: send at least one of name, email, status, limits";
        return Err(Problem::new(Code::NothingToChange, detail));
    }
    let now = OffsetDateTime::now_utc();
    let actor = caller.actor();
    let tenant = deps.store.tenant_update(&id, &update, now, &actor).await?;
    tracing::info!(tenant = %tenant.id, status = %tenant.status, actor = actor.as_str(), "tenant changed");
    Ok(Json(TenantObject::new(tenant)))
}

pub(crate) async fn delete(
    State(deps): State<Deps>,
    caller: Caller,
    Id(id): Id,
) -> Result<Json<TenantObject>, Problem> {
    let id = tenant_id(&id)?;
    let now = OffsetDateTime::now_utc();
    let actor = caller.actor();
    let tenant = deps.store.tenant_delete(&id, now, &actor).await?;
    tracing::info!(tenant = %tenant.id, actor = actor.as_str(), "tenant deleted");
    Ok(Json(TenantObject::new(tenant)))
}

/// A tenant id from a path: what cannot be one names no tenant.
pub(crate) fn tenant_id(text: &str) -> Result<TenantId, Problem> {
    TenantId::parse(text).map_err(|_| no_tenant(text))
}

pub(crate) fn no_tenant(id: &str) -> Problem {
    Problem::not_found(format!(
        "there is no tenant {id:?}: okmon tenant list shows those there are"
    ))
}
