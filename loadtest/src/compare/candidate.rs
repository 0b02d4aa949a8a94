//! What every candidate gets, the same keys and the same upstream, and what it must say of itself to be measured.

use std::ffi::OsString;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use super::workload::Route;
use crate::keys::{self, KeyPair};

/// The surroundings of a comparison.
pub(crate) struct Site {
    /// Where configuration, keys and logs are written.
    pub(crate) directory: PathBuf,
    /// What every candidate must know.
    pub(crate) keys: Vec<KeyPair>,
    /// The same keys as a file for `loadtest run`.
    pub(crate) keys_file: PathBuf,
    /// Where the null upstream listens.
    pub(crate) upstream: SocketAddr,
}

impl Site {
    pub(crate) fn new(directory: &Path, keys: Vec<KeyPair>) -> anyhow::Result<Self> {
        let keys_file = directory.join("keys.txt");
        let mut text = Vec::new();
        keys::write(&keys, &mut text)?;
        fs::write(&keys_file, text).with_context(|| keys_file.display().to_string())?;
        Ok(Self {
            directory: directory.to_owned(),
            keys,
            keys_file,
            upstream: SocketAddr::from(([127, 0, 0, 1], free_port()?)),
        })
    }

    /// One line of text for each key.
    pub(crate) fn key_lines(&self, line: impl Fn(&KeyPair) -> String) -> String {
        self.keys.iter().map(|pair| line(pair) + "\n").collect()
    }

    /// Writes a file into the site's directory.
    pub(crate) fn file(&self, name: &str, content: &str) -> anyhow::Result<PathBuf> {
        let path = self.directory.join(name);
        fs::write(&path, content).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// Fills a configuration template: `{{dir}}`, `{{upstream}}`, the ports, and `more`.
    pub(crate) fn fill(&self, template: &str, ports: Ports, more: &[(&str, &str)]) -> String {
        let mut text = template
            .replace("{{dir}}", &self.directory.display().to_string())
            .replace("{{upstream}}", &self.upstream.to_string())
            .replace("{{upstream_host}}", &self.upstream.ip().to_string())
            .replace("{{upstream_port}}", &self.upstream.port().to_string())
            .replace("{{http1}}", &ports.http1.to_string())
            .replace("{{http1_large}}", &ports.http1_large.to_string())
            .replace("{{grpc}}", &ports.grpc.unwrap_or_default().to_string());
        for (name, value) in more {
            text = text.replace(&format!("{{{{{name}}}}}"), value);
        }
        text
    }
}

/// Where a candidate listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) http1: u16,
    pub(crate) http1_large: u16,
    /// `None` where it cannot forward gRPC.
    pub(crate) grpc: Option<u16>,
}

impl Ports {
    /// Free ports; large bodies go where small ones go.
    pub(crate) fn free() -> anyhow::Result<Self> {
        let http1 = free_port()?;
        Ok(Self {
            http1,
            http1_large: http1,
            grpc: Some(free_port()?),
        })
    }

    pub(crate) fn of(self, route: Route) -> Option<u16> {
        match route {
            Route::Http1 => Some(self.http1),
            Route::Http1Large => Some(self.http1_large),
            Route::Grpc => self.grpc,
        }
    }
}

/// A port nobody listens on at this moment.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("a free port")?;
    Ok(listener.local_addr()?.port())
}

/// How a candidate is started.
pub(crate) struct Recipe {
    pub(crate) name: &'static str,
    /// What it is set up to do, in a few words.
    pub(crate) method: &'static str,
    pub(crate) version: String,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(&'static str, String)>,
    pub(crate) ports: Ports,
}

/// Looks for `name` where `install-peers.sh` puts programs, then along `PATH` and the directories of system programs.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    [PathBuf::from(".cache/peers/bin")]
        .into_iter()
        .chain(std::env::split_paths(&path))
        .chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
}

/// The first word that looks like a version in what the program prints when asked; empty when there is none.
pub(crate) fn version(program: &Path, question: &str) -> String {
    let Ok(answer) = Command::new(program).arg(question).output() else {
        return String::new();
    };
    let text = [answer.stdout, answer.stderr].concat();
    String::from_utf8_lossy(&text)
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '.'))
        .filter_map(|word| {
            let number = word.trim_start_matches('v').trim_end_matches('.');
            number
                .starts_with(|c: char| c.is_ascii_digit())
                .then_some(number)
        })
        .find(|number| number.contains('.'))
        .unwrap_or_default()
        .to_owned()
}
