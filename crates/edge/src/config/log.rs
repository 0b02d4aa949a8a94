//! `[log]`: what is logged, how, and how much of it about requests.

use ops::config::Section;
use ops::log::LogSettings;

/// Which requests have a line in the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestLogSettings {
    /// One in so many that were accepted; none when 0.
    pub(crate) accepted_one_in: u32,
    /// Lines a minute for one tenant and one cause, or one upstream and one kind of failure.
    pub(crate) failures_per_minute: u32,
}

pub(super) fn log(section: &Section<'_>) -> (LogSettings, RequestLogSettings) {
    let settings = LogSettings::read(section);
    let requests = RequestLogSettings {
        accepted_one_in: section.or("accepted_one_in", 0),
        failures_per_minute: section.or("failures_per_minute", 10),
    };
    section.finish();
    (settings, requests)
}
