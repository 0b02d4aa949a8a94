//! A client of the admin API. Decides who is asked, with which token, and what a failure is called.

use std::fs;
use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;
use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body};

use super::Remote;

/// Where `okmon dev` leaves its token, seen from the directory it was started in.
const TOKEN_FILE: &str = ".okmon/operator-token";
const TOKEN_VARIABLE: &str = "OKMON_OPERATOR_TOKEN";
const TIMEOUT: Duration = Duration::from_secs(30);
/// Objects asked for at a time; the most the API gives.
const PAGE: u32 = 1000;

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
        self.object(self.ask(path)?)
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let answer = self
            .agent
            .post(format!("{}{path}", self.url))
            .header(header::AUTHORIZATION, &self.authorization)
            .send_json(body);
        self.object(answer.map_err(|error| self.failure(error))?)
    }

    /// A whole list: its pages, one after the other.
    pub(super) fn list(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let mut objects = Vec::new();
        let mut next = Some(format!("{path}?limit={PAGE}"));
        while let Some(path) = next {
            let answer = self.ask(&path)?;
            next = next_page(&answer);
            match self.object(answer)? {
                Value::Array(page) => objects.extend(page),
                other => bail!("{} answered with no list: {other}", self.url),
            }
        }
        Ok(objects)
    }

    fn ask(&self, path: &str) -> anyhow::Result<Response<Body>> {
        self.agent
            .get(format!("{}{path}", self.url))
            .header(header::AUTHORIZATION, &self.authorization)
            .call()
            .map_err(|error| self.failure(error))
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
        let problem = body.as_ref().and_then(|body| body["detail"].as_str());
        match (status, &body, problem) {
            (StatusCode::UNAUTHORIZED, _, Some(detail)) => {
                bail!("{detail} (tokens are taken from {TOKEN_VARIABLE}, else from {TOKEN_FILE})")
            }
            (status, _, Some(detail)) if !status.is_success() => bail!("{detail}"),
            (status, Some(_), _) if status.is_success() => Ok(body.unwrap_or_default()),
            _ => bail!(
                "{} answered {status} and is not okmon control: set OKMON_CONTROL_URL",
                self.url
            ),
        }
    }
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
