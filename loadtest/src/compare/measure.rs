//! One measurement: a run of the generator through a candidate, the candidate's CPU time before and after, and what upstream and
//! generator say of the answers. A wrong answer is never averaged away: it is kept as a fault.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Serialize;

use super::candidate::{Recipe, Site};
use super::workload::{ALL, Workload};
use crate::process::{Group, pinned};
use crate::{generator, upstream};

/// Opens upstream connections and fills caches before anything is counted.
const WARM_UP: Duration = Duration::from_millis(200);

/// Candidates standing ready, and the upstream behind them.
pub(crate) struct Bench<'a> {
    site: &'a Site,
    proxy_core: u32,
    load_core: u32,
    duration: Duration,
    this: PathBuf,
    strangers: PathBuf,
    _upstream: Group,
    standing: Vec<Standing>,
}

struct Standing {
    recipe: Recipe,
    group: Group,
    found: BTreeMap<&'static str, Vec<Sample>>,
    faults: Vec<String>,
}

/// What one run under one workload found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    /// CPU time of all the candidate's processes for each answered request, in microseconds.
    pub(crate) cpu_micros: f64,
    /// Accepted requests a second.
    pub(crate) per_second: f64,
    /// How much of its core the candidate used; well below 1 in a closed loop means that the load was the limit.
    pub(crate) busy: f64,
    /// Latency quantiles in microseconds.
    pub(crate) latency_micros: generator::Latencies,
}

/// Everything found about one candidate.
#[derive(Debug, Serialize)]
pub(crate) struct Candidate {
    pub(crate) name: &'static str,
    pub(crate) method: &'static str,
    pub(crate) version: String,
    /// By workload, a sample for each round.
    pub(crate) samples: BTreeMap<&'static str, Vec<Sample>>,
    pub(crate) peak_memory_bytes: u64,
    /// Answers or requests that were not as they must be.
    pub(crate) faults: Vec<String>,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(
        site: &'a Site,
        proxy_core: u32,
        load_core: u32,
        duration: Duration,
    ) -> anyhow::Result<Self> {
        let this = std::env::current_exe().context("the path of this program")?;
        let mut command = pinned(load_core, &this);
        command.args(["upstream", "--listen", &site.upstream.to_string()]);
        let mut upstream = Group::start(command, site.directory.join("upstream.log"))?;
        upstream
            .await_port(site.upstream)
            .context("null upstream")?;
        let stranger = crate::keys::generate(1)?;
        let lines = stranger
            .iter()
            .map(|pair| pair.key.clone() + "\n")
            .collect::<String>();
        Ok(Self {
            site,
            proxy_core,
            load_core,
            duration,
            this,
            strangers: site.file("strangers.txt", &lines)?,
            _upstream: upstream,
            standing: Vec::new(),
        })
    }

    /// How many candidates can be measured.
    pub(crate) fn ready(&self) -> usize {
        self.standing.len()
    }

    /// Starts a candidate and lets it prove that it does the job: known keys pass, an unknown one does not.
    pub(crate) fn start(&mut self, recipe: Recipe) -> anyhow::Result<()> {
        let name = recipe.name;
        let mut command = pinned(self.proxy_core, &recipe.program);
        command
            .args(&recipe.arguments)
            .envs(recipe.environment.clone());
        let log = self.site.directory.join(format!("{name}.log"));
        let mut group = Group::start(command, log).context(name)?;
        let address = SocketAddr::from(([127, 0, 0, 1], recipe.ports.http1));
        group.await_port(address).context(name)?;
        // A rate may be more than it can do; that is for the measurement to show.
        for workload in ALL.iter().filter(|w| w.is_closed_loop()) {
            let Some(port) = recipe.ports.of(workload.route) else {
                continue;
            };
            let proved = self.prove(workload, port);
            proved.with_context(|| format!("{name}, {}: {}", workload.name, group.last_words()))?;
        }
        self.standing.push(Standing {
            recipe,
            group,
            found: BTreeMap::new(),
            faults: Vec::new(),
        });
        Ok(())
    }

    fn prove(&self, workload: &Workload, port: u16) -> anyhow::Result<()> {
        let known = self.generate(workload, port, &self.site.keys_file, WARM_UP)?;
        ensure!(
            known.accepted > 0 && known.other.is_empty(),
            "known keys: {} accepted, not accepted: {:?}",
            known.accepted,
            known.other
        );
        let unknown = self.generate(workload, port, &self.strangers, WARM_UP / 10)?;
        ensure!(
            unknown.accepted == 0,
            "an unknown key was let through {} times",
            unknown.accepted
        );
        Ok(())
    }

    /// Measures every candidate once under `workload`; each round begins with another one.
    pub(crate) fn round(&mut self, workload: &Workload, round: u32) -> anyhow::Result<()> {
        let count = self.standing.len();
        for turn in 0..count {
            let index = (turn + round as usize) % count;
            let Some(port) = self
                .standing
                .get(index)
                .and_then(|s| s.recipe.ports.of(workload.route))
            else {
                continue;
            };
            let measured = self.measure(workload, index, port);
            let Some(standing) = self.standing.get_mut(index) else {
                continue;
            };
            if let Some(epitaph) = standing.group.epitaph() {
                bail!(
                    "{} ended under {}: {epitaph}",
                    standing.recipe.name,
                    workload.name
                );
            }
            let (sample, faults) = measured?;
            standing
                .found
                .entry(workload.name)
                .or_default()
                .push(sample);
            standing.faults.extend(
                faults
                    .into_iter()
                    .map(|fault| format!("{}: {fault}", workload.name)),
            );
        }
        Ok(())
    }

    fn measure(
        &self,
        workload: &Workload,
        index: usize,
        port: u16,
    ) -> anyhow::Result<(Sample, Vec<String>)> {
        let standing = self.standing.get(index).context("no such candidate")?;
        let seen_before = upstream::ask(self.site.upstream)?;
        let used_before = standing.group.cpu_time();
        let report = self.generate(workload, port, &self.site.keys_file, self.duration)?;
        let used = standing.group.cpu_time().since(&used_before);
        let seen = upstream::ask(self.site.upstream)?;

        let micros = float(used) / 1000.0;
        let sample = Sample {
            cpu_micros: micros / float(report.accepted.max(1)),
            per_second: report.per_second,
            busy: micros / 1e6 / report.elapsed_seconds,
            latency_micros: report.latency_micros.clone(),
        };
        Ok((sample, faults(&report, &seen_before, &seen)))
    }

    fn generate(
        &self,
        workload: &Workload,
        port: u16,
        keys: &Path,
        duration: Duration,
    ) -> anyhow::Result<generator::Report> {
        let output = pinned(self.load_core, &self.this)
            .args(workload.arguments(port, keys, duration))
            .stdin(Stdio::null())
            .output()
            .context("taskset (Debian package util-linux)")?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }

    /// Reads the last figures and ends the candidates.
    pub(crate) fn finish(self) -> anyhow::Result<Vec<Candidate>> {
        let tenants = upstream::ask(self.site.upstream)?.tenants;
        ensure!(
            tenants <= self.site.keys.len() as u64,
            "the upstream saw {tenants} tenants, more than there are"
        );
        let candidates = self.standing.into_iter().map(|standing| Candidate {
            name: standing.recipe.name,
            method: standing.recipe.method,
            version: standing.recipe.version.clone(),
            peak_memory_bytes: standing.group.peak_memory_bytes(),
            samples: standing.found,
            faults: standing.faults,
        });
        Ok(candidates.collect())
    }
}

fn faults(
    report: &generator::Report,
    before: &upstream::Report,
    after: &upstream::Report,
) -> Vec<String> {
    let mut faults: Vec<String> = report
        .other
        .iter()
        .map(|(what, count)| format!("{count} x {what}"))
        .collect();
    let counts = [
        ("without tenant", after.no_tenant - before.no_tenant),
        (
            "with several tenants",
            after.several_tenants - before.several_tenants,
        ),
        (
            "cut short",
            after.cut_short.saturating_sub(before.cut_short),
        ),
    ];
    for (what, count) in counts {
        if count > 0 {
            faults.push(format!("{count} requests reached the upstream {what}"));
        }
    }
    let arrived = after.requests - before.requests;
    if arrived < report.accepted {
        faults.push(format!(
            "{} requests were accepted, {arrived} reached the upstream",
            report.accepted
        ));
    }
    faults
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}
