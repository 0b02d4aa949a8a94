//! Operator tokens: their form, and whether one may do what it asks. Each route says what it needs; this answers.

use std::fmt;
use std::str::FromStr;

use axum::http::{HeaderMap, header};
use model::KeyDigest;
use sha2::{Digest as _, Sha256};
use store::{Actor, NewOperator, Operator, OperatorScope, OperatorScopes, Store};
use time::OffsetDateTime;

use crate::api::problem::Problem;
use crate::rules;

const PREFIX: &str = "okop_";
const ID_LEN: usize = 12;
const SECRET_LEN: usize = 36;
const LEN: usize = PREFIX.len() + ID_LEN + SECRET_LEN;

/// An operator's token: `okop_`, 12 characters of base62 that are public, 36 that are secret (214 bits).
///
/// The text itself comes out by [`OperatorToken::reveal`] only.
#[derive(Clone)]
pub struct OperatorToken(String);

/// A text that is not an operator token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an operator token: expected okop_ and 48 letters and digits")]
pub struct MalformedToken;

impl OperatorToken {
    /// Makes a new token out of the operating system's random source.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut text = PREFIX.to_owned();
        let mut random = [0_u8; 64];
        while text.len() < LEN {
            getrandom::fill(&mut random)?;
            // Bytes that are no letter or digit are thrown away, so every character is as likely as any other.
            let usable = random.iter().map(|byte| byte & 0x7f);
            let usable = usable.filter(u8::is_ascii_alphanumeric).map(char::from);
            text.extend(usable.take(LEN - text.len()));
        }
        Ok(Self(text))
    }

    /// The public part, which names the operator in the database and the audit log.
    pub fn id(&self) -> &str {
        self.0
            .get(PREFIX.len()..PREFIX.len() + ID_LEN)
            .unwrap_or_default()
    }

    /// SHA-256 of the whole token, which is all the database has of it.
    ///
    /// # Panics
    /// Never: SHA-256 has the 32 bytes that a digest has.
    #[expect(clippy::expect_used, reason = "the lengths are constants that agree")]
    pub fn digest(&self) -> KeyDigest {
        KeyDigest::from_slice(&Sha256::digest(self.0.as_bytes())).expect("32 bytes")
    }

    /// The token as text, for the one time it is shown.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for OperatorToken {
    type Err = MalformedToken;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let body = text.strip_prefix(PREFIX).ok_or(MalformedToken)?;
        if body.len() == ID_LEN + SECRET_LEN && body.bytes().all(|b| b.is_ascii_alphanumeric()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(MalformedToken)
        }
    }
}

impl fmt::Debug for OperatorToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OperatorToken({}…)", self.id())
    }
}

/// Whether `text` can be the public part of a token.
pub(crate) fn is_operator_id(text: &str) -> bool {
    text.len() == ID_LEN && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// Makes an operator in the database whose token works until it is revoked; the token exists nowhere else.
///
/// # Errors
/// As [`operator_create_for`].
pub async fn operator_create(
    store: &Store,
    name: &str,
    scopes: OperatorScopes,
    actor: &Actor,
) -> anyhow::Result<(Operator, OperatorToken)> {
    operator_create_for(store, name, scopes, None, actor).await
}

/// As [`operator_create`], with a token that stops working by itself after `life`.
///
/// # Errors
/// When the name is none for people to read, the database refuses, or the operating system has no randomness.
pub async fn operator_create_for(
    store: &Store,
    name: &str,
    scopes: OperatorScopes,
    life: Option<time::Duration>,
    actor: &Actor,
) -> anyhow::Result<(Operator, OperatorToken)> {
    if let Some(problem) = rules::name_problem(name) {
        anyhow::bail!("name: {problem}");
    }
    anyhow::ensure!(!name.trim().is_empty(), "name: is empty");
    let token = OperatorToken::generate()?;
    let now = OffsetDateTime::now_utc();
    let new = NewOperator {
        id: token.id().to_owned(),
        name: name.to_owned(),
        digest: token.digest(),
        scopes,
        expires_at: life.map(|life| now + life),
    };
    let operator = store.operator_insert(new, now, actor).await?;
    Ok((operator, token))
}

/// The operator whose token is in `headers`, if they may do `needed`.
pub(crate) async fn authorize(
    store: &Store,
    headers: &HeaderMap,
    needed: OperatorScope,
    now: OffsetDateTime,
) -> Result<Operator, Problem> {
    let token = bearer(headers).ok_or_else(|| {
        Problem::unauthorized("send the header Authorization: Bearer with an operator token; okmon operator create makes one")
    })?;
    let operator = match token.parse::<OperatorToken>() {
        Ok(token) => store.operator_fetch(&token.digest()).await?,
        Err(MalformedToken) => None,
    };
    // Unknown, revoked and expired look the same from outside.
    let operator = operator
        .filter(|operator| is_valid(operator, now))
        .ok_or_else(|| {
            Problem::unauthorized(
                "the operator token is not valid: it is unknown, revoked or expired",
            )
        })?;
    if operator.scopes.allows(needed) {
        Ok(operator)
    } else {
        Err(Problem::forbidden(format!(
            "operator {} lacks the scope {}: use a token made with --scopes {}",
            operator.name,
            needed.as_str(),
            needed.as_str()
        )))
    }
}

fn is_valid(operator: &Operator, now: OffsetDateTime) -> bool {
    operator.revoked_at.is_none() && operator.expires_at.is_none_or(|at| now < at)
}

/// The credential of the one `Authorization: Bearer` header; two of them are no credential.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_token_parses_and_shows_its_public_part_only() {
        let token = OperatorToken::generate().unwrap();
        assert_eq!(token.reveal().len(), 53);
        let parsed: OperatorToken = token.reveal().parse().unwrap();
        assert_eq!(parsed.digest(), token.digest());
        assert_eq!(
            format!("{token:?}"),
            format!("OperatorToken({}…)", token.id())
        );
    }

    #[test]
    fn a_token_works_until_it_expires_or_is_revoked() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let operator = |expires_at, revoked_at| Operator {
            id: "op".to_owned(),
            name: "olga".to_owned(),
            scopes: OperatorScopes::ADMIN,
            created_at: now,
            expires_at,
            revoked_at,
        };
        let later = now + time::Duration::SECOND;
        assert!(is_valid(&operator(None, None), now));
        assert!(is_valid(&operator(Some(later), None), now));
        assert!(!is_valid(&operator(Some(now), None), now));
        assert!(!is_valid(&operator(None, Some(later)), now));
    }

    #[test]
    fn other_texts_are_no_tokens() {
        for text in [
            "",
            "okop_",
            "okop_short",
            &format!("obs__{}", "a".repeat(48)),
            &format!("okop_{}", "-".repeat(48)),
        ] {
            assert!(text.parse::<OperatorToken>().is_err(), "{text}");
        }
    }
}
