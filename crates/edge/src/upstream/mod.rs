//! Where requests go: the backends and the collector, per worker. Knows connections, HTTP towards them and their limits in
//! time; what is sent, and what an answer means to a sender, is for `request::forward` to say.

mod connect;
mod endpoints;
mod http1;
mod http1_head;
mod http2;
mod targets;
mod watch;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body::Frame;
use tokio::time::Instant;

use self::connect::Connector;
pub(crate) use self::connect::Shared;
pub(crate) use self::endpoints::about;
use self::endpoints::{Endpoint, Experience, InFlight, NoEndpoint};
pub(crate) use self::targets::{Target, Targets};
use crate::config::{Kind, Speaks, UpstreamSettings};
use crate::metrics::Metrics;
use crate::protocol::otlp_grpc;
use crate::refusal::Refusal;
use crate::request::upload::Upload;

/// Why an upstream gave no answer, or broke one off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// No connection could be made, or there is nobody to connect to.
    #[error("upstream unreachable: {0}")]
    NoConnection(String),
    /// It reset the connection, closed it early, or spoke no HTTP.
    #[error("upstream unreachable: {0}")]
    Unreachable(String),
    /// It ended this exchange and no other.
    #[error("upstream broke off: {0}")]
    Broken(String),
    /// It said that it cannot serve, before it had taken the body.
    #[error("upstream declined with status {0}")]
    Declined(StatusCode),
    /// It has as many requests as it may have.
    #[error("upstream has requests_max requests in flight")]
    Full,
    /// It kept silent for longer than its setting allows.
    #[error("upstream timed out")]
    Timeout,
    /// The client's body could not be passed on to its end.
    #[error("the body ended early")]
    Upload(Refusal),
}

impl UpstreamError {
    fn unreachable(error: impl std::fmt::Display) -> Self {
        Self::Unreachable(error.to_string())
    }

    /// Whether the request was not taken, as far as can be told, so that another may be asked to.
    const fn allows_another(&self) -> bool {
        matches!(
            self,
            Self::NoConnection(_) | Self::Unreachable(_) | Self::Declined(_)
        )
    }

    /// What it says of the endpoint.
    const fn experience(&self) -> Option<Experience> {
        match self {
            Self::NoConnection(_) => Some(Experience::NoConnection),
            Self::Unreachable(_) | Self::Broken(_) | Self::Declined(_) | Self::Timeout => {
                Some(Experience::Bad)
            }
            // Not its doing.
            Self::Upload(_) | Self::Full => None,
        }
    }
}

/// One backend as one worker sees it.
pub(crate) struct Upstream {
    pub(crate) name: String,
    pub(crate) speaks: Speaks,
    pub(crate) kind: Kind,
    shared: Arc<Shared>,
    timeouts: Timeouts,
    metrics: Arc<Metrics>,
    clients: RefCell<Vec<(Arc<Endpoint>, Rc<Client>)>>,
    chance: Cell<u64>,
}

enum Client {
    Http1(http1::Client),
    Http2(http2::Client),
}

/// Limits in time towards an upstream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// For a connection to be made, TLS included.
    pub(crate) connect: Duration,
    /// From the body's end to the answer's head.
    pub(crate) first_byte: Duration,
    /// For the upstream to take a byte or to give one.
    pub(crate) idle: Duration,
    /// For all of an exchange.
    pub(crate) total: Duration,
    /// For the client to send a byte of its body.
    pub(crate) body_idle: Duration,
}

/// What an exchange stands still for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// More of the body.
    Client,
    Head,
    Bytes,
}

impl Timeouts {
    /// How long an exchange that began at `started` may stand still, and whether that is the client's doing.
    fn of(&self, waits: Waits, started: Instant) -> (Duration, bool) {
        let limit = match waits {
            Waits::Client => self.body_idle,
            Waits::Head => self.first_byte,
            Waits::Bytes => self.idle,
        };
        let left = self.total.saturating_sub(started.elapsed());
        if left < limit {
            (left, false)
        } else {
            (limit, waits == Waits::Client)
        }
    }
}

/// One try to have a request taken.
struct Attempt {
    /// Taken while the body passes.
    upload: Option<Upload>,
    /// Another endpoint could be asked.
    has_other: bool,
    is_second: bool,
    /// It went out on a connection that had served before, and that may have been closed meanwhile.
    was_pooled: bool,
}

impl Attempt {
    fn take_upload(&mut self) -> Result<Upload, UpstreamError> {
        self.upload
            .take()
            .ok_or_else(|| UpstreamError::Broken("the body is gone".to_owned()))
    }

    /// Whether this answer, which came before the body was taken, is better asked of another endpoint.
    fn declines(&self, status: StatusCode, headers: &HeaderMap, upload: &Upload) -> bool {
        self.has_other && upload.is_repeatable() && cannot_serve(status, headers)
    }
}

/// Whether an answer says that this endpoint cannot serve now, and not for how long.
fn cannot_serve(status: StatusCode, headers: &HeaderMap) -> bool {
    if headers.contains_key(header::RETRY_AFTER) {
        return false;
    }
    let unavailable = headers
        .get(&otlp_grpc::GRPC_STATUS)
        .is_some_and(|code| code == "14" && !headers.contains_key("grpc-status-details-bin"));
    matches!(status.as_u16(), 502..=504) || unavailable
}

impl Upstream {
    fn new(shared: &Arc<Shared>, body_idle: Duration, metrics: &Arc<Metrics>) -> Self {
        let settings = &shared.settings;
        Self {
            name: shared.name.clone(),
            speaks: settings.speaks,
            kind: settings.kind,
            timeouts: Timeouts {
                connect: settings.connect_timeout,
                first_byte: settings.first_byte_timeout,
                idle: settings.idle_timeout,
                total: settings.total_timeout,
                body_idle,
            },
            shared: Arc::clone(shared),
            metrics: Arc::clone(metrics),
            clients: RefCell::default(),
            // Any start will do; workers should differ.
            chance: Cell::new(getrandom::u64().unwrap_or(1) | 1),
        }
    }

    /// Sends a request to one endpoint, and once more to another, or on a new connection, where the first did not take it.
    async fn send(
        &self,
        request: UpstreamRequest<'_>,
        mut upload: Upload,
    ) -> Result<Answer, UpstreamError> {
        let gathered = upload.gather(self.timeouts.body_idle).await;
        gathered.map_err(UpstreamError::Upload)?;
        let endpoints = &self.shared.endpoints;
        let place = endpoints.choose(self.chance(), None).map_err(no_endpoint)?;
        let first = Arc::clone(&place.endpoint);
        let mut attempt = Attempt {
            upload: Some(upload),
            has_other: endpoints.has_other(&first),
            is_second: false,
            was_pooled: false,
        };
        let failed = match self.attempt(request, place, &mut attempt).await {
            Err(failed) if failed.allows_another() => failed,
            done => return done,
        };
        let another = match endpoints.choose(self.chance(), Some(&first)) {
            Err(NoEndpoint::NoOther) if attempt.was_pooled => endpoints.enter(first),
            chosen => chosen,
        };
        let (Ok(place), Some(upload)) = (another, attempt.upload.and_then(Upload::repeat)) else {
            self.metrics.upstreams.replays_impossible.increment(1);
            return Err(failed);
        };
        self.metrics.upstreams.replays.increment(1);
        let mut attempt = Attempt {
            upload: Some(upload),
            has_other: false,
            is_second: true,
            was_pooled: false,
        };
        // Seldom, so it need not make every request's future larger.
        Box::pin(self.attempt(request, place, &mut attempt)).await
    }

    async fn attempt(
        &self,
        request: UpstreamRequest<'_>,
        place: InFlight,
        attempt: &mut Attempt,
    ) -> Result<Answer, UpstreamError> {
        let endpoint = Arc::clone(&place.endpoint);
        endpoint.metrics.requests.increment(1);
        let client = self.client(&endpoint);
        let answered = match &*client {
            Client::Http1(client) => client.send(request, place, attempt).await,
            Client::Http2(client) => client.send(request, place, attempt).await,
        };
        let experience = match &answered {
            Ok(answer) if cannot_serve(answer.status, &answer.headers) => Some(Experience::Bad),
            Ok(_) => Some(Experience::Good),
            // It was closed for having been idle, which says nothing.
            Err(UpstreamError::Unreachable(_)) if attempt.was_pooled => None,
            Err(error) => error.experience(),
        };
        if let Some(experience) = experience {
            endpoint.experienced(experience, &self.shared.settings);
        }
        answered
    }

    /// This worker's connections to `endpoint`.
    fn client(&self, endpoint: &Arc<Endpoint>) -> Rc<Client> {
        let mut clients = self.clients.borrow_mut();
        if let Some((_, client)) = clients
            .iter()
            .find(|(known, _)| Arc::ptr_eq(known, endpoint))
        {
            return Rc::clone(client);
        }
        let all = self.shared.endpoints.all();
        clients.retain(|(known, _)| all.iter().any(|endpoint| Arc::ptr_eq(known, endpoint)));
        let opened = self.metrics.upstream_connections.clone();
        let connector = Connector::new(&self.shared, endpoint, opened);
        let client = Rc::new(match self.speaks {
            Speaks::Http1 => Client::Http1(http1::Client::new(connector, self.timeouts)),
            Speaks::Grpc | Speaks::Http2 => {
                Client::Http2(http2::Client::new(connector, self.timeouts))
            }
        });
        clients.push((Arc::clone(endpoint), Rc::clone(&client)));
        client
    }

    /// The next of numbers that spread (xorshift64, Marsaglia 2003).
    fn chance(&self) -> u64 {
        let mut x = self.chance.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.chance.set(x);
        x
    }
}

fn no_endpoint(why: NoEndpoint) -> UpstreamError {
    match why {
        NoEndpoint::Full => UpstreamError::Full,
        NoEndpoint::Unresolved => {
            UpstreamError::NoConnection("its name has no address yet".to_owned())
        }
        NoEndpoint::NoOther => UpstreamError::NoConnection("it has no other endpoint".to_owned()),
    }
}

/// What goes upstream, before its body. The headers are all there will be: nothing is copied from the client wholesale.
#[derive(Clone, Copy)]
pub(crate) struct UpstreamRequest<'a> {
    pub(crate) path: &'a str,
    pub(crate) headers: &'a HeaderList,
    /// The body's length, if it is known.
    pub(crate) length: Option<u64>,
}

/// Headers in the order they are sent.
pub(crate) type HeaderList = Vec<(HeaderName, HeaderValue)>;

/// An upstream's answer, its body still to come.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) download: Download,
}

/// The body of an upstream's answer; also carries on with the upload where the answer began before its end.
pub(crate) enum Download {
    /// Came together with the head.
    Whole(Option<Bytes>),
    Http1(Box<http1::Download>),
    Http2(Box<http2::Download>),
}

impl Download {
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        match self {
            Self::Whole(data) => Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
            Self::Http1(download) => download.poll_data(cx).map_ok(Frame::data),
            Self::Http2(download) => download.poll_frame(cx),
        }
    }

    /// Whether nothing more will come, as far as is known without reading.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Self::Whole(data) => data.is_none(),
            Self::Http1(download) => download.is_over(),
            Self::Http2(download) => download.is_over(),
        }
    }

    /// How many bytes are still to come, if that is known.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            Self::Whole(data) => Some(data.as_ref().map_or(0, |data| data.len() as u64)),
            Self::Http1(download) => download.length(),
            Self::Http2(download) => download.length(),
        }
    }
}

/// Connects to every endpoint of an upstream once, TLS included; what is wrong, one line each.
pub(crate) async fn try_connections(
    name: &str,
    settings: &UpstreamSettings,
    metrics: &Metrics,
) -> Vec<String> {
    let shared = match Shared::new(name, settings, metrics) {
        Ok(shared) => shared,
        Err(error) => return vec![error.to_string()],
    };
    shared.resolve(metrics).await;
    let all = shared.endpoints.all();
    if all.is_empty() {
        return vec!["its name has no address".to_owned()];
    }
    let mut problems = Vec::new();
    for endpoint in all.iter() {
        if let Err(error) = connect::open(&shared, endpoint).await {
            problems.push(error.to_string());
        }
    }
    problems
}

/// The error of an exchange that stood still.
fn stood_still(by_client: bool) -> UpstreamError {
    if by_client {
        UpstreamError::Upload(Refusal::BodyTimeout)
    } else {
        UpstreamError::Timeout
    }
}
