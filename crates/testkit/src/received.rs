//! What the sink of `okmon dev` shows of a request, and what must hold for each whoever sent it.

use serde::Deserialize;
use serde_json::Value;

/// One request that reached the sink.
#[derive(Debug, Clone, Deserialize)]
pub struct Received {
    /// `otlp_grpc`, `otlp_http`, `remote_write` or `loki`.
    pub protocol: String,
    /// Every value of `X-Scope-OrgID`.
    pub tenant_header: Vec<String>,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Content-Encoding`, or `grpc-encoding`.
    pub content_encoding: Option<String>,
    /// Spans, data points and samples, log records and lines.
    pub item_count: usize,
    /// Every header as name and value.
    pub headers: Vec<(String, String)>,
    /// The decoded message.
    pub body: Value,
}

impl Received {
    /// The promise about every request: one tenant header, the key's, and no trace of the key.
    ///
    /// # Panics
    /// When it is broken.
    #[track_caller]
    pub fn belongs_only_to(&self, tenant: &str, key: &str) {
        assert_eq!(
            self.tenant_header,
            [tenant],
            "want one tenant header, the key's: {:#?}",
            self.headers
        );
        for (name, value) in &self.headers {
            let leaks = value.contains(key)
                || ["authorization", "proxy-authorization", "x-api-key"].contains(&name.as_str());
            assert!(!leaks, "the credential went upstream in {name}");
        }
    }

    /// The value of the header `name`, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        found.next().map(|(_, value)| value.as_str())
    }
}
