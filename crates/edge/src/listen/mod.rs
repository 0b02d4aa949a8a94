//! ACCEPT: from a listening socket to a connection that speaks HTTP/1.1 or HTTP/2, on the worker that has the fewest.
//! Decides which protocol a connection speaks by its first bytes; every listener takes both.

pub(crate) mod http1;
pub(crate) mod http1_head;
mod http2;
mod io;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::BytesMut;
use metrics::Gauge;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::io::ClientIo;
use crate::config::ListenerSettings;
use crate::worker::Worker;

/// What a client with prior knowledge of HTTP/2 says first (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The other end of a connection, and where it came in.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) listener: Arc<ListenerSettings>,
}

/// A connection on its way to a worker.
pub(crate) struct Accepted {
    stream: std::net::TcpStream,
    peer: Peer,
    counted: Counted,
}

/// Where to hand connections to one worker.
#[derive(Clone)]
pub(crate) struct WorkerSender {
    pub(crate) connections: UnboundedSender<Accepted>,
    /// How many connections it has.
    pub(crate) load: Arc<AtomicUsize>,
}

/// Counts a connection for as long as it lives.
struct Counted {
    load: Arc<AtomicUsize>,
    gauge: Gauge,
}

impl Counted {
    fn new(load: &Arc<AtomicUsize>, gauge: &Gauge) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        gauge.increment(1.0);
        Self {
            load: Arc::clone(load),
            gauge: gauge.clone(),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
        self.gauge.decrement(1.0);
    }
}

/// Accepts until `stop`, giving each connection to the worker with the fewest: long-lived gRPC connections would pile up
/// on one core if the kernel dealt them out.
pub(crate) async fn accept(
    listener: TcpListener,
    settings: Arc<ListenerSettings>,
    workers: Vec<WorkerSender>,
    metrics: Arc<crate::metrics::Metrics>,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let handed = accepted.and_then(|(stream, address)| {
            stream.set_nodelay(true)?;
            Ok((stream.into_std()?, address))
        });
        let (stream, address) = match handed {
            Ok(accepted) => accepted,
            Err(error) => {
                // Most of these end with the connection that caused them; running out of descriptors does not, and must
                // not become a busy loop.
                warn!(listener = settings.name, %error, "a connection was not accepted");
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                continue;
            }
        };
        metrics.connections_accepted.increment(1);
        let Some(worker) = workers
            .iter()
            .min_by_key(|worker| worker.load.load(Ordering::Relaxed))
        else {
            return;
        };
        let counted = Counted::new(&worker.load, &metrics.connections);
        let peer = Peer {
            address,
            listener: Arc::clone(&settings),
        };
        // A worker that is gone has stopped; then so do we.
        if worker
            .connections
            .send(Accepted {
                stream,
                peer,
                counted,
            })
            .is_err()
        {
            return;
        }
    }
}

/// Serves what is handed to a worker, each connection in a task of its own on the worker's runtime.
pub(crate) async fn serve_accepted(
    worker: Rc<Worker>,
    mut connections: UnboundedReceiver<Accepted>,
) {
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = connections.recv() => match accepted {
                Some(accepted) => {
                    let worker = Rc::clone(&worker);
                    tasks.spawn_local(async move {
                        let Accepted { stream, peer, counted } = accepted;
                        serve(worker, peer, stream).await;
                        drop(counted);
                    });
                }
                None => break,
            },
            Some(_) = tasks.join_next() => {}
        }
    }
    while tasks.join_next().await.is_some() {}
}

async fn serve(worker: Rc<Worker>, peer: Peer, stream: std::net::TcpStream) {
    let Ok(stream) = TcpStream::from_std(stream) else {
        return;
    };
    let mut stream = ClientIo::Plain(stream);
    let limit = worker.current().settings.connections.head_timeout;
    let sniffed = tokio::time::timeout(limit, sniff(&mut stream)).await;
    let Ok(Some((is_http2, ahead))) = sniffed else {
        return;
    };
    if is_http2 {
        http2::serve(worker, peer, stream, ahead).await;
    } else {
        http1::serve(worker, peer, stream, ahead).await;
    }
}

/// Reads as much as it takes to tell HTTP/2 from HTTP/1. `None` when nothing comes.
async fn sniff(stream: &mut ClientIo) -> Option<(bool, BytesMut)> {
    poll_fn(|cx| stream.poll_read_ready(cx)).await.ok()?;
    let mut ahead = BytesMut::with_capacity(http1::READ_BYTES);
    loop {
        if stream.read_buf(&mut ahead).await.ok()? == 0 {
            return None;
        }
        let compared = ahead.len().min(PREFACE.len());
        if ahead.get(..compared) != PREFACE.get(..compared) {
            return Some((false, ahead));
        }
        if compared == PREFACE.len() {
            return Some((true, ahead));
        }
    }
}
