//! How many connections may be open, in all and from one address. Decides who comes in; who is asked to leave again, and when, is
//! for the connection itself.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::ConnectionSettings;
use crate::metrics::Closed;

/// Counts connections for all listeners. Asked once per connection, so a lock does not matter.
#[derive(Debug)]
pub(crate) struct Gate {
    open: AtomicUsize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    open_max: AtomicUsize,
    /// 0 is no limit.
    per_address_max: AtomicUsize,
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    InAll,
    OfAddress,
}

impl From<Full> for Closed {
    fn from(full: Full) -> Self {
        match full {
            Full::InAll => Self::OpenMax,
            Full::OfAddress => Self::AddressMax,
        }
    }
}

/// A place; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Pass {
    gate: Arc<Gate>,
    address: Option<IpAddr>,
}

impl Gate {
    pub(crate) fn new(settings: &ConnectionSettings) -> Self {
        Self {
            open: AtomicUsize::new(0),
            by_address: Mutex::default(),
            open_max: AtomicUsize::new(settings.open_max),
            per_address_max: AtomicUsize::new(settings.open_per_address_max),
        }
    }

    /// Lets in by other limits from now on; nobody who is in has to leave.
    pub(crate) fn replace(&self, settings: &ConnectionSettings) {
        self.open_max.store(settings.open_max, Ordering::Relaxed);
        self.per_address_max
            .store(settings.open_per_address_max, Ordering::Relaxed);
    }

    /// Takes a place in all.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<Pass, Full> {
        let max = self.open_max.load(Ordering::Relaxed);
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        let pass = Pass {
            gate: Arc::clone(self),
            address: None,
        };
        if open < max {
            Ok(pass)
        } else {
            Err(Full::InAll)
        }
    }
}

impl Pass {
    /// Takes one of the places of the sender's address. An IPv6 sender has a /64 to itself.
    pub(crate) fn is_of(&mut self, address: IpAddr) -> Result<(), Full> {
        let max = self.gate.per_address_max.load(Ordering::Relaxed);
        if max == 0 || self.address.is_some() {
            return Ok(());
        }
        let address = group(address);
        let mut by_address = self.gate.by_address();
        let open = by_address.entry(address).or_default();
        if *open >= max {
            return Err(Full::OfAddress);
        }
        *open += 1;
        drop(by_address);
        self.address = Some(address);
        Ok(())
    }
}

impl Gate {
    fn by_address(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Counting cannot panic half-way.
        self.by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.gate.open.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.address else {
            return;
        };
        let mut by_address = self.gate.by_address();
        if let Some(open) = by_address.get_mut(&address) {
            *open -= 1;
            if *open == 0 {
                by_address.remove(&address);
            }
        }
    }
}

fn group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn gate(in_all: usize, of_address: usize) -> Arc<Gate> {
        let config = include_str!("../../../../config/edge/edge.toml");
        let mut settings = Config::parse("edge.toml", config).unwrap().connections;
        settings.open_max = in_all;
        settings.open_per_address_max = of_address;
        Arc::new(Gate::new(&settings))
    }

    fn enter(gate: &Arc<Gate>, address: &str) -> Result<Pass, Full> {
        let mut pass = gate.enter()?;
        pass.is_of(address.parse().unwrap())?;
        Ok(pass)
    }

    #[test]
    fn there_are_so_many_places_and_who_leaves_makes_room() {
        let gate = gate(2, 0);
        let first = enter(&gate, "192.0.2.1").unwrap();
        let _second = enter(&gate, "192.0.2.1").unwrap();
        assert_eq!(enter(&gate, "192.0.2.2").unwrap_err(), Full::InAll);
        drop(first);
        enter(&gate, "192.0.2.2").unwrap();
        assert_eq!(gate.open.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn an_address_has_no_more_than_its_share() {
        let gate = gate(100, 2);
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
        assert!(gate.by_address().is_empty(), "nobody is remembered");
    }
}
