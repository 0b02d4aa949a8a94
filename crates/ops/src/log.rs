//! Sets up `tracing`: JSON lines for machines, plain text for a terminal, always on standard error so that standard
//! output stays free for answers. Whoever logs never waits for who reads: lines that a slow reader leaves no room for are
//! lost and counted.

use std::fmt;
use std::io::IsTerminal as _;
use std::sync::OnceLock;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::config::Section;

/// Lines that may wait to be written: some MiB.
const LINES_MAX: usize = 8192;
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Counts the lines of this process's one subscriber.
static LOST: OnceLock<ErrorCounter> = OnceLock::new();

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Text when standard error is a terminal, JSON otherwise.
    Auto,
    /// One line of text per event.
    Text,
    /// One JSON object per event.
    Json,
}

/// What is logged, and how.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// `error`, `warn`, `info`, `debug`, `trace`, `off`, or directives such as `edge=debug`.
    pub level: String,
    /// How lines look.
    pub format: Format,
}

impl LogSettings {
    /// Reads `level` and `format`.
    pub fn read(section: &Section<'_>) -> Self {
        let level = section.or("level", "info".to_owned());
        let is_directive = level.contains(['=', ',', '[']);
        if !(is_directive && EnvFilter::try_new(&level).is_ok() || LEVELS.contains(&&*level)) {
            let levels = LEVELS.join(", ");
            section.problem(
                "level",
                format!("{level:?} is neither one of {levels} nor a directive such as \"info,edge=debug\""),
            );
        }
        let formats = [
            ("auto", Format::Auto),
            ("text", Format::Text),
            ("json", Format::Json),
        ];
        let format = section.choice("format", &formats, Format::Auto);
        Self { level, format }
    }
}

/// Writes what is logged for as long as it lives; dropping it writes what is left.
#[must_use = "what is logged after its end may be lost"]
pub struct Logging {
    _writing: Option<WorkerGuard>,
    filter: Option<SetFilter>,
}

type SetFilter = Box<dyn Fn(EnvFilter) + Send + Sync>;

impl Logging {
    /// Logs at the level of `settings` from now on, unless `OKMON_LOG` says otherwise. The format stays.
    pub fn set_level(&self, settings: &LogSettings) {
        if let Some(set) = &self.filter {
            set(filter(settings));
        }
    }
}

impl fmt::Debug for Logging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logging").finish_non_exhaustive()
    }
}

fn filter(settings: &LogSettings) -> EnvFilter {
    EnvFilter::try_from_env("OKMON_LOG").unwrap_or_else(|_| EnvFilter::new(&settings.level))
}

/// Starts logging; the environment variable `OKMON_LOG` goes before the settings' level. A second call does nothing: tests
/// start many servers in one process.
pub fn init(settings: &LogSettings) -> Logging {
    let terminal = std::io::stderr().is_terminal();
    let (writer, writing) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_MAX)
        .lossy(true)
        .thread_name("log")
        .finish(std::io::stderr());
    let lost = writer.error_counter();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(settings))
        .with_writer(writer)
        .with_ansi(terminal);
    let json = match settings.format {
        Format::Auto => !terminal,
        Format::Text => false,
        Format::Json => true,
    };
    // A filter that cannot be set any more belongs to a subscriber that is gone.
    let (set, filter): (_, SetFilter) = if json {
        let builder = builder.json().flatten_event(true).with_filter_reloading();
        let handle = builder.reload_handle();
        (
            builder.try_init(),
            Box::new(move |filter| drop(handle.reload(filter))),
        )
    } else {
        let builder = builder.with_filter_reloading();
        let handle = builder.reload_handle();
        (
            builder.try_init(),
            Box::new(move |filter| drop(handle.reload(filter))),
        )
    };
    // The only error is that a subscriber is set already.
    if set.is_err() {
        return Logging {
            _writing: None,
            filter: None,
        };
    }
    let _ = LOST.set(lost);
    Logging {
        _writing: Some(writing),
        filter: Some(filter),
    }
}

/// How many lines were lost because standard error was too slow.
pub fn lost_lines() -> u64 {
    LOST.get().map_or(0, |lost| lost.dropped_lines() as u64)
}
