//! A real PostgreSQL for tests: its own data directory, reachable through a Unix socket in it, gone with the test process.
#![expect(
    clippy::expect_used,
    reason = "a database that tests cannot have fails them"
)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::eventually;

const START_DEADLINE: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(50);
const SUPERUSER: &str = "okmon";

/// The server as a child of a shell: a line on the shell's standard input starts it anew, the end of that input ends both.
const SUPERVISOR: &str = r#"
    start() {
        "$postgres" -D "$dir/data" -c listen_addresses= -c unix_socket_directories="$dir" -c fsync=off \
            -c max_connections=200 >>"$dir/log" 2>&1 </dev/null & pid=$!
    }
    start
    while read -r _; do wait "$pid"; start; done
    kill -QUIT "$pid"; wait; rm -rf "$dir"
"#;

/// A PostgreSQL server. Databases on it are made by [`Postgres::database`].
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    dir: PathBuf,
    databases: AtomicU32,
    // It stops the server when its standard input closes, however this process ends.
    shell: Mutex<Child>,
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
        Account::find().own(&dir);
        initdb(&programs, &dir);
        let shell = Account::find()
            .command(Path::new("sh"))
            .args(["-c", SUPERVISOR])
            .env("postgres", programs.join("postgres"))
            .env("dir", &dir)
            .current_dir(&dir)
            .stdin(Stdio::piped())
            // Of a server that was killed it has nothing to say that the server's own log does not.
            .stderr(Stdio::null())
            .spawn()
            .expect("sh runs");
        let server = Self {
            programs,
            dir,
            databases: AtomicU32::new(0),
            shell: Mutex::new(shell),
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
        self.make_database(n);
        format!(
            "postgres:///test_{n}?host={}&user={SUPERUSER}",
            self.dir.display()
        )
    }

    fn make_database(&self, n: u32) {
        let made = Command::new(self.programs.join("createdb"))
            .arg("-h")
            .arg(&self.dir)
            .args(["-U", SUPERUSER, &format!("test_{n}")])
            .output()
            .expect("createdb runs");
        assert!(
            made.status.success(),
            "createdb failed: {}",
            String::from_utf8_lossy(&made.stderr)
        );
    }

    /// Runs SQL in the database at `url` and returns what it answers: a line for each row, `|` between columns.
    ///
    /// # Panics
    /// When a statement fails.
    #[track_caller]
    pub fn sql(&self, url: &str, sql: &str) -> String {
        let output = self.psql(url).args(["-c", sql]).output().expect("psql");
        assert!(
            output.status.success(),
            "{sql}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// `psql` on the database at `url`, which prints nothing but rows and stops at the first error.
    pub fn psql(&self, url: &str) -> Command {
        let mut command = Command::new(self.programs.join("psql"));
        command
            .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"])
            .arg(url);
        command
    }

    /// A program of this server's version, such as `pg_dump`.
    pub fn program(&self, name: &str) -> Command {
        Command::new(self.programs.join(name))
    }

    /// Kills the server and each of its processes with SIGKILL, and waits until none is left.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&self) {
        let file = self.dir.join("data/postmaster.pid");
        let text = std::fs::read_to_string(file).expect("a server that runs");
        let pid = text.lines().next().unwrap_or_default().to_owned();
        let family: Vec<_> = [pid.clone()].into_iter().chain(children(&pid)).collect();
        // Some may have gone by themselves, seeing the first one die.
        let _ = Command::new("kill")
            .arg("-KILL")
            .args(&family)
            .stderr(Stdio::null())
            .status();
        eventually(START_DEADLINE, "PostgreSQL to be gone", || {
            match family.iter().find(|pid| parent_if_alive(pid).is_some()) {
                Some(pid) => Err(format!("process {pid} lives")),
                None => Ok(()),
            }
        });
    }

    /// Starts the server again after [`Postgres::kill`], on the same socket and with its data.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_again(&self) {
        let mut shell = self.shell.lock().unwrap_or_else(PoisonError::into_inner);
        let input = shell.stdin.as_mut().expect("a shell with an input");
        input.write_all(b"start\n").expect("the shell listens");
        self.wait_until_ready();
    }

    /// Kills the server and starts another one in its place: same socket, databases of the same names, nothing in them.
    ///
    /// # Panics
    /// When the new one does not start.
    pub fn replace_by_empty(&self) {
        self.kill();
        std::fs::remove_dir_all(self.dir.join("data")).expect("the old data");
        initdb(&self.programs, &self.dir);
        self.start_again();
        (0..self.databases.load(Ordering::Relaxed)).for_each(|n| self.make_database(n));
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
        let shell = self.shell.get_mut();
        // Waiting closes the shell's standard input first.
        let _ = shell.unwrap_or_else(PoisonError::into_inner).wait();
    }
}

fn initdb(programs: &Path, dir: &Path) {
    let output = Account::find()
        .command(&programs.join("initdb"))
        .arg("-D")
        .arg(dir.join("data"))
        .args(["-U", SUPERUSER, "-A", "trust", "-E", "UTF8"])
        .args(["--locale=C.UTF-8", "--no-sync", "--no-instructions"])
        .current_dir(dir)
        .output()
        .expect("initdb runs");
    assert!(
        output.status.success(),
        "initdb failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The ids of the processes whose parent is `pid`.
fn children(pid: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").expect("/proc");
    processes
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|child| parent_if_alive(child).as_deref() == Some(pid))
        .collect()
}

/// The parent of process `pid`; `None` when it has ended, whether or not somebody has asked how.
fn parent_if_alive(pid: &str) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may have spaces and parentheses of its own.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?;
    let parent = fields.next()?;
    (state != "Z").then(|| parent.to_owned())
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
