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
use crate::rules::without_secrets;

/// How long a client should wait for the database, in seconds.
const RETRY_AFTER_SECONDS: &str = "5";

/// What can be wrong, as programs tell it apart. A status is written nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    BadJson,
    BadQuery,
    Unauthorized,
    Scope,
    NotFound,
    Method,
    TenantExists,
    TenantInactive,
    KeyExists,
    RotateWhich,
    TooLarge,
    MediaType,
    InvalidField,
    NothingToChange,
    BadRow,
    Internal,
    DatabaseUnavailable,
}

impl Code {
    /// Every code, in the order of the documentation.
    const ALL: [Self; 17] = [
        Self::BadJson,
        Self::BadQuery,
        Self::Unauthorized,
        Self::Scope,
        Self::NotFound,
        Self::Method,
        Self::TenantExists,
        Self::TenantInactive,
        Self::KeyExists,
        Self::RotateWhich,
        Self::TooLarge,
        Self::MediaType,
        Self::InvalidField,
        Self::NothingToChange,
        Self::BadRow,
        Self::Internal,
        Self::DatabaseUnavailable,
    ];

    const fn entry(self) -> (&'static str, StatusCode) {
        match self {
            Self::BadJson => ("bad_json", StatusCode::BAD_REQUEST),
            Self::BadQuery => ("bad_query", StatusCode::BAD_REQUEST),
            Self::Unauthorized => ("unauthorized", StatusCode::UNAUTHORIZED),
            Self::Scope => ("scope", StatusCode::FORBIDDEN),
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND),
            Self::Method => ("method", StatusCode::METHOD_NOT_ALLOWED),
            Self::TenantExists => ("tenant_exists", StatusCode::CONFLICT),
            Self::TenantInactive => ("tenant_inactive", StatusCode::CONFLICT),
            Self::KeyExists => ("key_exists", StatusCode::CONFLICT),
            Self::RotateWhich => ("rotate_which", StatusCode::CONFLICT),
            Self::TooLarge => ("too_large", StatusCode::PAYLOAD_TOO_LARGE),
            Self::MediaType => ("media_type", StatusCode::UNSUPPORTED_MEDIA_TYPE),
            Self::InvalidField => ("invalid_field", StatusCode::UNPROCESSABLE_ENTITY),
            Self::NothingToChange => ("nothing_to_change", StatusCode::UNPROCESSABLE_ENTITY),
            Self::BadRow => ("bad_row", StatusCode::INTERNAL_SERVER_ERROR),
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR),
            Self::DatabaseUnavailable => ("database_unavailable", StatusCode::SERVICE_UNAVAILABLE),
        }
    }
}

/// The `code` of every problem and the status it comes with, for tests and documentation.
pub fn problem_codes() -> Vec<(&'static str, u16)> {
    let entry = |code: Code| {
        let (code, status) = code.entry();
        (code, status.as_u16())
    };
    Code::ALL.into_iter().map(entry).collect()
}

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
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        let (code, status) = code.entry();
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
        Self::new(Code::Unauthorized, detail)
    }

    pub(crate) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(Code::Scope, detail)
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(Code::NotFound, detail)
    }

    pub(crate) fn invalid(errors: Vec<FieldProblem>) -> Self {
        let texts: Vec<_> = errors
            .iter()
            .map(|problem| format!("{}: {}", problem.field, problem.message))
            .collect();
        Self {
            errors,
            ..Self::new(Code::InvalidField, texts.join("; "))
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
        Self::new(Code::Internal, detail)
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
            StoreError::TenantExists(_) => Self::new(Code::TenantExists, text),
            StoreError::KeyExists(_) | StoreError::KeyTaken { .. } => {
                Self::new(Code::KeyExists, text)
            }
            StoreError::RotateWhich { .. } => Self::new(Code::RotateWhich, text),
            StoreError::TenantInactive(_) => Self::new(Code::TenantInactive, text),
            StoreError::NoSuchTenant(_) => Self::not_found(text),
            StoreError::BadRow { .. } => {
                tracing::error!("{text}");
                Self::new(
                    Code::BadRow,
                    format!("{text}: put it right in the database"),
                )
            }
            StoreError::Unavailable(_) => {
                tracing::warn!(error.chain = %chain(&error), "the database does not answer");
                let detail = "the database does not answer: try again in a moment";
                Self::new(Code::DatabaseUnavailable, detail)
            }
            error => Self::internal(&error),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(mut self) -> Response {
        // Whoever sends a key in the wrong place shall not find it in an answer, which others may read.
        self.detail = without_secrets(&self.detail);
        for error in &mut self.errors {
            error.field = without_secrets(&error.field);
            error.message = without_secrets(&error.message);
        }
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
