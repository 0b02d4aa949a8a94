//! The objects of the API, as `--json` prints them too. Times are RFC 3339 in UTC.

use axum::Json;
use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use model::{ApiKey, Scope};
use serde::Serialize;
use store::{Key, Tenant};
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
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<KeyObject>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

impl KeyObject {
    pub(crate) fn new(key: &Key, now: OffsetDateTime) -> Self {
        Self {
            key_id: key.key_id.to_string(),
            tenant: key.tenant.to_string(),
            name: key.name.clone(),
            scopes: key.scopes.iter().map(Scope::as_str).collect(),
            status: rules::keys::status(key, now),
            created_at: key.created_at,
            expires_at: key.expires_at,
            revoked_at: key.revoked_at,
            last_used_at: key.last_used_at,
            key: None,
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

/// One page of a list: an array, and where there may be more, a `Link` header (RFC 8288) to the next page.
pub(crate) fn page<T: Serialize>(
    objects: &[T],
    limit: u32,
    uri: &Uri,
    last: Option<&str>,
) -> Response {
    let mut response = Json(objects).into_response();
    let full = objects.len() == limit as usize;
    let next = last.filter(|_| full).and_then(|last| {
        let link = format!(
            "<{}?after={}&limit={limit}>; rel=\"next\"",
            uri.path(),
            escaped(last)
        );
        HeaderValue::try_from(link).ok()
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
