//! `[auth_failures]`: what wrong keys may cost.

use ops::config::Section;

/// The budget of failed authentications that each address has.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AuthFailureSettings {
    pub(crate) burst: u32,
    pub(crate) per_minute: u32,
    /// 0: there is no budget.
    pub(crate) addresses_max: u32,
}

pub(super) fn auth_failures(section: &Section<'_>) -> AuthFailureSettings {
    let settings = AuthFailureSettings {
        burst: section.or("burst", 100),
        per_minute: section.or("per_minute", 60),
        addresses_max: section.or("addresses_max", 65_536),
    };
    let never = "must be at least 1: with 0 no key that is not in memory could be looked up; addresses_max = 0 switches the budget off";
    if settings.burst == 0 {
        section.problem("burst", never);
    }
    if settings.per_minute == 0 {
        section.problem("per_minute", never);
    }
    section.finish();
    settings
}
