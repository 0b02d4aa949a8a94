//! Where the programs are that nobody here wrote: senders in `peers/`, with what `scripts/test.sh` installs for them.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// The sender `peers/python/SCRIPT`.
pub fn python(script: &str) -> Command {
    let mut command = Command::new(installed(&cache().join("python/bin/python")));
    command.arg(sources().join("python").join(script));
    command
}

/// The sender `peers/js/SCRIPT`.
pub fn node(script: &str) -> Command {
    let mut command = program("node");
    command
        .arg(sources().join("js").join(script))
        .env("NODE_PATH", installed(&cache().join("js/node_modules")));
    command
}

/// The OpenTelemetry Collector with `config`, a path from the root of the repository.
pub fn collector(config: &str) -> Command {
    let mut command = Command::new(installed(&cache().join("bin/okmon-collector")));
    command.arg("--config").arg(root().join(config));
    command
}

/// The remote-write half of a current Prometheus; `peers/prometheus/main.go` says what it sends.
pub fn prometheus(config: &Path, data: &Path) -> Command {
    let mut command = Command::new(installed(&cache().join("bin/okmon-prometheus")));
    command.arg("-config").arg(config).arg("-data").arg(data);
    command
}

/// The HTTP/2 conformance suite against a port of 127.0.0.1; `peers/h2spec/main.go` says what it prints.
pub fn h2spec(port: u16) -> Command {
    let mut command = Command::new(installed(&cache().join("bin/okmon-h2spec")));
    command.arg("-port").arg(port.to_string());
    command
}

/// A program of the system, found in `PATH`.
///
/// # Panics
/// When it is not there.
pub fn program(name: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name));
    match found.into_iter().find(|file| file.is_file()) {
        Some(file) => Command::new(file),
        None => missing(name),
    }
}

/// A library of the system to preload, by its path in Debian's folder for libraries.
///
/// # Panics
/// When it is not there.
pub fn library(path: &str) -> String {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten();
    let mut files = folders.flatten().map(|folder| folder.path().join(path));
    match files.find(|file| file.exists()) {
        Some(file) => file.display().to_string(),
        None => missing(path),
    }
}

/// The root of the repository.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap_or(manifest).to_owned()
}

/// A port of 127.0.0.1 that is free, for programs that cannot choose one and tell. It stays so: it is none of those that the kernel gives to
/// connections and to who asks for any, and no other is given out twice here.
///
/// # Panics
/// When there is none.
pub fn free_port() -> u16 {
    /// Linux gives away those from 32768 on (`ip_local_port_range`).
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Test programs that run at the same time begin elsewhere.
    let start = std::process::id().wrapping_mul(977);
    let ports = (0..COUNT).map(|_| {
        let n = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        u16::try_from(FIRST + n % COUNT).unwrap_or_default()
    });
    let mut free = ports.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    match free.next() {
        Some(port) => port,
        None => panic!("no free port on 127.0.0.1"),
    }
}

fn cache() -> PathBuf {
    root().join(".cache")
}

fn sources() -> PathBuf {
    root().join("crates/testkit/peers")
}

fn installed(path: &Path) -> &Path {
    if !path.exists() {
        missing(&path.display().to_string());
    }
    path
}

fn missing(what: &str) -> ! {
    panic!("{what} is missing: run `scripts/test.sh --prepare`, which installs what the tests need")
}
