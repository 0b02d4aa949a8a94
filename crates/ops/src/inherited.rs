//! Listening sockets that a service manager opened before this process and keeps open after it, so that a restart refuses nobody:
//! systemd's socket activation (`sd_listen_fds(3)`). Decides which socket belongs to which address; who accepts is for the
//! caller.

use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;

/// The sockets that were handed to this process. They stay open for as long as this lives.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<Socket>,
}

#[derive(Debug)]
struct Socket {
    /// `FileDescriptorName=` of the socket unit; systemd's default is the unit's own name.
    name: String,
    address: SocketAddr,
    listener: TcpListener,
}

/// A socket that has a listener's name and listens elsewhere.
#[derive(Debug, thiserror::Error)]
#[error(
    "the inherited socket of this name listens on {0}: set the same here and in the socket unit"
)]
struct Elsewhere(SocketAddr);

impl Inherited {
    /// These sockets, by name.
    ///
    /// # Errors
    /// When one is none that listens.
    pub fn new(named: Vec<(String, TcpListener)>) -> io::Result<Self> {
        let mut sockets = Vec::with_capacity(named.len());
        for (name, listener) in named {
            listener.set_nonblocking(true)?;
            sockets.push(Socket {
                address: listener.local_addr()?,
                name,
                listener,
            });
        }
        Ok(Self { sockets })
    }

    /// Takes what `LISTEN_FDS`, `LISTEN_PID` and `LISTEN_FDNAMES` tell of; nothing if they are meant for another process.
    /// Takes the first two out of the environment, so call it once, before other threads read that.
    ///
    /// # Errors
    /// When a descriptor is no TCP socket that listens.
    pub fn from_environment() -> io::Result<Self> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut from = ListenFd::from_env();
        let mut sockets = Vec::with_capacity(from.len());
        for n in 0..from.len() {
            let name = names.next().unwrap_or_default().to_owned();
            let not_tcp = |error: io::Error| {
                let message = format!("inherited socket {n} ({name:?}): {error}");
                io::Error::new(error.kind(), message)
            };
            let Some(listener) = from.take_tcp_listener(n).map_err(not_tcp)? else {
                continue;
            };
            sockets.push((name, listener));
        }
        Self::new(sockets)
    }

    /// A handle to the socket of this name, or else to one at this address: the same port and IP, or either IP the wildcard. With
    /// port 0, only the name counts.
    ///
    /// # Errors
    /// When the socket of this name has another address, or the operating system has no descriptor left for it.
    pub fn find(&self, name: &str, address: SocketAddr) -> io::Result<Option<TcpListener>> {
        let named = self.sockets.iter().find(|socket| socket.name == name);
        let at = || {
            let mut sockets = self.sockets.iter();
            sockets.find(|socket| socket.is_for(name, address))
        };
        let Some(socket) = named.or_else(at) else {
            return Ok(None);
        };
        if !serves(socket.address, address) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                Elsewhere(socket.address),
            ));
        }
        socket.listener.try_clone().map(Some)
    }

    /// The sockets that would be found for none of these names and addresses.
    pub fn left(&self, wanted: &[(&str, SocketAddr)]) -> Vec<String> {
        let mut left = Vec::new();
        for socket in &self.sockets {
            if !wanted.iter().any(|(name, at)| socket.is_for(name, *at)) {
                left.push(format!("{} ({})", socket.address, socket.name));
            }
        }
        left
    }
}

impl Socket {
    fn is_for(&self, name: &str, address: SocketAddr) -> bool {
        self.name == name || address.port() != 0 && serves(self.address, address)
    }
}

fn serves(socket: SocketAddr, wanted: SocketAddr) -> bool {
    let ip =
        socket.ip() == wanted.ip() || socket.ip().is_unspecified() || wanted.ip().is_unspecified();
    ip && (wanted.port() == 0 || socket.port() == wanted.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inherited(name: &str) -> (Inherited, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let inherited = Inherited::new(vec![(name.to_owned(), listener)]);
        (inherited.unwrap(), address)
    }

    #[test]
    fn a_socket_is_found_by_name_or_address() {
        let elsewhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let (by_name, address) = inherited("otlp");
        let free_port = SocketAddr::from(([127, 0, 0, 1], 0));
        for wanted in [address, free_port] {
            assert!(by_name.find("otlp", wanted).unwrap().is_some());
        }
        assert!(by_name.find("other", free_port).unwrap().is_none());
        let error = by_name.find("otlp", elsewhere).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()), "{error}");
        let (by_address, address) = inherited("okmon-edge.socket");
        assert!(by_address.find("otlp", elsewhere).unwrap().is_none());
        let everywhere = SocketAddr::from(([0, 0, 0, 0], address.port()));
        for wanted in [address, everywhere] {
            let found = by_address.find("otlp", wanted).unwrap().unwrap();
            assert_eq!(found.local_addr().unwrap(), address);
        }
        let other = SocketAddr::from(([127, 0, 0, 2], address.port()));
        assert!(by_address.find("otlp", other).unwrap().is_none());
    }

    #[test]
    fn what_has_no_listener_is_told() {
        let (inherited, address) = inherited("x");
        let elsewhere = SocketAddr::from(([127, 0, 0, 1], 1));
        assert_eq!(
            inherited.left(&[("y", elsewhere)]),
            [format!("{address} (x)")]
        );
        for wanted in [("x", elsewhere), ("y", address)] {
            assert!(inherited.left(&[wanted]).is_empty());
        }
    }
}
