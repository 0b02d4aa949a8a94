//! What a new tenant must look like, and what may be changed about one.

use model::TenantId;
use store::{Limit, NewTenant, TenantUpdate};
use unicode_normalization::is_nfc;

use super::fields::{FieldProblem, Fields};
use super::{is_unseen, name_problem, without_secrets};

/// The longest e-mail address, in bytes (RFC 5321 4.5.3.1.3, less the angle brackets).
const EMAIL_LEN_MAX: usize = 254;

/// The largest limit of a body that can be asked for, in bytes: what the edge's own setting can say.
const BODY_MAX_BYTES_MAX: u64 = 1 << 40;

/// Reads `name`, `email`, `id` and `allow_any_id`.
pub(crate) fn new_tenant(mut fields: Fields) -> Result<NewTenant, Vec<FieldProblem>> {
    let name = fields.text("name");
    check_name(&mut fields, name.as_deref());
    let email = fields.text("email");
    check_email(&mut fields, email.as_deref());
    let id = fields.text("id");
    let parse = if fields.flag("allow_any_id") {
        TenantId::parse
    } else {
        TenantId::parse_plain
    };
    let id = id.and_then(|id| {
        if without_secrets(&id) != id {
            fields.problem("id", "is a key or a token, which must not be kept");
            return None;
        }
        parse(&id)
            .map_err(|error| fields.problem("id", error.to_string()))
            .ok()
    });
    match (name, email, id, fields.finish()) {
        (Some(name), Some(email), Some(id), problems) if problems.is_empty() => {
            Ok(NewTenant { id, name, email })
        }
        (_, _, _, problems) => Err(problems),
    }
}

/// Reads `name`, `email`, `status` and `limits`; each may be absent.
pub(crate) fn tenant_update(mut fields: Fields) -> Result<TenantUpdate, Vec<FieldProblem>> {
    let name = fields.text_or_none("name");
    check_name(&mut fields, name.as_deref());
    let email = fields.text_or_none("email");
    check_email(&mut fields, email.as_deref());
    let status = fields.text_or_none("status");
    let suspended = match status.as_deref() {
        Some("active") => Some(false),
        Some("suspended") => Some(true),
        Some(_) => {
            let fix = "must be active or suspended; to make a tenant inactive, delete it";
            fields.problem("status", fix);
            None
        }
        None => None,
    };
    let body_max_bytes = fields.object_or_none("limits", |limits| {
        let bytes = limits.limit_or_none("body_max_bytes");
        if matches!(bytes, Some(Limit::Own(n)) if n > BODY_MAX_BYTES_MAX) {
            let fix =
                format!("must be {BODY_MAX_BYTES_MAX} at most, or null for the edge's own limit");
            limits.problem("body_max_bytes", fix);
        }
        bytes
    });
    let problems = fields.finish();
    if problems.is_empty() {
        Ok(TenantUpdate {
            name,
            email,
            suspended,
            body_max_bytes: body_max_bytes.flatten(),
        })
    } else {
        Err(problems)
    }
}

fn check_name(fields: &mut Fields, name: Option<&str>) {
    let Some(name) = name else { return };
    let empty = name
        .trim()
        .is_empty()
        .then(|| "is empty: send what people call the tenant".to_owned());
    if let Some(problem) = empty.or_else(|| name_problem(name)) {
        fields.problem("name", problem);
    }
}

fn check_email(fields: &mut Fields, email: Option<&str>) {
    if email.is_some_and(|email| !is_address(email)) {
        fields.problem(
            "email",
            "is not an e-mail address: send one such as ops@example.com",
        );
    }
}

/// Whether mail might arrive there; only sending one tells. Signs that part addresses from each other are in none.
fn is_address(text: &str) -> bool {
    let plain = |c: char| {
        !c.is_whitespace()
            && !c.is_control()
            && !is_unseen(c)
            && !matches!(c, ',' | ';' | '<' | '>')
    };
    text.len() <= EMAIL_LEN_MAX
        && text.chars().all(plain)
        && is_nfc(text)
        && without_secrets(text) == text
        && text.split_once('@').is_some_and(|(local, domain)| {
            !local.is_empty() && !domain.is_empty() && !domain.contains('@')
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(value: Value) -> Result<NewTenant, Vec<String>> {
        let Value::Object(object) = value else {
            panic!("an object")
        };
        new_tenant(Fields::new(object))
            .map_err(|problems| problems.into_iter().map(|p| p.field).collect())
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let wrong = json!({"name": " ", "email": "nowhere", "id": "A b", "colour": 1});
        assert_eq!(check(wrong).unwrap_err(), ["name", "email", "id", "colour"]);
        assert_eq!(check(json!({})).unwrap_err(), ["name", "email", "id"]);
        assert_eq!(
            check(json!({"name": 1, "email": [], "id": {}})).unwrap_err(),
            ["name", "email", "id"]
        );
    }

    #[test]
    fn an_unusual_id_needs_permission() {
        let mut tenant = json!({"name": "Acme", "email": "ops@acme.example", "id": "Acme_1"});
        assert_eq!(check(tenant.clone()).unwrap_err(), ["id"]);
        tenant["allow_any_id"] = true.into();
        assert_eq!(check(tenant).unwrap().id.as_str(), "Acme_1");
    }
}
