//! HTTP/1.1 with keep-alive, written by hand: one request in flight on a connection, two system calls for a small one.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Lifetime, Run};
use crate::http1::{Framing, HEADERS_MAX, Head, Received, malformed};

/// Answers are short; what is longer is read in several rounds.
const READ_BYTES: usize = 4096;
/// Before the next try after a refused connection, so that a dead target is not hammered.
pub(crate) const RECONNECT_AFTER: Duration = Duration::from_millis(10);

/// Sends requests one after the other until the run is over; a lost connection is opened again.
pub(crate) async fn stream(run: Rc<Run>, first: Connection, mut lifetime: Lifetime) {
    let mut open = Some(first);
    while let Some(due) = run.pace.next().await {
        let (head, body) = run.requests.next_http1();
        run.tally.sent(head.len() + body.len());
        let mut connection = match open.take() {
            Some(connection) => connection,
            None => match Connection::open(run.address).await {
                Ok(connection) => connection,
                Err(error) => {
                    run.tally.lost("connect", &error);
                    tokio::time::sleep(RECONNECT_AFTER).await;
                    continue;
                }
            },
        };
        match connection.exchange(head.chain(body)).await {
            Ok(answer) => {
                if (200..300).contains(&answer.content) {
                    run.tally.accepted(due);
                } else {
                    run.tally.refused("http", u32::from(answer.content));
                }
                if answer.keep_alive && !lifetime.is_over_after_one_more() {
                    open = Some(connection);
                } else {
                    run.tally.reconnected();
                }
            }
            Err(error) => {
                run.tally.lost("connection", &error);
                run.tally.reconnected();
            }
        }
    }
}

/// A connection with no request in flight.
pub(crate) struct Connection {
    stream: TcpStream,
    received: Received,
}

/// The status is the content.
pub(crate) type Answer = Head<u16>;

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            received: Received::new(READ_BYTES),
        })
    }

    async fn exchange(
        &mut self,
        mut request: bytes::buf::Chain<Bytes, Bytes>,
    ) -> io::Result<Answer> {
        let (mut from, mut to) = self.stream.split();
        let received = &mut self.received;
        let (mut answer, sent) = {
            let mut sending = pin!(to.write_all_buf(&mut request));
            // The answer may come before the body is through; its sender may then have stopped to read.
            tokio::select! {
                biased;
                sent = &mut sending => match answer_head(received, &mut from).await {
                    Ok(head) => (head, sent.is_ok()),
                    Err(error) => return Err(sent.err().unwrap_or(error)),
                },
                head = answer_head(received, &mut from) => {
                    let head = head?;
                    let sent = head.keep_alive && sending.await.is_ok();
                    (head, sent)
                }
            }
        };
        received.skip_body(&mut from, answer.framing).await?;
        answer.keep_alive &= sent;
        Ok(answer)
    }
}

/// Reads the head of an answer, and what is announced before it.
pub(crate) async fn answer_head(
    received: &mut Received,
    from: &mut (impl AsyncRead + Unpin),
) -> io::Result<Answer> {
    loop {
        let answer = received
            .head(from, parse)
            .await?
            .ok_or(io::ErrorKind::ConnectionReset)?;
        // 1xx announces the answer; it is not one.
        if answer.content >= 200 {
            return Ok(answer);
        }
    }
}

fn parse(bytes: &[u8]) -> io::Result<Option<(usize, Answer)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response
        .parse(bytes)
        .map_err(|_| malformed("the answer is not HTTP/1"))?;
    let httparse::Status::Complete(length) = parsed else {
        return Ok(None);
    };
    let status = response.code.unwrap_or_default();
    let mut head = Head::new(
        status,
        response.version,
        response.headers,
        Framing::UntilClose,
    )?;
    if status < 200 || status == 204 || status == 304 {
        head.keep_alive |= head.framing == Framing::UntilClose && response.version == Some(1);
        head.framing = Framing::Length(0);
    }
    Ok(Some((length, head)))
}
