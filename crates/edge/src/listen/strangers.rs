//! The connections on which no valid key was shown yet. Decides which of them makes room for a newcomer; when one has to, and what
//! that means for it, is for the gate, and which addresses are good ones for `offenders`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Weak;
use std::time::Duration;

use tokio::time::Instant;

use super::gate::Seat;

/// Who has been there for so long has had the time for a handshake and a request, from anywhere, and for a lost packet.
const HAD_TIME: Duration = Duration::from_secs(2);

/// Strangers, apart by whether valid keys are shown from their address: those make room when there is nobody else.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    others: Crowds,
    neighbours: Crowds,
}

/// Strangers in the order in which they came, and by address.
#[derive(Debug, Default)]
struct Crowds {
    all: BTreeMap<u64, Stranger>,
    /// Who came from each address; from `None`, those of whom a proxy has not told yet whom they are from.
    by_address: HashMap<Option<IpAddr>, BTreeSet<u64>>,
    by_size: BTreeSet<Rank>,
}

#[derive(Debug)]
pub(super) struct Stranger {
    pub(super) seat: Weak<Seat>,
    pub(super) address: Option<IpAddr>,
    /// Valid keys are shown from this address.
    pub(super) is_neighbour: bool,
    pub(super) since: Instant,
}

/// Orders crowds by their size; the last one of the largest is the one that has somebody who came first.
type Rank = (usize, Reverse<u64>, Option<IpAddr>);

impl Strangers {
    pub(super) fn len(&self) -> usize {
        self.others.all.len() + self.neighbours.all.len()
    }

    /// Adds one. Numbers rise with each that comes.
    pub(super) fn add(&mut self, number: u64, stranger: Stranger) {
        if stranger.is_neighbour {
            self.neighbours.add(number, stranger);
        } else {
            self.others.add(number, stranger);
        }
    }

    /// `None` if it is not there.
    pub(super) fn remove(&mut self, number: u64) -> Option<Stranger> {
        let removed = self.others.remove(number);
        removed.or_else(|| self.neighbours.remove(number))
    }

    /// Notes where one is from.
    pub(super) fn is_of(&mut self, number: u64, address: IpAddr, is_neighbour: bool) {
        if let Some(stranger) = self.remove(number) {
            let stranger = Stranger {
                address: Some(address),
                is_neighbour,
                ..stranger
            };
            self.add(number, stranger);
        }
    }

    /// Takes out the one that makes room.
    pub(super) fn make_room(&mut self, now: Instant) -> Option<Stranger> {
        let first = self.others.make_room(now);
        first.or_else(|| self.neighbours.make_room(now))
    }
}

impl Crowds {
    fn add(&mut self, number: u64, stranger: Stranger) {
        self.with_crowd(stranger.address, |crowd| crowd.insert(number));
        self.all.insert(number, stranger);
    }

    fn remove(&mut self, number: u64) -> Option<Stranger> {
        let stranger = self.all.remove(&number)?;
        self.with_crowd(stranger.address, |crowd| crowd.remove(&number));
        Some(stranger)
    }

    /// Takes out the first that came, if it has had its time. Where so many come that nobody would get that much, the first from the
    /// address with the most: then a flood from few addresses drives out itself. One from as many addresses as there are places
    /// leaves everybody the time in which all places are taken once.
    fn make_room(&mut self, now: Instant) -> Option<Stranger> {
        let (first, stranger) = self.all.first_key_value()?;
        if now - stranger.since >= HAD_TIME {
            return self.remove(*first);
        }
        let (_, Reverse(first), _) = self.by_size.last()?;
        self.remove(*first)
    }

    fn with_crowd(
        &mut self,
        address: Option<IpAddr>,
        change: impl FnOnce(&mut BTreeSet<u64>) -> bool,
    ) {
        let crowd = self.by_address.entry(address).or_default();
        if let Some(rank) = rank(crowd, address) {
            self.by_size.remove(&rank);
        }
        change(crowd);
        match rank(crowd, address) {
            Some(rank) => {
                self.by_size.insert(rank);
            }
            None => {
                self.by_address.remove(&address);
            }
        }
    }
}

fn rank(crowd: &BTreeSet<u64>, address: Option<IpAddr>) -> Option<Rank> {
    crowd
        .first()
        .map(|first| (crowd.len(), Reverse(*first), address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    fn come(strangers: &mut Strangers, addresses: &[Option<IpAddr>], since: Instant) {
        for address in addresses {
            let number = strangers.len() as u64;
            let stranger = Stranger {
                seat: Weak::new(),
                address: *address,
                is_neighbour: false,
                since,
            };
            strangers.add(number, stranger);
        }
    }

    /// In which order all make room.
    fn leave(mut strangers: Strangers, now: Instant) -> Vec<Option<IpAddr>> {
        let left = std::iter::from_fn(|| strangers.make_room(now).map(|stranger| stranger.address));
        let left = left.collect();
        for crowds in [strangers.others, strangers.neighbours] {
            assert!(crowds.by_address.is_empty(), "nobody is remembered");
            assert!(crowds.by_size.is_empty());
        }
        left
    }

    #[test]
    fn who_has_had_its_time_leaves_in_the_order_of_coming() {
        let (mut strangers, start) = (Strangers::default(), Instant::now());
        let came = [1, 2, 2, 2, 3].map(|n| Some(ip(n)));
        come(&mut strangers, &came, start);
        assert_eq!(leave(strangers, start + HAD_TIME), came);
    }

    #[test]
    fn a_flood_drives_out_itself() {
        let (mut strangers, start) = (Strangers::default(), Instant::now());
        let came = [Some(1), Some(2), Some(2), None, None, None, Some(3)];
        come(&mut strangers, &came.map(|n| n.map(ip)), start);
        let left = [None, Some(2), None, Some(1), Some(2), None, Some(3)];
        let now = start + HAD_TIME - Duration::from_millis(1);
        assert_eq!(leave(strangers, now), left.map(|n| n.map(ip)));
    }

    #[test]
    fn whom_a_proxy_tells_of_counts_where_it_is_from() {
        let (mut strangers, start) = (Strangers::default(), Instant::now());
        come(&mut strangers, &[None, None, Some(ip(1))], start);
        strangers.is_of(0, ip(1), false);
        // It is gone.
        strangers.is_of(7, ip(1), false);
        assert_eq!(leave(strangers, start), [Some(ip(1)), None, Some(ip(1))]);
    }

    #[test]
    fn who_comes_from_where_valid_keys_are_shown_leaves_last() {
        let (mut strangers, start) = (Strangers::default(), Instant::now());
        come(&mut strangers, &[1, 1, 2, 3].map(|n| Some(ip(n))), start);
        strangers.is_of(0, ip(1), true);
        strangers.is_of(1, ip(1), true);
        let left = [2, 3, 1, 1].map(|n| Some(ip(n)));
        assert_eq!(leave(strangers, start), left);
    }
}
