//! What an attacker managed, and what it was told: the report of `loadtest attack`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Counts of an attack while it goes on.
#[derive(Default)]
pub(super) struct Tally {
    report: RefCell<Report>,
    open: Cell<u64>,
}

/// What an attack came to; the JSON of `--json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) elapsed_seconds: f64,
    /// Connections opened.
    pub(crate) connections: u64,
    /// The most that were open at a time.
    pub(crate) open_max: u64,
    /// Requests begun.
    pub(crate) requests: u64,
    /// Frames of HTTP/2 sent.
    pub(crate) frames: u64,
    /// Bytes sent.
    pub(crate) bytes: u64,
    /// Answers, by status where it is known.
    pub(crate) answers: BTreeMap<String, u64>,
    /// How connections ended that the attacker would have kept, or why there was none.
    pub(crate) ended: BTreeMap<String, u64>,
    /// Of posts with a wrong key: how many were measured, and the most of a body that was sent before the answer came.
    pub(crate) posts: Posts,
}

/// Bodies of those who have no key.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Posts {
    /// Posts that were answered.
    pub(crate) answered: u64,
    /// Of those who wait after each piece: the most that was sent before the answer came, and so the most that was read.
    pub(crate) patient_bytes_max: Option<u64>,
    /// Of those who do not wait: the most that had left them when the answer came, less what lay unread in sockets.
    pub(crate) greedy_bytes_max: Option<u64>,
    /// Of those the most that they got rid of before the edge cut them off; sockets' buffers hold some of it.
    pub(crate) sent_bytes_max: Option<u64>,
}

impl Tally {
    pub(super) fn connected(&self) {
        self.open.set(self.open.get() + 1);
        let mut report = self.report.borrow_mut();
        report.connections += 1;
        report.open_max = report.open_max.max(self.open.get());
    }

    pub(super) fn disconnected(&self) {
        self.open.set(self.open.get().saturating_sub(1));
    }

    pub(super) fn requests(&self, more: u64) {
        self.report.borrow_mut().requests += more;
    }

    pub(super) fn frames(&self, more: u64) {
        self.report.borrow_mut().frames += more;
    }

    pub(super) fn bytes(&self, more: usize) {
        self.report.borrow_mut().bytes += more as u64;
    }

    pub(super) fn answer(&self, what: String) {
        *self.report.borrow_mut().answers.entry(what).or_default() += 1;
    }

    pub(super) fn ended(&self, stage: &str, error: &io::Error) {
        let what = match error.kind() {
            io::ErrorKind::UnexpectedEof => "closed".to_owned(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "reset".to_owned(),
            _ => error.to_string(),
        };
        let what = if stage.is_empty() {
            what
        } else {
            format!("{stage}: {what}")
        };
        *self.report.borrow_mut().ended.entry(what).or_default() += 1;
    }

    /// Notes of a post: the most that counts is kept.
    pub(super) fn post(&self, note: impl FnOnce(&mut Posts)) {
        note(&mut self.report.borrow_mut().posts);
    }

    pub(super) fn report(&self, elapsed: Duration) -> Report {
        Report {
            elapsed_seconds: elapsed.as_secs_f64(),
            ..self.report.borrow().clone()
        }
    }
}

/// Raises a maximum.
pub(super) fn raise(max: &mut Option<u64>, to: u64) {
    *max = Some(max.map_or(to, |max| max.max(to)));
}

impl fmt::Display for Report {
    /// In one line, as it stands in a table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_second = |count: u64| rate(count, self.elapsed_seconds);
        write!(f, "{} connections", self.connections)?;
        write!(f, " ({} at a time)", self.open_max)?;
        if self.requests > 0 {
            write!(f, ", {} requests/s", per_second(self.requests))?;
        }
        if self.frames > 0 {
            write!(f, ", {} frames/s", per_second(self.frames))?;
        }
        write!(f, ", {} KB/s", per_second(self.bytes / 1000))?;
        for (of, counts) in [("answers", &self.answers), ("ended", &self.ended)] {
            let mut counts: Vec<_> = counts.iter().collect();
            counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            let shown: Vec<_> = counts
                .iter()
                .take(3)
                .map(|(what, count)| format!("{count} x {what}"))
                .collect();
            if !shown.is_empty() {
                write!(f, "; {of}: {}", shown.join(", "))?;
            }
        }
        Ok(())
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate for people to read"
)]
fn rate(count: u64, seconds: f64) -> u64 {
    (count as f64 / seconds.max(0.001)).round() as u64
}
