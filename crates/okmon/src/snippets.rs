//! Settings for senders, ready to paste: `okmon dev` prints them and a customer's onboarding sheet has them. README.md
//! shows the same, and its blocks are run by tests; the test below keeps the two equal.

/// One sender's view of us.
pub(crate) struct Sender<'a> {
    /// Where OTLP over HTTP goes, without a path.
    pub(crate) otlp: &'a str,
    /// Where everything else goes, without a path.
    pub(crate) api: &'a str,
    /// The key, or what stands in for it.
    pub(crate) key: &'a str,
}

impl Sender<'_> {
    /// The environment of an OpenTelemetry SDK.
    pub(crate) fn otlp_sdk(&self) -> String {
        let Self { otlp, key, .. } = self;
        format!(
            "export OTEL_EXPORTER_OTLP_ENDPOINT={otlp}
export OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf
export OTEL_EXPORTER_OTLP_HEADERS=\"authorization=Bearer%20{key}\"
"
        )
    }

    /// For `prometheus.yml`.
    pub(crate) fn prometheus(&self) -> String {
        let Self { api, key, .. } = self;
        format!(
            "remote_write:
  - url: {api}/api/v1/push
    authorization:
      credentials: {key}
"
        )
    }

    /// For `config.alloy`.
    pub(crate) fn alloy(&self) -> String {
        let Self { api, key, .. } = self;
        format!(
            "loki.write \"okmon\" {{
  endpoint {{
    url          = \"{api}/loki/api/v1/push\"
    bearer_token = \"{key}\"
  }}
}}
"
        )
    }

    /// For Promtail's configuration file.
    pub(crate) fn promtail(&self) -> String {
        let Self { api, key, .. } = self;
        format!(
            "clients:
  - url: {api}/loki/api/v1/push
    bearer_token: {key}
"
        )
    }

    /// A log line by hand.
    pub(crate) fn curl(&self) -> String {
        let Self { otlp, key, .. } = self;
        format!(
            "curl --fail-with-body -i {otlp}/v1/logs \\
  -H \"Authorization: Bearer {key}\" -H 'Content-Type: application/json' \\
  -d '{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{{\"body\":{{\"stringValue\":\"hello\"}}}}]}}]}}]}}'
"
        )
    }
}

/// `text` with every line moved in by two.
pub(crate) fn indented(text: &str) -> String {
    let lines = text.split_inclusive('\n');
    lines.flat_map(|line| ["  ", line]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_what_the_readme_shows_and_runs() {
        let readme = include_str!("../../../README.md");
        let with = |key| Sender {
            otlp: "http://127.0.0.1:4318",
            api: "http://127.0.0.1:8080",
            key,
        };
        let (variable, literal) = (with("$OKMON_KEY"), with("obs_..."));
        for settings in [
            variable.otlp_sdk(),
            variable.curl(),
            literal.prometheus(),
            literal.alloy(),
            literal.promtail(),
        ] {
            assert!(readme.contains(&settings), "README.md lacks\n{settings}");
        }
    }

    #[test]
    fn what_is_moved_in_ends_as_it_did() {
        assert_eq!(indented("a\n  b\n"), "  a\n    b\n");
    }
}
