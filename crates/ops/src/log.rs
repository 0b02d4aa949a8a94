//! Sets up `tracing`: JSON lines for machines, plain text for a terminal, always on standard error so that standard
//! output stays free for answers.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

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

/// Starts logging at `level` (`error`, `warn`, `info`, `debug`, `trace`, or directives such as `edge=debug`); the
/// environment variable `OKMON_LOG` goes before it. A second call does nothing: tests start many servers in one process.
pub fn init(level: &str, format: Format) {
    let filter = EnvFilter::try_from_env("OKMON_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal);
    let json = match format {
        Format::Auto => !terminal,
        Format::Text => false,
        Format::Json => true,
    };
    // The only error is that a subscriber is set already.
    let _ = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.try_init()
    };
}
