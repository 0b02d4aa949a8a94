//! What a new key must look like, and what to call the state of one.

use std::time::Duration;

use model::{ApiKey, Scope, ScopeSet, UnknownScope};
use store::{Key, NewKey};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::fields::{FieldProblem, Fields};
use super::name_problem;

/// What a tenant's first key is called.
const FIRST_NAME: &str = "default";
/// The longest life that can be asked for: what lies beyond is a key without an end.
const LIFE_MAX: Duration = Duration::from_hours(100 * 365 * 24);

/// A new key as its tenant asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyWish {
    name: String,
    scopes: ScopeSet,
    expires_at: Option<OffsetDateTime>,
}

impl KeyWish {
    /// The key that every tenant gets when it is made.
    pub(crate) fn first() -> Self {
        Self {
            name: FIRST_NAME.to_owned(),
            scopes: ScopeSet::WRITE,
            expires_at: None,
        }
    }

    pub(crate) fn for_secret(self, secret: &ApiKey) -> NewKey {
        NewKey {
            key_id: secret.id(),
            digest: secret.digest(),
            name: self.name,
            scopes: self.scopes,
            expires_at: self.expires_at,
        }
    }
}

/// Reads `name`, `scopes`, `expires_at` (RFC 3339) and `expires_in_seconds`; all may be absent.
pub(crate) fn key_wish(
    mut fields: Fields,
    now: OffsetDateTime,
) -> Result<KeyWish, Vec<FieldProblem>> {
    let name = fields.text_or_none("name").unwrap_or_default();
    if let Some(problem) = name_problem(&name) {
        fields.problem("name", problem);
    }
    let scopes = scopes(&mut fields);
    let expires_at = expires_at(&mut fields, now);
    let problems = fields.finish();
    if problems.is_empty() {
        Ok(KeyWish {
            name,
            scopes,
            expires_at,
        })
    } else {
        Err(problems)
    }
}

fn scopes(fields: &mut Fields) -> ScopeSet {
    let Some(names) = fields.texts_or_none("scopes") else {
        return ScopeSet::WRITE;
    };
    if names.is_empty() {
        fields.problem(
            "scopes",
            "is empty: name at least one scope, or leave it out for all write scopes",
        );
    }
    let scopes: Result<ScopeSet, UnknownScope> =
        names.iter().map(|name| name.parse::<Scope>()).collect();
    scopes.unwrap_or_else(|error| {
        fields.problem("scopes", error.to_string());
        ScopeSet::EMPTY
    })
}

fn expires_at(fields: &mut Fields, now: OffsetDateTime) -> Option<OffsetDateTime> {
    let at = fields.text_or_none("expires_at");
    let seconds = fields.number_or_none("expires_in_seconds");
    match (at, seconds) {
        (Some(_), Some(_)) => {
            fields.problem(
                "expires_in_seconds",
                "may not be sent together with expires_at: send one of them",
            );
            None
        }
        (Some(text), None) => {
            let Ok(at) = OffsetDateTime::parse(&text, &Rfc3339) else {
                fields.problem(
                    "expires_at",
                    "is not a time: send one such as 2030-01-31T12:00:00Z",
                );
                return None;
            };
            if at <= now || at > now + LIFE_MAX {
                fields.problem("expires_at", "must be in the future, by 100 years at most");
            }
            Some(at)
        }
        (None, Some(seconds)) => {
            let life = Duration::from_secs(seconds);
            if life.is_zero() || life > LIFE_MAX {
                fields.problem(
                    "expires_in_seconds",
                    "must be more than 0, and 100 years at most",
                );
                return None;
            }
            Some(now + life)
        }
        (None, None) => None,
    }
}

/// What people call the state of `key` at `now`.
pub(crate) fn status(key: &Key, now: OffsetDateTime) -> &'static str {
    if key.revoked_at.is_some() {
        "revoked"
    } else if key.expires_at.is_some_and(|at| at <= now) {
        "expired"
    } else {
        "active"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);

    fn check(value: Value) -> Result<KeyWish, Vec<String>> {
        let Value::Object(object) = value else {
            panic!("an object")
        };
        key_wish(Fields::new(object), NOW)
            .map_err(|problems| problems.into_iter().map(|p| p.field).collect())
    }

    #[test]
    fn a_key_nobody_described_writes_everything_for_ever() {
        let wish = check(json!({})).unwrap();
        assert_eq!((wish.scopes, wish.expires_at), (ScopeSet::WRITE, None));
    }

    #[test]
    fn an_end_is_given_as_a_time_or_as_a_life_but_not_both() {
        let end = Some(NOW + Duration::from_mins(1));
        assert_eq!(
            check(json!({"expires_at": "2026-01-01T12:01:00Z"}))
                .unwrap()
                .expires_at,
            end
        );
        assert_eq!(
            check(json!({"expires_in_seconds": 60})).unwrap().expires_at,
            end
        );
        let both = json!({"expires_at": "2026-01-01T12:01:00Z", "expires_in_seconds": 60});
        assert_eq!(check(both).unwrap_err(), ["expires_in_seconds"]);
    }

    #[test]
    fn ends_and_scopes_that_make_no_sense_are_named() {
        for end in ["2026-01-01T12:00:00Z", "9999-12-31T23:59:59Z", "tomorrow"] {
            assert_eq!(
                check(json!({"expires_at": end})).unwrap_err(),
                ["expires_at"],
                "{end}"
            );
        }
        for end in [json!(0), json!(-1), json!(1.5), json!(u64::MAX)] {
            assert_eq!(
                check(json!({"expires_in_seconds": end})).unwrap_err(),
                ["expires_in_seconds"]
            );
        }
        for scopes in [
            json!([]),
            json!(["logs:delete"]),
            json!("logs:write"),
            json!([1]),
        ] {
            assert_eq!(check(json!({"scopes": scopes})).unwrap_err(), ["scopes"]);
        }
    }
}
