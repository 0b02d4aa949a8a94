//! A thread with a runtime of its own per core: requests never move between cores and share no lock.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::runtime::LocalOptions;
use tokio::sync::{mpsc, oneshot};

use crate::listen::{self, ToWorker, WorkerSender};
use crate::uses::{self, HandedOver, Uses};
use crate::worker::{Blueprint, Common, Worker};

/// The threads that serve requests.
pub(super) struct Workers {
    threads: Vec<JoinHandle<()>>,
    senders: Vec<WorkerSender>,
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
        let (mut threads, mut senders) = (Vec::new(), Vec::new());
        for n in 0..count {
            let (to_worker, told) = mpsc::unbounded_channel();
            senders.push(WorkerSender {
                to_worker,
                load: Arc::new(AtomicUsize::new(0)),
            });
            let (common, blueprint) = (common.clone(), Arc::clone(&blueprint));
            let uses = Uses::new(hand_over.clone(), common.metrics.uses.clone());
            let thread = std::thread::Builder::new().name(format!("edge-{n}"));
            threads.push(thread.spawn(move || {
                if let Err(error) = run(common, &blueprint, uses, told) {
                    tracing::error!(%error, "a worker could not start");
                }
            })?);
        }
        Ok(Self { threads, senders })
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
        let threads = std::mem::take(&mut self.threads);
        // The load is still asked for, which needs no channel.
        for sender in &mut self.senders {
            sender.to_worker = mpsc::unbounded_channel().0;
        }
        let (done, all_ended) = oneshot::channel();
        // Not one of the runtime's own threads for blocking work: the runtime's end would wait for it, however long.
        let joining = std::thread::Builder::new().name("end".to_owned());
        let joining = joining.spawn(move || {
            for thread in threads {
                // A worker that panicked has said so.
                let _ = thread.join();
            }
            let _ = done.send(());
        });
        if joining.is_ok() {
            let _ = all_ended.await;
        }
    }
}

fn run(
    common: Common,
    blueprint: &Blueprint,
    uses: Uses,
    told: mpsc::UnboundedReceiver<ToWorker>,
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
        }
    });
    worker.uses.hand_over();
    Ok(())
}
