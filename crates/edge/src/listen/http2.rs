//! HTTP/2 towards senders, by hyper. Decides the connection's settings and when it is asked to end; each stream runs in a task of
//! its own.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::gate::Seat;
use super::http2_errors;
use super::http2_frames::{Abuse, Frames};
use super::io::ClientIo;
use super::offenders::Fault;
use super::{Age, Peer};
use crate::config::ConnectionSettings;
use crate::metrics::Closed;
use crate::refusal::Refusal;
use crate::request;
use crate::request::Blame;
use crate::request::upload::ClientBody;
use crate::worker::Worker;

/// How much is read before other connections have their turn, in bytes.
const TURN_BYTES: usize = 256 * 1024;
/// How many frames without use are.
const TURN_USELESS_FRAMES: u32 = 64;
/// Who has no request and does not answer for so long when asked to end is not there: others shall not wait for it.
const GONE_AFTER: Duration = Duration::from_secs(5);

/// What a connection, its bytes and its streams know of each other.
struct State {
    frames: RefCell<Frames>,
    abuse: Cell<Option<Abuse>>,
    /// Requests that came of the streams.
    served: Cell<u32>,
    /// Nothing that was read is left to be looked at, and nothing that is written waits.
    read_all: Cell<bool>,
    wrote_all: Cell<bool>,
    /// Its sender guesses keys.
    guesses: Cell<bool>,
    /// Streams that run.
    active: Cell<usize>,
    /// When the last one ended, or the connection began.
    idle_since: Cell<Instant>,
}

impl State {
    fn new(settings: &ConnectionSettings) -> Self {
        Self {
            frames: RefCell::new(Frames::new(settings.frames)),
            abuse: Cell::new(None),
            served: Cell::new(0),
            read_all: Cell::new(false),
            wrote_all: Cell::new(true),
            guesses: Cell::new(false),
            active: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
        }
    }

    /// Notes what an answer says of the connection.
    fn blame(&self, blame: Option<Blame>) {
        match blame {
            None => {}
            Some(Blame::LargeHead) => self.large_head(),
            Some(Blame::AuthFailures) => self.guesses.set(true),
        }
    }

    fn large_head(&self) {
        if let Some(abuse) = self.frames.borrow_mut().large_head() {
            self.abuse.set(Some(abuse));
        }
    }

    /// Heads above `h2`'s own limit, since the last look: it answers those 431 by itself, without an id of the request.
    fn refused_unseen(&self) -> u32 {
        if !self.read_all.get() || !self.wrote_all.get() {
            return 0;
        }
        self.frames.borrow_mut().refused_unseen(self.served.get())
    }
}

/// Counts a stream for as long as it runs.
struct Active(Rc<State>);

impl Active {
    fn new(state: &Rc<State>) -> Self {
        state.active.set(state.active.get() + 1);
        Self(Rc::clone(state))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        let left = self.0.active.get().saturating_sub(1);
        self.0.active.set(left);
        if left == 0 {
            self.0.idle_since.set(Instant::now());
        }
    }
}

/// Runs streams on the worker's own runtime.
#[derive(Clone)]
struct Local(Rc<State>);

impl<F: Future<Output = ()> + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        let active = Active::new(&self.0);
        tokio::task::spawn_local(async move {
            future.await;
            drop(active);
        });
    }
}

/// Serves one connection until either side ends it. `ahead` begins with the preface that gave its protocol away.
pub(crate) async fn serve(worker: Rc<Worker>, peer: Peer, stream: ClientIo, ahead: BytesMut) {
    // Not the targets: a connection outlives a configuration.
    let settings = Arc::clone(&worker.current().settings);
    let settings = &settings.connections;
    let state = Rc::new(State::new(settings));
    let io = Watched {
        stream,
        ahead,
        state: Rc::clone(&state),
        turn_bytes: 0,
        turn_useless: 0,
    };
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let worker = Rc::clone(&worker);
        let peer = peer.clone();
        let state = Rc::clone(&state);
        state.served.set(state.served.get().wrapping_add(1));
        // Apart from the stream's task, which stays until the answer was taken: it is most of what a request needs.
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = Ok(ClientBody::Http2(body));
            let response = request::serve(&worker, &peer, parts, body).await;
            state.blame(response.extensions().get().copied());
            Ok::<_, Infallible>(response)
        })
    });
    let connection = builder(settings, &state).serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    let mut draining = pin!(peer.listener.ending.draining.cancelled());
    let mut end = End::new(settings);
    poll_fn(|cx| {
        loop {
            // First what has come, then whether it came in time.
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                // How a connection ends is its streams' business; they are accounted one by one.
                if let (Err(error), None) = (ended, state.abuse.get()) {
                    // What we count by what is written, h2 counts when it decides to write it.
                    let abuse = http2_errors::abuse(&error, &state.frames.borrow());
                    state.abuse.set(abuse);
                }
                return Poll::Ready(());
            }
            if !end.asked {
                for _ in 0..state.refused_unseen() {
                    let limit = settings.head_max;
                    worker.metrics.refusal(&Refusal::HeadTooLarge { limit });
                    state.large_head();
                }
            }
            if state.abuse.get().is_some() {
                return Poll::Ready(());
            }
            // Each burst shall cost a connection. Who has shown a valid key, such as a gateway of many tenants, keeps it.
            if state.guesses.get() && !end.asked && !peer.seat.is_known() {
                end.guesser();
                peer.seat.ends_for(Fault::Guesses);
                worker.metrics.connections.closed(Closed::AuthFailures);
                connection.as_mut().graceful_shutdown();
                continue;
            }
            if !end.draining && draining.as_mut().poll(cx).is_ready() {
                end.drain();
                connection.as_mut().graceful_shutdown();
                continue;
            }
            let (verdict, why) = ready!(end.poll(cx, &state, &peer.seat, settings));
            if let Some(why) = why {
                worker.metrics.connections.closed(why);
            }
            match verdict {
                Verdict::Ends => connection.as_mut().graceful_shutdown(),
                Verdict::IsCutOff => return Poll::Ready(()),
            }
        }
    })
    .await;
    if let Some(abuse) = state.abuse.get() {
        peer.seat.ends_for(Fault::Abuse);
        worker.metrics.connections.closed(Closed::Abuse(abuse));
    }
}

/// How connections are set up.
fn builder(settings: &ConnectionSettings, state: &Rc<State>) -> http2::Builder<Local> {
    let mut builder = http2::Builder::new(Local(Rc::clone(state)));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.streams_max)
        .initial_stream_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_frame_size(64 * 1024)
        // Twice as much as is allowed: heads up to there are refused, and counted, by the request's own steps.
        .max_header_list_size(
            u32::try_from(settings.head_max.0.saturating_mul(2)).unwrap_or(u32::MAX),
        )
        // So that ours, which say what it was, are reached first.
        .max_local_error_reset_streams(Some(2 * settings.frames.provoked_resets as usize + 100))
        .max_pending_accept_reset_streams(Some(settings.frames.resets as usize + 1))
        .keep_alive_interval(Some(settings.idle_timeout));
    builder
}

/// When a connection is asked to end, and when it has to.
struct End {
    age: Age,
    /// It was asked to end.
    asked: bool,
    /// Because its listener ends.
    draining: bool,
    /// When it is cut off if it has not ended by then; the process's own end has a time of its own.
    cut_off_at: Option<Instant>,
    /// Fires when something may be due.
    timer: Pin<Box<Sleep>>,
}

enum Verdict {
    /// It takes no new requests and finishes those it has.
    Ends,
    IsCutOff,
}

impl End {
    fn new(settings: &ConnectionSettings) -> Self {
        Self {
            age: Age::new(settings.age_max),
            asked: false,
            draining: false,
            cut_off_at: None,
            timer: Box::pin(sleep(settings.stranger_timeout)),
        }
    }

    /// Notes that it was asked to end because its listener ends.
    fn drain(&mut self) {
        self.asked = true;
        self.draining = true;
        self.timer.as_mut().reset(Instant::now() + GONE_AFTER);
    }

    /// Notes that it was asked to end because its sender guesses keys.
    fn guesser(&mut self) {
        self.asked = true;
        self.cut_off_at = Some(Instant::now() + GONE_AFTER);
    }

    /// Ready when the connection is to end, and why if that is for a limit.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        state: &State,
        seat: &Seat,
        settings: &ConnectionSettings,
    ) -> Poll<(Verdict, Option<Closed>)> {
        loop {
            // Set anew when something is due earlier; what is due later is seen when it fires.
            if let Some(next) = self.next(state, seat, settings)
                && next < self.timer.deadline()
            {
                self.timer.as_mut().reset(next);
            }
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            let verdict = self.look(now, state, seat, settings);
            // A last stream may end without another look at its connection.
            let longest = if self.draining {
                GONE_AFTER
            } else {
                settings.idle_timeout
            };
            let latest = now + longest;
            let next = self.next(state, seat, settings);
            self.timer
                .as_mut()
                .reset(next.map_or(latest, |next| next.min(latest)));
            if let Some(verdict) = verdict {
                return Poll::Ready(verdict);
            }
        }
    }

    /// When something is due, as things are.
    fn next(&self, state: &State, seat: &Seat, settings: &ConnectionSettings) -> Option<Instant> {
        let head = state.frames.borrow().headers_since();
        let head = head.map(|since| since + settings.head_timeout);
        let idle_since = (state.active.get() == 0).then(|| state.idle_since.get());
        let ends = if self.asked {
            idle_since
                .filter(|_| self.draining)
                .map(|since| since + GONE_AFTER)
        } else {
            self.due(idle_since, seat, settings).map(|(at, _)| at)
        };
        let all = [head, ends, self.cut_off_at];
        all.into_iter().flatten().min()
    }

    /// When the connection is asked to end, and why.
    fn due(
        &self,
        idle_since: Option<Instant>,
        seat: &Seat,
        settings: &ConnectionSettings,
    ) -> Option<(Instant, Closed)> {
        let age = (self.age.since + self.age.max, Closed::Age);
        let other = if seat.is_known() {
            idle_since.map(|since| (since + settings.idle_timeout, Closed::Idle))
        } else {
            Some((self.age.since + settings.stranger_timeout, Closed::Stranger))
        };
        [Some(age), other]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }

    fn look(
        &mut self,
        now: Instant,
        state: &State,
        seat: &Seat,
        settings: &ConnectionSettings,
    ) -> Option<(Verdict, Option<Closed>)> {
        let headers_since = state.frames.borrow().headers_since();
        if headers_since.is_some_and(|since| now - since >= settings.head_timeout) {
            return Some((Verdict::IsCutOff, Some(Closed::HeadTimeout)));
        }
        if self.cut_off_at.is_some_and(|at| now >= at) {
            return Some((Verdict::IsCutOff, None));
        }
        let idle_since = (state.active.get() == 0).then(|| state.idle_since.get());
        if self.draining && idle_since.is_some_and(|since| now - since >= GONE_AFTER) {
            return Some((Verdict::IsCutOff, None));
        }
        if self.asked {
            return None;
        }
        let due = self.due(idle_since, seat, settings);
        let (_, why) = due.filter(|(at, _)| now >= *at)?;
        self.asked = true;
        self.cut_off_at = Some(now + settings.age_grace);
        Some((Verdict::Ends, Some(why)))
    }
}

/// A stream of which the first bytes were read already, and whose frames are watched.
struct Watched {
    stream: ClientIo,
    ahead: BytesMut,
    state: Rc<State>,
    turn_bytes: usize,
    turn_useless: u32,
}

impl Watched {
    /// Ends the connection when what passed was abuse.
    fn judge(&self, abuse: Option<Abuse>) -> io::Result<()> {
        match abuse {
            None => Ok(()),
            Some(abuse) => {
                self.state.abuse.set(Some(abuse));
                Err(io::Error::other("the sender does what no good sender does"))
            }
        }
    }

    /// Whether others have waited long enough for this connection to stop reading.
    fn is_over_turn(&mut self) -> bool {
        let useless = self.state.frames.borrow().useless();
        let over = self.turn_bytes >= TURN_BYTES
            || useless.wrapping_sub(self.turn_useless) >= TURN_USELESS_FRAMES;
        if over {
            self.begin_turn();
        }
        over
    }

    fn begin_turn(&mut self) {
        self.turn_bytes = 0;
        self.turn_useless = self.state.frames.borrow().useless();
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_over_turn() {
            cx.waker().wake_by_ref();
            self.state.read_all.set(true);
            return Poll::Pending;
        }
        let before = buf.filled().len();
        if self.ahead.is_empty() {
            let read = Pin::new(&mut self.stream).poll_read(cx, buf);
            self.state.read_all.set(read.is_pending());
            if read.is_pending() {
                self.begin_turn();
            }
            ready!(read)?;
        } else {
            self.state.read_all.set(false);
            let n = self.ahead.len().min(buf.remaining());
            buf.put_slice(self.ahead.get(..n).unwrap_or_default());
            self.ahead.advance(n);
            if self.ahead.is_empty() {
                self.ahead = BytesMut::new();
            }
        }
        let read = buf.filled().get(before..).unwrap_or_default();
        self.turn_bytes += read.len();
        let abuse = self.state.frames.borrow_mut().received(read);
        Poll::Ready(self.judge(abuse))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.state.wrote_all.set(written.is_ready());
        let written = ready!(written)?;
        let sent = buf.get(..written).unwrap_or_default();
        let abuse = self.state.frames.borrow_mut().sent(sent);
        Poll::Ready(self.judge(abuse).map(|()| written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.state.wrote_all.set(written.is_ready());
        let written = ready!(written)?;
        let mut left = written;
        let mut abuse = None;
        for buf in bufs {
            let sent = buf.get(..left.min(buf.len())).unwrap_or_default();
            left -= sent.len();
            abuse = abuse.or(self.state.frames.borrow_mut().sent(sent));
        }
        Poll::Ready(self.judge(abuse).map(|()| written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
