//! The page that an operator hands to a new customer: who they are, where to send, settings to paste. Decides what is in
//! it, and that no file is ever overwritten by one.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::Value;
use tempfile::{Builder, NamedTempFile};

use super::output::cell;
use crate::snippets::Sender;

/// Stands where the key goes when it is not in the page.
const PLACEHOLDER: &str = "YOUR_KEY";

/// A page that can be written: its folder takes files and its name is free.
pub(super) struct Sheet {
    /// Beside its place, so that taking it is one step; nobody else may read it.
    file: NamedTempFile,
    path: PathBuf,
}

impl Sheet {
    /// Finds out that a page can be written to `path`.
    pub(super) fn reserve(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let (Some(folder), Some(_)) = (path.parent(), path.file_name()) else {
            bail!("--sheet {shown} is not the name of a file");
        };
        if path.symlink_metadata().is_ok() {
            bail!("--sheet {shown} is there already: name another file, or remove it");
        }
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        // NamedTempFile makes it with mode 0600.
        let file = Builder::new()
            .prefix(".okmon-sheet-")
            .tempfile_in(folder)
            .with_context(|| format!("cannot write --sheet {shown}"))?;
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// Puts the page in its place, whole or not at all. Gives its path.
    pub(super) fn write(mut self, text: &str) -> anyhow::Result<PathBuf> {
        let shown = self.path.display();
        let failed = || format!("cannot write --sheet {shown}");
        self.file.write_all(text.as_bytes()).with_context(failed)?;
        self.file.as_file().sync_all().with_context(failed)?;
        let placed = self.file.persist_noclobber(&self.path);
        placed.map_err(|error| error.error).with_context(failed)?;
        Ok(self.path)
    }
}

/// The page for `tenant`, an answer of the API that has its first key, whose senders reach the edge at `ingest`.
pub(super) fn text(tenant: &Value, ingest: &str, with_key: bool) -> String {
    let secret = tenant.pointer("/key/key").and_then(Value::as_str);
    let secret = secret.filter(|_| with_key);
    let [name, email] = ["name", "email"].map(|field| cell(tenant, field));
    let (name, email) = (escaped(&name), code(&email));
    let [id, created, key_id] = ["id", "created_at", "key.key_id"].map(|field| cell(tenant, field));
    let about_key = if secret.is_some() {
        "**The API key is in this file: keep the file secret.** Who has the key can send as you. Ask for a new one when it \
         got into wrong hands."
            .to_owned()
    } else {
        format!(
            "The API key is not in this file, you get it separately. Put it where the settings say `{PLACEHOLDER}`, and keep \
             it secret: who has the key can send as you."
        )
    };
    let sender = Sender {
        otlp: ingest,
        api: ingest,
        key: secret.unwrap_or(PLACEHOLDER),
    };
    let head = format!(
        "# Sending telemetry: {name}

| | |
| --- | --- |
| Customer | {name} |
| Contact | {email} |
| Tenant id | `{id}` |
| Key id | `{key_id}` |
| Made | {created} |

{about_key}

## Endpoints

| Protocol | Endpoint |
| --- | --- |
| OTLP over HTTP | `{ingest}` (paths `/v1/traces`, `/v1/metrics`, `/v1/logs`) |
| OTLP over gRPC | `{grpc}` |
| Prometheus remote write | `{ingest}/api/v1/push` |
| Loki push | `{ingest}/loki/api/v1/push` |

The key goes as `Authorization: Bearer KEY`, as the password of Basic authentication, or as `X-API-Key: KEY`. It says who
you are: no tenant header is needed.
",
        grpc = with_port(ingest),
    );
    head + &settings(&sender)
}

/// A section for each kind of sender.
fn settings(sender: &Sender<'_>) -> String {
    let sections = [
        (
            "OpenTelemetry SDK or Collector",
            format!(
                "For gRPC set the protocol to `grpc` and the endpoint to `{}`.\n\n",
                with_port(sender.otlp)
            ),
            "sh",
            sender.otlp_sdk(),
        ),
        (
            "Prometheus (`prometheus.yml`)",
            String::new(),
            "yaml",
            sender.prometheus(),
        ),
        (
            "Alloy (`config.alloy`)",
            String::new(),
            "text",
            sender.alloy(),
        ),
        ("Promtail", String::new(), "yaml", sender.promtail()),
        (
            "A first log line by curl",
            "An answer of 200 or 204 says that it was taken, 401 that the key is wrong.\n\n"
                .to_owned(),
            "sh",
            sender.curl(),
        ),
    ];
    let sections = sections.map(|(title, remark, language, settings)| {
        format!("\n## {title}\n\n{remark}```{language}\n{settings}```\n")
    });
    sections.concat()
}

/// An origin with its port written out, as gRPC clients want it.
fn with_port(origin: &str) -> String {
    let (scheme, authority) = origin.split_once("://").unwrap_or(("https", origin));
    // What follows the bracket of an IPv6 address, or all of a name.
    let after_host = authority
        .rsplit_once(']')
        .map_or(authority, |(_, rest)| rest);
    match scheme {
        _ if after_host.contains(':') => origin.to_owned(),
        "http" => format!("{origin}:80"),
        _ => format!("{origin}:443"),
    }
}

/// `text` so that Markdown shows it and does nothing else with it.
fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut escaped, c| {
        if "\\`*_[]<>#|~&!".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
        escaped
    })
}

/// `text` as code in a table, whatever is in it.
fn code(text: &str) -> String {
    if text.contains('`') {
        escaped(text)
    } else {
        format!("`{}`", text.replace('|', "\\|"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_names() {
        assert_eq!(escaped("Acme Inc."), "Acme Inc.");
        assert_eq!(escaped("<b>[x](y)|"), "\\<b\\>\\[x\\](y)\\|");
        assert_eq!(code("ops@acme.example"), "`ops@acme.example`");
        assert_eq!(code("a`b@acme.example"), "a\\`b@acme.example");
    }

    #[test]
    fn a_grpc_endpoint_has_its_port() {
        for (origin, endpoint) in [
            ("https://otlp.example.com", "https://otlp.example.com:443"),
            ("http://[::1]", "http://[::1]:80"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("https://a:8443", "https://a:8443"),
        ] {
            assert_eq!(with_port(origin), endpoint);
        }
    }
}
