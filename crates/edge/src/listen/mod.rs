//! ACCEPT: from a listening socket to a connection that speaks HTTP/1.1 or HTTP/2, on the worker that has the fewest.
//! Decides which protocol a connection speaks by its first bytes; every listener takes both.

pub(crate) mod gate;
pub(crate) mod http1;
mod http1_answer;
pub(crate) mod http1_head;
mod http2;
mod http2_errors;
pub(crate) mod http2_frames;
mod http2_walk;
mod io;
mod offenders;
mod open;
mod proxy_protocol;
mod strangers;
pub(crate) mod tls;

use std::fmt;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::BytesMut;
use metrics::Gauge;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::gate::{Full, Gate, Seat};
use self::io::ClientIo;
use self::tls::ListenerTls;
use crate::config::ListenerSettings;
use crate::log_limits::{LogLimits, Of};
use crate::metrics::Closed;
use crate::worker::{Blueprint, Worker};

/// What a client with prior knowledge of HTTP/2 says first (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How often a minute a listener says that it could not accept: while descriptors are short, that is a hundred times a second.
const ACCEPT_LINES_PER_MINUTE: u32 = 3;

/// A port for senders, from its opening until its last connection is over.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) name: String,
    settings: ArcSwap<ListenerSettings>,
    tls: ArcSwapOption<ListenerTls>,
    pub(crate) ending: Ending,
}

/// How far the end of a listener or of the process has come. Each is cancelled after the one before.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ending {
    /// No connection shall take another request but those that are under way.
    pub(crate) draining: CancellationToken,
    /// Nothing is under way any more on a connection on which nothing comes.
    pub(crate) closing: CancellationToken,
    /// A request that begins now would not end in time.
    pub(crate) refusing: CancellationToken,
}

impl Ending {
    /// One that comes with this one, or earlier.
    pub(crate) fn child(&self) -> Self {
        Self {
            draining: self.draining.child_token(),
            closing: self.closing.child_token(),
            refusing: self.refusing.child_token(),
        }
    }

    /// Waits until a connection on which nothing comes shall be closed. What had come by then has been noticed.
    pub(crate) async fn closes(&self) {
        self.closing.cancelled().await;
        // Lets the runtime ask the kernel once more.
        tokio::task::yield_now().await;
    }
}

impl Listener {
    /// A listener that ends with the process, or when it is told to.
    pub(crate) fn new(
        settings: ListenerSettings,
        tls: Option<Arc<ListenerTls>>,
        ending: Ending,
    ) -> Self {
        Self {
            name: settings.name.clone(),
            settings: ArcSwap::from_pointee(settings),
            tls: ArcSwapOption::new(tls),
            ending,
        }
    }

    /// What it is set to now.
    pub(crate) fn settings(&self) -> Arc<ListenerSettings> {
        self.settings.load_full()
    }

    /// How connections begin now, if they are to be over TLS.
    fn tls(&self) -> Option<Arc<ListenerTls>> {
        self.tls.load_full()
    }

    /// Sets it otherwise, for connections that are open too; TLS for new ones.
    pub(crate) fn replace(&self, settings: ListenerSettings, tls: Option<Arc<ListenerTls>>) {
        self.tls.store(tls);
        self.settings.store(Arc::new(settings));
    }
}

/// How old a connection may become.
#[derive(Debug, Clone, Copy)]
struct Age {
    since: Instant,
    max: Duration,
}

impl Age {
    /// Of a connection that is new. A tenth more or less than `max`, by chance, so that those who came at once do not come
    /// again at once.
    fn new(max: Duration) -> Self {
        // Without randomness all are equally long; that is no reason not to serve.
        let chance = getrandom::u32().map_or(0.5, |n| f64::from(n) / f64::from(u32::MAX));
        Self {
            since: Instant::now(),
            max: max.mul_f64(0.9 + chance / 5.0),
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        now - self.since >= self.max
    }
}

/// The other end of a connection, and where it came in.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) listener: Arc<Listener>,
    pub(crate) seat: Arc<Seat>,
}

impl Peer {
    /// The same connection for a sender at another address.
    pub(crate) fn with_address(&self, address: IpAddr) -> Self {
        Self {
            address: SocketAddr::new(address, 0),
            listener: Arc::clone(&self.listener),
            seat: Arc::clone(&self.seat),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Proxies tell no port.
        match self.address.port() {
            0 => self.address.ip().fmt(f),
            _ => self.address.fmt(f),
        }
    }
}

/// A connection on its way to a worker.
pub(crate) struct Accepted {
    stream: std::net::TcpStream,
    peer: Peer,
    counted: Counted,
    arriving: Option<OwnedSemaphorePermit>,
}

/// What a worker is told.
pub(crate) enum ToWorker {
    Connection(Accepted),
    /// Another configuration; the sender is told when it is in force.
    Configuration(Arc<Blueprint>, oneshot::Sender<()>),
}

/// Where to tell one worker.
#[derive(Clone)]
pub(crate) struct WorkerSender {
    pub(crate) to_worker: UnboundedSender<ToWorker>,
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

/// Accepts until the listener drains, giving each connection to the worker with the fewest: long-lived gRPC connections would
/// pile up on one core if the kernel dealt them out.
///
/// Connections that came before the end are taken over still, unless the socket outlives us (`inherited`): then they are left to
/// who comes after.
pub(crate) async fn accept(
    socket: Arc<TcpListener>,
    inherited: bool,
    listener: Arc<Listener>,
    workers: Vec<WorkerSender>,
    gate: Arc<Gate>,
    metrics: Arc<crate::metrics::Metrics>,
    log_limits: Arc<LogLimits>,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = async { gate.settles().await; socket.accept().await } => accepted,
            () = listener.ending.draining.cancelled() => break,
        };
        // Most errors end with the connection that caused them; running out of descriptors does not, and must not become a
        // busy loop.
        let arriving = gate.arrives().await;
        let handed = accepted.and_then(|accepted| {
            hand_over(accepted, arriving, &listener, &workers, &gate, &metrics)
        });
        match handed {
            Ok(Handed::Over) => {}
            Ok(Handed::ToNobody) => return,
            Err(error) => {
                metrics.connections.accept_errors.increment(1);
                let of = Of::Listener(&listener.name);
                if log_limits.allow(of, "accept", ACCEPT_LINES_PER_MINUTE) {
                    warn!(listener = listener.name, %error, "a connection was not accepted");
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    if inherited {
        return;
    }
    // Lets the runtime see what has come.
    tokio::task::yield_now().await;
    let waiting = || poll_fn(|cx| Poll::Ready(socket.poll_accept(cx)));
    while let Poll::Ready(Ok(accepted)) = waiting().await {
        let arriving = gate.arrives().await;
        if hand_over(accepted, arriving, &listener, &workers, &gate, &metrics).is_err() {
            return;
        }
    }
}

/// What became of a connection.
enum Handed {
    Over,
    /// The workers are gone; then so should be who accepts.
    ToNobody,
}

/// A socket that takes both versions of IP, as systemd's do, gives a sender with IPv4 an address of IPv6.
fn own_address(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn hand_over(
    (stream, address): (TcpStream, SocketAddr),
    arriving: Option<OwnedSemaphorePermit>,
    listener: &Arc<Listener>,
    workers: &[WorkerSender],
    gate: &Arc<Gate>,
    metrics: &crate::metrics::Metrics,
) -> std::io::Result<Handed> {
    let address = own_address(address);
    metrics.connections.accepted.increment(1);
    // A proxy has the senders of many addresses. It may tell them apart later.
    let is_proxy = listener.settings().trusted.contains(address.ip());
    let seat = match gate.enter((!is_proxy).then(|| address.ip())) {
        Ok(seat) => seat,
        Err(full) => {
            metrics.connections.closed(full.into());
            if full == Full::InVain {
                // Who comes again and again would leave tens of thousands of sockets in the kernel that wait for their end.
                stream.set_zero_linger()?;
            }
            return Ok(Handed::Over);
        }
    };
    stream.set_nodelay(true)?;
    let stream = stream.into_std()?;
    let Some(worker) = workers
        .iter()
        .min_by_key(|worker| worker.load.load(Ordering::Relaxed))
    else {
        return Ok(Handed::ToNobody);
    };
    let accepted = Accepted {
        stream,
        peer: Peer {
            address,
            listener: Arc::clone(listener),
            seat,
        },
        counted: Counted::new(&worker.load, &metrics.connections.open),
        arriving,
    };
    Ok(
        match worker.to_worker.send(ToWorker::Connection(accepted)) {
            Ok(()) => Handed::Over,
            Err(_) => Handed::ToNobody,
        },
    )
}

/// Serves what is handed to a worker, each connection in a task of its own on the worker's runtime.
pub(crate) async fn serve_accepted(worker: Rc<Worker>, mut told: UnboundedReceiver<ToWorker>) {
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            next = told.recv() => match next {
                Some(ToWorker::Connection(accepted)) => {
                    let worker = Rc::clone(&worker);
                    tasks.spawn_local(serve_while_seated(worker, accepted));
                }
                Some(ToWorker::Configuration(blueprint, done)) => {
                    worker.replace(blueprint.build(&worker.metrics));
                    // Who asked may have stopped waiting.
                    let _ = done.send(());
                }
                None => break,
            },
            Some(_) = tasks.join_next() => {}
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// Serves a connection until it ends, or has to make room.
async fn serve_while_seated(worker: Rc<Worker>, accepted: Accepted) {
    let Accepted {
        stream,
        peer,
        counted,
        arriving,
    } = accepted;
    drop(arriving);
    let seat = Arc::clone(&peer.seat);
    // Pinned here: `select!` would keep room for it twice.
    let serving = pin!(serve(Rc::clone(&worker), peer, stream));
    tokio::select! {
        biased;
        () = serving => {}
        () = seat.has_to_leave() => worker.metrics.connections.closed(Closed::StrangersMax),
    }
    drop(counted);
}

async fn serve(worker: Rc<Worker>, mut peer: Peer, stream: std::net::TcpStream) {
    let Ok(stream) = TcpStream::from_std(stream) else {
        return;
    };
    let limit = worker.current().settings.connections.head_timeout;
    let listener = Arc::clone(&peer.listener);
    let opened = tokio::select! {
        opened = open::open(&worker, &mut peer, stream, limit) => opened,
        () = listener.ending.closes() => return,
    };
    let Some(mut stream) = opened else {
        return;
    };
    let sniffed = tokio::select! {
        biased;
        sniffed = tokio::time::timeout(limit, sniff(&mut stream)) => sniffed,
        () = peer.listener.ending.closes() => return,
    };
    let (is_http2, ahead) = match sniffed {
        Ok(Some(sniffed)) => sniffed,
        Ok(None) => {
            worker.metrics.connections.silent.increment(1);
            return;
        }
        Err(_) => {
            worker.metrics.connections.closed(Closed::HeadTimeout);
            return;
        }
    };
    if is_http2 || stream.agreed_on_http2() {
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
        // What is missing of the preface may take long: not in a buffer for a whole batch.
        if ahead.capacity() > http1::READ_BYTES / 2 {
            let mut small = BytesMut::with_capacity(1024);
            small.extend_from_slice(&ahead);
            ahead = small;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_waits_for_a_request_keeps_no_room_for_one() {
        fn bytes<F: Future>(_: fn(Rc<Worker>, Accepted) -> F) -> usize {
            size_of::<F>()
        }
        assert!(bytes(serve_while_seated) <= 4096);
    }

    #[test]
    fn a_sender_with_ipv4_has_its_own_address_on_a_socket_for_both() {
        for (seen, own) in [
            ("[::ffff:192.0.2.7]:4711", "192.0.2.7:4711"),
            ("192.0.2.7:4711", "192.0.2.7:4711"),
            ("[2001:db8::7]:4711", "[2001:db8::7]:4711"),
        ] {
            assert_eq!(own_address(seen.parse().unwrap()), own.parse().unwrap());
        }
    }
}
