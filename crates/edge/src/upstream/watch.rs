//! What is done about endpoints in the background: their names are resolved again and again, and those that were ejected are
//! tried until they answer. Ends with the configuration that asked for it.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::lookup_host;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::connect::{Shared, open};
use super::endpoints::{Awaits, Endpoint, about};
use crate::metrics::Metrics;
use crate::upstream_url::UpstreamUrl;

/// How long a name server may take.
const RESOLVE_MAX: Duration = Duration::from_secs(2);
/// The most of an answer to a probe that is looked at: its first line.
const STATUS_BYTES: usize = 12;

/// Resolves names for as long as the upstream is used by a configuration.
pub(super) async fn keep_resolving(shared: Weak<Shared>, metrics: Arc<Metrics>) {
    loop {
        let Some(every) = shared.upgrade().map(|shared| shared.settings.resolve_every) else {
            return;
        };
        sleep(about(every)).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        resolve(&shared, &metrics).await;
    }
}

/// Resolves the names once. One that cannot be resolved keeps the addresses it has.
pub(super) async fn resolve(shared: &Shared, metrics: &Metrics) {
    let known = shared.endpoints.all();
    let mut list: Vec<Arc<Endpoint>> = Vec::new();
    for url in &shared.settings.urls {
        let of_url = |endpoint: &&Arc<Endpoint>| endpoint.authority == url.authority();
        match addresses(url).await {
            Ok(addresses) => {
                for address in addresses {
                    if list.iter().any(|endpoint| endpoint.address == address) {
                        continue;
                    }
                    let same = known.iter().filter(of_url).find(|e| e.address == address);
                    list.push(same.map_or_else(
                        || {
                            let metrics = metrics.endpoint(&shared.name, address);
                            Arc::new(Endpoint::new(&shared.name, url, address, metrics))
                        },
                        Arc::clone,
                    ));
                }
            }
            Err(reason) => {
                warn!(
                    upstream = shared.name,
                    host = url.host,
                    reason,
                    "a name cannot be resolved"
                );
                list.extend(known.iter().filter(of_url).cloned());
            }
        }
    }
    let same =
        list.len() == known.len() && list.iter().all(|e| known.iter().any(|k| Arc::ptr_eq(e, k)));
    if same {
        return;
    }
    let kept = |endpoint: &Arc<Endpoint>| list.iter().any(|e| e.address == endpoint.address);
    for gone in known.iter().filter(|endpoint| !kept(endpoint)) {
        gone.metrics.up.set(0.0);
    }
    let addresses: Vec<_> = list.iter().map(|endpoint| endpoint.address).collect();
    info!(
        upstream = shared.name,
        ?addresses,
        "an upstream's endpoints"
    );
    shared.endpoints.replace(list);
}

async fn addresses(url: &UpstreamUrl) -> Result<Vec<SocketAddr>, String> {
    let host = url.host.trim_matches(['[', ']']);
    let looking = timeout(RESOLVE_MAX, lookup_host((host, url.port)));
    let found = looking.await.map_err(|_| "no answer in time".to_owned())?;
    let found: Vec<_> = found.map_err(|error| error.to_string())?.collect();
    if found.is_empty() {
        return Err("it has no address".to_owned());
    }
    Ok(found)
}

/// Tries ejected endpoints for as long as the upstream is used by a configuration.
pub(super) async fn keep_probing(shared: Weak<Shared>) {
    loop {
        let Some(every) = shared.upgrade().map(|shared| shared.settings.probe_every) else {
            return;
        };
        sleep(about(every)).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let settings = &shared.settings;
        let mut probes = JoinSet::new();
        for endpoint in shared.endpoints.all().iter() {
            let tells = match endpoint.awaits() {
                None => false,
                Some(Awaits::Connection) => true,
                Some(Awaits::Answer) => !settings.probe_path.is_empty(),
            };
            if tells {
                let (shared, endpoint) = (Arc::clone(&shared), Arc::clone(endpoint));
                probes.spawn(async move {
                    if probe(&shared, &endpoint).await {
                        endpoint.returns_on_trial(&shared.settings);
                    }
                });
            }
        }
        while probes.join_next().await.is_some() {}
    }
}

/// Whether an endpoint takes a connection, and where a path is set, answers it with success.
async fn probe(shared: &Shared, endpoint: &Endpoint) -> bool {
    let settings = &shared.settings;
    let trying = async {
        let mut io = open(shared, endpoint).await.ok()?;
        if settings.probe_path.is_empty() {
            return Some(());
        }
        let request = format!(
            "GET {} HTTP/1.1\r\nhost: {}\r\nuser-agent: okmon-probe\r\nconnection: close\r\n\r\n",
            settings.probe_path, endpoint.authority
        );
        io.write_all(request.as_bytes()).await.ok()?;
        let mut status = [0; STATUS_BYTES];
        io.read_exact(&mut status).await.ok()?;
        status.starts_with(b"HTTP/1.").then_some(())?;
        (status.get(9) == Some(&b'2')).then_some(())
    };
    // As long for the answer as for the connection.
    timeout(2 * settings.connect_timeout, trying)
        .await
        .is_ok_and(|well| well.is_some())
}
