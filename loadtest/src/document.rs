//! How findings are published: as JSON, as Markdown, and as the block of a document that a command keeps. What was measured and
//! what it is held against is each command's own.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use time::OffsetDateTime;
use time::macros::format_description;

/// Where findings go.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Publication {
    /// Put the tables between the markers of this file.
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Print JSON in place of tables.
    #[arg(long)]
    json: bool,
}

impl Publication {
    /// Publishes `findings`, or as text `tables`, of the command `name`.
    pub(crate) fn publish(
        &self,
        name: &str,
        findings: &impl Serialize,
        tables: &impl fmt::Display,
    ) -> anyhow::Result<()> {
        if let Some(path) = &self.write {
            write(path, name, tables)?;
        }
        let mut out = std::io::stdout().lock();
        if self.json {
            serde_json::to_writer(&mut out, findings)?;
            writeln!(out)?;
        } else {
            write!(out, "{tables}")?;
        }
        Ok(())
    }
}

/// Puts `tables` between the markers of the command `name`, and leaves the rest of the file alone.
fn write(path: &Path, name: &str, tables: &impl fmt::Display) -> anyhow::Result<()> {
    let file = path.display();
    let [begin, end] = ["begin", "end"].map(|edge| format!("<!-- loadtest {name}: {edge} -->"));
    let text = fs::read_to_string(path).with_context(|| format!("--write {file}"))?;
    let (before, rest) = text
        .split_once(&begin)
        .with_context(|| format!("--write {file}: no line `{begin}`"))?;
    let (_, after) = rest
        .split_once(&end)
        .with_context(|| format!("--write {file}: no line `{end}`"))?;
    let text = format!("{before}{begin}\n\n{tables}\n{end}{after}");
    fs::write(path, text).with_context(|| format!("--write {file}"))
}

/// Where and when figures were taken; without it they mean nothing.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    date: String,
    commit: String,
    processor: String,
    cores: usize,
    kernel: String,
    load_before: String,
    pub(crate) command: String,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, commit {}, {} ({} cores), Linux {}, load {} before the start",
            self.date, self.commit, self.processor, self.cores, self.kernel, self.load_before
        )
    }
}

/// Looks at the machine, before it is put under load.
pub(crate) fn machine() -> Machine {
    let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processor = file("/proc/cpuinfo")
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or_else(
            || "unknown processor".to_owned(),
            |(_, name)| name.to_owned(),
        );
    let date = OffsetDateTime::now_utc()
        .format(format_description!(
            "[year]-[month]-[day] [hour]:[minute] UTC"
        ))
        .unwrap_or_default();
    let words = std::env::args().skip(1);
    Machine {
        date,
        commit: git(&["describe", "--always", "--dirty", "--abbrev=12"]),
        processor,
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        kernel: file("/proc/sys/kernel/osrelease").trim().to_owned(),
        load_before: file("/proc/loadavg")
            .split(' ')
            .next()
            .unwrap_or_default()
            .to_owned(),
        command: words.fold("loadtest".to_owned(), |line, word| line + " " + &word),
    }
}

fn git(arguments: &[&str]) -> String {
    Command::new("git")
        .args(arguments)
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}

/// What was promised, what was measured, and whether that is met.
#[derive(Debug, Serialize)]
pub(crate) struct Goal {
    promised: String,
    measured: String,
    met: bool,
}

impl Goal {
    pub(crate) fn new(promised: impl Into<String>, measured: impl Into<String>, met: bool) -> Self {
        Self {
            promised: promised.into(),
            measured: measured.into(),
            met,
        }
    }

    /// A count that must be 0.
    pub(crate) fn none(what: &str, count: u64) -> Self {
        Self::new(format!("No {what}"), count.to_string(), count == 0)
    }
}

/// All goals of a command, as a table.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Goals(pub(crate) Vec<Goal>);

impl Goals {
    pub(crate) fn all_met(&self) -> bool {
        self.0.iter().all(|goal| goal.met)
    }
}

impl fmt::Display for Goals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| promised | measured | |\n| --- | --- | --- |")?;
        for goal in &self.0 {
            let verdict = if goal.met { "met" } else { "**missed**" };
            writeln!(f, "| {} | {} | {verdict} |", goal.promised, goal.measured)?;
        }
        writeln!(f)
    }
}

/// The middle value.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *values.get(values.len() / 2 - 1)?;
    Some(f64::midpoint(lower, upper))
}

/// The smallest duration that at least `percent` of a hundred do not exceed.
pub(crate) fn percentile(durations: &[Duration], percent: usize) -> Option<Duration> {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// How long something took, each time that it happened.
#[derive(Debug, Serialize)]
pub(crate) struct Lapse {
    pub(crate) count: usize,
    median_ms: u128,
    max_ms: u128,
}

impl Lapse {
    pub(crate) fn of(durations: &[Duration]) -> Self {
        let at = |percent| percentile(durations, percent).map_or(0, |lapse| lapse.as_millis());
        Self {
            count: durations.len(),
            median_ms: at(50),
            max_ms: at(100),
        }
    }
}

impl fmt::Display for Lapse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms, at most {} ms", self.median_ms, self.max_ms)
    }
}

/// What failed how many times, in one cell of a table.
pub(crate) fn listed(failed: &BTreeMap<String, u64>) -> String {
    let failed: Vec<_> = failed
        .iter()
        .map(|(what, count)| format!("{count} x {what}"))
        .collect();
    if failed.is_empty() {
        "none".to_owned()
    } else {
        failed.join("; ")
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "memory stays far below 2^52 bytes"
)]
pub(crate) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_seen() {
        let all: Vec<_> = (1..=200).rev().map(Duration::from_millis).collect();
        let at = |percent| percentile(&all, percent).unwrap().as_millis();
        assert_eq!((at(50), at(99), at(100)), (100, 198, 200));
        assert_eq!(percentile(&all[..1], 99), Some(Duration::from_millis(200)));
        assert_eq!(percentile(&[], 99), None);
    }

    #[test]
    fn only_the_block_of_the_command_is_replaced() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let block = |name, text| {
            format!("<!-- loadtest {name}: begin -->{text}<!-- loadtest {name}: end -->\n")
        };
        let before = "head\n".to_owned() + &block("a", "\n\nold\n") + &block("b", "\n\nkept\n");
        fs::write(&file, &before).unwrap();
        write(file.path(), "a", &"new").unwrap();
        let after = fs::read_to_string(&file).unwrap();
        assert_eq!(after, before.replace("old", "new"));
        assert!(write(file.path(), "c", &"new").is_err());
    }
}
