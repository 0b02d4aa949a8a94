//! `[auth_failures]` and `[strangers]`: what of each address may come to nothing.

use ops::config::Section;

/// The budget that each address has.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BudgetSettings {
    /// How much at once.
    pub(crate) burst: u32,
    /// How much is forgiven each minute.
    pub(crate) per_minute: u32,
    /// How many addresses are remembered. 0: there is no budget.
    pub(crate) addresses_max: u32,
}

/// Failed authentications.
pub(super) fn auth_failures(section: &Section<'_>) -> BudgetSettings {
    let default = BudgetSettings {
        burst: 100,
        per_minute: 60,
        addresses_max: 65_536,
    };
    let never = "must be at least 1: with 0 no key that is not in memory could be looked up; addresses_max = 0 switches the budget off";
    budget(section, &default, never)
}

/// Connections that ended without a valid key.
pub(super) fn strangers(section: &Section<'_>) -> BudgetSettings {
    let default = BudgetSettings {
        burst: 100,
        per_minute: 120,
        addresses_max: 65_536,
    };
    let never = "must be at least 1: with 0 nobody could connect; addresses_max = 0 switches the budget off";
    budget(section, &default, never)
}

fn budget(section: &Section<'_>, default: &BudgetSettings, never: &str) -> BudgetSettings {
    let settings = BudgetSettings {
        burst: section.or("burst", default.burst),
        per_minute: section.or("per_minute", default.per_minute),
        addresses_max: section.or("addresses_max", default.addresses_max),
    };
    if settings.burst == 0 {
        section.problem("burst", never);
    }
    if settings.per_minute == 0 {
        section.problem("per_minute", never);
    }
    section.finish();
    settings
}
