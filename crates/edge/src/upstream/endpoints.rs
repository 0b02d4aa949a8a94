//! The addresses behind one upstream, shared by all workers: which there are, which are well, and which one a request goes to.
//! Decides by what requests experience and by probes; resolving names and probing is for `watch`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::config::UpstreamSettings;
use crate::metrics::EndpointMetrics;
use crate::upstream_url::UpstreamUrl;

/// One address of an upstream.
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    /// `host:port` as its URL has it: for `Host`, and what a certificate has to be for.
    pub(crate) authority: String,
    pub(crate) host: String,
    upstream: String,
    in_flight: AtomicUsize,
    /// Failures since the last success.
    failures: AtomicU32,
    /// Times that it was ejected since it last did well.
    ejections: AtomicU32,
    /// Until when it gets no requests, in milliseconds since the process's first look at the clock; 0 while it is well.
    ejected_until: AtomicU64,
    /// It could not be connected to the last time that a request had to.
    unreachable: AtomicBool,
    pub(crate) metrics: EndpointMetrics,
}

/// How an exchange with an endpoint went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Experience {
    Good,
    /// No connection could be made: nothing listens, or nobody answers.
    NoConnection,
    /// The connection broke, it kept silent for too long, or it said that it cannot serve.
    Bad,
}

/// Milliseconds on a clock that never goes back.
fn now_millis() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let since = START.get_or_init(Instant::now).elapsed();
    // Never 0, which means never.
    u64::try_from(since.as_millis())
        .unwrap_or(u64::MAX)
        .saturating_add(1)
}

impl Endpoint {
    pub(super) fn new(
        upstream: &str,
        url: &UpstreamUrl,
        address: SocketAddr,
        metrics: EndpointMetrics,
    ) -> Self {
        metrics.up.set(1.0);
        Self {
            address,
            authority: url.authority(),
            host: url.host.clone(),
            upstream: upstream.to_owned(),
            in_flight: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            unreachable: AtomicBool::new(false),
            metrics,
        }
    }

    /// Whether it gets no requests while others do.
    pub(crate) fn is_ejected(&self) -> bool {
        match self.ejected_until.load(Ordering::Relaxed) {
            0 => false,
            // Its time is over: a request may try.
            until => now_millis() < until,
        }
    }

    /// Whether it was ejected and has not done well since, and whether a connection alone would show that it may be well again:
    /// one that takes connections and fails what comes on them needs to be asked more than that.
    pub(super) fn awaits(&self) -> Option<Awaits> {
        if self.ejected_until.load(Ordering::Relaxed) == 0 {
            None
        } else if self.unreachable.load(Ordering::Relaxed) {
            Some(Awaits::Connection)
        } else {
            Some(Awaits::Answer)
        }
    }

    /// Learns from an exchange.
    pub(crate) fn experienced(&self, experience: Experience, settings: &UpstreamSettings) {
        let failures = match experience {
            Experience::Good => {
                // Mostly nothing has to be written, so that workers do not take the line from each other.
                if self.failures.load(Ordering::Relaxed) != 0
                    || self.ejections.load(Ordering::Relaxed) != 0
                {
                    self.failures.store(0, Ordering::Relaxed);
                    self.ejections.store(0, Ordering::Relaxed);
                    self.gets_requests_again("a request");
                }
                return;
            }
            Experience::NoConnection => settings.eject_after,
            Experience::Bad => self.failures.fetch_add(1, Ordering::Relaxed) + 1,
        };
        self.metrics.failures.increment(1);
        if failures >= settings.eject_after && !self.is_ejected() {
            let unreachable = experience == Experience::NoConnection;
            self.unreachable.store(unreachable, Ordering::Relaxed);
            self.eject(settings);
        }
    }

    fn eject(&self, settings: &UpstreamSettings) {
        let times = self.ejections.fetch_add(1, Ordering::Relaxed);
        let doubled = settings.eject_for.saturating_mul(1 << times.min(16));
        let time = doubled.min(settings.eject_max);
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.ejected_until
            .store(now_millis().saturating_add(millis), Ordering::Relaxed);
        self.metrics.up.set(0.0);
        self.metrics.ejections.increment(1);
        if times == 0 {
            warn!(upstream = self.upstream, endpoint = %self.address, "an endpoint is ejected");
        }
    }

    /// A probe went well. It gets requests, and is ejected for longer than before if it fails the first of them.
    pub(super) fn returns_on_trial(&self, settings: &UpstreamSettings) {
        let one_less = settings.eject_after.saturating_sub(1);
        self.failures.store(one_less, Ordering::Relaxed);
        self.gets_requests_again("a probe");
    }

    fn gets_requests_again(&self, shown_by: &str) {
        if self.ejected_until.swap(0, Ordering::Relaxed) != 0 {
            self.metrics.up.set(1.0);
            info!(upstream = self.upstream, endpoint = %self.address, shown_by, "an endpoint is back");
        }
    }
}

/// What an ejected endpoint has to do to get requests before its time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaits {
    /// Take a connection.
    Connection,
    /// Answer a probe.
    Answer,
}

/// A request at an endpoint; dropping it ends it.
pub(crate) struct InFlight {
    pub(crate) endpoint: Arc<Endpoint>,
    of_upstream: Arc<AtomicUsize>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.endpoint.metrics.in_flight.decrement(1.0);
        self.of_upstream.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why there is no endpoint for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoEndpoint {
    /// `requests_max` are in flight.
    Full,
    /// The name has no address, or none yet.
    Unresolved,
    /// There is no other.
    NoOther,
}

/// All endpoints of one upstream.
pub(crate) struct Endpoints {
    list: ArcSwap<Vec<Arc<Endpoint>>>,
    in_flight: Arc<AtomicUsize>,
    requests_max: usize,
}

impl Endpoints {
    pub(super) fn new(list: Vec<Arc<Endpoint>>, requests_max: usize) -> Self {
        Self {
            list: ArcSwap::from_pointee(list),
            in_flight: Arc::default(),
            requests_max,
        }
    }

    pub(super) fn all(&self) -> Arc<Vec<Arc<Endpoint>>> {
        self.list.load_full()
    }

    pub(super) fn replace(&self, list: Vec<Arc<Endpoint>>) {
        self.list.store(Arc::new(list));
    }

    /// Chooses an endpoint for a request: the less loaded of two, by chance, of those that are well; of all, if none is. Refusing
    /// because of our own judgement alone would be worse. `chance` may be any number; `not` is not chosen.
    pub(crate) fn choose(
        &self,
        chance: u64,
        not: Option<&Arc<Endpoint>>,
    ) -> Result<InFlight, NoEndpoint> {
        let list = self.list.load();
        let chosen = match list.as_slice() {
            [] => return Err(NoEndpoint::Unresolved),
            [only] if not.is_none() => only,
            several => {
                let other = |endpoint: &&Arc<Endpoint>| {
                    not.is_none_or(|not| not.address != endpoint.address)
                };
                let well = |endpoint: &&Arc<Endpoint>| other(endpoint) && !endpoint.is_ejected();
                of_two(several, chance, well)
                    .or_else(|| of_two(several, chance, other))
                    .ok_or(NoEndpoint::NoOther)?
            }
        };
        self.enter(Arc::clone(chosen))
    }

    /// Whether there is an endpoint besides `this`.
    pub(crate) fn has_other(&self, this: &Arc<Endpoint>) -> bool {
        let list = self.list.load();
        list.iter().any(|endpoint| endpoint.address != this.address)
    }

    /// Takes a place at `endpoint`.
    pub(crate) fn enter(&self, endpoint: Arc<Endpoint>) -> Result<InFlight, NoEndpoint> {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        endpoint.metrics.in_flight.increment(1.0);
        let open = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let place = InFlight {
            endpoint,
            of_upstream: Arc::clone(&self.in_flight),
        };
        if open < self.requests_max {
            Ok(place)
        } else {
            Err(NoEndpoint::Full)
        }
    }
}

/// The less loaded of two of those that `may`, which differ if there are two.
fn of_two(
    list: &[Arc<Endpoint>],
    chance: u64,
    may: impl Fn(&&Arc<Endpoint>) -> bool,
) -> Option<&Arc<Endpoint>> {
    let count = list.iter().filter(&may).count() as u64;
    let nth = |n: u64| {
        list.iter()
            .filter(&may)
            .nth(usize::try_from(n).unwrap_or(0))
    };
    let first = chance.checked_rem(count)?;
    let a = nth(first)?;
    if count == 1 {
        return Some(a);
    }
    let b = nth((first + 1 + (chance >> 16) % (count - 1)) % count)?;
    let load = |endpoint: &Arc<Endpoint>| endpoint.in_flight.load(Ordering::Relaxed);
    Some(if load(b) < load(a) { b } else { a })
}

/// The wait before something is done again: as set, a fifth more or less by chance.
pub(crate) fn about(time: Duration) -> Duration {
    let chance = getrandom::u32().map_or(0.5, |n| f64::from(n) / f64::from(u32::MAX));
    time.mul_f64(0.8 + 0.4 * chance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn settings() -> UpstreamSettings {
        let config = include_str!("../../../../config/edge/edge.toml");
        let config = Config::parse("edge.toml", config).unwrap();
        config.upstreams.first().unwrap().1.clone()
    }

    fn endpoints(count: u8, requests_max: usize) -> (Endpoints, Vec<Arc<Endpoint>>) {
        let url = UpstreamUrl::parse("http://a:1").unwrap();
        let list: Vec<_> = (1..=count)
            .map(|n| {
                let address = SocketAddr::from(([192, 0, 2, n], 1));
                Arc::new(Endpoint::new("a", &url, address, EndpointMetrics::noop()))
            })
            .collect();
        (Endpoints::new(list.clone(), requests_max), list)
    }

    #[test]
    fn load_is_spread_over_those_that_are_well() {
        let (endpoints, list) = endpoints(3, 1000);
        let places: Vec<_> = (0..300_u64)
            .map(|n| {
                endpoints
                    .choose(n.wrapping_mul(0x9e37_79b9_7f4a_7c15), None)
                    .unwrap()
            })
            .collect();
        for endpoint in &list {
            let load = endpoint.in_flight.load(Ordering::Relaxed);
            assert!((90..=110).contains(&load), "{load}");
        }
        drop(places);
        list[0].experienced(Experience::NoConnection, &settings());
        for chance in 0..100 {
            let chosen = endpoints.choose(chance, None).unwrap();
            assert_ne!(chosen.endpoint.address, list[0].address);
        }
        assert!(
            list.iter()
                .all(|e| e.in_flight.load(Ordering::Relaxed) == 0)
        );
    }

    #[test]
    fn when_none_is_well_all_are_used() {
        let (endpoints, list) = endpoints(2, 1000);
        for endpoint in &list {
            endpoint.experienced(Experience::NoConnection, &settings());
        }
        endpoints.choose(1, None).unwrap();
        let only_other = endpoints.choose(1, Some(&list[0])).unwrap();
        assert_eq!(only_other.endpoint.address, list[1].address);
    }

    #[test]
    fn an_endpoint_is_ejected_after_failures_in_a_row_and_comes_back_when_it_does_well() {
        let (_, list) = endpoints(1, 1);
        let (endpoint, settings) = (&list[0], settings());
        for _ in 1..settings.eject_after {
            endpoint.experienced(Experience::Bad, &settings);
        }
        endpoint.experienced(Experience::Good, &settings);
        for _ in 1..settings.eject_after {
            endpoint.experienced(Experience::Bad, &settings);
            assert!(!endpoint.is_ejected());
        }
        endpoint.experienced(Experience::Bad, &settings);
        assert!(endpoint.is_ejected());
        endpoint.experienced(Experience::Good, &settings);
        assert!(!endpoint.is_ejected());
    }

    #[test]
    fn an_endpoint_that_only_takes_connections_is_not_asked_for_less_each_time() {
        let (_, list) = endpoints(1, 1);
        let (endpoint, settings) = (&list[0], settings());
        let out_for = |endpoint: &Endpoint| {
            let until = endpoint.ejected_until.load(Ordering::Relaxed);
            Duration::from_millis(until.saturating_sub(now_millis()))
        };
        endpoint.experienced(Experience::NoConnection, &settings);
        assert_eq!(endpoint.awaits(), Some(Awaits::Connection));
        for doubled in 1..=3 {
            endpoint.returns_on_trial(&settings);
            assert!(!endpoint.is_ejected());
            endpoint.experienced(Experience::Bad, &settings);
            assert_eq!(endpoint.awaits(), Some(Awaits::Answer), "one is enough");
            let half = settings.eject_for * (1 << doubled) / 2;
            assert!(out_for(endpoint) > half, "{doubled}");
        }
        endpoint.experienced(Experience::Good, &settings);
        assert_eq!(endpoint.awaits(), None);
        endpoint.experienced(Experience::NoConnection, &settings);
        assert!(out_for(endpoint) <= settings.eject_for);
    }

    #[test]
    fn no_more_requests_are_in_flight_than_set() {
        let (endpoints, list) = endpoints(1, 2);
        let places = [0, 1].map(|n| endpoints.choose(n, None).unwrap());
        assert_eq!(endpoints.choose(0, None).err(), Some(NoEndpoint::Full));
        drop(places);
        endpoints.choose(0, None).unwrap();
        assert_eq!(
            endpoints.choose(0, Some(&list[0])).err(),
            Some(NoEndpoint::NoOther)
        );
    }
}
