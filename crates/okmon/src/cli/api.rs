//! A client of the admin API. Decides who is asked, with which token, and what a failure is called.

use std::fs;
use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;
use ureq::http::{Method, Request, Response, StatusCode, header};
use ureq::{Agent, Body};

use super::Remote;
use super::args::argument;
use super::output::cell;

/// Where `okmon dev` leaves its token, seen from the directory it was started in.
const TOKEN_FILE: &str = ".okmon/operator-token";
const TOKEN_VARIABLE: &str = "OKMON_OPERATOR_TOKEN";
const TIMEOUT: Duration = Duration::from_secs(30);
/// Objects asked for at a time; the most the API gives.
const PAGE: usize = 1000;

pub(super) struct Api<'a> {
    url: &'a str,
    agent: Agent,
    authorization: String,
}

impl<'a> Api<'a> {
    pub(super) fn new(remote: &'a Remote) -> anyhow::Result<Self> {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .build()
            .into();
        Ok(Self {
            url: remote.control_url.trim_end_matches('/'),
            agent,
            authorization: format!("Bearer {}", token()?),
        })
    }

    pub(super) fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.object(self.ask(&Method::GET, path, None)?)
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.object(self.ask(&Method::POST, path, Some(body))?)
    }

    pub(super) fn patch(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.object(self.ask(&Method::PATCH, path, Some(body))?)
    }

    pub(super) fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.object(self.ask(&Method::DELETE, path, None)?)
    }

    /// A whole list: its pages, one after the other.
    pub(super) fn list(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        self.first(path, &[], usize::MAX)
    }

    /// The first `most` objects of a list, with these parameters in its query.
    pub(super) fn first(
        &self,
        path: &str,
        query: &[(&str, &str)],
        most: usize,
    ) -> anyhow::Result<Vec<Value>> {
        let mut first = format!("{path}?limit={}", most.min(PAGE));
        for (name, value) in query {
            first.extend(["&", name, "=", value]);
        }
        let mut objects = Vec::new();
        let mut next = Some(first);
        while let Some(path) = next.filter(|_| objects.len() < most) {
            let answer = self.ask(&Method::GET, &path, None)?;
            next = next_page(&answer);
            match self.object(answer)? {
                Value::Array(page) => objects.extend(page),
                other => bail!("{} answered with no list: {other}", self.url),
            }
        }
        objects.truncate(most);
        Ok(objects)
    }

    fn ask(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Response<Body>> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header(header::AUTHORIZATION, &self.authorization);
        let answer = match body {
            Some(body) => request
                .header(header::CONTENT_TYPE, "application/json")
                .body(body.to_string())
                .map_err(ureq::Error::from)
                .and_then(|request| self.agent.run(request)),
            None => request
                .body(())
                .map_err(ureq::Error::from)
                .and_then(|request| self.agent.run(request)),
        };
        answer.map_err(|error| self.failure(error))
    }

    fn failure(&self, error: ureq::Error) -> anyhow::Error {
        let url = self.url;
        match error {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => anyhow::anyhow!(
                "{url:?} is not an address of okmon control: set OKMON_CONTROL_URL to one such as http://127.0.0.1:9601"
            ),
            error => anyhow::anyhow!(
                "control is not reachable at {url} ({error}): start it with okmon control or okmon dev, or set OKMON_CONTROL_URL"
            ),
        }
    }

    fn object(&self, mut answer: Response<Body>) -> anyhow::Result<Value> {
        let status = answer.status();
        let body: Option<Value> = answer.body_mut().read_json().ok();
        match body {
            Some(body) if status.is_success() => Ok(body),
            Some(problem) if problem.get("detail").is_some() => {
                bail!("{}", refusal(status, &problem))
            }
            _ => bail!(
                "{} answered {status} and is not okmon control: set OKMON_CONTROL_URL",
                self.url
            ),
        }
    }
}

/// A problem of the API in words: each wrong field on a line of its own, named as it was typed.
fn refusal(status: StatusCode, problem: &Value) -> String {
    let errors = problem.get("errors").and_then(Value::as_array);
    let fields: Vec<String> = errors
        .into_iter()
        .flatten()
        .map(|error| {
            format!(
                "{}: {}",
                argument(&cell(error, "field")),
                cell(error, "message")
            )
        })
        .collect();
    let detail = match fields.as_slice() {
        [] => cell(problem, "detail"),
        [one] => one.clone(),
        several => format!(
            "{} things are wrong:\n  {}",
            several.len(),
            several.join("\n  ")
        ),
    };
    let more = match (status, cell(problem, "code").as_str()) {
        (StatusCode::UNAUTHORIZED, _) => {
            format!(" (tokens are taken from {TOKEN_VARIABLE}, else from {TOKEN_FILE})")
        }
        // Where there is none to name, it says so.
        (_, "rotate_which") if detail.contains("name one of") => " (by --key)".to_owned(),
        (_, "tenant_exists") => existing(problem.get("existing")),
        _ => String::new(),
    };
    format!("{detail}{more}")
}

/// What is there in the place of a tenant that was to be made.
fn existing(tenant: Option<&Value>) -> String {
    tenant.map_or_else(String::new, |tenant| {
        let [name, email, status, created] =
            ["name", "email", "status", "created_at"].map(|field| cell(tenant, field));
        format!(": {name}, {email}, {status}, made {created}")
    })
}

fn token() -> anyhow::Result<String> {
    if let Ok(token) = std::env::var(TOKEN_VARIABLE) {
        return Ok(token.trim().to_owned());
    }
    match fs::read_to_string(TOKEN_FILE) {
        Ok(token) => Ok(token.trim().to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "no operator token: set {TOKEN_VARIABLE}, which okmon operator create makes, or run this where okmon dev keeps {TOKEN_FILE}"
        ),
        Err(error) => Err(error).with_context(|| format!("cannot read {TOKEN_FILE}")),
    }
}

/// The path in the `Link` header with the relation `next`.
fn next_page(answer: &Response<Body>) -> Option<String> {
    let link = answer.headers().get(header::LINK)?.to_str().ok()?;
    let (path, relation) = link.strip_prefix('<')?.split_once('>')?;
    relation.contains("rel=\"next\"").then(|| path.to_owned())
}
