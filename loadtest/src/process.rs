//! A program under test: started in a process group of its own, held to a core, its CPU time and memory read from `/proc` for all
//! processes of the group, ended as a group.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::time::Instant;

/// Linux counts the ticks of `/proc/PID/stat` in hundredths of a second on every architecture we run on.
const TICK_NANOS: u64 = 10_000_000;
const READY_WITHIN: Duration = Duration::from_secs(30);
const STOP_WITHIN: Duration = Duration::from_secs(3);

/// A running process group; dropping it ends the group.
pub(crate) struct Group {
    leader: Child,
    log: PathBuf,
}

/// CPU time used so far.
pub(crate) struct CpuTime {
    /// By process and thread, in nanoseconds, of those alive.
    threads: BTreeMap<(u32, u32), u64>,
    /// Of all threads that ever were, in ticks of 10 ms.
    ticks: u64,
}

impl CpuTime {
    /// Nanoseconds since the start, to 10 ms where threads have ended.
    pub(crate) fn nanos(&self) -> u64 {
        let alive = self.threads.values().sum::<u64>();
        alive.max(self.ticks * TICK_NANOS)
    }

    /// Nanoseconds between `earlier` and this.
    pub(crate) fn since(&self, earlier: &Self) -> u64 {
        // A thread that ended took its precise figure along; the process's coarse one has it still.
        if earlier
            .threads
            .keys()
            .any(|id| !self.threads.contains_key(id))
        {
            return self.ticks.saturating_sub(earlier.ticks) * TICK_NANOS;
        }
        let total = |time: &Self| time.threads.values().sum::<u64>();
        total(self).saturating_sub(total(earlier))
    }
}

/// A command that runs on `core` only.
pub(crate) fn pinned(core: u32, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(core.to_string()).arg(program);
    command
}

/// As [`pinned`], and only in the time that nobody else wants on the core: whatever else is to run there goes first at once.
pub(crate) fn pinned_idle(core: u32, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("chrt");
    command
        .args(["--idle", "0", "taskset", "-c"])
        .arg(core.to_string())
        .arg(program);
    command
}

/// The program of `command` with as many open files as this machine lets it have, which by default are few.
pub(crate) fn with_many_files(command: &Command) -> anyhow::Result<Command> {
    let limits = fs::read_to_string("/proc/self/limits").context("/proc/self/limits")?;
    let files = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|line| line.split_whitespace().nth(1))
        .context("/proc/self/limits: no open files")?;
    let mut raised = Command::new("prlimit");
    raised
        .arg(format!("--nofile={files}:{files}"))
        .arg(command.get_program())
        .args(command.get_args());
    Ok(raised)
}

impl Group {
    /// Starts `command` as the leader of a new group, with everything it prints in the file `log`.
    pub(crate) fn start(mut command: Command, log: PathBuf) -> anyhow::Result<Self> {
        let out = File::create(&log).with_context(|| log.display().to_string())?;
        let leader = command
            .process_group(0)
            .stdin(Stdio::null())
            .stderr(out.try_clone()?)
            .stdout(out)
            .spawn()
            .context("taskset (Debian package util-linux)")?;
        Ok(Self { leader, log })
    }

    /// `None` while it runs; the end of what it printed when it does not.
    pub(crate) fn epitaph(&mut self) -> Option<String> {
        let status = self.leader.try_wait().ok().flatten()?;
        Some(format!("{status}: {}", self.last_words()))
    }

    /// Waits until something listens on `address`.
    pub(crate) fn await_port(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        while TcpStream::connect(address).is_err() {
            if let Some(epitaph) = self.epitaph() {
                bail!("ended at start: {epitaph}");
            }
            ensure!(
                Instant::now() < deadline,
                "does not listen on {address} after {READY_WITHIN:?}: {}",
                self.last_words()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The last lines it printed.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.trim_end().lines().rev().take(3).collect();
        let last: Vec<_> = lines.into_iter().rev().collect();
        last.join(" / ").chars().take(600).collect()
    }

    /// The process that leads it.
    pub(crate) fn id(&self) -> u32 {
        self.leader.id()
    }

    fn processes(&self) -> Vec<PathBuf> {
        let group = self.leader.id().to_string();
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| stat_field(path, 2).as_deref() == Some(&group))
            .collect()
    }

    /// The CPU time of all its processes, user and system.
    pub(crate) fn cpu_time(&self) -> CpuTime {
        cpu_time(&self.processes())
    }

    /// The most memory each of its processes ever had resident, summed. Pages they share count for each.
    pub(crate) fn peak_memory_bytes(&self) -> u64 {
        self.processes()
            .iter()
            .filter_map(|process| status_bytes(process, "VmHWM:"))
            .sum()
    }

    /// Ends all its processes at once, as a machine does that loses its power.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.signal("KILL");
        self.leader.wait().context("killing")?;
        Ok(())
    }

    fn signal(&self, name: &str) {
        // A group that is gone already is what the signal is for.
        let _ = Command::new("kill")
            .arg(format!("-{name}"))
            .arg("--")
            .arg(format!("-{}", self.leader.id()))
            .stderr(Stdio::null())
            .status();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal("TERM");
        let polls = STOP_WITHIN.as_millis() / 20;
        for _ in 0..polls {
            if let Ok(Some(_)) = self.leader.try_wait() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // Also catches workers that outlived their leader.
        self.signal("KILL");
        let _ = self.leader.wait();
    }
}

/// The CPU time of one process, user and system.
pub(crate) fn cpu_time_of(process: u32) -> CpuTime {
    cpu_time(&[folder(process)])
}

/// The memory that a process has resident, and the most it ever had, in bytes.
pub(crate) fn memory_bytes_of(process: u32) -> (u64, u64) {
    let bytes = |name| status_bytes(&folder(process), name).unwrap_or_default();
    (bytes("VmRSS:"), bytes("VmHWM:"))
}

/// Lets the most memory that a process ever had resident be counted anew from what it has now.
pub(crate) fn forget_peak(process: u32) -> anyhow::Result<()> {
    let file = folder(process).join("clear_refs");
    fs::write(&file, "5").with_context(|| file.display().to_string())
}

fn folder(process: u32) -> PathBuf {
    Path::new("/proc").join(process.to_string())
}

fn cpu_time(processes: &[PathBuf]) -> CpuTime {
    let mut time = CpuTime {
        threads: BTreeMap::new(),
        ticks: 0,
    };
    for process in processes {
        // Its own, and that of the children it has waited for.
        time.ticks += (11..15)
            .filter_map(|field| stat_field(process, field)?.parse::<u64>().ok())
            .sum::<u64>();
        let Ok(tasks) = fs::read_dir(process.join("task")) else {
            continue;
        };
        for task in tasks.flatten().map(|entry| entry.path()) {
            if let (Some(id), Some(nanos)) = (number(process).zip(number(&task)), run_time(&task)) {
                time.threads.insert(id, nanos);
            }
        }
    }
    time
}

/// A line of `/proc/PID/status` that counts in kibibytes.
fn status_bytes(process: &Path, name: &str) -> Option<u64> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix(name))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// A field of `/proc/PID/stat`, counted from the one after the name, which may itself hold spaces.
fn stat_field(process: &Path, index: usize) -> Option<String> {
    number(process)?;
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(index).map(str::to_owned)
}

/// A thread's time on a CPU in nanoseconds.
fn run_time(task: &Path) -> Option<u64> {
    let schedstat = fs::read_to_string(task.join("schedstat")).ok()?;
    schedstat.split(' ').next()?.parse().ok()
}

fn number(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.parse().ok()
}
