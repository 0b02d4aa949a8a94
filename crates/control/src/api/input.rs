//! From a request to typed input, or to a problem that names what is wrong with it.

use std::fmt;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::api::problem::Problem;
use crate::rules::fields::Fields;

/// Objects in one page of a list, unless the client asks for another number.
const PAGE_DEFAULT: u32 = 100;
const PAGE_MAX: u32 = 1000;

/// The JSON object in the body.
pub(crate) struct Body(pub(crate) Fields);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let object = Json::<OnceEach>::from_request(request, state).await;
        object
            .map(|Json(OnceEach(object))| Self(Fields::new(object)))
            .map_err(|rejection| body_problem(&rejection))
    }
}

/// A JSON object in which no name comes twice, nor in the objects in it: of two values one would be ignored silently.
struct OnceEach(Map<String, Value>);

impl<'de> Deserialize<'de> for OnceEach {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OnceEachVisitor)
    }
}

struct OnceEachVisitor;

impl<'de> Visitor<'de> for OnceEachVisitor {
    type Value = OnceEach;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<OnceEach, A::Error> {
        let mut object = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            let Inner(value) = fields.next_value()?;
            if object.contains_key(&name) {
                return Err(A::Error::custom(format_args!(
                    "the field {name:?} comes twice"
                )));
            }
            object.insert(name, value);
        }
        Ok(OnceEach(object))
    }
}

/// A value in such an object; an object in an array is none that this API takes.
struct Inner(Value);

impl<'de> Deserialize<'de> for Inner {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let value = if raw.get().starts_with('{') {
            serde_json::from_str(raw.get()).map(|OnceEach(object)| Value::Object(object))
        } else {
            serde_json::from_str(raw.get())
        };
        value.map(Self).map_err(D::Error::custom)
    }
}

fn body_problem(rejection: &JsonRejection) -> Problem {
    match rejection.status() {
        status @ StatusCode::UNSUPPORTED_MEDIA_TYPE => Problem::new(
            status,
            "media_type",
            "the body must be JSON: send the header Content-Type: application/json",
        ),
        status @ StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
            status,
            "too_large",
            format!(
                "the body has more than {} bytes",
                super::router::BODY_BYTES_MAX
            ),
        ),
        _ => Problem::new(
            StatusCode::BAD_REQUEST,
            "bad_json",
            format!("the body is not a JSON object: {}", rejection.body_text()),
        ),
    }
}

/// The one parameter in the path, as text.
pub(crate) struct Id(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id: Result<Path<String>, PathRejection> = Path::from_request_parts(parts, state).await;
        id.map(|Path(id)| Self(id))
            .map_err(|rejection| Problem::not_found(rejection.body_text()))
    }
}

/// Which part of a list is asked for: `?after=ID&limit=N`.
pub(crate) struct Page {
    /// The last id of the page before.
    pub(crate) after: Option<String>,
    /// 1 to [`PAGE_MAX`].
    pub(crate) limit: u32,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPage {
    after: Option<String>,
    limit: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Page {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let RawPage { after, limit } = query(parts, state).await?;
        Self::new(after, limit.as_deref())
    }
}

impl Page {
    fn new(after: Option<String>, limit: Option<&str>) -> Result<Self, Problem> {
        let limit = match limit {
            None => PAGE_DEFAULT,
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=PAGE_MAX).contains(limit))
                .ok_or_else(|| {
                    Problem::invalid_field(
                        "limit",
                        format!("must be a number from 1 to {PAGE_MAX}"),
                    )
                })?,
        };
        Ok(Self { after, limit })
    }
}

/// Which part of the audit log is asked for: `?tenant=ID&key_id=ID&after=SEQ&limit=N`.
pub(crate) struct AuditPage {
    pub(crate) tenant: Option<String>,
    pub(crate) key_id: Option<String>,
    pub(crate) page: Page,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAuditPage {
    tenant: Option<String>,
    key_id: Option<String>,
    after: Option<String>,
    limit: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for AuditPage {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let raw: RawAuditPage = query(parts, state).await?;
        Ok(Self {
            tenant: raw.tenant,
            key_id: raw.key_id,
            page: Page::new(raw.after, raw.limit.as_deref())?,
        })
    }
}

async fn query<T: DeserializeOwned, S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
) -> Result<T, Problem> {
    let query: Result<Query<T>, QueryRejection> = Query::from_request_parts(parts, state).await;
    query.map(|Query(query)| query).map_err(|rejection| {
        Problem::new(StatusCode::BAD_REQUEST, "bad_query", rejection.body_text())
    })
}
