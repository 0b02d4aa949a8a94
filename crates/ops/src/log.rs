//! Sets up `tracing`: JSON lines for machines, plain text for a terminal, always on standard error so that standard
//! output stays free for answers. Whoever logs never waits for who reads: lines that a slow reader leaves no room for are
//! lost and counted.

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
#[derive(Debug)]
#[must_use = "what is logged after its end may be lost"]
pub struct Logging {
    _writing: Option<WorkerGuard>,
}

/// Starts logging; the environment variable `OKMON_LOG` goes before the settings' level. A second call does nothing: tests
/// start many servers in one process.
pub fn init(settings: &LogSettings) -> Logging {
    let filter =
        EnvFilter::try_from_env("OKMON_LOG").unwrap_or_else(|_| EnvFilter::new(&settings.level));
    let terminal = std::io::stderr().is_terminal();
    let (writer, writing) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_MAX)
        .lossy(true)
        .thread_name("log")
        .finish(std::io::stderr());
    let lost = writer.error_counter();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(terminal);
    let json = match settings.format {
        Format::Auto => !terminal,
        Format::Text => false,
        Format::Json => true,
    };
    let set = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.try_init()
    };
    // The only error is that a subscriber is set already.
    if set.is_err() {
        return Logging { _writing: None };
    }
    let _ = LOST.set(lost);
    Logging {
        _writing: Some(writing),
    }
}

/// How many lines were lost because standard error was too slow.
pub fn lost_lines() -> u64 {
    LOST.get().map_or(0, |lost| lost.dropped_lines() as u64)
}
