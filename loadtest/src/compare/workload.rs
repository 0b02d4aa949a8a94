//! The loads that candidates are put under, and the goals their costs are held against.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

/// Which of a candidate's ports a workload goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Http1,
    /// For bodies so large that a candidate may want other settings.
    Http1Large,
    Grpc,
}

/// One load. Closed loop, unless it has a rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) route: Route,
    size_bytes: u32,
    connections: u32,
    streams: u32,
    rate_per_second: Option<u32>,
}

/// In the order of the tables. The steady one shows latencies where no candidate is saturated, so that they compare.
pub(crate) const ALL: [Workload; 5] = [
    http1("http1-1k", "HTTP/1.1, 1 KiB bodies", 1024),
    http1("http1-32k", "HTTP/1.1, 32 KiB bodies", 32 * 1024),
    Workload {
        route: Route::Http1Large,
        ..http1("http1-1m", "HTTP/1.1, 1 MiB bodies", 1024 * 1024)
    },
    Workload {
        route: Route::Grpc,
        connections: 16,
        streams: 10,
        ..http1("grpc-4k", "gRPC over h2c, 4 KiB messages", 4096)
    },
    Workload {
        rate_per_second: Some(2000),
        ..http1(
            "http1-1k-steady",
            "HTTP/1.1, 1 KiB bodies, 2,000 requests/s (open loop)",
            1024,
        )
    },
];

const fn http1(name: &'static str, title: &'static str, size_bytes: u32) -> Workload {
    Workload {
        name,
        title,
        route: Route::Http1,
        size_bytes,
        connections: 64,
        streams: 1,
        rate_per_second: None,
    }
}

impl Workload {
    /// Whether it asks for no more than the candidate gives.
    pub(crate) fn is_closed_loop(&self) -> bool {
        self.rate_per_second.is_none()
    }

    /// The arguments of `loadtest run` towards `port`, with the keys of a file.
    pub(crate) fn arguments(&self, port: u16, keys: &Path, duration: Duration) -> Vec<OsString> {
        let protocol = match self.route {
            Route::Grpc => "otlp-grpc",
            Route::Http1 | Route::Http1Large => "otlp-http",
        };
        let mut arguments: Vec<OsString> = [
            "run",
            "--json",
            "--protocol",
            protocol,
            "--target",
            &format!("127.0.0.1:{port}"),
            "--size",
            &self.size_bytes.to_string(),
            "--connections",
            &self.connections.to_string(),
            "--streams",
            &self.streams.to_string(),
            "--duration",
            &duration.as_secs_f64().to_string(),
            "--keys",
        ]
        .map(OsString::from)
        .into();
        arguments.push(keys.into());
        if let Some(rate) = self.rate_per_second {
            arguments.push("--rate".into());
            arguments.push(rate.to_string().into());
        }
        arguments
    }
}

/// The edge's CPU per request shall be at most this many times a peer's.
pub(crate) struct Goal {
    pub(crate) peer: &'static str,
    pub(crate) workload: &'static str,
    pub(crate) ratio_max: f64,
}

const fn goal(peer: &'static str, workload: &'static str, ratio_max: f64) -> Goal {
    Goal {
        peer,
        workload,
        ratio_max,
    }
}

pub(crate) const GOALS: [Goal; 13] = [
    goal("nginx", "http1-1k", 1.25),
    goal("nginx", "http1-32k", 1.25),
    goal("nginx", "http1-1m", 1.25),
    goal("nginx", "grpc-4k", 0.85),
    goal("envoy", "http1-1k", 0.5),
    goal("envoy", "http1-32k", 0.5),
    goal("envoy", "grpc-4k", 0.5),
    goal("caddy", "http1-1k", 0.15),
    goal("caddy", "http1-32k", 0.15),
    goal("caddy", "grpc-4k", 0.15),
    goal("vmauth", "http1-1k", 0.15),
    goal("vmauth", "http1-32k", 0.15),
    goal("vmauth", "http1-1m", 0.15),
];

/// The edge's peak memory: a base, and so much for each key.
pub(crate) const MEMORY_BASE_BYTES: u64 = 64 << 20;
/// See [`MEMORY_BASE_BYTES`].
pub(crate) const MEMORY_KEY_BYTES: u64 = 1024;
