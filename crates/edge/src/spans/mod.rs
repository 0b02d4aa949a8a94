//! Spans of the edge itself: what the operator sees of requests in a tracing system. A worker hands a record of a finished request
//! over and goes on; all else happens on the background runtime. Nothing waits for it: where it cannot keep up, it counts
//! what it dropped.
//!
//! The spans are the operator's, the sender's trace is the tenant's. So each is the root of a trace of its own, with a link to
//! the sender's span, and whether there is one is for the edge alone to say: neither can a tenant fill the operator's tracing
//! system by marking its requests as sampled, nor does the operator's data appear in the tenant's traces. It is what W3C Trace
//! Context calls a restarted trace, and what it advises where trust ends (section 3.3).

mod export;
mod span;

use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::{KeyId, Signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::SpanSettings;
use crate::keys::Held;
use crate::listen::Peer;
use crate::metrics::{Outcome, SpanMetrics};
use crate::protocol::Protocol;
use crate::request::TraceParent;
use crate::worker::RequestId;

/// Records that may wait for the background; each has less than 1 KiB.
const QUEUE_MAX: usize = 4096;

/// A request that is over, as far as its span tells of it.
pub(crate) struct Finished {
    pub(crate) id: RequestId,
    pub(crate) ended: SystemTime,
    pub(crate) duration: Duration,
    pub(crate) flow: Option<(Protocol, Signal)>,
    pub(crate) outcome: Outcome,
    pub(crate) cause: Option<&'static str>,
    pub(crate) status: Option<u16>,
    pub(crate) grpc_status: Option<u16>,
    pub(crate) held: Option<Arc<Held>>,
    pub(crate) key_id: Option<KeyId>,
    pub(crate) peer: Peer,
    pub(crate) upstream: Option<String>,
    pub(crate) received_bytes: u64,
    pub(crate) sender: Option<TraceParent>,
}

/// Where workers hand over to.
#[derive(Clone)]
pub(crate) struct Spans {
    to: mpsc::Sender<Finished>,
    /// One request in so many has a span.
    pub(crate) one_in: u32,
    metrics: SpanMetrics,
}

impl Spans {
    /// Hands a request over, or counts it where there is no room.
    pub(crate) fn offer(&self, finished: Finished) {
        if self.to.try_send(finished).is_err() {
            self.metrics.dropped_in_queue.increment(1);
        }
    }
}

/// The tasks that export: one for each configuration that is in force, or was and has requests in flight.
pub(crate) struct SpanExports {
    tasks: JoinSet<()>,
    metrics: SpanMetrics,
    stop: CancellationToken,
}

impl SpanExports {
    /// None yet. They end when nobody can hand over any more, or with `stop`.
    pub(crate) fn new(metrics: &SpanMetrics, stop: &CancellationToken) -> Self {
        Self {
            tasks: JoinSet::new(),
            metrics: metrics.clone(),
            stop: stop.clone(),
        }
    }

    /// Starts one on the current runtime, if `settings` ask for it. It ends when what is given is dropped, and all its copies.
    ///
    /// # Errors
    /// What is wrong with the settings, as a line for the operator.
    pub(crate) fn start(
        &mut self,
        settings: Option<&SpanSettings>,
    ) -> Result<Option<Spans>, String> {
        while self.tasks.try_join_next().is_some() {}
        let Some(settings) = settings else {
            return Ok(None);
        };
        let headers = match &settings.headers_file {
            Some(file) => fs::read_to_string(file).map_err(|error| {
                let file = file.display();
                format!("spans.headers_file: cannot read {file}: {error}")
            })?,
            None => String::new(),
        };
        let exporter = export::exporter(&settings.endpoint, &headers)?;
        let (to, arriving) = mpsc::channel(QUEUE_MAX);
        self.tasks.spawn(export::keep_exporting(
            exporter,
            arriving,
            self.metrics.clone(),
            self.stop.clone(),
        ));
        Ok(Some(Spans {
            to,
            one_in: settings.one_in,
            metrics: self.metrics.clone(),
        }))
    }

    /// Waits until all have ended.
    pub(crate) async fn ended(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}
