//! `[acme]`: host names for which certificates are obtained from an authority.

use std::path::PathBuf;

use ops::config::Section;

use crate::upstream_url::UpstreamUrl;

/// Let's Encrypt's.
const DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";
const FOLDER: &str = "/var/lib/okmon/acme";

/// What is obtained, from whom, and where it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AcmeSettings {
    /// In lower case; each has a certificate of its own.
    pub(crate) names: Vec<String>,
    /// The URL of the authority's directory (RFC 8555 section 7.1.1).
    pub(crate) directory: String,
    /// As `mailto:` URLs.
    pub(crate) contacts: Vec<String>,
    /// The folder of this authority.
    pub(crate) folder: PathBuf,
    /// Whom to trust for the directory itself.
    pub(crate) ca_file: Option<PathBuf>,
    /// An account elsewhere that ours shall belong to (RFC 8555 section 7.3.4).
    pub(crate) external_account: Option<ExternalAccount>,
}

/// What such an account is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExternalAccount {
    pub(crate) id: String,
    /// The file with its key, in URL-safe base64.
    pub(crate) key_file: PathBuf,
}

/// `None` where there is no such section, or it has a mistake.
pub(super) fn acme(section: &Section<'_>) -> Option<AcmeSettings> {
    let names: Vec<String> = section.or("names", Vec::new());
    let directory = section.or("directory", DIRECTORY.to_owned());
    let emails: Vec<String> = section.or("emails", Vec::new());
    let agreed = section.or("terms_agreed", false);
    let folder = PathBuf::from(section.or("folder", FOLDER.to_owned()));
    let ca_file = section.optional::<String>("ca_file").map(PathBuf::from);
    let id = section.optional::<String>("external_account_id");
    let key_file = section.optional::<String>("external_account_key_file");
    section.finish();
    if !section.exists() {
        return None;
    }
    let mut problems = Vec::new();
    if names.is_empty() {
        problems.push((
            "names",
            "no name is set: write names = [\"otlp.example.com\"]".to_owned(),
        ));
    }
    for name in &names {
        if let Err(fix) = is_host_name(name) {
            problems.push(("names", format!("{name:?} {fix}")));
        }
    }
    if !agreed {
        let fix = "must be true: read the terms of the authority, and agree to them";
        problems.push(("terms_agreed", fix.to_owned()));
    }
    for email in &emails {
        if !email.contains('@') || email.contains(':') {
            problems.push((
                "emails",
                format!("{email:?} is no address: write \"operator@example.com\""),
            ));
        }
    }
    let parsed = UpstreamUrl::parse(&directory);
    let host = match &parsed {
        // Another path may be another authority.
        Ok(url) if url.https => format!("{}{}", url.authority(), url.base).replace([':', '/'], "-"),
        _ => {
            problems.push((
                "directory",
                "must be a URL that begins with https://".to_owned(),
            ));
            String::new()
        }
    };
    let external_account = match (id, key_file) {
        (Some(id), Some(key_file)) => Some(ExternalAccount {
            id,
            key_file: key_file.into(),
        }),
        (None, None) => None,
        _ => {
            let fix = "external_account_id and external_account_key_file go together";
            problems.push(("external_account_id", fix.to_owned()));
            None
        }
    };
    let is_good = problems.is_empty();
    for (key, problem) in problems {
        section.problem(key, problem);
    }
    is_good.then(|| AcmeSettings {
        names: names.iter().map(|name| name.to_ascii_lowercase()).collect(),
        directory,
        contacts: emails
            .iter()
            .map(|email| format!("mailto:{email}"))
            .collect(),
        folder: folder.join(host),
        ca_file,
        external_account,
    })
}

/// Whether it can be proven by a connection to it, and be the name of a file.
fn is_host_name(name: &str) -> Result<(), &'static str> {
    if name.contains('*') {
        return Err("cannot be proven by a connection: name each host");
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let is_address = name.parse::<std::net::IpAddr>().is_ok();
    if is_address || name.len() > 253 || !name.split('.').all(is_label) {
        return Err("is no host name: write letters, digits, hyphens and dots");
    }
    Ok(())
}
