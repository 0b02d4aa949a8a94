//! The upstream's HTTP/1.1 side: head, body, a constant answer.

use std::io;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::stats::Stats;
use crate::http1::{Framing, HEADERS_MAX, Head, Received, malformed};

/// OTLP's empty success is an empty message with its type; the other two want 204.
const OTLP_OK: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
const NO_CONTENT: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

#[derive(Clone, Copy)]
enum Asked {
    Otlp,
    Push,
    Stats,
}

pub(crate) async fn serve(
    mut stream: TcpStream,
    mut received: Received,
    stats: &Stats,
    early: bool,
) -> io::Result<()> {
    while let Some(head) = received
        .head(&mut stream, |bytes| parse(bytes, stats))
        .await?
    {
        let answer = match head.content {
            Asked::Otlp => OTLP_OK,
            Asked::Push => NO_CONTENT,
            Asked::Stats => {
                stream.write_all(&stats_answer(stats)?).await?;
                continue;
            }
        };
        if early {
            stream.write_all(answer).await?;
        }
        let length = received.skip_body(&mut stream, head.framing).await?;
        stats.complete(length);
        if !early {
            stream.write_all(answer).await?;
        }
        if !head.keep_alive {
            break;
        }
    }
    Ok(())
}

fn parse(bytes: &[u8], stats: &Stats) -> io::Result<Option<(usize, Head<Asked>)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let parsed = request
        .parse(bytes)
        .map_err(|_| malformed("the request is not HTTP/1"))?;
    let httparse::Status::Complete(length) = parsed else {
        return Ok(None);
    };
    let path = request.path.unwrap_or_default();
    let asked = if request.method == Some("GET") && path == "/stats" {
        Asked::Stats
    } else {
        let tenants = request.headers.iter().filter(|h| is_tenant(h.name));
        stats.begun(tenants.map(|h| h.value));
        if path.contains("/v1/push") || path.contains("/v1/write") {
            Asked::Push
        } else {
            Asked::Otlp
        }
    };
    let head = Head::new(asked, request.version, request.headers, Framing::Length(0))?;
    Ok(Some((length, head)))
}

/// The underscore spelling reaches some backends as the same name, so it counts as one.
fn is_tenant(name: &str) -> bool {
    name.eq_ignore_ascii_case("x-scope-orgid") || name.eq_ignore_ascii_case("x_scope_orgid")
}

fn stats_answer(stats: &Stats) -> io::Result<Vec<u8>> {
    let json = serde_json::to_string(&stats.report())?;
    Ok(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{json}",
        json.len()
    )
    .into_bytes())
}
