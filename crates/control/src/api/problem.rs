//! Errors as the client sees them: problem details (RFC 9457) with a stable `code`, a text that says what to do, and for
//! bad input every field that is wrong. What went wrong inside goes to the log, not to the client.

use std::error::Error;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use store::StoreError;

use crate::api::objects::TenantObject;
use crate::rules::fields::FieldProblem;

/// How long a client should wait for the database, in seconds.
const RETRY_AFTER_SECONDS: &str = "5";

/// An error as it leaves.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    // Nothing is written about any type yet, which is what RFC 9457 calls about:blank.
    r#type: &'static str,
    title: &'static str,
    status: u16,
    code: &'static str,
    detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldProblem>,
    /// What is in the way of a thing that was to be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    existing: Option<Box<TenantObject>>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            code,
            detail: detail.into(),
            errors: Vec::new(),
            existing: None,
        }
    }

    /// Shows what is in the way.
    pub(crate) fn with_existing(self, existing: Option<TenantObject>) -> Self {
        let existing = existing.map(Box::new);
        Self { existing, ..self }
    }

    pub(crate) fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    pub(crate) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "scope", detail)
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    pub(crate) fn invalid(errors: Vec<FieldProblem>) -> Self {
        let texts: Vec<_> = errors
            .iter()
            .map(|problem| format!("{}: {}", problem.field, problem.message))
            .collect();
        Self {
            errors,
            ..Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid_field",
                texts.join("; "),
            )
        }
    }

    pub(crate) fn invalid_field(field: &str, message: impl Into<String>) -> Self {
        Self::invalid(vec![FieldProblem {
            field: field.to_owned(),
            message: message.into(),
        }])
    }

    /// Logs `error` with its causes and tells the client nothing of them.
    pub(crate) fn internal(error: &(dyn Error + 'static)) -> Self {
        tracing::error!(error.chain = %chain(error), "a request to the admin API failed");
        let detail = "the request failed inside: the log of okmon control has the cause";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let text = error.to_string();
        match error {
            StoreError::TenantExists(_) => Self::new(StatusCode::CONFLICT, "tenant_exists", text),
            StoreError::KeyExists(_) | StoreError::KeyTaken { .. } => {
                Self::new(StatusCode::CONFLICT, "key_exists", text)
            }
            StoreError::RotateWhich { .. } => Self::new(StatusCode::CONFLICT, "rotate_which", text),
            StoreError::TenantInactive(_) => {
                Self::new(StatusCode::CONFLICT, "tenant_inactive", text)
            }
            StoreError::NoSuchTenant(_) => Self::not_found(text),
            StoreError::Unavailable(_) => {
                tracing::warn!(error.chain = %chain(&error), "the database does not answer");
                let detail = "the database does not answer: try again in a moment";
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "database_unavailable",
                    detail,
                )
            }
            error => Self::internal(&error),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        let media_type = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, media_type);
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer realm=\"okmon\"");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let wait = HeaderValue::from_static(RETRY_AFTER_SECONDS);
            headers.insert(header::RETRY_AFTER, wait);
        }
        response
    }
}
