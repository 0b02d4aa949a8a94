//! What is promised of an exchange of certificates, and what was seen.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::curl::Seen;
use super::senders::Sender;
use crate::document::{Goal, Goals, Lapse, Machine, listed};
use crate::senders::Tally;

/// One exchange.
#[derive(Debug, Serialize)]
pub(super) struct Swap {
    pub(super) serial: u64,
    pub(super) by_halves: bool,
    /// From the whole pair in its place until both listeners showed it.
    pub(super) shown_after: Option<Duration>,
}

/// What the edge counted from the first exchange on.
#[derive(Debug, Serialize)]
pub(super) struct Handshakes {
    pub(super) full: u64,
    pub(super) resumed: u64,
    /// By what went wrong.
    pub(super) failed: BTreeMap<String, u64>,
    /// Connections that it ended for a limit, by the limit.
    pub(super) ended: BTreeMap<String, u64>,
    /// Times that files could not be used as they were.
    pub(super) unusable_files: u64,
}

impl Handshakes {
    pub(super) fn between(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> Self {
        let mut handshakes = Self {
            full: 0,
            resumed: 0,
            failed: BTreeMap::new(),
            ended: BTreeMap::new(),
            unusable_files: 0,
        };
        for (series, value) in after {
            let rise = value - before.get(series).unwrap_or(&0.0);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "counters are whole numbers that only rise"
            )]
            let rise = rise as u64;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            match name {
                "okmon_edge_tls_handshakes_total" if labels.contains("resumed=\"true\"") => {
                    handshakes.resumed += rise;
                }
                "okmon_edge_tls_handshakes_total" => handshakes.full += rise,
                "okmon_edge_tls_handshake_failures_total" if rise > 0 => {
                    handshakes.failed.insert(labels.replace('}', ""), rise);
                }
                "okmon_edge_connections_closed_total" if rise > 0 => {
                    handshakes.ended.insert(labels.replace('}', ""), rise);
                }
                "okmon_edge_tls_certificate_errors_total" => handshakes.unusable_files += rise,
                _ => {}
            }
        }
        handshakes
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Findings {
    pub(super) machine: Machine,
    pub(super) seconds: f64,
    pub(super) swaps: Vec<Swap>,
    pub(super) renamed: Lapse,
    pub(super) by_halves: Lapse,
    pub(super) tallies: BTreeMap<Sender, Tally>,
    /// What was shown by the listener that names its files, and by the one that has a folder.
    pub(super) seen: [Seen; 2],
    pub(super) handshakes: Handshakes,
}

impl Findings {
    pub(super) fn goals(&self) -> Goals {
        let failures = self.tallies.values().map(Tally::failures).sum();
        let unseen = |seen: &Seen| {
            let swaps = self.swaps.iter();
            swaps
                .filter(|swap| !seen.serials.contains(&swap.serial))
                .count()
        };
        let of_each = self.seen.each_ref().map(|seen| {
            let seen = self.swaps.len() - unseen(seen);
            format!("{seen} of {}", self.swaps.len())
        });
        let halves = self.swaps.iter().filter(|swap| swap.by_halves).count();
        let silent = self
            .tallies
            .iter()
            .filter(|(_, tally)| tally.succeeded == 0);
        Goals(vec![
            Goal::none(
                "handshake, request or open connection failed, as seen by senders",
                failures,
            ),
            Goal::none(
                "handshake failed, as seen by the edge",
                self.handshakes.failed.values().sum(),
            ),
            Goal::none(
                "connection ended by the edge for a limit",
                self.handshakes.ended.values().sum(),
            ),
            Goal::new(
                "Each certificate is shown, by its serial number, on both listeners",
                of_each.join(" and "),
                self.seen.iter().all(|seen| unseen(seen) == 0),
            ),
            Goal::none(
                "connection that was shown an older certificate than the one before",
                self.seen.iter().map(|seen| seen.older).sum(),
            ),
            Goal::new(
                "Each pair written by halves is told of as unusable",
                format!("{} times, {halves} pairs", self.handshakes.unusable_files),
                u64::try_from(halves).is_ok_and(|halves| self.handshakes.unusable_files >= halves),
            ),
            Goal::new(
                "Every sender sends, and some by a ticket",
                format!("{} resumed handshakes", self.handshakes.resumed),
                silent.count() == 0 && self.handshakes.resumed > 0,
            ),
        ])
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}:\n`{}`\n", self.machine, self.machine.command)?;
        self.goals().fmt(f)?;
        writeln!(
            f,
            "| sender, during {} exchanges in {:.0} s | requests | failed |\n| --- | --- | --- |",
            self.swaps.len(),
            self.seconds
        )?;
        for (sender, tally) in &self.tallies {
            let failed = listed(&tally.failed);
            writeln!(f, "| {sender} | {} | {failed} |", tally.succeeded)?;
        }
        let handshakes = &self.handshakes;
        writeln!(
            f,
            "\nHandshakes that the edge counts: {} full, {} by a ticket; failed: {}. Connections that it ended for a limit: {}.\n",
            handshakes.full,
            handshakes.resumed,
            listed(&handshakes.failed),
            listed(&handshakes.ended)
        )?;
        writeln!(
            f,
            "| From the whole pair in its place until curl was shown it on both listeners | median, most |\n| --- | --- |"
        )?;
        for (how, lapse) in [
            ("renamed", &self.renamed),
            ("written by halves", &self.by_halves),
        ] {
            writeln!(f, "| {how}, {} times | {lapse} |", lapse.count)?;
        }
        for line in self.tallies.values().flat_map(|tally| &tally.said) {
            writeln!(f, "\nSaid: `{line}`")?;
        }
        Ok(())
    }
}
