//! What a good tenant and a good key are. No HTTP and no SQL: from the fields somebody sent to what the store takes, or
//! to the list of everything that is wrong with them.

pub(crate) mod fields;
pub(crate) mod keys;
pub(crate) mod tenants;

use time::OffsetDateTime;

/// The longest name of a tenant or a key, in characters.
const NAME_CHARS_MAX: usize = 200;

/// What people call the state of a key or an operator's token at `now`.
pub(crate) fn status(
    revoked_at: Option<OffsetDateTime>,
    expires_at: Option<OffsetDateTime>,
    now: OffsetDateTime,
) -> &'static str {
    if revoked_at.is_some() {
        "revoked"
    } else if expires_at.is_some_and(|at| at <= now) {
        "expired"
    } else {
        "active"
    }
}

/// Why `name` is no name for people to read.
pub(crate) fn name_problem(name: &str) -> Option<String> {
    if name.chars().count() > NAME_CHARS_MAX {
        Some(format!("has more than {NAME_CHARS_MAX} characters"))
    } else if name.chars().any(char::is_control) {
        Some("has a control character: use printable ones".to_owned())
    } else if let Some(unseen) = name.chars().find(|c| is_unseen(*c)) {
        Some(format!(
            "has the invisible character U+{:04X}, with which a name can pass for another: leave it out",
            u32::from(unseen)
        ))
    } else if name.trim() != name {
        Some("begins or ends with a space: leave it out".to_owned())
    } else {
        None
    }
}

/// Characters that show nothing of themselves: they join, part or turn around what stands beside them, fill a space, or mean
/// what each program likes.
pub(crate) fn is_unseen(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
        | '\u{e000}'..='\u{f8ff}' | '\u{fe00}'..='\u{fe0e}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{ffff}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{10ffff}')
}
