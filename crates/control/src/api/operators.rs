//! `/operators` and `/audit`: who may use the API, and who did what.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use model::{KeyId, TenantId};
use store::AuditFilter;
use time::OffsetDateTime;

use crate::api::input::{AuditPage, Id, Page};
use crate::api::objects::{AuditObject, OperatorObject, page};
use crate::api::problem::Problem;
use crate::api::router::{Caller, Deps};
use crate::operator::is_operator_id;

pub(crate) async fn list(State(deps): State<Deps>, asked: Page) -> Result<Response, Problem> {
    if asked.after.as_deref().is_some_and(|id| !is_operator_id(id)) {
        return Err(Problem::invalid_field(
            "after",
            "is not the id of an operator",
        ));
    }
    let after = asked.after.as_deref();
    let operators = deps.store.operator_list(after, asked.limit).await?;
    let last = operators.last().map(|operator| operator.id.clone());
    let now = OffsetDateTime::now_utc();
    let objects = operators.into_iter();
    let objects: Vec<_> = objects.map(|o| OperatorObject::new(o, now)).collect();
    let last = last.as_deref();
    Ok(page(&objects, asked.limit, last, "/api/v1/operators", &[]))
}

pub(crate) async fn revoke(
    State(deps): State<Deps>,
    caller: Caller,
    Id(id): Id,
) -> Result<Json<OperatorObject>, Problem> {
    let unknown = || {
        Problem::not_found("there is no such operator: okmon operator list shows those there are")
    };
    if !is_operator_id(&id) {
        return Err(unknown());
    }
    let now = OffsetDateTime::now_utc();
    let actor = caller.actor();
    let operator = deps.store.operator_revoke(&id, now, &actor).await?;
    let operator = operator.ok_or_else(unknown)?;
    tracing::info!(
        operator = operator.id,
        actor = actor.as_str(),
        "operator revoked"
    );
    Ok(Json(OperatorObject::new(operator, now)))
}

pub(crate) async fn audit(State(deps): State<Deps>, asked: AuditPage) -> Result<Response, Problem> {
    let tenant = asked.tenant.map(|id| TenantId::parse(&id)).transpose();
    let tenant = tenant.map_err(|error| Problem::invalid_field("tenant", error.to_string()))?;
    let key_id = asked.key_id.map(|id| id.parse::<KeyId>()).transpose();
    let key_id = key_id.map_err(|error| Problem::invalid_field("key_id", error.to_string()))?;
    let before = asked.page.after.map(|seq| seq.parse::<i64>()).transpose();
    let before =
        before.map_err(|_| Problem::invalid_field("after", "is not the seq of an entry"))?;
    let filter = AuditFilter { tenant, key_id };
    let filters = [
        ("tenant", filter.tenant.as_ref().map(TenantId::as_str)),
        ("key_id", filter.key_id.as_ref().map(KeyId::as_str)),
    ];
    let limit = asked.page.limit;
    let entries = deps.store.audit_list(&filter, before, limit).await?;
    let last = entries.last().map(|entry| entry.seq.to_string());
    let objects: Vec<_> = entries.into_iter().map(AuditObject::new).collect();
    let last = last.as_deref();
    Ok(page(&objects, limit, last, "/api/v1/audit", &filters))
}
