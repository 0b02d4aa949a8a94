//! From a request to typed input, or to a problem that names what is wrong with it.

use std::fmt;
use std::marker::PhantomData;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::api::problem::{Code, Problem};
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

/// A JSON object in which no name comes twice, nor in the objects that are its fields: of two values one would be ignored
/// silently. No field of this API lies deeper than that; what does is read, within `serde_json`'s bound, to be refused.
struct OnceEach(Map<String, Value>);

impl<'de> Deserialize<'de> for OnceEach {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields: Vec<(String, Box<RawValue>)> =
            deserializer.deserialize_map(Pairs(PhantomData))?;
        let fields = fields.into_iter().map(|(name, raw)| {
            let value = if raw.get().starts_with('{') {
                let inner: Result<Inner, _> = serde_json::from_str(raw.get());
                inner.and_then(|Inner(object)| Ok(Value::Object(once_each(object)?)))
            } else {
                serde_json::from_str(raw.get())
            };
            value.map(|value| (name, value))
        });
        let fields: Result<Vec<_>, _> = fields.collect();
        let object = fields.and_then(once_each).map_err(D::Error::custom)?;
        Ok(Self(object))
    }
}

/// The fields of an object in an object.
struct Inner(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Inner {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Pairs(PhantomData)).map(Self)
    }
}

/// Reads an object as its names and values, those that come twice included.
struct Pairs<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for Pairs<V> {
    type Value = Vec<(String, V)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = fields.next_entry()? {
            pairs.push(pair);
        }
        Ok(pairs)
    }
}

fn once_each(pairs: Vec<(String, Value)>) -> Result<Map<String, Value>, serde_json::Error> {
    let mut object = Map::new();
    for (name, value) in pairs {
        if object.contains_key(&name) {
            let twice = format!("the field {name:?} comes twice");
            return Err(serde_json::Error::custom(twice));
        }
        object.insert(name, value);
    }
    Ok(object)
}

fn body_problem(rejection: &JsonRejection) -> Problem {
    match rejection.status() {
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Problem::new(
            Code::MediaType,
            "the body must be JSON: send the header Content-Type: application/json",
        ),
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
            Code::TooLarge,
            format!(
                "the body has more than {} bytes",
                super::router::BODY_BYTES_MAX
            ),
        ),
        _ => Problem::new(
            Code::BadJson,
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
        let known = "a list takes limit and after, each once; the audit log tenant and key_id too";
        Problem::new(
            Code::BadQuery,
            format!("{}: {known}", rejection.body_text()),
        )
    })
}
