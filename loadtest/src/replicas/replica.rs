//! The replicas, and who kills them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use tokio::time::Instant;

use crate::process::{Group, pinned};
use crate::stand::loopback;

/// A backend at an address that it keeps when it is started again.
pub(super) struct Replica {
    pub(super) address: SocketAddr,
    core: u32,
    log: PathBuf,
    group: Group,
}

impl Replica {
    pub(super) fn start(core: u32, log: PathBuf) -> anyhow::Result<Self> {
        let address = loopback();
        let group = begin(address, core, log.clone())?;
        Ok(Self {
            address,
            core,
            log,
            group,
        })
    }

    fn start_again(&mut self) -> anyhow::Result<()> {
        self.group = begin(self.address, self.core, self.log.clone())?;
        Ok(())
    }
}

fn begin(address: SocketAddr, core: u32, log: PathBuf) -> anyhow::Result<Group> {
    let mut command = pinned(core, std::env::current_exe()?);
    command.args(["upstream", "--listen", &address.to_string()]);
    let mut group = Group::start(command, log)?;
    group.await_port(address).context("replica")?;
    Ok(group)
}

/// When replicas are killed, and for how long.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Kills {
    pub(super) every: Duration,
    pub(super) away: Duration,
}

impl Kills {
    /// Kills one replica after the other until `end`, the first in the middle of the first turn: how many were killed. All are there
    /// when it is over.
    pub(super) fn until(&self, end: Instant, replicas: &mut [Replica]) -> anyhow::Result<u64> {
        let mut due = Instant::now() + self.every / 2;
        let (mut killed, count) = (0, replicas.len());
        for turn in 0.. {
            if due >= end {
                break;
            }
            let replica = replicas.get_mut(turn % count).context("no replica")?;
            sleep_until(due);
            replica.group.kill()?;
            killed += 1;
            sleep_until(due + self.away);
            replica.start_again()?;
            due += self.every;
        }
        Ok(killed)
    }
}

fn sleep_until(due: Instant) {
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
}
