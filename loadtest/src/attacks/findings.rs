//! What `loadtest attacks` found, and what it is held against.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::hostile::{self, Attack};
use super::{Args, Phase};
use crate::document::{Goal, Goals, Machine, mebibytes, median};
use crate::generator;
use crate::site::sum;

/// p99 under attack may be less than so many times the quiet one.
const P99_RATIO_MAX: f64 = 2.0;
const MEMORY_BYTES_MAX: u64 = 256_000_000;
/// How much of a body may be taken from somebody without a key.
const BODY_BYTES_MAX: u64 = 64 << 10;
/// What the generator calls a request that it could not begin in time.
const NEVER_SENT: &str = "due but never sent";
/// Counters that are named for each attack, those that rose most.
const COUNTERS_SHOWN: usize = 4;

#[derive(Debug, Serialize)]
pub(super) struct Findings {
    machine: Machine,
    seconds: u64,
    rates: [u32; 2],
    pub(super) goals: Goals,
    rows: Vec<Row>,
}

/// Latencies of one protocol in microseconds, medians of the runs: quiet, with the witness attacked, attacked.
#[derive(Debug, Serialize)]
struct Latency {
    p50: [f64; 3],
    p99: [f64; 3],
}

impl Latency {
    fn new(
        quiet: [&[generator::Report]; 2],
        control: &[generator::Report],
        attacked: &[generator::Report],
    ) -> Self {
        let of = |what: fn(&generator::Latencies) -> f64| {
            let middle = |reports: &mut dyn Iterator<Item = &generator::Report>| {
                median(reports.map(|report| what(&report.latency_micros)).collect())
                    .unwrap_or(f64::NAN)
            };
            [
                middle(&mut quiet.into_iter().flatten()),
                middle(&mut control.iter()),
                middle(&mut attacked.iter()),
            ]
        };
        Self {
            p50: of(|latencies| latencies.p50),
            p99: of(|latencies| latencies.p99),
        }
    }

    fn p99_by_quiet(&self) -> f64 {
        let [quiet, _, attacked] = self.p99;
        attacked / quiet
    }

    fn p99_by_control(&self) -> f64 {
        let [_, control, attacked] = self.p99;
        attacked / control
    }
}

/// One attack.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    attack: &'static str,
    about: &'static str,
    attacker: hostile::Report,
    requests: u64,
    /// What the good tenant's requests got that were not accepted.
    failed: BTreeMap<String, u64>,
    never_sent: u64,
    http: Latency,
    grpc: Latency,
    memory_quiet_bytes: u64,
    memory_peak_bytes: u64,
    cpu_share_quiet: f64,
    cpu_share: f64,
    /// Counters that rose under attack and not while it was quiet, those that rose most first.
    noticed: Vec<(String, f64)>,
    /// Another measurement of the same attack is judged in place of this one.
    is_repeated: bool,
}

/// Leaves of several measurements of one attack the one to be judged with the lowest p99.
pub(super) fn choose(tries: &mut [Row]) {
    let lowest = tries
        .iter()
        .map(Row::p99_ratio)
        .fold(f64::INFINITY, f64::min);
    for row in tries {
        row.is_repeated = row.p99_ratio() > lowest;
    }
}

/// Connections to upstreams come and go by themselves.
fn tells_of_senders(counter: &str) -> bool {
    !counter.contains("_upstream_")
}

impl Row {
    pub(super) fn new(
        attack: &Attack,
        [before, after]: [&Phase; 2],
        control: &Phase,
        attacked: &Phase,
    ) -> Self {
        let (accepted, mut failed) = sum(attacked.http.iter().chain(&attacked.grpc));
        let never_sent = failed.remove(NEVER_SENT).unwrap_or_default();
        let mut noticed: Vec<_> = attacked
            .rose
            .iter()
            .filter(|(name, _)| !before.rose.contains_key(*name) && tells_of_senders(name))
            .map(|(name, rose)| (name.replace("okmon_edge_", ""), *rose))
            .collect();
        noticed.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        noticed.truncate(COUNTERS_SHOWN);
        Self {
            attack: attack.name,
            about: attack.about,
            attacker: attacked.attackers.first().cloned().unwrap_or_default(),
            requests: accepted + failed.values().sum::<u64>(),
            failed,
            never_sent,
            http: Latency::new([&before.http, &after.http], &control.http, &attacked.http),
            grpc: Latency::new([&before.grpc, &after.grpc], &control.grpc, &attacked.grpc),
            memory_quiet_bytes: before.memory_peak_bytes,
            memory_peak_bytes: attacked.memory_peak_bytes,
            cpu_share_quiet: f64::midpoint(before.cpu_share, after.cpu_share),
            cpu_share: attacked.cpu_share,
            noticed,
            is_repeated: false,
        }
    }

    fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    fn latencies(&self) -> [&Latency; 2] {
        [&self.http, &self.grpc]
    }

    /// What remains when the machine's share is taken off: by what it was with the witness attacked, where that was more than quiet.
    fn p99_ratio(&self) -> f64 {
        let ratio = |it: &Latency| it.p99_by_quiet().min(it.p99_by_control());
        self.latencies().map(ratio).into_iter().fold(0.0, f64::max)
    }

    /// The most of a body that is known to have been taken before the answer. Over HTTP/1.1 the greedy figure has buffers in it.
    fn body_bytes(&self) -> Option<u64> {
        let posts = &self.attacker.posts;
        let exact = self.attack.ends_with("http2");
        let greedy = posts.greedy_bytes_max.filter(|_| exact);
        posts.patient_bytes_max.max(greedy)
    }

    fn is_met(&self) -> bool {
        self.p99_ratio() < P99_RATIO_MAX && self.is_met_but_for_p99()
    }

    /// Whether nothing is wrong but the p99, which the machine can be to blame for.
    pub(super) fn is_slow_alone(&self) -> bool {
        self.p99_ratio() >= P99_RATIO_MAX && self.is_met_but_for_p99()
    }

    fn is_met_but_for_p99(&self) -> bool {
        self.failures() == 0
            && self.memory_peak_bytes < MEMORY_BYTES_MAX
            && self
                .body_bytes()
                .is_none_or(|bytes| bytes <= BODY_BYTES_MAX)
            && !self.is_unnoticed()
    }

    fn is_unnoticed(&self) -> bool {
        self.noticed.is_empty()
    }
}

/// What `--quick` found.
#[derive(Debug, Default, Serialize)]
pub(super) struct Quick {
    requests: u64,
    failed: BTreeMap<String, u64>,
    attacks: BTreeMap<&'static str, hostile::Report>,
}

impl Quick {
    /// Adds attacks that went on together.
    pub(super) fn add(&mut self, attacks: &[&'static Attack], phase: Phase) {
        let (accepted, mut failed) = sum(phase.http.iter().chain(&phase.grpc));
        failed.remove(NEVER_SENT);
        self.requests += accepted + failed.values().sum::<u64>();
        for (what, count) in failed {
            *self.failed.entry(what).or_default() += count;
        }
        let names = attacks.iter().map(|attack| attack.name);
        self.attacks.extend(names.zip(phase.attackers));
    }

    pub(super) fn is_met(&self) -> bool {
        self.failed.is_empty() && self.requests > 0
    }
}

impl fmt::Display for Quick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} requests of the good tenant", self.requests)?;
        for (what, count) in &self.failed {
            writeln!(f, "FAILED  {count} x {what}")?;
        }
        for (name, report) in &self.attacks {
            writeln!(f, "{name:22} {report}")?;
        }
        Ok(())
    }
}

impl Findings {
    pub(super) fn new(machine: Machine, args: &Args, rows: Vec<Row>) -> Self {
        let named = |row: Option<&Row>| row.map_or("none", |row| row.attack);
        let judged = rows.iter().filter(|row| !row.is_repeated);
        let slowest = judged.max_by(|a, b| a.p99_ratio().total_cmp(&b.p99_ratio()));
        let ratio = slowest.map_or(f64::NAN, Row::p99_ratio);
        let largest = rows.iter().max_by_key(|row| row.memory_peak_bytes);
        let memory = largest.map_or(0, |row| row.memory_peak_bytes);
        let body = rows.iter().max_by_key(|row| row.body_bytes());
        let body_bytes = body.and_then(Row::body_bytes);
        let unnoticed: Vec<_> = rows
            .iter()
            .filter(|row| row.is_unnoticed())
            .map(|row| row.attack)
            .collect();
        let requests: u64 = rows.iter().map(|row| row.requests).sum();
        let mut goals = vec![
            Goal::none(
                &format!("request of the good tenant failed, of {requests}"),
                rows.iter().map(Row::failures).sum(),
            ),
            Goal::new(
                format!(
                    "p99 of the good tenant below {P99_RATIO_MAX} x its quiet value, the machine's own share taken off"
                ),
                format!("{ratio:.2} x ({})", named(slowest)),
                ratio < P99_RATIO_MAX,
            ),
            Goal::new(
                format!("Memory below {} MB", MEMORY_BYTES_MAX / 1_000_000),
                format!("{:.0} MiB ({})", mebibytes(memory), named(largest)),
                memory < MEMORY_BYTES_MAX,
            ),
            Goal::new(
                "Every attack raises a counter",
                if unnoticed.is_empty() {
                    "all".to_owned()
                } else {
                    format!("not {}", unnoticed.join(", "))
                },
                unnoticed.is_empty(),
            ),
        ];
        if let Some(bytes) = body_bytes {
            goals.push(Goal::new(
                format!(
                    "A post without a good key is answered after at most {} KiB of its body",
                    BODY_BYTES_MAX >> 10
                ),
                format!("{bytes} bytes ({})", named(body)),
                bytes <= BODY_BYTES_MAX,
            ));
        }
        Self {
            machine,
            seconds: args.seconds.as_secs(),
            rates: [args.rate.get(), args.grpc_rate.get()],
            goals: Goals(goals),
            rows,
        }
    }
}

/// Counts as they are written for people.
fn list<'a>(counts: impl Iterator<Item = (&'a String, impl fmt::Display)>) -> String {
    let counts: Vec<_> = counts
        .map(|(what, count)| format!("{count} x {what}"))
        .collect();
    counts.join(", ")
}

impl fmt::Display for Row {
    /// As a row of the first table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "| {} | {} of {}",
            self.attack,
            self.failures(),
            self.requests
        )?;
        if !self.failed.is_empty() {
            write!(f, ": {}", list(self.failed.iter()))?;
        }
        if self.never_sent > 0 {
            write!(f, " (and {} never sent)", self.never_sent)?;
        }
        for latency in self.latencies() {
            let [p99, _, attacked] = latency.p99;
            let (quiet, control) = (latency.p99_by_quiet(), latency.p99_by_control());
            write!(f, " | {p99:.0} → {attacked:.0} | {quiet:.2} | {control:.2}")?;
        }
        let verdict = if self.is_repeated {
            "measured again"
        } else if self.is_met() {
            "met"
        } else {
            "**missed**"
        };
        write!(
            f,
            " | {:.0} → {:.0} | {:.0} → {:.0} | {verdict} |",
            mebibytes(self.memory_quiet_bytes),
            mebibytes(self.memory_peak_bytes),
            self.cpu_share_quiet * 100.0,
            self.cpu_share * 100.0,
        )
    }
}

impl Findings {
    fn tenant(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| attack | good tenant's requests failed | OTLP/HTTP p99 µs, quiet → attacked | ÷ quiet | ÷ control | \
             gRPC p99 µs | ÷ quiet | ÷ control | memory MiB, quiet → most | edge's core %, quiet → attacked | |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
        )?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))
    }

    fn attackers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n| attack | what it is | what the attacker managed | counters that rose only then |\n| --- | --- | --- | --- |"
        )?;
        for row in &self.rows {
            let noticed: Vec<_> = row
                .noticed
                .iter()
                .map(|(name, rose)| format!("`{name}` +{rose}"))
                .collect();
            let noticed = noticed.join(", ");
            writeln!(
                f,
                "| {} | {} | {} | {noticed} |",
                row.attack, row.about, row.attacker
            )?;
        }
        Ok(())
    }

    fn bodies(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let posts: Vec<_> = self
            .rows
            .iter()
            .filter(|row| row.body_bytes().is_some())
            .collect();
        if posts.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\n| bytes of a body of 64 MiB | answered | taken before the answer, patient | … greedy | sent until cut off |\n\
             | --- | --- | --- | --- | --- |"
        )?;
        let bytes = |of: Option<u64>| of.map_or("–".to_owned(), |bytes| bytes.to_string());
        for row in posts {
            let posts = &row.attacker.posts;
            writeln!(
                f,
                "| {} | {} | {} | {} | {} |",
                row.attack,
                posts.answered,
                bytes(posts.patient_bytes_max),
                bytes(posts.greedy_bytes_max),
                bytes(posts.sent_bytes_max)
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [http, grpc] = self.rates;
        writeln!(
            f,
            "{}, each attack for {} s, {http} OTLP/HTTP and {grpc} gRPC requests/s of the good tenant:\n`{}`\n",
            self.machine, self.seconds, self.machine.command
        )?;
        self.goals.fmt(f)?;
        self.tenant(f)?;
        self.attackers(f)?;
        self.bodies(f)
    }
}
