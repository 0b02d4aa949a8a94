//! `[counting]`: whether the items of bodies are counted, and how much may be inflated for that.

use ops::config::{ByteSize, Section};

/// How items are counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CountSettings {
    pub(crate) is_on: bool,
    /// What a body may inflate to.
    pub(crate) inflated_max: ByteSize,
    /// How many times its size that may be.
    pub(crate) ratio_max: u64,
    /// What may be kept of all bodies that are being inflated.
    pub(crate) memory: ByteSize,
}

pub(super) fn counting(section: &Section<'_>) -> CountSettings {
    let mode = section.or("mode", "exact".to_owned());
    if !matches!(mode.as_str(), "exact" | "off") {
        section.problem("mode", "must be \"exact\" or \"off\"");
    }
    let settings = CountSettings {
        is_on: mode != "off",
        inflated_max: section.or("inflated_max", ByteSize(128 << 20)),
        ratio_max: section.or("ratio_max", 250),
        memory: section.or("memory", ByteSize(128 << 20)),
    };
    if settings.ratio_max == 0 {
        section.problem(
            "ratio_max",
            "must be 1 or more; mode = \"off\" counts nothing",
        );
    }
    section.finish();
    settings
}
