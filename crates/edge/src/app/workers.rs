//! A thread with a runtime of its own per core: requests never move between cores and share no lock.

use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::LocalOptions;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::listen::{self, ToWorker, WorkerSender};
use crate::uses::{self, HandedOver, Uses};
use crate::worker::{Blueprint, Common, Worker};

/// The threads that serve requests.
pub(super) struct Workers {
    senders: Vec<WorkerSender>,
    /// Closed when the last thread has ended; nothing is ever sent.
    alive: mpsc::Receiver<Infallible>,
    /// Cancelled when connections shall be dropped as they are.
    cut_off: CancellationToken,
}

impl Workers {
    /// Starts `count` of them.
    pub(super) fn start(
        count: usize,
        blueprint: Blueprint,
        common: &Common,
        hand_over: &mpsc::Sender<HandedOver>,
    ) -> io::Result<Self> {
        let blueprint = Arc::new(blueprint);
        let mut senders = Vec::with_capacity(count);
        let (lives, alive) = mpsc::channel(1);
        let cut_off = CancellationToken::new();
        for n in 0..count {
            let (to_worker, told) = mpsc::unbounded_channel();
            senders.push(WorkerSender {
                to_worker,
                load: Arc::new(AtomicUsize::new(0)),
            });
            let (common, blueprint) = (common.clone(), Arc::clone(&blueprint));
            let uses = Uses::new(hand_over.clone(), common.metrics.uses.clone());
            let (lives, cut_off) = (lives.clone(), cut_off.clone());
            let thread = std::thread::Builder::new().name(format!("edge-{n}"));
            thread.spawn(move || {
                if let Err(error) = run(common, &blueprint, uses, told, &cut_off) {
                    tracing::error!(%error, "a worker could not start");
                }
                drop(lives);
            })?;
        }
        Ok(Self {
            senders,
            alive,
            cut_off,
        })
    }

    /// Where to hand connections to them.
    pub(super) fn senders(&self) -> Vec<WorkerSender> {
        self.senders.clone()
    }

    /// Has every worker serve the requests that begin from now on by `blueprint`; done when they all do.
    pub(super) async fn replace(&self, blueprint: Blueprint) {
        let blueprint = Arc::new(blueprint);
        let mut waiting = Vec::new();
        for sender in &self.senders {
            let (done, replaced) = oneshot::channel();
            let message = ToWorker::Configuration(Arc::clone(&blueprint), done);
            if sender.to_worker.send(message).is_ok() {
                waiting.push(replaced);
            }
        }
        for replaced in waiting {
            // A worker that is gone serves nothing by the old one either.
            let _ = replaced.await;
        }
    }

    /// How many connections are open.
    pub(super) fn connections(&self) -> usize {
        let loads = self.senders.iter().map(|sender| &sender.load);
        loads.map(|load| load.load(Ordering::Relaxed)).sum()
    }

    /// Waits until the threads end: nobody hands them connections any more, and those they have are over.
    pub(super) async fn ended(&mut self) {
        // The load is still asked for, which needs no channel.
        for sender in &mut self.senders {
            sender.to_worker = mpsc::unbounded_channel().0;
        }
        // A worker that panicked has said so.
        let _ = self.alive.recv().await;
    }

    /// Drops the connections that are left, with the requests on them, and waits until the threads end. How many they were.
    pub(super) async fn cut_off(&mut self) -> usize {
        let left = self.connections();
        self.cut_off.cancel();
        self.ended().await;
        left
    }
}

fn run(
    common: Common,
    blueprint: &Blueprint,
    uses: Uses,
    told: mpsc::UnboundedReceiver<ToWorker>,
    cut_off: &CancellationToken,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    let current = blueprint.build(&common.metrics);
    let worker = Worker::new(common, current, uses).map_err(io::Error::other)?;
    runtime.block_on(async {
        tokio::select! {
            () = listen::serve_accepted(Rc::clone(&worker), told) => {}
            () = uses::keep_handing_over(Rc::clone(&worker)) => {}
            () = cut_off.cancelled() => {}
        }
    });
    // Streams of HTTP/2 are tasks of their own, and say what became of them when they are dropped.
    drop(runtime);
    worker.uses.hand_over();
    Ok(())
}
