//! `[spans]`: whether requests are told of as spans, which, and to whom.

use std::path::PathBuf;

use ops::config::Section;

use crate::upstream_url::UpstreamUrl;

/// Where spans go.
#[derive(Debug, Clone)]
pub(crate) struct SpanSettings {
    /// A URL without a path.
    pub(crate) endpoint: String,
    /// One request in so many has a span; none when 0.
    pub(crate) one_in: u32,
    pub(crate) headers_file: Option<PathBuf>,
}

/// `None` where no spans are made.
pub(super) fn spans(section: &Section<'_>) -> Option<SpanSettings> {
    let endpoint = section.optional::<String>("endpoint");
    let one_in = section.or("one_in", 100);
    let headers_file = section.optional::<String>("headers_file");
    if let Some(endpoint) = &endpoint {
        match UpstreamUrl::parse(endpoint) {
            Ok(url) if url.base.is_empty() => {}
            Ok(_) => section.problem("endpoint", "has a path: OTLP/gRPC has its own, remove it"),
            Err(error) => section.problem("endpoint", error.to_string()),
        }
    } else if headers_file.is_some() {
        section.problem("headers_file", "is for no one: write spans.endpoint");
    }
    section.finish();
    Some(SpanSettings {
        endpoint: endpoint?,
        one_in,
        headers_file: headers_file.map(PathBuf::from),
    })
}
