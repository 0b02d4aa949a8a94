//! What all workers saw and is not written yet. While the database is away it grows, up to a bound.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::net::IpAddr;

use model::KeyId;
use store::{KeyUse, USES_PER_KEY_MAX};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::table::{Details, Dropped, KeyIdHasher, KeySeen, Seen, Table};

/// Keys that wait to be written.
const KEYS_MAX: usize = 1 << 20;
/// User agents and addresses that wait, over all keys.
const SEEN_MAX: usize = 32_768;
/// Keys in one transaction.
pub(super) const WRITTEN_AT_ONCE: usize = 5000;

/// What waits to be written.
#[derive(Default)]
pub(super) struct Batch {
    last_used: HashMap<KeyId, OffsetDateTime, BuildHasherDefault<KeyIdHasher>>,
    used_by: HashMap<KeyId, UsedBy, BuildHasherDefault<KeyIdHasher>>,
    /// User agents and addresses over all keys.
    seen: usize,
}

#[derive(Default, Clone)]
struct UsedBy {
    user_agents: Vec<store::Seen>,
    addresses: Vec<store::Seen>,
}

impl Batch {
    /// How many keys wait.
    pub(super) fn keys(&self) -> usize {
        self.last_used.len()
    }

    /// Adds what a worker saw. `now` is the same moment on both clocks.
    pub(super) fn add(&mut self, mut table: Table, now: (OffsetDateTime, Instant)) -> Dropped {
        let mut dropped = Dropped::default();
        let began = time_of(table.began(), now);
        for KeySeen {
            key_id,
            last,
            details,
        } in table.drain()
        {
            if self.keys() >= KEYS_MAX && !self.last_used.contains_key(&key_id) {
                dropped.keys += 1;
                continue;
            }
            let last = began + last.since();
            let last_used = self.last_used.entry(key_id).or_insert(last);
            *last_used = (*last_used).max(last);
            let Some(details) = details else { continue };
            let Details {
                user_agents,
                addresses,
            } = *details;
            let used_by = self.used_by.entry(key_id).or_default();
            let agents = user_agents.into_iter();
            let agents = agents.map(|seen| seen_since(began, printable(&seen.what), &seen));
            dropped.user_agents += merge(&mut used_by.user_agents, agents, &mut self.seen);
            let addresses = addresses.into_iter();
            let addresses = addresses.map(|seen| seen_since(began, shown(seen.what), &seen));
            dropped.addresses += merge(&mut used_by.addresses, addresses, &mut self.seen);
        }
        dropped
    }

    /// The next keys to be written, as they are. They stay until they are.
    pub(super) fn next(&self) -> Option<Vec<KeyUse>> {
        let next = self.last_used.iter().take(WRITTEN_AT_ONCE);
        let next = next.map(|(key_id, last_used_at)| {
            let used_by = self.used_by.get(key_id).cloned().unwrap_or_default();
            KeyUse {
                key_id: *key_id,
                last_used_at: *last_used_at,
                user_agents: used_by.user_agents,
                addresses: used_by.addresses,
            }
        });
        let next: Vec<_> = next.collect();
        (!next.is_empty()).then_some(next)
    }

    /// Forgets what is written.
    pub(super) fn written(&mut self, uses: &[KeyUse]) {
        for used in uses {
            self.last_used.remove(&used.key_id);
            if let Some(written) = self.used_by.remove(&used.key_id) {
                let seen = written.user_agents.len() + written.addresses.len();
                self.seen = self.seen.saturating_sub(seen);
            }
        }
        if self.last_used.is_empty() {
            // What many keys needed is given back.
            *self = Self::default();
        }
    }
}

/// When `at` was by the time of day.
fn time_of(at: Instant, (now, monotonic): (OffsetDateTime, Instant)) -> OffsetDateTime {
    now - monotonic.saturating_duration_since(at)
}

fn seen_since<T>(began: OffsetDateTime, value: String, seen: &Seen<T>) -> store::Seen {
    store::Seen {
        value,
        requests: u64::from(seen.requests),
        first_at: began + seen.first.since(),
        last_at: began + seen.last.since(),
    }
}

/// Adds what was seen to what is known, and keeps those used most. How many were dropped.
fn merge(
    known: &mut Vec<store::Seen>,
    seen: impl Iterator<Item = store::Seen>,
    total: &mut usize,
) -> u64 {
    let before = known.len();
    let mut dropped = 0;
    for seen in seen {
        if let Some(known) = known.iter_mut().find(|known| known.value == seen.value) {
            known.requests += seen.requests;
            known.first_at = known.first_at.min(seen.first_at);
            known.last_at = known.last_at.max(seen.last_at);
        } else if *total + known.len() >= SEEN_MAX + before {
            dropped += 1;
        } else {
            known.push(seen);
        }
    }
    known.sort_by_key(|seen| std::cmp::Reverse((seen.requests, seen.last_at)));
    dropped += known.len().saturating_sub(USES_PER_KEY_MAX) as u64;
    known.truncate(USES_PER_KEY_MAX);
    *total = (*total + known.len()).saturating_sub(before);
    dropped
}

/// A user agent as it may be shown: nothing in it that a terminal, a log or a database takes for something else.
fn printable(agent: &[u8]) -> String {
    let shown = |byte: &u8| match byte {
        b' '..=b'~' => char::from(*byte),
        _ => '?',
    };
    agent.iter().map(shown).collect()
}

fn shown(address: IpAddr) -> String {
    address.to_canonical().to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-01-02 03:04:05 UTC);

    /// Hexadecimal, by hand: formatting a million of them takes longer than the test.
    fn key(n: usize) -> KeyId {
        let digit = |place: usize| b"0123456789abcdef"[n >> (4 * place) & 15];
        let digits: [u8; 12] = std::array::from_fn(digit);
        str::from_utf8(&digits).unwrap().parse().unwrap()
    }

    fn address(n: usize) -> IpAddr {
        IpAddr::from(u32::try_from(n).unwrap().to_be_bytes())
    }

    /// Values and their requests.
    fn values(seen: &[store::Seen]) -> Vec<(&str, u64)> {
        let values = seen.iter().map(|seen| (seen.value.as_str(), seen.requests));
        values.collect()
    }

    #[test]
    fn what_several_workers_saw_is_added_up_by_the_time_of_day() {
        let mut batch = Batch::default();
        let mut tables = [Table::default(), Table::default()];
        // Later than all that they saw.
        let now = Instant::now() + Duration::from_secs(100);
        let earlier = |seconds| now - Duration::from_secs(seconds);
        for ((first, last), table) in [(9, 5), (3, 2)].into_iter().zip(&mut tables) {
            for at in [first, last] {
                table.note(key(1), Some(b"agent"), address(1), earlier(at));
            }
            assert_eq!(batch.add(table.take(), (NOW, now)), Dropped::default());
        }
        let uses = batch.next().unwrap();
        // Times are cut to milliseconds.
        let ago = |at: OffsetDateTime| (NOW - at).whole_seconds();
        assert_eq!((uses.len(), ago(uses[0].last_used_at)), (1, 2));
        let agent = &uses[0].user_agents[0];
        assert_eq!(
            (agent.requests, ago(agent.first_at), ago(agent.last_at)),
            (4, 9, 2)
        );
        assert_eq!(values(&uses[0].addresses), [("0.0.0.1", 4)]);
    }

    #[test]
    fn what_is_shown_is_plain_text() {
        let (mut batch, mut table, now) = (Batch::default(), Table::default(), Instant::now());
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        for agent in [&b"a\x1b[31m\xff\0'b"[..], b"a\x1b[31m\xfe\0'b"] {
            table.note(key(1), Some(agent), mapped, now);
        }
        batch.add(table, (NOW, now));
        let uses = batch.next().unwrap();
        assert_eq!(values(&uses[0].user_agents), [("a?[31m??'b", 2)]);
        assert_eq!(values(&uses[0].addresses), [("192.0.2.1", 2)]);
    }

    #[test]
    fn those_used_most_are_kept() {
        let (mut batch, now) = (Batch::default(), Instant::now());
        let mut dropped = 0;
        for round in 0..5 {
            let mut table = Table::default();
            for n in 0..16 {
                let agent = if n < 5 {
                    format!("steady {n}")
                } else {
                    format!("{round}.{n}")
                };
                for _ in 0..=usize::from(n < 5) {
                    table.note(key(1), Some(agent.as_bytes()), address(n), now);
                }
            }
            dropped += batch.add(table, (NOW, now)).user_agents;
        }
        let uses = batch.next().unwrap();
        let agents = values(&uses[0].user_agents);
        assert_eq!(
            (agents.len(), uses[0].addresses.len()),
            (USES_PER_KEY_MAX, USES_PER_KEY_MAX)
        );
        assert!(
            agents[..5]
                .iter()
                .all(|(agent, n)| agent.starts_with("steady") && *n == 10),
            "{agents:?}"
        );
        assert_eq!(dropped, 5 * 11 - 5);
    }

    #[test]
    fn it_is_bounded_and_every_key_in_it_is_noted() {
        let (mut batch, now) = (Batch::default(), Instant::now());
        let (tables, keys) = (17, 65_536);
        let mut dropped = Dropped::default();
        for n in 0..tables {
            let mut table = Table::default();
            for k in 0..keys {
                table.note(key(n * keys + k), Some(b"agent"), address(k), now);
            }
            let more = batch.add(table, (NOW, now));
            dropped.keys += more.keys;
            dropped.user_agents += more.user_agents;
            dropped.addresses += more.addresses;
        }
        assert_eq!((batch.keys(), batch.seen), (KEYS_MAX, SEEN_MAX));
        assert_eq!(dropped.keys, (tables * keys - KEYS_MAX) as u64);
        assert!(dropped.user_agents + dropped.addresses > 0);
        while let Some(uses) = batch.next() {
            assert!(uses.len() <= WRITTEN_AT_ONCE);
            assert_eq!(
                batch.next().map(|again| again.len()),
                Some(uses.len()),
                "until they are written"
            );
            batch.written(&uses);
        }
        assert_eq!((batch.keys(), batch.seen), (0, 0));
    }
}
