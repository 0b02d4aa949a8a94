//! What one worker saw since it last handed over. On the path of every request: one look-up by key id, then comparisons with
//! the few user agents and addresses of that key.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use model::KeyId;
use smallvec::SmallVec;
use tokio::time::Instant;

/// Keys in a table. When it is full it is handed over.
pub(super) const KEYS_MAX: usize = 65_536;
/// User agents and addresses in a table, over all keys. Beyond, keys are only noted to have been used: with more keys in use
/// than this, those that come first in each round have theirs noted, which are others every time.
const SEEN_MAX: usize = 4096;
/// User agents, and addresses, of one key. More than are written, since the most used ones are known only in the end.
const SEEN_PER_KEY_MAX: usize = 32;
/// How much of a user agent is kept, in bytes.
const USER_AGENT_MAX: usize = 128;

/// What a worker saw.
pub(super) struct Table {
    began: Instant,
    keys: HashMap<KeyId, Key, BuildHasherDefault<KeyIdHasher>>,
    /// User agents and addresses over all keys.
    seen: usize,
}

/// How one key was used. Small: with many keys it is the memory that costs time.
struct Key {
    last: Millis,
    /// `None` for a key that came when there was no room for more.
    details: Option<Box<Details>>,
}

/// What a key was used by. Most keys have one of each.
#[derive(Default)]
pub(super) struct Details {
    /// As they were sent, but for their length.
    pub(super) user_agents: SmallVec<[Seen<Box<[u8]>>; 1]>,
    pub(super) addresses: SmallVec<[Seen<IpAddr>; 1]>,
}

/// Something that was seen with a key.
pub(super) struct Seen<T> {
    pub(super) what: T,
    pub(super) requests: u32,
    pub(super) first: Millis,
    pub(super) last: Millis,
}

/// Time since a table began, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Millis(u32);

impl Millis {
    pub(super) const fn since(self) -> Duration {
        Duration::from_millis(self.0 as u64)
    }
}

/// One key of a table that was handed over.
pub(super) struct KeySeen {
    pub(super) key_id: KeyId,
    pub(super) last: Millis,
    pub(super) details: Option<Box<Details>>,
}

/// How much was not kept.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) keys: u64,
    pub(super) user_agents: u64,
    pub(super) addresses: u64,
}

impl Default for Table {
    fn default() -> Self {
        Self::of(0)
    }
}

impl Table {
    fn of(keys: usize) -> Self {
        Self {
            began: Instant::now(),
            keys: HashMap::with_capacity_and_hasher(keys, BuildHasherDefault::default()),
            seen: 0,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.keys.len() >= KEYS_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn holds(&self, key_id: KeyId) -> bool {
        self.keys.contains_key(&key_id)
    }

    /// What was seen; from here on the table is empty, with room for as much again.
    pub(super) fn take(&mut self) -> Self {
        let next = Self::of(self.keys.len());
        std::mem::replace(self, next)
    }

    /// What its times are counted from.
    pub(super) const fn began(&self) -> Instant {
        self.began
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = KeySeen> {
        self.seen = 0;
        self.keys.drain().map(|(key_id, key)| KeySeen {
            key_id,
            last: key.last,
            details: key.details,
        })
    }

    /// Notes a use.
    pub(super) fn note(
        &mut self,
        key_id: KeyId,
        user_agent: Option<&[u8]>,
        address: IpAddr,
        at: Instant,
    ) -> Dropped {
        let since = at.saturating_duration_since(self.began).as_millis();
        let at = Millis(u32::try_from(since).unwrap_or(u32::MAX));
        let has_room = self.seen < SEEN_MAX;
        let key = self.keys.entry(key_id).or_insert_with(|| Key {
            last: at,
            details: has_room.then(Box::default),
        });
        key.last = at;
        let user_agent = user_agent.filter(|agent| !agent.is_empty());
        let Some(details) = &mut key.details else {
            return Dropped {
                keys: 0,
                user_agents: u64::from(user_agent.is_some()),
                addresses: 1,
            };
        };
        let mut dropped = Dropped::default();
        if let Some(agent) = user_agent {
            let agent = agent.get(..USER_AGENT_MAX).unwrap_or(agent);
            dropped.user_agents = count(
                &mut details.user_agents,
                agent,
                |a| a.into(),
                at,
                &mut self.seen,
            );
        }
        dropped.addresses = count(&mut details.addresses, &address, |a| *a, at, &mut self.seen);
        dropped
    }
}

/// Counts one of `all`. A newcomer takes the place of the one that was used least when there are too many; how many were
/// dropped.
fn count<B: Eq + ?Sized, T: Borrow<B>>(
    all: &mut SmallVec<[Seen<T>; 1]>,
    what: &B,
    owned: impl FnOnce(&B) -> T,
    at: Millis,
    total: &mut usize,
) -> u64 {
    if let Some(seen) = all.iter_mut().find(|seen| seen.what.borrow() == what) {
        seen.requests = seen.requests.saturating_add(1);
        seen.last = at;
        return 0;
    }
    if *total >= SEEN_MAX && all.len() < SEEN_PER_KEY_MAX {
        return 1;
    }
    let newcomer = Seen {
        what: owned(what),
        requests: 1,
        first: at,
        last: at,
    };
    if all.len() < SEEN_PER_KEY_MAX {
        all.push(newcomer);
        *total += 1;
        return 0;
    }
    // Of those used least, the one not used for longest: one that is about to be used often gets the time to show it.
    if let Some(least) = all.iter_mut().min_by_key(|seen| (seen.requests, seen.last)) {
        *least = newcomer;
    }
    1
}

/// Key ids are random already, and only those of keys that exist come here: their bytes need no more than mixing.
#[derive(Default)]
pub(super) struct KeyIdHasher(u64);

impl Hasher for KeyIdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(part) {
                *to = *from;
            }
            let mixed = self.0.rotate_left(5) ^ u64::from_le_bytes(word);
            self.0 = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn write_usize(&mut self, _length: usize) {
        // All key ids are equally long.
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hexadecimal, by hand: formatting a million of them takes longer than the test.
    fn key(n: usize) -> KeyId {
        let digit = |place: usize| b"0123456789abcdef"[n >> (4 * place) & 15];
        let digits: [u8; 12] = std::array::from_fn(digit);
        str::from_utf8(&digits).unwrap().parse().unwrap()
    }

    fn address(n: usize) -> IpAddr {
        IpAddr::from(u32::try_from(n).unwrap().to_be_bytes())
    }

    fn details(table: &Table, key_id: KeyId) -> &Details {
        table.keys[&key_id].details.as_ref().unwrap()
    }

    fn agents(table: &Table, key_id: KeyId) -> Vec<(String, u32)> {
        let all = &details(table, key_id).user_agents;
        let text = |seen: &Seen<Box<[u8]>>| String::from_utf8(seen.what.to_vec()).unwrap();
        all.iter().map(|seen| (text(seen), seen.requests)).collect()
    }

    #[test]
    fn what_is_seen_again_is_counted() {
        let (mut table, began) = (Table::default(), Instant::now());
        for n in 0..5 {
            let at = began + Duration::from_secs(n);
            table.note(key(1), Some(b"agent"), address(1), at);
            table.note(key(1), None, address(2), at);
            table.note(key(2), Some(b""), address(1), at);
        }
        let (one, last) = (details(&table, key(1)), began + Duration::from_secs(4));
        assert_eq!(agents(&table, key(1)), [("agent".to_owned(), 5)]);
        let addresses = one.addresses.iter().map(|seen| (seen.what, seen.requests));
        assert_eq!(
            addresses.collect::<Vec<_>>(),
            [(address(1), 5), (address(2), 5)]
        );
        for (at, expected) in [
            (table.keys[&key(1)].last, last),
            (one.addresses[0].first, began),
            (one.addresses[0].last, last),
        ] {
            let off = expected.duration_since(table.began() + at.since());
            assert!(off < Duration::from_millis(1), "{off:?}");
        }
        assert!(
            details(&table, key(2)).user_agents.is_empty(),
            "an empty agent is none"
        );
        assert_eq!(table.seen, 4);
    }

    #[test]
    fn of_a_flood_of_agents_few_are_kept_and_the_real_one_is_among_them() {
        let (mut table, began, mut dropped) = (Table::default(), Instant::now(), 0);
        for n in 0..10_000 {
            let at = began + Duration::from_millis(n);
            let agent = format!("agent {n}");
            dropped += table
                .note(key(1), Some(agent.as_bytes()), address(1), at)
                .user_agents;
            if n % 20 == 0 {
                table.note(key(1), Some(b"real"), address(1), at);
            }
        }
        let agents = agents(&table, key(1));
        assert_eq!(agents.len(), SEEN_PER_KEY_MAX);
        assert!(agents.contains(&("real".to_owned(), 500)), "{agents:?}");
        assert_eq!(dropped, 10_001 - SEEN_PER_KEY_MAX as u64);
    }

    #[test]
    fn an_agent_is_cut() {
        let (mut table, now) = (Table::default(), Instant::now());
        for end in ["1", "2"] {
            let agent = "x".repeat(USER_AGENT_MAX) + end;
            table.note(key(1), Some(agent.as_bytes()), address(1), now);
        }
        assert_eq!(agents(&table, key(1)), [("x".repeat(USER_AGENT_MAX), 2)]);
    }

    #[test]
    fn a_table_is_bounded_and_every_key_in_it_is_noted() {
        let (mut table, now) = (Table::default(), Instant::now());
        let mut dropped = 0;
        for n in 0..KEYS_MAX {
            assert!(!table.is_full());
            let drops = table.note(key(n), Some(b"agent"), address(n), now);
            dropped += drops.user_agents + drops.addresses;
        }
        assert!(table.is_full() && table.holds(key(KEYS_MAX - 1)));
        assert_eq!(table.seen, SEEN_MAX);
        assert_eq!(dropped, (2 * KEYS_MAX - SEEN_MAX) as u64);
        assert_eq!(table.take().drain().count(), KEYS_MAX);
        assert!(table.is_empty() && table.seen == 0);
    }

    /// `cargo test --release -p edge --lib a_use_costs -- --ignored --nocapture`
    #[test]
    #[ignore = "measures"]
    fn a_use_costs() {
        const ROUNDS: usize = 4_000_000;
        for keys in [1, 100, 10_000, 60_000] {
            let (mut table, now) = (Table::default(), Instant::now());
            let ids: Vec<_> = (0..keys).map(key).collect();
            let agent: &[u8] = b"OTel-OTLP-Exporter-Python/1.27.0";
            let round = |table: &mut Table, n: usize| {
                // In an order that a cache cannot guess.
                let id = ids[(n * 7919) % keys];
                std::hint::black_box(table.note(
                    id,
                    std::hint::black_box(Some(agent)),
                    address(7),
                    now,
                ));
            };
            (0..keys).for_each(|n| round(&mut table, n));
            let began = Instant::now();
            (0..ROUNDS).for_each(|n| round(&mut table, n));
            println!("{keys} keys: {:?} a use", began.elapsed() / 4_000_000);
        }
    }
}
