//! The ports that are open: which sockets they use, and how ports come and go while others serve on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ops::inherited::Inherited;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tracing::info;

use super::StartError;
use super::workers::Workers;
use crate::config::{BudgetSettings, ConnectionSettings, ListenerSettings};
use crate::listen::gate::Gate;
use crate::listen::tls::Prepared;
use crate::listen::{self, Ending, Listener};
use crate::log_limits::LogLimits;
use crate::metrics::Metrics;

/// The name by which a socket for the operator's port is inherited.
pub(super) const OPS: &str = "ops";

/// All listeners, and the sockets that outlive them.
pub(super) struct Listeners {
    open: Vec<Open>,
    inherited: Inherited,
    ending: Ending,
    accepting: JoinSet<()>,
    /// For all of them.
    gate: Arc<Gate>,
    log_limits: Arc<LogLimits>,
}

struct Open {
    listener: Arc<Listener>,
    /// Kept for a listener that takes this one's place under another name.
    socket: Arc<TcpListener>,
    inherited: bool,
    /// Where it listens; the configuration may have said port 0.
    address: SocketAddr,
    /// What the configuration said.
    configured: SocketAddr,
}

/// A socket that nobody accepts from yet.
pub(super) struct Opened {
    settings: ListenerSettings,
    socket: Arc<TcpListener>,
    inherited: bool,
    address: SocketAddr,
}

/// Takes over the inherited socket for `address`, or opens one. Says which.
pub(super) fn open(
    name: &str,
    address: SocketAddr,
    inherited: &Inherited,
) -> Result<(TcpListener, bool), StartError> {
    let opening = || match inherited.find(name, address)? {
        Some(socket) => Ok((TcpListener::from_std(socket)?, true)),
        None => Ok((bind(address)?, false)),
    };
    opening().map_err(|source| StartError::Listen {
        name: name.to_owned(),
        address,
        source,
    })
}

/// As [`open`], for a listener that may take the place of one that listens at its address under another name.
fn open_beside(
    open: &[Open],
    settings: &ListenerSettings,
    inherited: &Inherited,
) -> Result<Opened, StartError> {
    // Port 0 takes a free one each time.
    let same = |open: &&Open| open.configured == settings.address && settings.address.port() != 0;
    let (socket, inherited) = if let Some(open) = open.iter().find(same) {
        (Arc::clone(&open.socket), open.inherited)
    } else {
        let (socket, inherited) = self::open(&settings.name, settings.address, inherited)?;
        (Arc::new(socket), inherited)
    };
    Ok(Opened {
        settings: settings.clone(),
        inherited,
        address: socket.local_addr()?,
        socket,
    })
}

/// As `TcpListener::bind`, with room for as many waiting connections as the kernel allows: a burst of reconnects after a
/// restart is larger than the usual 1024.
fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        tokio::net::TcpSocket::new_v4()
    } else {
        tokio::net::TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(65_535)
}

impl Listeners {
    /// None yet. They end with `ending`.
    pub(super) fn new(
        inherited: Inherited,
        ending: &Ending,
        gate: Gate,
        log_limits: Arc<LogLimits>,
    ) -> Self {
        Self {
            open: Vec::new(),
            inherited,
            ending: ending.clone(),
            accepting: JoinSet::new(),
            gate: Arc::new(gate),
            log_limits,
        }
    }

    /// Opens sockets for those of `wanted` that are not open at their address yet.
    ///
    /// # Errors
    /// One line per address that cannot be listened on; then none is kept.
    pub(super) fn open_new(&self, wanted: &[ListenerSettings]) -> Result<Vec<Opened>, Vec<String>> {
        let (mut opened, mut problems) = (Vec::new(), Vec::new());
        for settings in wanted {
            if self.open.iter().any(|open| open.is_of(settings)) {
                continue;
            }
            match open_beside(&self.open, settings, &self.inherited) {
                Ok(socket) => opened.push(socket),
                Err(error) => problems.push(error.to_string()),
            }
        }
        if problems.is_empty() {
            Ok(opened)
        } else {
            Err(problems)
        }
    }

    /// Checks that every inherited socket has a listener among those `wanted`, or is the ops port.
    pub(super) fn nothing_left(
        &self,
        ops: SocketAddr,
        wanted: &[ListenerSettings],
    ) -> Result<(), StartError> {
        let mut all = vec![(OPS, ops)];
        all.extend(
            wanted
                .iter()
                .map(|settings| (settings.name.as_str(), settings.address)),
        );
        let left = self.inherited.left(&all);
        if left.is_empty() {
            Ok(())
        } else {
            Err(StartError::Inherited(left.join(", ")))
        }
    }

    /// Begins to accept from sockets that were opened.
    pub(super) fn accept(
        &mut self,
        opened: Vec<Opened>,
        tls: &Prepared,
        workers: &Workers,
        metrics: &Arc<Metrics>,
    ) {
        for opened in opened {
            let configured = opened.settings.address;
            let prepared = tls.of(&opened.settings.name);
            let ending = self.ending.child();
            let listener = Arc::new(Listener::new(opened.settings, prepared, ending));
            self.accepting.spawn(listen::accept(
                Arc::clone(&opened.socket),
                opened.inherited,
                Arc::clone(&listener),
                workers.senders(),
                Arc::clone(&self.gate),
                Arc::clone(metrics),
                Arc::clone(&self.log_limits),
            ));
            self.open.push(Open {
                listener,
                socket: opened.socket,
                inherited: opened.inherited,
                address: opened.address,
                configured,
            });
        }
    }

    /// Sets those that stay as `wanted` says, and lets those that `wanted` has no more end: idle connections after
    /// `drain_idle`, the others with their requests.
    pub(super) fn keep(
        &mut self,
        wanted: &[ListenerSettings],
        tls: &Prepared,
        drain_idle: Duration,
    ) {
        self.open.retain(|open| {
            let stays = wanted.iter().find(|settings| open.is_of(settings));
            if let Some(settings) = stays {
                let tls = tls.of(&settings.name);
                open.listener.replace(settings.clone(), tls);
                return true;
            }
            info!(listener = open.listener.name, address = %open.address, "a listener ends");
            open.listener.ending.draining.cancel();
            let closing = open.listener.ending.closing.clone();
            tokio::spawn(async move {
                tokio::time::sleep(drain_idle).await;
                closing.cancel();
            });
            false
        });
    }

    /// Lets connections in by other limits from now on.
    pub(super) fn limit(&self, settings: &ConnectionSettings, strangers: &BudgetSettings) {
        self.gate.replace(settings, strangers);
    }

    /// Names and addresses.
    pub(super) fn addresses(&self) -> Vec<(&str, SocketAddr)> {
        let all = self.open.iter();
        all.map(|open| (open.listener.name.as_str(), open.address))
            .collect()
    }

    /// Waits until one stops accepting that was not told to.
    pub(super) async fn failed(&mut self) {
        loop {
            match self.accepting.join_next().await {
                // One that was removed has ended as it should.
                Some(Ok(())) if self.accepting.len() >= self.open.len() => {}
                Some(_) => return,
                None => std::future::pending().await,
            }
        }
    }

    /// Waits until nobody accepts any more, and closes the sockets: who comes now is refused, unless they are inherited.
    pub(super) async fn ended(&mut self) {
        self.open.clear();
        while self.accepting.join_next().await.is_some() {}
    }
}

impl Open {
    fn is_of(&self, settings: &ListenerSettings) -> bool {
        self.listener.name == settings.name && self.configured == settings.address
    }
}
