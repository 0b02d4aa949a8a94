//! From a request to typed input, or to a problem that names what is wrong with it.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
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
        let object = Json::<Map<String, Value>>::from_request(request, state).await;
        object
            .map(|Json(object)| Self(Fields::new(object)))
            .map_err(|rejection| body_problem(&rejection))
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
        let raw: RawPage = query(parts, state).await?;
        let limit = match raw.limit {
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
        Ok(Self {
            after: raw.after,
            limit,
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
