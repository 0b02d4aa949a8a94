//! Programs that a test starts: their output is captured for the failure text, and they end with the test.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::eventually;

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: Captured,
    stderr: Captured,
}

/// What a program printed so far.
type Captured = Arc<Mutex<String>>;

impl Process {
    /// Starts `command` without standard input. `name` is for failure texts.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(name: &str, command: Command) -> Self {
        Self::spawn_with_input(name, command, Stdio::null())
    }

    /// Starts `command` with this as its standard input.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn_with_input(name: &str, mut command: Command, stdin: Stdio) -> Self {
        command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("{name}: cannot start {command:?}: {error}"),
        };
        let stdout = capture(child.stdout.take());
        let stderr = capture(child.stderr.take());
        Self {
            name: name.to_owned(),
            child,
            stdout,
            stderr,
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, named as `kill` names it.
    ///
    /// # Panics
    /// When there is no `kill`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.id().to_string())
            .status();
        if let Err(error) = sent {
            panic!("kill: {error}");
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it wrote to standard output so far.
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// What it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// Waits until `ready` finds what it looks for in the running program.
    ///
    /// # Panics
    /// When the program ends before, or `deadline` passes.
    pub fn wait_until<T>(
        &mut self,
        deadline: Duration,
        what: &str,
        ready: impl Fn(&Self) -> Option<T>,
    ) -> T {
        eventually(deadline, &format!("{}: {what}", self.name), || {
            let found = ready(self);
            if found.is_none()
                && let Ok(Some(status)) = self.child.try_wait()
            {
                panic!("{} ended with {status}: {}", self.name, self.output());
            }
            found.ok_or_else(|| self.output())
        })
    }

    /// Waits until the program has ended by itself.
    ///
    /// # Panics
    /// When `deadline` passes.
    pub fn wait(mut self, deadline: Duration) -> Finished {
        let what = format!("{}: end", self.name);
        let status = eventually(deadline, &what, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(self.output()),
            Err(error) => Err(error.to_string()),
        });
        // The readers still hold the captured text until they have seen the end of the pipes.
        eventually(deadline, &format!("{}: end of output", self.name), || {
            let readers = Arc::strong_count(&self.stdout) + Arc::strong_count(&self.stderr) - 2;
            if readers == 0 {
                Ok(())
            } else {
                Err(self.output())
            }
        });
        Finished {
            status,
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }

    fn output(&self) -> String {
        format!("stdout: {}\nstderr: {}", self.stdout(), self.stderr())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already, and there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

impl Finished {
    /// # Panics
    /// Unless the program ended with status 0.
    #[track_caller]
    pub fn succeeded(&self) -> &Self {
        assert!(self.status.success(), "want success: {self:#?}");
        self
    }

    /// # Panics
    /// Unless the program ended with another status than 0.
    #[track_caller]
    pub fn failed(&self) -> &Self {
        assert!(!self.status.success(), "want failure: {self:#?}");
        self
    }
}

fn capture(stream: Option<impl Read + Send + 'static>) -> Captured {
    let captured = Captured::default();
    if let Some(stream) = stream {
        let into = Arc::clone(&captured);
        std::thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let mut into = into.lock().unwrap_or_else(PoisonError::into_inner);
                into.push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
    }
    captured
}

fn read(captured: &Captured) -> String {
    captured
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}
