//! What a request's headers tell: the tenant, and everything a test may want to see of them later.

use axum::http::header::{AsHeaderName, CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use model::{InvalidTenantId, Signal, TenantId};
use serde::Serialize;
use serde_json::value::to_raw_value;
use time::OffsetDateTime;

use super::store::{Protocol, Received, Sink};

/// The header that names the tenant to Mimir, Loki and Tempo.
const TENANT_HEADER: &str = "x-scope-orgid";

/// Why a request belongs to no tenant.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoTenant {
    /// The header is missing; over gRPC also if it came more than once.
    #[error("no org id")]
    Missing,
    /// The header's value is no tenant id.
    #[error("X-Scope-OrgID: {0}")]
    Invalid(#[from] InvalidTenantId),
}

/// The head of a request that names a tenant.
pub(super) struct Head {
    tenant: TenantId,
    tenant_header: Vec<String>,
    path: String,
    protocol: Protocol,
    headers: HeaderMap,
}

impl Head {
    /// Reads the tenant as dskit does: HTTP takes the first value, gRPC wants exactly one.
    pub(super) fn read(
        protocol: Protocol,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Self, NoTenant> {
        let tenant_header: Vec<_> = headers.get_all(TENANT_HEADER).iter().map(text).collect();
        let tenant = match (protocol, &*tenant_header) {
            (Protocol::OtlpGrpc, [only]) => only,
            (Protocol::OtlpGrpc, _) | (_, []) => return Err(NoTenant::Missing),
            (_, [first, ..]) => first,
        };
        Ok(Self {
            tenant: TenantId::parse(tenant)?,
            tenant_header,
            path: path.to_owned(),
            protocol,
            headers: headers.clone(),
        })
    }

    /// `Content-Type`, as sent.
    pub(super) fn content_type(&self) -> Option<String> {
        self.header(CONTENT_TYPE)
    }

    /// `Content-Encoding`, as sent; for gRPC the encoding of its messages.
    pub(super) fn content_encoding(&self) -> Option<String> {
        match self.protocol {
            Protocol::OtlpGrpc => self.header("grpc-encoding"),
            _ => self.header(CONTENT_ENCODING),
        }
    }

    /// The first value of a header.
    fn header(&self, name: impl AsHeaderName) -> Option<String> {
        self.headers.get(name).map(text)
    }

    /// Keeps the request in `sink`, with `body` as what it said.
    pub(super) fn keep(
        self,
        sink: &Sink,
        signal: Signal,
        item_count: usize,
        body: &impl Serialize,
    ) -> Result<(), serde_json::Error> {
        let received = Received {
            received_at: OffsetDateTime::now_utc(),
            protocol: self.protocol,
            content_type: self.content_type(),
            content_encoding: self.content_encoding(),
            headers: self
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect(),
            tenant: self.tenant.to_string(),
            tenant_header: self.tenant_header,
            path: self.path,
            item_count,
            body: to_raw_value(body)?,
        };
        sink.keep(self.tenant, signal, received);
        Ok(())
    }
}

/// A header value for people: what is not UTF-8 becomes a replacement character.
fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}
