//! An upstream that takes everything over HTTP/1.1 and counts, by tenant, what came whole.
#![expect(
    clippy::expect_used,
    reason = "an upstream that tests cannot have fails them"
)]

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// A listening upstream; it ends with the process.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Seen,
}

type Seen = Arc<Mutex<BTreeMap<String, u64>>>;

impl Upstream {
    /// Starts listening.
    ///
    /// # Panics
    /// When there is no free port.
    pub fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Starts listening at an address; port 0 is a free one.
    ///
    /// # Panics
    /// When it is taken.
    pub fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        let upstream = Self {
            address: listener.local_addr().expect("its address"),
            seen: Seen::default(),
        };
        let seen = Arc::clone(&upstream.seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                // A connection that breaks is the other side's affair.
                std::thread::spawn(move || serve(&stream, &seen));
            }
        });
        upstream
    }

    /// How many requests of `tenant` came whole.
    pub fn seen(&self, tenant: &str) -> u64 {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(tenant).copied().unwrap_or_default()
    }
}

fn serve(stream: &TcpStream, seen: &Seen) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut from = BufReader::new(stream);
    let mut to = stream;
    while let Some(head) = head(&mut from)? {
        let value = |name: &str| {
            let mut values = head.iter().filter(|(known, _)| known == name);
            values.next().map(|(_, value)| value.as_str())
        };
        if value("transfer-encoding").is_some() {
            skip_chunks(&mut from)?;
        } else {
            let length = value("content-length").and_then(|it| it.parse().ok());
            skip(&mut from, length.unwrap_or(0))?;
        }
        let tenant = value("x-scope-orgid").unwrap_or_default().to_owned();
        *seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(tenant)
            .or_default() += 1;
        let (kind, body) = match value("content-type") {
            Some("application/json") => ("application/json", "{}"),
            _ => ("application/x-protobuf", ""),
        };
        write!(
            to,
            "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
    }
    Ok(())
}

/// The headers of the next request, names in lower case; `None` at the end.
fn head(from: &mut impl BufRead) -> io::Result<Option<Vec<(String, String)>>> {
    let mut headers = Vec::new();
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    loop {
        line.clear();
        from.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            return Ok(Some(headers));
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn skip(from: &mut impl BufRead, length: u64) -> io::Result<()> {
    io::copy(&mut from.take(length), &mut io::sink()).map(drop)
}

fn skip_chunks(from: &mut impl BufRead) -> io::Result<()> {
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let length = u64::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        skip(from, length + 2)?;
        if length == 0 {
            return Ok(());
        }
    }
}
