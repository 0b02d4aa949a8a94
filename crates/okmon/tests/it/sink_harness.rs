//! A sink on a free port, and a client that shows what came back.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use okmon::sink::Sink;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) const PROTOBUF: &str = "application/x-protobuf";
pub(crate) const JSON: &str = "application/json";

/// A sink under test; stops when dropped.
pub(crate) struct Running {
    pub(crate) base: String,
    pub(crate) runtime: Runtime,
    pub(crate) sink: Sink,
    agent: ureq::Agent,
    /// Keeps no connection: the sink closes one whose body it refused unread, perhaps just as the next request goes out.
    posting: ureq::Agent,
    stop: DropGuard,
    serving: JoinHandle<io::Result<()>>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

pub(crate) fn start() -> Running {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let (sink, stop) = (Sink::new(), CancellationToken::new());
    let serving = runtime.spawn(sink.clone().serve(listener, stop.clone()));
    let config = || ureq::Agent::config_builder().http_status_as_error(false);
    let agent = config().build().into();
    let posting = config().max_idle_connections(0).build().into();
    Running {
        base,
        runtime,
        sink,
        agent,
        posting,
        stop: stop.drop_guard(),
        serving,
    }
}

impl Running {
    /// Sends `body` as tenant `demo`, with `headers` besides.
    pub(crate) fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let headers = [&[("X-Scope-OrgID", "demo")], headers].concat();
        self.post_bare(path, &headers, body)
    }

    /// Sends `body` with `headers` only.
    pub(crate) fn post_bare(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = self.posting.post(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::read(request.send(body).unwrap())
    }

    /// Tells the sink to stop and waits until it did; the client's connection stays open.
    pub(crate) fn stop(self) -> io::Result<()> {
        drop(self.stop);
        let serving = async { tokio::time::timeout(Duration::from_secs(10), self.serving).await };
        let ended = self.runtime.block_on(serving);
        ended
            .expect("the sink was still serving after 10 s")
            .unwrap()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        Answer::read(
            self.agent
                .get(format!("{}{path}", self.base))
                .call()
                .unwrap(),
        )
    }

    pub(crate) fn delete(&self, path: &str) -> Answer {
        Answer::read(
            self.agent
                .delete(format!("{}{path}", self.base))
                .call()
                .unwrap(),
        )
    }

    /// Everything `demo` sent of `signal`, newest first.
    pub(crate) fn received(&self, signal: &str) -> Vec<Value> {
        let answer = self.get(&format!("/api/tenants/demo/{signal}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// The newest of `signal`.
    pub(crate) fn newest(&self, signal: &str) -> Value {
        self.received(signal)
            .into_iter()
            .next()
            .expect("nothing was received")
    }
}

impl Answer {
    fn read(mut response: ureq::http::Response<ureq::Body>) -> Self {
        let headers = response.headers().iter();
        Self {
            status: response.status().as_u16(),
            headers: headers
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
                .collect(),
            body: response.body_mut().read_to_vec().unwrap(),
        }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 0).unwrap()
}

pub(crate) fn zlib(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn raw_deflate(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn snappy_block(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).unwrap()
}

pub(crate) fn snappy_framed(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = snap::write::FrameEncoder::new(Vec::new());
    encoder.write_all(bytes).unwrap();
    encoder.into_inner().unwrap()
}

/// One byte more than the sink inflates, all zero: tiny once compressed.
pub(crate) fn bomb() -> Vec<u8> {
    vec![0; okmon::sink::BODY_BYTES_MAX + 1]
}
