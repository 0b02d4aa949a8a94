//! `[database]` and `[keys]`: where keys are, and how they are kept in memory.

use std::path::PathBuf;
use std::time::Duration;

use ops::config::Section;
use store::{DatabaseUrl, Store};

use super::longer_than_0;

/// Where a copy of the keys is kept unless the file says otherwise.
const SNAPSHOT_FILE: &str = "/var/lib/okmon/edge-keys.snapshot";

/// How keys are kept in memory.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct KeySettings {
    pub(crate) held_max: u32,
    pub(crate) reload_every: Duration,
    pub(crate) stale_for: Duration,
    pub(crate) poll_every: Duration,
    pub(crate) unknown_max: u32,
    pub(crate) unknown_for: Duration,
    /// `None` keeps no copy.
    pub(crate) snapshot_file: Option<PathBuf>,
}

pub(super) fn database(section: &Section<'_>) -> (Option<DatabaseUrl>, u32) {
    let from_file = section.optional::<String>("url");
    let url = std::env::var("OKMON_DATABASE_URL").ok().or(from_file);
    let parsed = match url {
        None => {
            section.problem(
                "url",
                "is missing: write the URL of the database, or set OKMON_DATABASE_URL",
            );
            None
        }
        Some(url) => match url.parse() {
            Ok(url) => Some(url),
            Err(error) => {
                section.problem("url", format!("{error}"));
                None
            }
        },
    };
    let connections = section.or("connections_max", 4_u32);
    if connections < 2 {
        section.problem(
            "connections_max",
            "must be at least 2: one of them listens for changes",
        );
    }
    section.finish();
    (parsed, connections)
}

pub(super) fn keys(section: &Section<'_>, database: Option<&DatabaseUrl>) -> KeySettings {
    let poll_every = database.map_or(Duration::from_secs(5), Store::poll_every_default);
    let snapshot_file = section.or("snapshot_file", SNAPSHOT_FILE.to_owned());
    let settings = KeySettings {
        held_max: section.or("held_max", 1_000_000),
        reload_every: longer_than_0(section, "reload_every", Duration::from_mins(10)),
        stale_for: section.or("stale_for", Duration::from_hours(24)),
        poll_every: longer_than_0(section, "poll_every", poll_every),
        unknown_max: section.or("unknown_max", 100_000),
        unknown_for: section.or("unknown_for", Duration::from_secs(10)),
        snapshot_file: (!snapshot_file.is_empty()).then(|| PathBuf::from(snapshot_file)),
    };
    if settings.stale_for < settings.poll_every {
        section.problem("stale_for", "must not be shorter than poll_every");
    }
    section.finish();
    settings
}
