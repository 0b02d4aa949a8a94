//! One change: made, timed until the last edge acts on it, every answer on the way looked at.

use std::time::Duration;

use anyhow::{Context, ensure};
use model::ApiKey;
use serde_json::json;
use testkit::control::{Control, id_of};
use testkit::edge::{Edge, agent, post};
use testkit::key_rows::{fresh_key, insert_key};
use testkit::psql::Psql;
use tokio::time::Instant;

use crate::keys::KeyPair;

/// How often each edge is asked whether it acts on the change yet.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// What takes longer is not late but lost.
const LOST_AFTER: Duration = Duration::from_mins(1);

/// Who changes what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    ApiCreate,
    ApiRevoke,
    SqlInsert,
    SqlRevoke,
    SqlDelete,
    SqlSuspend,
}

impl Kind {
    /// Half by the API, half by hand.
    pub(crate) const IN_TURN: [Self; 8] = [
        Self::ApiCreate,
        Self::SqlInsert,
        Self::ApiRevoke,
        Self::SqlRevoke,
        Self::ApiCreate,
        Self::SqlDelete,
        Self::ApiRevoke,
        Self::SqlSuspend,
    ];
    pub(crate) const ALL: [Self; 6] = [
        Self::ApiCreate,
        Self::ApiRevoke,
        Self::SqlInsert,
        Self::SqlRevoke,
        Self::SqlDelete,
        Self::SqlSuspend,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ApiCreate => "key created by the API",
            Self::ApiRevoke => "key revoked by the API",
            Self::SqlInsert => "key inserted by SQL, refused as unknown just before",
            Self::SqlRevoke => "`revoked_at` set by SQL",
            Self::SqlDelete => "key deleted by SQL",
            Self::SqlSuspend => "tenant suspended by SQL",
        }
    }

    /// What the edges answer once they act on it.
    fn effect(self) -> u16 {
        match self {
            Self::ApiCreate | Self::SqlInsert => 200,
            Self::ApiRevoke | Self::SqlRevoke | Self::SqlDelete => 401,
            // Its senders shall keep their data for a while.
            Self::SqlSuspend => 503,
        }
    }
}

/// A change and the time it took, from just before its statement or request was sent until the last edge acted on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) kind: Kind,
    pub(crate) time: Duration,
}

/// Where changes are made and watched.
pub(crate) struct Bench<'a> {
    edges: Vec<(ureq::Agent, String)>,
    control: &'a Control,
    by_hand: Psql,
    /// Keys that work, each of a tenant of its own.
    subjects: Vec<KeyPair>,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(
        edges: &[Edge],
        control: &'a Control,
        by_hand: Psql,
        subjects: Vec<KeyPair>,
    ) -> Self {
        Self {
            edges: edges.iter().map(|edge| (agent(), edge.url())).collect(),
            control,
            by_hand,
            subjects,
        }
    }

    /// Makes a change to a key that no other change touches.
    pub(crate) fn change(&mut self, kind: Kind) -> anyhow::Result<Taken> {
        let KeyPair { key, tenant } = self.subjects.pop().context("no keys are left")?;
        let id = id_of(&key);
        let (watched, before) = match kind {
            Kind::SqlInsert => (fresh_key().reveal().to_owned(), 401),
            _ => (key.clone(), 200),
        };
        for (agent, url) in &self.edges {
            let found = post(agent, url, &watched);
            ensure!(
                found == Ok(before),
                "{found:?} before it; expected {before}"
            );
        }
        let started = Instant::now();
        let watched = match kind {
            Kind::ApiCreate => self.control.create_key(&tenant),
            Kind::ApiRevoke => {
                let path = format!("/keys/{id}/revoke");
                self.control.post(&path, &json!({}));
                watched
            }
            _ => {
                self.by_hand.run(&match kind {
                    Kind::SqlInsert => insert_key(&tenant, &watched.parse::<ApiKey>()?),
                    Kind::SqlRevoke => {
                        format!("update api_keys set revoked_at = now() where key_id = '{id}'")
                    }
                    Kind::SqlDelete => format!("delete from api_keys where key_id = '{id}'"),
                    _ => format!(
                        "update tenants set status = 'suspended', suspended_at = now() where id = '{tenant}'"
                    ),
                });
                watched
            }
        };
        let time = self.watch(&watched, kind.effect(), started)?;
        Ok(Taken { kind, time })
    }

    /// Asks all edges at the same time until each answers `effect`; the last one's time.
    fn watch(&self, key: &str, effect: u16, started: Instant) -> anyhow::Result<Duration> {
        std::thread::scope(|scope| {
            let asking: Vec<_> = self
                .edges
                .iter()
                .map(|(agent, url)| scope.spawn(|| until(agent, url, key, effect, started)))
                .collect();
            let mut last = Duration::ZERO;
            for asked in asking {
                let time = asked
                    .join()
                    .map_err(|_| anyhow::anyhow!("asking an edge panicked"))??;
                last = last.max(time);
            }
            Ok(last)
        })
    }
}

fn until(
    agent: &ureq::Agent,
    url: &str,
    key: &str,
    effect: u16,
    started: Instant,
) -> anyhow::Result<Duration> {
    loop {
        let answer = post(agent, url, key);
        if answer == Ok(effect) {
            return Ok(started.elapsed());
        }
        // The answer from before is late; any other would be wrong.
        ensure!(
            matches!(answer, Ok(200 | 401)),
            "an edge answered {answer:?} on the way to {effect}"
        );
        ensure!(
            started.elapsed() < LOST_AFTER,
            "{answer:?} after {LOST_AFTER:?}; expected {effect}"
        );
        std::thread::sleep(ASK_EVERY);
    }
}
