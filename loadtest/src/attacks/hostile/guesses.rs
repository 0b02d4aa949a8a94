//! Guessing keys: texts that cannot be keys, and keys with a right checksum that nobody was given.

use std::io;

use model::ApiKey;

use super::session::Session;
use super::wire::Wire;
use crate::attacks::hostile::frames::{Kind, frame, request};

/// Calls in flight on a connection.
const CALLS: u64 = 32;
const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// A key of the right form.
pub(super) fn fresh_key() -> io::Result<String> {
    let key = ApiKey::generate().map_err(io::Error::other)?;
    Ok(key.reveal().to_owned())
}

fn post(key: &str) -> String {
    format!(
        "POST /v1/traces HTTP/1.1\r\nhost: edge\r\nauthorization: Bearer {key}\r\n\
         content-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n"
    )
}

pub(super) async fn malformed(mut wire: Wire) -> io::Result<()> {
    let mut key = fresh_key()?;
    key.pop();
    let request = post(&key);
    loop {
        wire.exchange(request.as_bytes()).await?;
    }
}

pub(super) async fn unknown(mut wire: Wire) -> io::Result<()> {
    loop {
        let request = post(&fresh_key()?);
        wire.exchange(request.as_bytes()).await?;
    }
}

pub(super) async fn unknown_grpc(wire: Wire) -> io::Result<()> {
    let mut session = Session::open(wire, &[]).await?;
    let mut asked = 0;
    loop {
        let mut out = Vec::new();
        while asked < session.answers + CALLS {
            let credential = format!("Bearer {}", fresh_key()?);
            let headers = [
                ("content-type", "application/grpc"),
                ("te", "trailers"),
                ("authorization", &credential),
            ];
            let stream = session.request(&mut out, false, &request(GRPC_PATH, &headers))?;
            // An empty message, and its end.
            frame(&mut out, Kind::Data, 1, stream, &[0; 5]);
            asked += 1;
        }
        session.send(&out, CALLS).await?;
        session.listen().await?;
    }
}
