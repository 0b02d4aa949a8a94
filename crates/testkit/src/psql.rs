//! `psql` as somebody has it open who changes rows by hand: one session, statement after statement.
#![expect(
    clippy::expect_used,
    reason = "a session that tests cannot have fails them"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use crate::postgres::Postgres;

/// What is printed after the answer of a statement.
const DONE: &str = "-- done --";

/// An open session. Dropping it closes it.
#[derive(Debug)]
pub struct Psql {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Psql {
    /// Opens a session in the database at `url`.
    ///
    /// # Panics
    /// When `psql` does not start.
    pub fn open(postgres: &Postgres, url: &str) -> Self {
        let mut child = postgres
            .psql(url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("psql");
        let output = child.stdout.take().expect("its output");
        Self {
            input: child.stdin.take(),
            output: BufReader::new(output),
            child,
        }
    }

    /// Runs a statement and waits for its end: what it answered.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn run(&mut self, statement: &str) -> String {
        let Some(answer) = self.try_run(statement) else {
            let mut reason = String::new();
            if let Some(errors) = &mut self.child.stderr {
                let _ = errors.read_to_string(&mut reason);
            }
            panic!("psql ended at: {statement}: {reason}");
        };
        answer
    }

    /// Runs a statement; `None` when it failed or the session was lost, which is its end.
    pub fn try_run(&mut self, statement: &str) -> Option<String> {
        let input = self.input.as_mut()?;
        writeln!(input, "{statement};\n\\echo {DONE}").ok()?;
        let mut answer = String::new();
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line.trim_end() == DONE {
                return Some(answer);
            }
            answer.push_str(&line);
        }
    }
}

impl Drop for Psql {
    fn drop(&mut self) {
        // The end of its input is the end of the session.
        self.input = None;
        let _ = self.child.wait();
    }
}
