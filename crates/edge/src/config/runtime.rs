//! `[runtime]`: threads, how the process stops, and whether it follows its file.

use std::time::Duration;

use ops::config::Section;

/// More threads than any machine has cores we know of.
const WORKERS_MAX: u32 = 256;

/// The process as a whole.
#[derive(Debug, Clone)]
pub(crate) struct RuntimeSettings {
    /// Threads that serve requests, at least 1.
    pub(crate) workers: usize,
    pub(crate) drain: DrainSettings,
    pub(crate) reload_on_change: bool,
}

/// How connections end when their process or their listener does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DrainSettings {
    /// How long connections are still accepted, so that whoever sends them can look elsewhere.
    pub(crate) delay: Duration,
    /// How long a connection without a request is kept after that, in case one is under way.
    pub(crate) idle: Duration,
    /// How long requests in flight may take, counted from the end of `delay`.
    pub(crate) max: Duration,
}

pub(super) fn runtime(section: &Section<'_>) -> RuntimeSettings {
    let workers = section.or("workers", 0_u32);
    if workers > WORKERS_MAX {
        section.problem(
            "workers",
            format!("must be at most {WORKERS_MAX}; 0 takes one per core"),
        );
    }
    let settings = RuntimeSettings {
        workers: match workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n as usize,
        },
        drain: DrainSettings {
            delay: section.or("drain_delay", Duration::ZERO),
            idle: section.or("drain_idle", Duration::from_secs(1)),
            max: section.or("drain_max", Duration::from_secs(20)),
        },
        reload_on_change: section.or("reload_on_change", true),
    };
    section.finish();
    settings
}
