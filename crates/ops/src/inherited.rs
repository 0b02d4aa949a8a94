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
    taken: bool,
}

impl Inherited {
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
            listener.set_nonblocking(true)?;
            sockets.push(Socket {
                address: listener.local_addr()?,
                name,
                listener,
                taken: false,
            });
        }
        Ok(Self { sockets })
    }

    /// A handle to the socket of this name, or else to one at this address: the same port and IP, or either IP the wildcard.
    ///
    /// # Errors
    /// When the operating system has no descriptor left for it.
    pub fn find(&mut self, name: &str, address: SocketAddr) -> io::Result<Option<TcpListener>> {
        let found = self
            .sockets
            .iter()
            .position(|socket| socket.name == name)
            .or_else(|| {
                let serves = |socket: &Socket| serves(socket.address, address);
                self.sockets.iter().position(serves)
            });
        let Some(socket) = found.and_then(|found| self.sockets.get_mut(found)) else {
            return Ok(None);
        };
        socket.taken = true;
        socket.listener.try_clone().map(Some)
    }

    /// The sockets that nobody asked for yet, by name and address.
    pub fn left(&self) -> Vec<String> {
        let left = self.sockets.iter().filter(|socket| !socket.taken);
        left.map(|socket| format!("{} ({})", socket.address, socket.name))
            .collect()
    }
}

fn serves(socket: SocketAddr, wanted: SocketAddr) -> bool {
    let ip =
        socket.ip() == wanted.ip() || socket.ip().is_unspecified() || wanted.ip().is_unspecified();
    ip && socket.port() == wanted.port()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inherited(name: &str) -> (Inherited, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let socket = Socket {
            name: name.to_owned(),
            address,
            listener,
            taken: false,
        };
        let sockets = vec![socket];
        (Inherited { sockets }, address)
    }

    #[test]
    fn a_socket_is_found_by_name_or_address() {
        let elsewhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let (mut by_name, _) = inherited("otlp");
        assert!(by_name.find("otlp", elsewhere).unwrap().is_some());
        let (mut by_address, address) = inherited("okmon-edge.socket");
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
    fn what_nobody_asked_for_is_told() {
        let (mut inherited, address) = inherited("x");
        assert_eq!(inherited.left(), [format!("{address} (x)")]);
        inherited.find("x", address).unwrap();
        assert!(inherited.left().is_empty());
    }
}
