//! Keys with a right checksum that nobody was given: what they are answered, which while the database is away must be "later" and
//! never "no".

use std::collections::BTreeMap;
use std::time::Duration;

use testkit::edge::Edge;
use testkit::key_rows::fresh_key;
use tokio::time::Instant;

use super::TRY_EVERY;

/// How many answers there were of each kind: `http 503`, `grpc 14`.
pub(super) type Answers = BTreeMap<String, u64>;

#[derive(Default)]
pub(super) struct Strangers {
    answers: Answers,
}

impl Strangers {
    /// Tries a fresh key at each edge in both protocols.
    pub(super) fn try_once(&mut self, edges: &[&mut Edge]) {
        for edge in edges {
            let http = match edge.post(fresh_key().reveal()) {
                Ok(status) => format!("http {status}"),
                Err(error) => error,
            };
            let grpc = format!("grpc {}", edge.grpc(fresh_key().reveal()));
            for answer in [http, grpc] {
                *self.answers.entry(answer).or_default() += 1;
            }
        }
    }

    /// Tries again and again until `time` has passed.
    pub(super) fn try_for(&mut self, time: Duration, edges: &[&mut Edge]) {
        let until = Instant::now() + time;
        loop {
            self.try_once(edges);
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(TRY_EVERY));
        }
    }

    /// The answers since the last time.
    pub(super) fn take(&mut self) -> Answers {
        std::mem::take(&mut self.answers)
    }
}
