//! What a tenant id may look like. Decides validity only; whether a tenant exists is the store's business.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The id of a tenant, in the form that Mimir, Loki and Tempo accept as one single tenant.
///
/// 1-150 characters out of `A-Z a-z 0-9 ! - _ . * ' ( )`; not `.`, `..`, `__markers__` or `user-index.json.gz`, which the
/// backends use as directory and object names (dskit `tenant/tenant.go`; CVE-2021-36156, CVE-2021-36157). `|` and `:` have
/// a meaning in the tenant header (several tenants, metadata), so they never pass.
///
/// Cheap to clone: every request holds one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

/// Why a text is not a tenant id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTenantId {
    /// Empty or longer than [`TenantId::MAX_LEN`].
    #[error("a tenant id has 1 to 150 characters, this one has {0}")]
    Length(usize),
    /// A character outside the allowed set.
    #[error("a tenant id may not contain {0:?}: use letters, digits and !-_.*'()")]
    Character(char),
    /// One of the names that the backends keep for themselves.
    #[error("{0:?} is reserved by the backends and cannot be a tenant id")]
    Reserved(String),
    /// Valid for the backends, but outside the subset we create.
    #[error(
        "{0:?} is not of the form [a-z0-9][a-z0-9-]{{0,62}}: use lower-case letters, digits and '-', or pass --allow-any-id"
    )]
    NotPlain(String),
}

impl TenantId {
    /// The longest tenant id the backends accept, in bytes.
    pub const MAX_LEN: usize = 150;

    /// Checks `text` against the backends' rules.
    pub fn parse(text: &str) -> Result<Self, InvalidTenantId> {
        if text.is_empty() || text.len() > Self::MAX_LEN {
            return Err(InvalidTenantId::Length(text.chars().count()));
        }
        if let Some(bad) = text.chars().find(|c| !is_allowed(*c)) {
            return Err(InvalidTenantId::Character(bad));
        }
        if matches!(text, "." | ".." | "__markers__" | "user-index.json.gz") {
            return Err(InvalidTenantId::Reserved(text.to_owned()));
        }
        Ok(Self(Arc::from(text)))
    }

    /// Checks `text` against the narrower form we create by default: `[a-z0-9][a-z0-9-]{0,62}`.
    pub fn parse_plain(text: &str) -> Result<Self, InvalidTenantId> {
        let id = Self::parse(text)?;
        let plain = text.len() <= 63
            && !text.starts_with('-')
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if plain {
            Ok(id)
        } else {
            Err(InvalidTenantId::NotPlain(text.to_owned()))
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '!' | '-' | '_' | '.' | '*' | '\'' | '(' | ')')
}

impl FromStr for TenantId {
    type Err = InvalidTenantId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_the_backends_accept_are_accepted() {
        for id in ["a", "team-1", "A!-_.*'()z", "...", &"x".repeat(150)] {
            assert!(TenantId::parse(id).is_ok(), "{id}");
        }
    }

    #[test]
    fn ids_that_name_paths_or_several_tenants_are_refused() {
        for id in [
            "",
            ".",
            "..",
            "__markers__",
            "user-index.json.gz",
            "a|b",
            "a:b",
            "a/b",
            "a b",
            "ä",
            "a\0",
            &"x".repeat(151),
        ] {
            assert!(TenantId::parse(id).is_err(), "{id}");
        }
    }

    #[test]
    fn plain_ids_are_the_subset_we_create() {
        for id in ["a", "0", "team-1", &"x".repeat(63)] {
            assert!(TenantId::parse_plain(id).is_ok(), "{id}");
        }
        for id in ["-a", "Team", "a.b", "a_b", &"x".repeat(64)] {
            assert!(
                matches!(TenantId::parse_plain(id), Err(InvalidTenantId::NotPlain(_))),
                "{id}"
            );
        }
    }
}
