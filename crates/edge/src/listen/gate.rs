//! How many connections may be open: in all, from one address, and of those on which no valid key was shown yet. Decides who comes
//! in, and when another has to make room; who that is, is for `strangers`, whose addresses are not let in for `offenders`, why else a
//! connection ends is its own business.

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::offenders::{Fault, Offenders};
use super::strangers::{Stranger, Strangers};
use crate::budgets::{UsedUp, subnet};
use crate::config::{BudgetSettings, ConnectionSettings};
use crate::metrics::Closed;

/// So many connections at a time are on their way out; nobody comes in while there are more. It bounds what is open beyond
/// the limits.
const LEAVING_MAX: usize = 256;
/// So many that came wait at a time for their worker to look at them. Others wait in the kernel: nobody shall have to make room
/// whose bytes nobody has looked at.
const ARRIVING_MAX: usize = 256;
/// How often what has come is looked at before who was told to leave does: HTTP/2 reads in one turn and serves in the next.
const LAST_TURNS: usize = 2;

/// Counts connections for all listeners. Asked a few times per connection, never per request, so a lock does not matter.
#[derive(Debug)]
pub(crate) struct Gate {
    places: Mutex<Places>,
    offenders: Offenders,
    /// Fewer are on their way out than may be.
    settled: Notify,
    arriving: Arc<Semaphore>,
    open_max: AtomicUsize,
    strangers_max: AtomicUsize,
    /// 0 is no limit.
    per_address_max: AtomicUsize,
}

#[derive(Debug, Default)]
struct Places {
    /// Connections that were not told to leave.
    open: usize,
    /// Those that were.
    leaving: usize,
    /// Of each address, the leaving too.
    by_address: HashMap<IpAddr, usize>,
    /// Those among the open that have not shown a valid key.
    strangers: Strangers,
    next_number: u64,
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    InAll,
    OfAddress,
    /// Too many of the address came to nothing.
    InVain,
}

impl From<Full> for Closed {
    fn from(full: Full) -> Self {
        match full {
            Full::InAll => Self::OpenMax,
            Full::OfAddress => Self::AddressMax,
            Full::InVain => Self::StrangerBudget,
        }
    }
}

/// A connection's place, and what is known of who has it; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Seat {
    gate: Arc<Gate>,
    number: u64,
    address: OnceLock<IpAddr>,
    known: AtomicBool,
    fault: OnceLock<Fault>,
    /// Its address's budget was charged when it came.
    paid: AtomicBool,
    told_to_leave: Notify,
}

impl Gate {
    pub(crate) fn new(settings: &ConnectionSettings, strangers: &BudgetSettings) -> Self {
        Self {
            places: Mutex::default(),
            offenders: Offenders::new(strangers),
            settled: Notify::new(),
            arriving: Arc::new(Semaphore::new(ARRIVING_MAX)),
            open_max: AtomicUsize::new(settings.open_max),
            strangers_max: AtomicUsize::new(settings.strangers_max),
            per_address_max: AtomicUsize::new(settings.open_per_address_max),
        }
    }

    /// Lets in by other limits from now on; nobody who is in has to leave.
    pub(crate) fn replace(&self, settings: &ConnectionSettings, strangers: &BudgetSettings) {
        self.offenders.replace(strangers);
        self.open_max.store(settings.open_max, Ordering::Relaxed);
        self.strangers_max
            .store(settings.strangers_max, Ordering::Relaxed);
        self.per_address_max
            .store(settings.open_per_address_max, Ordering::Relaxed);
    }

    /// Waits until those that were told to leave have, but for a few. Connections that come faster than others can end wait in
    /// the kernel.
    pub(crate) async fn settles(&self) {
        loop {
            let settled = self.settled.notified();
            if self.places().leaving < LEAVING_MAX {
                return;
            }
            settled.await;
        }
    }

    /// Waits until workers keep up with those that come. What it gives is held until a worker has looked at the connection.
    pub(crate) async fn arrives(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.arriving).acquire_owned().await.ok()
    }

    /// Takes a place, that of a stranger if there is none left: senders show their key at once, so who has not is the one that
    /// may go. `address` is that of the sender, where that is known yet.
    pub(crate) fn enter(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Arc<Seat>, Full> {
        let now = Instant::now();
        let open_max = self.open_max.load(Ordering::Relaxed);
        let strangers_max = self.strangers_max.load(Ordering::Relaxed);
        let address = address.map(subnet);
        let mut places = self.places();
        let number = places.next_number;
        let mut makes_room = None;
        // Before anybody has to leave: who has its share already is refused at nobody's expense.
        self.check_share(&places, address)?;
        let has_paid = self.check_past(address)?;
        if places.open >= open_max || places.strangers.len() >= strangers_max {
            makes_room = Some(places.strangers.make_room(now).ok_or(Full::InAll)?);
            places.open -= 1;
            places.leaving += 1;
        }
        let seat = Arc::new(Seat {
            gate: Arc::clone(self),
            number,
            address: address.map_or_else(OnceLock::new, OnceLock::from),
            known: AtomicBool::new(false),
            fault: OnceLock::new(),
            paid: AtomicBool::new(has_paid),
            told_to_leave: Notify::new(),
        });
        let stranger = Stranger {
            seat: Arc::downgrade(&seat),
            address,
            is_neighbour: address.is_some_and(|address| self.offenders.is_known(address)),
            since: now,
        };
        places.next_number += 1;
        places.open += 1;
        places.strangers.add(number, stranger);
        if let Some(address) = address {
            *places.by_address.entry(address).or_default() += 1;
        }
        // Dropping the last handle of a seat takes the lock.
        drop(places);
        if let Some(seat) = makes_room.and_then(|stranger| stranger.seat.upgrade()) {
            seat.told_to_leave.notify_one();
        }
        Ok(seat)
    }

    /// Whether the address's budget was charged.
    fn check_past(&self, address: Option<IpAddr>) -> Result<bool, Full> {
        let Some(address) = address else {
            return Ok(false);
        };
        let let_in = self.offenders.let_in(address);
        let_in.map_err(|UsedUp| Full::InVain)
    }

    fn check_share(&self, places: &Places, address: Option<IpAddr>) -> Result<(), Full> {
        let max = self.per_address_max.load(Ordering::Relaxed);
        let open = address.and_then(|address| places.by_address.get(&address));
        if max > 0 && open.is_some_and(|open| *open >= max) {
            return Err(Full::OfAddress);
        }
        Ok(())
    }

    fn one_less_leaves(&self, places: &mut Places) {
        places.leaving -= 1;
        if places.leaving + 1 == LEAVING_MAX {
            self.settled.notify_waiters();
        }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        // Counting cannot panic half-way.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Takes one of the places of the sender's address, where that is known only now.
    pub(crate) fn is_of(&self, address: IpAddr) -> Result<(), Full> {
        let address = subnet(address);
        let is_neighbour = self.gate.offenders.is_known(address);
        let mut places = self.gate.places();
        self.gate.check_share(&places, Some(address))?;
        let has_paid = self.gate.check_past(Some(address))?;
        self.paid.store(has_paid, Ordering::Relaxed);
        if self.address.set(address).is_ok() {
            *places.by_address.entry(address).or_default() += 1;
            places.strangers.is_of(self.number, address, is_neighbour);
        }
        Ok(())
    }

    /// Notes that a valid key was shown. The place is for keeps then.
    pub(crate) fn shows_key(&self) {
        if self.is_known() {
            return;
        }
        let mut places = self.gate.places();
        if self.known.swap(true, Ordering::Relaxed) {
            return;
        }
        if places.strangers.remove(self.number).is_none() {
            // It was told to leave a moment ago; it stays.
            self.gate.one_less_leaves(&mut places);
            places.open += 1;
        }
        drop(places);
        if let Some(address) = self.address.get() {
            let paid = self.paid.swap(false, Ordering::Relaxed);
            self.gate.offenders.shows_key(*address, paid);
        }
    }

    /// Notes that the connection ends for what its sender did.
    pub(crate) fn ends_for(&self, fault: Fault) {
        // The first is what it ends for.
        let _ = self.fault.set(fault);
    }

    /// Whether a valid key was shown.
    pub(crate) fn is_known(&self) -> bool {
        self.known.load(Ordering::Relaxed)
    }

    /// Waits until another needs the place more. Asks for nothing once a valid key was shown.
    pub(crate) async fn has_to_leave(&self) {
        let mut leaves = pin!(async {
            self.told_to_leave.notified().await;
            for _ in 0..LAST_TURNS {
                // Lets the runtime ask the kernel once more: a key may have come.
                tokio::task::yield_now().await;
            }
        });
        poll_fn(|cx| {
            if self.is_known() {
                return Poll::Pending;
            }
            leaves.as_mut().poll(cx)
        })
        .await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut places = self.gate.places();
        let is_known = *self.known.get_mut();
        if is_known || places.strangers.remove(self.number).is_some() {
            places.open -= 1;
        } else {
            self.gate.one_less_leaves(&mut places);
        }
        let Some(address) = self.address.get() else {
            return;
        };
        if let Some(open) = places.by_address.get_mut(address) {
            *open -= 1;
            if *open == 0 {
                places.by_address.remove(address);
            }
        }
        drop(places);
        let (fault, paid) = (self.fault.get().copied(), *self.paid.get_mut());
        if !is_known || fault.is_some() {
            self.gate.offenders.ended(*address, fault, is_known, paid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn gate(in_all: usize, strangers: usize, of_address: usize) -> Arc<Gate> {
        let config = include_str!("../../../../config/edge/edge.toml");
        let config = Config::parse("edge.toml", config).unwrap();
        let mut settings = config.connections;
        settings.open_max = in_all;
        settings.strangers_max = strangers;
        settings.open_per_address_max = of_address;
        Arc::new(Gate::new(&settings, &config.strangers))
    }

    fn enter(gate: &Arc<Gate>, address: &str) -> Result<Arc<Seat>, Full> {
        gate.enter(Some(address.parse().unwrap()))
    }

    fn known(gate: &Arc<Gate>) -> Arc<Seat> {
        let seat = gate.enter(None).unwrap();
        seat.shows_key();
        seat
    }

    async fn turns(n: usize) {
        for _ in 0..n {
            tokio::task::yield_now().await;
        }
    }

    async fn is_told_to_leave(seat: &Seat) -> bool {
        tokio::select! {
            biased;
            () = seat.has_to_leave() => true,
            () = turns(LAST_TURNS + 1) => false,
        }
    }

    #[test]
    fn there_are_so_many_places_and_who_leaves_makes_room() {
        let gate = gate(2, 2, 0);
        let first = known(&gate);
        let _second = known(&gate);
        assert_eq!(gate.enter(None).unwrap_err(), Full::InAll);
        drop(first);
        gate.enter(None).unwrap();
        assert_eq!(gate.places().open, 1);
    }

    #[tokio::test]
    async fn newcomers_take_the_place_of_the_stranger_that_came_first() {
        let gate = gate(4, 2, 0);
        let keeps = known(&gate);
        let first = gate.enter(None).unwrap();
        let second = gate.enter(None).unwrap();
        assert!(!is_told_to_leave(&first).await, "there is room");
        let third = gate.enter(None).unwrap();
        assert!(is_told_to_leave(&first).await, "strangers have a share");
        assert!(!is_told_to_leave(&second).await);
        second.shows_key();
        third.shows_key();
        let fourth = gate.enter(None).unwrap();
        let fifth = gate.enter(None).unwrap();
        assert!(is_told_to_leave(&fourth).await, "all places are taken");
        for seat in [&keeps, &second, &third, &fifth] {
            assert!(!is_told_to_leave(seat).await);
        }
        drop((keeps, first, second, third, fourth, fifth));
        let places = gate.places();
        assert_eq!((places.open, places.leaving), (0, 0));
        assert_eq!(places.strangers.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_from_one_address_leaves_others_the_time_for_a_request() {
        let gate = gate(100, 4, 0);
        let slow = enter(&gate, "192.0.2.1").unwrap();
        let flood = || enter(&gate, "192.0.2.2").unwrap();
        let mut seats: Vec<_> = (0..100).map(|_| flood()).collect();
        assert!(!is_told_to_leave(&slow).await);
        tokio::time::advance(std::time::Duration::from_secs(2)).await;
        seats.push(flood());
        assert!(is_told_to_leave(&slow).await);
    }

    #[tokio::test]
    async fn who_comes_from_where_a_key_was_shown_leaves_last() {
        let gate = gate(100, 2, 0);
        enter(&gate, "192.0.2.1").unwrap().shows_key();
        let neighbour = enter(&gate, "192.0.2.1").unwrap();
        let other = enter(&gate, "192.0.2.2").unwrap();
        let _newcomer = enter(&gate, "192.0.2.3").unwrap();
        assert!(is_told_to_leave(&other).await);
        assert!(!is_told_to_leave(&neighbour).await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_pays_ahead_pays_once_and_has_it_back_for_a_key() {
        let gate = gate(10_000, 10_000, 0);
        let come = || enter(&gate, "192.0.2.1");
        // Of 100, 2 are left after these; those that come at once pay for both.
        let spent: Vec<_> = (0..98).map(|_| come().unwrap()).collect();
        drop(spent);
        let last = [come().unwrap(), come().unwrap()];
        assert_eq!(come().unwrap_err(), Full::InVain);
        let [pays, shows] = last;
        drop(pays);
        assert_eq!(come().unwrap_err(), Full::InVain);
        shows.shows_key();
        drop(shows);
        let again = come().unwrap();
        assert_eq!(come().unwrap_err(), Full::InVain);
        // From a known address nothing is held against who shows none.
        drop(again);
        come().unwrap();
    }

    #[tokio::test]
    async fn who_shows_a_key_in_the_last_moment_stays() {
        let gate = gate(1, 1, 0);
        let first = gate.enter(None).unwrap();
        let _second = gate.enter(None).unwrap();
        first.shows_key();
        assert!(!is_told_to_leave(&first).await);
        assert_eq!(gate.places().leaving, 0);
    }

    #[tokio::test]
    async fn nobody_comes_in_while_too_many_are_leaving() {
        let gate = gate(1, 1, 0);
        let mut seats: Vec<_> = (0..=LEAVING_MAX)
            .map(|_| gate.enter(None).unwrap())
            .collect();
        let settles = gate.settles();
        tokio::pin!(settles);
        let waits = tokio::select! {
            biased;
            () = &mut settles => false,
            () = tokio::task::yield_now() => true,
        };
        assert!(waits);
        drop(seats.swap_remove(0));
        settles.await;
    }

    #[test]
    fn an_address_has_no_more_than_its_share() {
        let gate = gate(100, 100, 2);
        let places = [0, 1].map(|_| enter(&gate, "2001:db8::1").unwrap());
        assert_eq!(enter(&gate, "2001:db8::2").unwrap_err(), Full::OfAddress);
        enter(&gate, "2001:db8:0:1::1").unwrap();
        let mapped = [
            enter(&gate, "::ffff:192.0.2.1").unwrap(),
            enter(&gate, "192.0.2.1").unwrap(),
        ];
        assert_eq!(enter(&gate, "192.0.2.1").unwrap_err(), Full::OfAddress);
        drop(places);
        enter(&gate, "2001:db8::3").unwrap();
        drop(mapped);
        assert!(gate.places().by_address.is_empty(), "nobody is remembered");
    }

    #[test]
    fn whom_a_proxy_tells_of_takes_a_place_of_its_own_address() {
        let gate = gate(100, 100, 1);
        let address = "192.0.2.1".parse().unwrap();
        let [first, second] = [0, 1].map(|_| gate.enter(None).unwrap());
        first.is_of(address).unwrap();
        assert_eq!(second.is_of(address).unwrap_err(), Full::OfAddress);
        assert_eq!(enter(&gate, "192.0.2.1").unwrap_err(), Full::OfAddress);
        drop((first, second));
        assert!(gate.places().by_address.is_empty(), "nobody is remembered");
    }

    #[tokio::test]
    async fn who_has_its_share_already_drives_nobody_out() {
        let gate = gate(2, 2, 1);
        let seats = ["192.0.2.1", "192.0.2.2"].map(|address| enter(&gate, address).unwrap());
        assert_eq!(enter(&gate, "192.0.2.2").unwrap_err(), Full::OfAddress);
        for seat in &seats {
            assert!(!is_told_to_leave(seat).await);
        }
    }
}
