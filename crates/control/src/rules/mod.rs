//! What a good tenant and a good key are. No HTTP and no SQL: from the fields somebody sent to what the store takes, or
//! to the list of everything that is wrong with them.

pub(crate) mod fields;
pub(crate) mod keys;
pub(crate) mod tenants;

use time::OffsetDateTime;
use unicode_normalization::is_nfc;

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
    } else if !is_nfc(name) {
        Some(
            "has a letter in another form than the usual one, which looks like it: send it in Unicode's form NFC"
                .to_owned(),
        )
    } else if without_secrets(name) != name {
        Some("has a key or a token in it, which must not be kept: leave it out".to_owned())
    } else if name.trim() != name {
        Some("begins or ends with a space: leave it out".to_owned())
    } else {
        None
    }
}

/// `text` with the secret part of every key and operator token in it left out, or of what is so much of one that it would
/// help to guess the rest.
pub(crate) fn without_secrets(text: &str) -> String {
    const PUBLIC: usize = 12;
    const TELLING: usize = PUBLIC + 16;
    let (mut shown, mut rest) = (String::new(), text);
    let first = |text: &str| {
        let ends = ["obs_", "okop_"].map(|prefix| text.find(prefix).map(|at| at + prefix.len()));
        ends.into_iter().flatten().min()
    };
    while let Some(end) = first(rest) {
        let (before, found) = rest.split_at(end);
        let after = found.trim_start_matches(|c: char| c.is_ascii_alphanumeric());
        let digits = found.strip_suffix(after).unwrap_or(found);
        shown.push_str(before);
        rest = found;
        if let Some(public) = digits.get(..PUBLIC).filter(|_| digits.len() >= TELLING) {
            shown.extend([public, "…"]);
            rest = after;
        }
    }
    shown.push_str(rest);
    shown
}

/// Characters that show nothing of themselves: they join, part or turn around what stands beside them, fill a space, or mean
/// what each program likes.
pub(crate) fn is_unseen(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
        | '\u{e000}'..='\u{f8ff}' | '\u{fe00}'..='\u{fe0e}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{ffff}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{10ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_keys_and_tokens_in_a_text_only_the_public_part_is_left() {
        let secret = "s".repeat(42);
        let (key, token) = (
            format!("obs_0123456789ab{secret}"),
            format!("okop_0123456789ab{secret}"),
        );
        for (text, left) in [
            (String::new(), String::new()),
            (
                "obs_0123456789ab, okop_ and obs_".to_owned(),
                "obs_0123456789ab, okop_ and obs_".to_owned(),
            ),
            (
                "obs_productioncluster".to_owned(),
                "obs_productioncluster".to_owned(),
            ),
            (
                format!("no {key:?}, {token}!"),
                "no \"obs_0123456789ab…\", okop_0123456789ab…!".to_owned(),
            ),
            (format!("obs_{key}"), "obs_obs_0123456789ab…".to_owned()),
            (
                format!("{key}ä{key}"),
                "obs_0123456789ab…äobs_0123456789ab…".to_owned(),
            ),
        ] {
            assert_eq!(without_secrets(&text), left);
        }
        assert!(name_problem(&format!("prod {key}")).is_some());
    }

    #[test]
    fn a_name_shows_all_that_is_in_it() {
        for name in [
            "",
            "Acme & Söhne GmbH",
            "日本",
            "🚀 launch",
            "'; drop table tenants; --",
            "مرحبا",
        ] {
            assert_eq!(name_problem(name), None, "{name}");
        }
        for name in [
            " a",
            "a ",
            "a\0",
            "a\nb",
            "a\u{85}",
            "a\u{202e}b",
            "a\u{2066}b",
            "a\u{200b}b",
            "a\u{ad}b",
            "\u{feff}a",
            "a\u{e0041}",
            "a\u{2028}b",
            "\u{3164}",
            "a\u{200d}b",
            "So\u{308}hne",
            "\u{212b}ngstro\u{308}m",
            "\u{37e}",
        ] {
            assert!(name_problem(name).is_some(), "{name:?}");
        }
        assert_eq!(name_problem(&"ä".repeat(200)), None);
        assert!(name_problem(&"ä".repeat(201)).is_some());
    }
}
