//! What a good tenant and a good key are. No HTTP and no SQL: from the fields somebody sent to what the store takes, or
//! to the list of everything that is wrong with them.

pub(crate) mod fields;
pub(crate) mod keys;
pub(crate) mod tenants;

/// The longest name of a tenant or a key, in characters.
const NAME_CHARS_MAX: usize = 200;

/// Why `name` is no name for people to read.
pub(crate) fn name_problem(name: &str) -> Option<String> {
    if name.chars().count() > NAME_CHARS_MAX {
        Some(format!("has more than {NAME_CHARS_MAX} characters"))
    } else if name.chars().any(char::is_control) {
        Some("has a control character: use printable ones".to_owned())
    } else {
        None
    }
}
