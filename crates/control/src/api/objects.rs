//! The objects of the API, as `--json` prints them too. Times are RFC 3339 in UTC.

use axum::Json;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use model::{ApiKey, Scope};
use serde::Serialize;
use store::{AuditEntry, Key, KeyUses, Operator, Tenant, UsedBy};
use time::OffsetDateTime;

use crate::rules;

/// A tenant; with its first key in the answer that made it.
#[derive(Debug, Serialize)]
pub(crate) struct TenantObject {
    id: String,
    name: String,
    email: String,
    status: &'static str,
    #[serde(with = "time::serde::rfc3339::option")]
    suspended_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
    limits: LimitsObject,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<KeyObject>,
}

/// A tenant's own limits; null is the edge's.
#[derive(Debug, Serialize)]
struct LimitsObject {
    body_max_bytes: Option<u64>,
}

impl TenantObject {
    pub(crate) fn new(tenant: Tenant) -> Self {
        Self {
            id: tenant.id.to_string(),
            name: tenant.name,
            email: tenant.email,
            status: tenant.status.as_str(),
            suspended_at: tenant.suspended_at,
            created_at: tenant.created_at,
            updated_at: tenant.updated_at,
            limits: LimitsObject {
                body_max_bytes: tenant.limits.body_max_bytes,
            },
            key: None,
        }
    }

    pub(crate) fn with_key(self, key: KeyObject) -> Self {
        Self {
            key: Some(key),
            ..self
        }
    }
}

/// A key; with its secret in the answer that made it, and never again.
#[derive(Serialize)]
pub(crate) struct KeyObject {
    key_id: String,
    tenant: String,
    name: String,
    scopes: Vec<&'static str>,
    status: &'static str,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    revoked_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    last_used_at: Option<OffsetDateTime>,
    replaced_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces: Option<Box<KeyObject>>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    uses: Option<UsesObject>,
}

/// Who uses a key, the last seen first.
#[derive(Debug, Serialize)]
struct UsesObject {
    user_agents: Vec<UseObject>,
    addresses: Vec<UseObject>,
}

#[derive(Debug, Serialize)]
struct UseObject {
    value: String,
    requests: i64,
    #[serde(with = "time::serde::rfc3339")]
    first_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    last_at: OffsetDateTime,
}

impl UseObject {
    fn new(used: UsedBy) -> Self {
        Self {
            value: used.value,
            requests: used.requests,
            first_at: used.first_at,
            last_at: used.last_at,
        }
    }
}

impl KeyObject {
    pub(crate) fn new(key: &Key, now: OffsetDateTime) -> Self {
        Self {
            key_id: key.key_id.to_string(),
            tenant: key.tenant.to_string(),
            name: key.name.clone(),
            scopes: key.scopes.iter().map(Scope::as_str).collect(),
            status: rules::status(key.revoked_at, key.expires_at, now),
            created_at: key.created_at,
            expires_at: key.expires_at,
            revoked_at: key.revoked_at,
            last_used_at: key.last_used_at,
            replaced_by: key.replaced_by.map(|id| id.to_string()),
            key: None,
            replaces: None,
            uses: None,
        }
    }

    /// With the key in whose place this one was made.
    pub(crate) fn with_replaced(self, old: Self) -> Self {
        Self {
            replaces: Some(Box::new(old)),
            ..self
        }
    }

    /// With who uses it.
    pub(crate) fn with_uses(self, uses: KeyUses) -> Self {
        let objects = |list: Vec<UsedBy>| list.into_iter().map(UseObject::new).collect();
        Self {
            uses: Some(UsesObject {
                user_agents: objects(uses.user_agents),
                addresses: objects(uses.addresses),
            }),
            ..self
        }
    }

    pub(crate) fn with_secret(self, secret: &ApiKey) -> Self {
        Self {
            key: Some(secret.reveal().to_owned()),
            ..self
        }
    }
}

impl std::fmt::Debug for KeyObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyObject({}…)", self.key_id)
    }
}

/// An operator; the token is shown by the command that makes it, and nowhere else.
#[derive(Debug, Serialize)]
pub(crate) struct OperatorObject {
    id: String,
    name: String,
    scopes: Vec<&'static str>,
    status: &'static str,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    revoked_at: Option<OffsetDateTime>,
}

impl OperatorObject {
    pub(crate) fn new(operator: Operator, now: OffsetDateTime) -> Self {
        Self {
            scopes: operator.scopes.names().collect(),
            status: rules::status(operator.revoked_at, operator.expires_at, now),
            id: operator.id,
            name: operator.name,
            created_at: operator.created_at,
            expires_at: operator.expires_at,
            revoked_at: operator.revoked_at,
        }
    }
}

/// An entry of the audit log.
#[derive(Debug, Serialize)]
pub(crate) struct AuditObject {
    seq: i64,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    actor: String,
    action: String,
    tenant: Option<String>,
    key_id: Option<String>,
    detail: String,
}

impl AuditObject {
    pub(crate) fn new(entry: AuditEntry) -> Self {
        Self {
            seq: entry.seq,
            at: entry.at,
            actor: entry.actor,
            action: entry.action,
            tenant: entry.tenant_id,
            key_id: entry.key_id,
            detail: entry.detail,
        }
    }
}

/// One page of a list: an array, and where there may be more, a `Link` header (RFC 8288) to the next page of `path`, which is
/// asked for with the same `filters`.
pub(crate) fn page<T: Serialize>(
    objects: &[T],
    limit: u32,
    last: Option<&str>,
    path: &str,
    filters: &[(&str, Option<&str>)],
) -> Response {
    let mut response = Json(objects).into_response();
    let full = objects.len() == limit as usize;
    let next = last.filter(|_| full).and_then(|last| {
        let given = filters
            .iter()
            .filter_map(|(name, value)| value.map(|value| format!("{name}={}&", escaped(value))));
        let given: String = given.collect();
        let last = escaped(last);
        HeaderValue::try_from(format!(
            "<{path}?{given}after={last}&limit={limit}>; rel=\"next\""
        ))
        .ok()
    });
    if let Some(next) = next {
        response.headers_mut().insert(header::LINK, next);
    }
    response
}

/// An id in a query: what tenant ids may hold and a query or a header may not is percent-encoded.
fn escaped(id: &str) -> String {
    id.chars().fold(String::new(), |mut text, c| {
        if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') {
            text.push(c);
        } else {
            text.extend([format!("%{:02X}", u32::from(c))]);
        }
        text
    })
}
