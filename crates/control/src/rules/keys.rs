//! What a new key must look like, and what a rotation may ask for.

use std::time::Duration;

use model::{ApiKey, KeyDigest, KeyId, MalformedKeyId, Scope, ScopeSet, UnknownScope};
use store::{Key, NewKey};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::fields::{FieldProblem, Fields};
use super::name_problem;

/// What a tenant's first key is called.
const FIRST_NAME: &str = "default";
/// The longest life that can be asked for: what lies beyond is a key without an end.
const LIFE_MAX: Duration = Duration::from_hours(100 * 365 * 24);

/// The longest time that an old key may go on beside the new one.
const GRACE_MAX: Duration = Duration::from_hours(365 * 24);
const GRACE_DEFAULT: Duration = Duration::from_hours(24);

/// A new key as its tenant asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyWish {
    name: String,
    scopes: ScopeSet,
    expires_at: Option<OffsetDateTime>,
    /// What the database shall know of a key that was made elsewhere.
    pub(crate) made_elsewhere: Option<(KeyId, KeyDigest)>,
}

impl KeyWish {
    /// The key that every tenant gets when it is made.
    pub(crate) fn first() -> Self {
        Self {
            name: FIRST_NAME.to_owned(),
            scopes: ScopeSet::WRITE,
            expires_at: None,
            made_elsewhere: None,
        }
    }

    pub(crate) fn for_secret(self, secret: &ApiKey) -> NewKey {
        self.known_by(secret.id(), secret.digest())
    }

    pub(crate) fn known_by(self, key_id: KeyId, digest: KeyDigest) -> NewKey {
        NewKey {
            key_id,
            digest,
            name: self.name,
            scopes: self.scopes,
            expires_at: self.expires_at,
        }
    }
}

/// A rotation as it was asked for; what is `None` is as with the old key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RotationWish {
    /// Which key is replaced, if it is not clear by itself.
    pub(crate) old: Option<KeyId>,
    /// How long the old key goes on.
    pub(crate) grace: Duration,
    name: Option<String>,
    scopes: Option<ScopeSet>,
    expires_at: Option<OffsetDateTime>,
}

impl RotationWish {
    /// The key in the place of `old`. One that was made for a time is followed by one for as long a time.
    pub(crate) fn in_place_of(self, old: &Key, secret: &ApiKey, now: OffsetDateTime) -> NewKey {
        // Rows that were changed by hand may hold any two times.
        let life = old.expires_at.map(|end| end - old.created_at.min(now));
        let life = life.map(|life| life.min(LIFE_MAX.try_into().unwrap_or(life)));
        NewKey {
            key_id: secret.id(),
            digest: secret.digest(),
            name: self.name.unwrap_or_else(|| old.name.clone()),
            scopes: self.scopes.unwrap_or(old.scopes),
            expires_at: self.expires_at.or(life.map(|life| now + life)),
        }
    }
}

/// Reads `name`, `scopes`, `expires_at` (RFC 3339) and `expires_in_seconds`, which all may be absent; and `key_id` and
/// `sha256` of a key that was made elsewhere.
pub(crate) fn key_wish(
    mut fields: Fields,
    now: OffsetDateTime,
) -> Result<KeyWish, Vec<FieldProblem>> {
    let name = name(&mut fields).unwrap_or_default();
    let scopes = scopes(&mut fields).unwrap_or(ScopeSet::WRITE);
    let expires_at = expires_at(&mut fields, now);
    let made_elsewhere = made_elsewhere(&mut fields);
    let problems = fields.finish();
    if problems.is_empty() {
        Ok(KeyWish {
            name,
            scopes,
            expires_at,
            made_elsewhere,
        })
    } else {
        Err(problems)
    }
}

/// Reads `key_id`, `grace_seconds`, `name`, `scopes`, `expires_at` and `expires_in_seconds`, which all may be absent.
pub(crate) fn rotation_wish(
    mut fields: Fields,
    now: OffsetDateTime,
) -> Result<RotationWish, Vec<FieldProblem>> {
    let old = key_id(&mut fields);
    let grace = fields.number_or_none("grace_seconds");
    let grace = grace.map_or(GRACE_DEFAULT, Duration::from_secs);
    if grace > GRACE_MAX {
        fields.problem("grace_seconds", "must be a year at most: 31536000");
    }
    let name = name(&mut fields);
    let scopes = scopes(&mut fields);
    let expires_at = expires_at(&mut fields, now);
    let problems = fields.finish();
    if problems.is_empty() {
        Ok(RotationWish {
            old,
            grace,
            name,
            scopes,
            expires_at,
        })
    } else {
        Err(problems)
    }
}

fn name(fields: &mut Fields) -> Option<String> {
    let name = fields.text_or_none("name")?;
    if let Some(problem) = name_problem(&name) {
        fields.problem("name", problem);
    }
    Some(name)
}

fn key_id(fields: &mut Fields) -> Option<KeyId> {
    let text = fields.text_or_none("key_id")?;
    text.parse()
        .map_err(|error: MalformedKeyId| fields.problem("key_id", error.to_string()))
        .ok()
}

fn made_elsewhere(fields: &mut Fields) -> Option<(KeyId, KeyDigest)> {
    let (key_id, sha256) = (key_id(fields), fields.text_or_none("sha256"));
    let digest = sha256.as_deref().and_then(|text| {
        let digest = digest_of_hex(text);
        if digest.is_none() {
            let fix = "must be the SHA-256 of the whole key in 64 hexadecimal digits";
            fields.problem("sha256", fix);
        }
        digest
    });
    if key_id.is_some() && sha256.is_none() && !fields.has_problem("sha256") {
        fields.problem(
            "sha256",
            "is missing: a key made elsewhere has key_id and sha256",
        );
    }
    if key_id.is_none() && sha256.is_some() && !fields.has_problem("key_id") {
        fields.problem(
            "key_id",
            "is missing: a key made elsewhere has key_id and sha256",
        );
    }
    key_id.zip(digest)
}

fn digest_of_hex(text: &str) -> Option<KeyDigest> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let bytes = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
        _ => None,
    });
    KeyDigest::from_slice(&bytes.collect::<Option<Vec<_>>>()?)
}

fn scopes(fields: &mut Fields) -> Option<ScopeSet> {
    let names = fields.texts_or_none("scopes")?;
    if names.is_empty() {
        fields.problem(
            "scopes",
            "is empty: name at least one scope, or leave it out for all write scopes",
        );
    }
    let scopes: Result<ScopeSet, UnknownScope> =
        names.iter().map(|name| name.parse::<Scope>()).collect();
    scopes
        .map_err(|error| fields.problem("scopes", error.to_string()))
        .ok()
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
    fn a_new_key_lives_as_long_as_the_old_one_was_to_whatever_the_row_says() {
        let secret = ApiKey::generate().unwrap();
        let hour = time::Duration::HOUR;
        let century = time::Duration::days(36_500);
        for (created_at, end, life) in [
            (NOW - hour, NOW + hour, hour * 2),
            // By hand.
            (NOW + hour, NOW + hour * 3, hour * 3),
            (NOW + hour * 3, NOW + hour, hour),
            (datetime!(0001-01-01 0:00 UTC), NOW + hour, century),
            (NOW, datetime!(9999-12-29 0:00 UTC), century),
        ] {
            let old = Key {
                key_id: secret.id(),
                tenant: "acme".parse().unwrap(),
                name: String::new(),
                scopes: ScopeSet::WRITE,
                created_at,
                expires_at: Some(end),
                revoked_at: None,
                last_used_at: None,
                replaced_by: None,
            };
            let wish = rotation_wish(Fields::new(serde_json::Map::new()), NOW).unwrap();
            let new = wish.in_place_of(&old, &secret, NOW);
            assert_eq!(new.expires_at, Some(NOW + life), "{old:?}");
        }
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
