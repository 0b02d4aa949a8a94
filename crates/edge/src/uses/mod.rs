//! Who uses which key: seen by the workers, written to the database in batches, so that an operator sees who still sends with
//! a key that is to go. Nothing waits for it, and nobody is refused because of it: where it cannot keep up, it counts what
//! it dropped.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `mod` | how what the workers saw gets to the database |
//! | `table` | what one worker saw since it last handed over |
//! | `batch` | what all workers saw and is not written yet |

mod batch;
mod table;

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use model::KeyId;
use store::Store;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::batch::Batch;
use self::table::Table;
use crate::keys::Chain;
use crate::metrics::UseMetrics;
use crate::worker::Worker;

/// How often workers hand over, and how long after a failure a write is tried again.
const FLUSH_EVERY: Duration = Duration::from_secs(10);
/// How often workers do while the process stops: requests in flight may be cut off.
const FLUSH_EVERY_STOPPING: Duration = Duration::from_millis(500);
/// Workers hand over at about the same time; what they do is written together.
const GATHER: Duration = Duration::from_millis(500);
/// With many keys in use, each of them is written once in this time and the time between two hand-overs: within a minute.
const GATHER_MANY: Duration = Duration::from_secs(40);
/// How long one transaction may take.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// How long the process waits for what is not written when it stops.
const LAST_WRITE_MAX: Duration = Duration::from_secs(2);
/// Tables on their way that may wait for a write to end.
const QUEUE: usize = 64;

/// What a worker saw, on its way to be written.
pub(crate) struct HandedOver(Table);

/// Where workers hand over, and where it arrives.
pub(crate) fn queue() -> (mpsc::Sender<HandedOver>, mpsc::Receiver<HandedOver>) {
    mpsc::channel(QUEUE)
}

/// What one worker has seen.
pub(crate) struct Uses {
    table: RefCell<Table>,
    to: mpsc::Sender<HandedOver>,
    /// Whether the queue was full when it was last tried, in this round.
    is_stuck: Cell<bool>,
    metrics: UseMetrics,
}

impl Uses {
    pub(crate) fn new(to: mpsc::Sender<HandedOver>, metrics: UseMetrics) -> Self {
        Self {
            table: RefCell::default(),
            to,
            is_stuck: Cell::new(false),
            metrics,
        }
    }

    /// Notes that a key was used. Does not allocate for what is known already.
    pub(crate) fn note(
        &self,
        key_id: KeyId,
        user_agent: Option<&[u8]>,
        address: IpAddr,
        at: Instant,
    ) {
        let mut table = self.table.borrow_mut();
        if table.is_full() && !table.holds(key_id) {
            drop(table);
            if self.is_stuck.get() || !self.hand_over() {
                self.is_stuck.set(true);
                self.metrics.dropped_keys.increment(1);
                return;
            }
            table = self.table.borrow_mut();
        }
        let dropped = table.note(key_id, user_agent, address, at);
        if dropped.user_agents > 0 {
            self.metrics
                .dropped_user_agents
                .increment(dropped.user_agents);
        }
        if dropped.addresses > 0 {
            self.metrics.dropped_addresses.increment(dropped.addresses);
        }
    }

    /// Hands over what was seen, unless there is no room for it. Whether there was.
    pub(crate) fn hand_over(&self) -> bool {
        let mut table = self.table.borrow_mut();
        if table.is_empty() {
            return true;
        }
        let Ok(place) = self.to.try_reserve() else {
            return false;
        };
        place.send(HandedOver(table.take()));
        self.is_stuck.set(false);
        true
    }
}

/// Lets a worker hand over again and again, for as long as it is polled.
pub(crate) async fn keep_handing_over(worker: Rc<Worker>) {
    loop {
        if worker.draining.is_cancelled() {
            tokio::time::sleep(FLUSH_EVERY_STOPPING).await;
        } else {
            tokio::select! {
                () = tokio::time::sleep(FLUSH_EVERY) => {}
                () = worker.draining.cancelled() => {}
            }
        }
        worker.uses.is_stuck.set(false);
        worker.uses.hand_over();
    }
}

/// Writes what the workers hand over until `stop`, and a last time then.
pub(crate) async fn keep_writing(
    store: Store,
    mut arriving: mpsc::Receiver<HandedOver>,
    metrics: UseMetrics,
    stop: CancellationToken,
) {
    let mut writer = Writer {
        store,
        batch: Batch::default(),
        metrics,
        due: None,
        many: false,
        failing: false,
    };
    let writing = async {
        loop {
            let due = writer.due;
            tokio::select! {
                Some(handed_over) = arriving.recv() => writer.take(handed_over),
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    writer.write().await;
                }
                () = stop.cancelled() => break,
            }
        }
        while let Ok(handed_over) = arriving.try_recv() {
            writer.take(handed_over);
        }
        writer.write().await;
    };
    let too_late = async {
        stop.cancelled().await;
        tokio::time::sleep(LAST_WRITE_MAX).await;
    };
    tokio::select! {
        () = writing => {}
        () = too_late => {}
    }
    let keys = writer.batch.keys();
    if keys > 0 {
        warn!(
            keys,
            "the last use of some keys was not written down: the database did not take it in time"
        );
    }
}

struct Writer {
    store: Store,
    batch: Batch,
    metrics: UseMetrics,
    /// When to write, if there is something.
    due: Option<Instant>,
    /// Whether the last write was a large one.
    many: bool,
    failing: bool,
}

impl Writer {
    fn take(&mut self, HandedOver(table): HandedOver) {
        // The machine's clock as it is: a record of when something happened must not run ahead of it.
        let now = (OffsetDateTime::now_utc(), Instant::now());
        let dropped = self.batch.add(table, now);
        let gather = if self.many { GATHER_MANY } else { GATHER };
        self.due.get_or_insert(now.1 + gather);
        self.metrics.dropped_keys.increment(dropped.keys);
        self.metrics
            .dropped_user_agents
            .increment(dropped.user_agents);
        self.metrics.dropped_addresses.increment(dropped.addresses);
        self.report();
    }

    /// Writes what is there. What cannot be written stays, to be written with what comes.
    async fn write(&mut self) {
        self.due = None;
        self.many = self.batch.keys() > batch::WRITTEN_AT_ONCE;
        while let Some(uses) = self.batch.next() {
            let written = store::within(WRITE_MAX, self.store.key_uses_write(&uses)).await;
            match written {
                Ok(()) => {
                    self.batch.written(&uses);
                    if self.failing {
                        info!("the use of keys is written again");
                    }
                    self.failing = false;
                }
                Err(error) => {
                    self.metrics.write_errors.increment(1);
                    if !self.failing {
                        let error = Chain(&error).to_string();
                        warn!(
                            error,
                            "the use of keys could not be written; it is kept and tried again"
                        );
                    }
                    self.failing = true;
                    self.due = Some(Instant::now() + FLUSH_EVERY);
                    break;
                }
            }
        }
        self.report();
    }

    fn report(&self) {
        let keys = u32::try_from(self.batch.keys()).unwrap_or(u32::MAX);
        self.metrics.waiting.set(f64::from(keys));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn key(n: usize) -> KeyId {
        format!("{n:012}").parse().unwrap()
    }

    fn note(uses: &Uses, keys: std::ops::Range<usize>) {
        let now = Instant::now();
        for n in keys {
            uses.note(key(n), None, IpAddr::from([127, 0, 0, 1]), now);
        }
    }

    #[test]
    fn a_full_table_is_handed_over_at_once_and_a_full_queue_holds_nobody_up() {
        let (metrics, rendered) = Metrics::new().unwrap();
        let (to, mut arriving) = mpsc::channel(1);
        let uses = Uses::new(to, metrics.uses.clone());
        note(&uses, 0..table::KEYS_MAX);
        assert!(arriving.try_recv().is_err(), "not full yet");
        note(&uses, table::KEYS_MAX..2 * table::KEYS_MAX);
        note(&uses, 2 * table::KEYS_MAX..2 * table::KEYS_MAX + 7);
        let dropped = "okmon_edge_key_uses_dropped_total{what=\"key\"} 7";
        assert!(rendered.render().contains(dropped), "{}", rendered.render());
        // Those that have a place are still noted.
        note(&uses, table::KEYS_MAX..table::KEYS_MAX + 1);
        assert!(rendered.render().contains(dropped));
        for _ in 0..2 {
            let HandedOver(mut table) = arriving.try_recv().unwrap();
            assert_eq!(table.drain().count(), table::KEYS_MAX);
            uses.hand_over();
        }
        assert!(arriving.try_recv().is_err());
    }

    #[tokio::test]
    async fn with_many_keys_in_use_each_is_written_once_a_minute() {
        let url = "sqlite::memory:".parse().unwrap();
        let store = Store::connect(&url, 1).await.unwrap();
        store.migrate().await.unwrap();
        let mut writer = Writer {
            store,
            batch: Batch::default(),
            metrics: Metrics::new().unwrap().0.uses.clone(),
            due: None,
            many: false,
            failing: false,
        };
        let take = |writer: &mut Writer, keys: usize| {
            let (to, mut arriving) = queue();
            let uses = Uses::new(to, writer.metrics.clone());
            note(&uses, 0..keys);
            uses.hand_over();
            let before = Instant::now();
            writer.take(arriving.try_recv().unwrap());
            writer.due.map(|due| due - before)
        };
        for (keys, before, many) in [
            (5, GATHER, false),
            (batch::WRITTEN_AT_ONCE + 1, GATHER, true),
            (5, GATHER_MANY, false),
            (5, GATHER, false),
        ] {
            let due = take(&mut writer, keys).unwrap();
            assert!(
                before <= due && due < before + FLUSH_EVERY,
                "{keys}: {due:?}"
            );
            writer.write().await;
            assert_eq!(
                (writer.many, writer.batch.keys(), writer.due),
                (many, 0, None)
            );
        }
        assert!(FLUSH_EVERY + GATHER_MANY < Duration::from_mins(1));
    }
}
