//! A sender that never stops: requests at a steady pace, each answer counted, the keys changed under way.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::edge::{agent, post};

/// A thread that sends. Dropping it stops it.
#[derive(Debug)]
pub struct Sender {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    keys: Mutex<Vec<String>>,
    answers: Mutex<Answers>,
    stopped: AtomicBool,
}

/// How many answers there were of each status, or of each reason for none.
pub type Answers = BTreeMap<String, u64>;

impl Sender {
    /// Posts a log record to the edge at `url` every `pause` and the time an answer takes, with `keys` in turn.
    pub fn start(url: &str, keys: &[String], pause: Duration) -> Self {
        let shared = Arc::new(Shared {
            keys: Mutex::new(keys.to_owned()),
            ..Shared::default()
        });
        let (sending, url) = (Arc::clone(&shared), url.to_owned());
        let thread = std::thread::spawn(move || send(&sending, &url, pause));
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// Sends with other keys from the next request on.
    pub fn switch(&self, keys: &[String]) {
        keys.clone_into(&mut lock(&self.shared.keys));
    }

    /// The answers so far.
    pub fn answers(&self) -> Answers {
        lock(&self.shared.answers).clone()
    }

    /// How many answers there were so far.
    pub fn count(&self) -> u64 {
        lock(&self.shared.answers).values().sum()
    }

    /// Sends no more: all answers.
    pub fn stop(mut self) -> Answers {
        self.end();
        self.answers()
    }

    fn end(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It cannot panic, and if it did, its answers would be missing.
            let _ = thread.join();
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.end();
    }
}

fn send(shared: &Shared, url: &str, pause: Duration) {
    let agent = agent();
    for n in 0.. {
        let key = {
            let keys = lock(&shared.keys);
            keys.get(n % keys.len().max(1)).cloned().unwrap_or_default()
        };
        let answer = match post(&agent, url, &key) {
            Ok(status) => status.to_string(),
            Err(error) => error,
        };
        *lock(&shared.answers).entry(answer).or_default() += 1;
        if shared.stopped.load(Ordering::Relaxed) {
            return;
        }
        std::thread::sleep(pause);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
