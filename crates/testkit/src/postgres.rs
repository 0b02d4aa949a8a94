//! A real PostgreSQL for tests: its own data directory, reachable through a Unix socket in it, gone with the test process.
#![expect(
    clippy::expect_used,
    reason = "a database that tests cannot have fails them"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

const START_DEADLINE: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(50);
const SUPERUSER: &str = "okmon";

/// A PostgreSQL server. Databases on it are made by [`Postgres::database`].
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    dir: PathBuf,
    databases: AtomicU32,
    // It stops the server when its standard input closes, however this process ends.
    shell: Child,
}

impl Postgres {
    /// The server of this test process, started at the first call.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start.
    pub fn shared() -> &'static Self {
        static SERVER: OnceLock<Postgres> = OnceLock::new();
        SERVER.get_or_init(Self::start)
    }

    /// Starts a server.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start.
    pub fn start() -> Self {
        let programs = programs();
        let dir = tempfile::Builder::new()
            .prefix("okmon-postgres-")
            .tempdir()
            .expect("a temporary directory")
            .keep();
        let account = Account::find();
        account.own(&dir);
        let data = dir.join("data");
        let initdb = account
            .command(&programs.join("initdb"))
            .arg("-D")
            .arg(&data)
            .args([
                "-U",
                SUPERUSER,
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
            ])
            .args(["--no-sync", "--no-instructions"])
            .current_dir(&dir)
            .output()
            .expect("initdb runs");
        assert!(
            initdb.status.success(),
            "initdb failed: {}",
            String::from_utf8_lossy(&initdb.stderr)
        );

        let server = "\"$1\" -D \"$2\" -c listen_addresses= -c unix_socket_directories=\"$3\" -c fsync=off \
             -c max_connections=200 >\"$3/log\" 2>&1 </dev/null & cat >/dev/null; kill -QUIT $!; wait; rm -rf \"$3\"";
        let shell = account
            .command(Path::new("sh"))
            .args(["-c", server, "sh"])
            .arg(programs.join("postgres"))
            .arg(&data)
            .arg(&dir)
            .current_dir(&dir)
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh runs");
        let server = Self {
            programs,
            dir,
            databases: AtomicU32::new(0),
            shell,
        };
        server.wait_until_ready();
        server
    }

    /// A new, empty database: its `postgres://` URL.
    ///
    /// # Panics
    /// When the server refuses to make one.
    pub fn database(&self) -> String {
        let n = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{n}");
        let made = Command::new(self.programs.join("createdb"))
            .arg("-h")
            .arg(&self.dir)
            .args(["-U", SUPERUSER, &name])
            .output()
            .expect("createdb runs");
        assert!(
            made.status.success(),
            "createdb failed: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        format!(
            "postgres:///{name}?host={}&user={SUPERUSER}",
            self.dir.display()
        )
    }

    fn wait_until_ready(&self) {
        let mut waited = Duration::ZERO;
        loop {
            let ready = Command::new(self.programs.join("pg_isready"))
                .arg("-h")
                .arg(&self.dir)
                .output()
                .expect("pg_isready runs");
            if ready.status.success() {
                return;
            }
            assert!(
                waited < START_DEADLINE,
                "PostgreSQL is not ready after {waited:?}: {}\n{}",
                String::from_utf8_lossy(&ready.stdout),
                std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
            );
            std::thread::sleep(POLL);
            waited += POLL;
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Waiting closes the shell's standard input first.
        let _ = self.shell.wait();
    }
}

/// The directory of PostgreSQL's programs: the newest of Debian's, else where `initdb` is found on `PATH`.
fn programs() -> PathBuf {
    static FOUND: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(dir) = &*found {
        return dir.clone();
    }
    let mut debian: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(_, dir)| dir.join("initdb").exists())
        .collect();
    debian.sort();
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let dir = debian
        .pop()
        .map(|(_, dir)| dir)
        .or_else(|| std::env::split_paths(&on_path).find(|dir| dir.join("initdb").exists()))
        .expect(
            "PostgreSQL is not installed: run scripts/test.sh, which installs what the tests need",
        );
    *found = Some(dir.clone());
    dir
}

/// Whom the server runs as: PostgreSQL refuses to run as root, so root's tests hand it to another account.
struct Account(Option<(u32, u32)>);

impl Account {
    fn find() -> Self {
        if number("-u", None) != Some(0) {
            return Self(None);
        }
        let other = ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| Some((number("-u", Some(name))?, number("-g", Some(name))?)));
        Self(Some(other.expect("an account named postgres or nobody")))
    }

    fn own(&self, dir: &Path) {
        if let Self(Some((user, group))) = self {
            std::os::unix::fs::chown(dir, Some(*user), Some(*group))
                .expect("root may give a directory away");
        }
    }

    fn command(&self, program: &Path) -> Command {
        use std::os::unix::process::CommandExt as _;
        let mut command = Command::new(program);
        if let Self(Some((user, group))) = self {
            command.uid(*user).gid(*group);
        }
        command
    }
}

/// The number that `id` prints for an account, or for this process.
fn number(flag: &str, account: Option<&str>) -> Option<u32> {
    let output = Command::new("id").arg(flag).args(account).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.trim().parse().ok().filter(|_| output.status.success())
}
