//! What the tests of keys start from: a database, control, an upstream, and edges on them.

use std::fmt::Display;
use std::time::Duration;

use testkit::control::Control;
use testkit::edge::{Edge, Settings};
use testkit::postgres::Postgres;
use testkit::upstream::Upstream;
use testkit::{eventually, okmon};

/// A database of its own with control on it, and an upstream.
pub(crate) struct World {
    pub(crate) url: String,
    pub(crate) control: Control,
    pub(crate) upstream: Upstream,
}

impl World {
    /// On the server that the tests share.
    pub(crate) fn start() -> Self {
        Self::start_on(Postgres::shared(), "info")
    }

    /// On a server that the test may break.
    pub(crate) fn start_on(postgres: &Postgres, log: &'static str) -> Self {
        let url = postgres.database();
        Self {
            control: Control::start(okmon().get_program().as_ref(), &url, log),
            upstream: Upstream::start(),
            url,
        }
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings::new(&self.url, self.upstream.address)
    }

    /// A running edge, with these lines in its section `[keys]`.
    pub(crate) fn edge(&self, keys: &str) -> Edge {
        let mut edge = Edge::new(Settings {
            keys: keys.to_owned(),
            ..self.settings()
        });
        edge.start();
        edge
    }
}

/// Waits until each of `edges` answers `key` with `status`.
#[track_caller]
pub(crate) fn answers_soon<'a>(
    edges: impl IntoIterator<Item = &'a Edge>,
    key: &str,
    status: u16,
    deadline: Duration,
    change: impl Display,
) {
    for edge in edges {
        let what = format!("{status} from every edge after: {change}");
        eventually(deadline, &what, || match edge.post(key) {
            Ok(found) if found == status => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
}

/// Asserts that all answers a sender got are 200, and that there are some.
#[track_caller]
pub(crate) fn all_accepted(answers: &testkit::sender::Answers) {
    let statuses: Vec<_> = answers.keys().map(String::as_str).collect();
    assert_eq!(statuses, ["200"], "{answers:?}");
}
