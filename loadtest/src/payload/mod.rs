//! Request bodies: real messages that a backend or a sink can decode, of about the asked size on the wire, with values that
//! differ from body to body. Does not know how a body is sent.

mod protobuf;

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use clap::ValueEnum;
use protobuf::Message;

/// The protocols senders speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// OTLP over gRPC, HTTP/2 with prior knowledge
    OtlpGrpc,
    /// OTLP over HTTP/1.1 in protobuf
    OtlpHttp,
    /// Prometheus remote write 1.0
    RemoteWrite,
    /// Loki push in protobuf
    Loki,
}

/// What OTLP carries; the other two protocols have one kind each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Signal {
    /// Spans
    Traces,
    /// Gauges
    Metrics,
    /// Log records
    Logs,
}

impl Protocol {
    /// The path that senders use.
    pub(crate) fn path(self, signal: Signal) -> &'static str {
        match (self, signal) {
            (Self::OtlpGrpc, Signal::Traces) => {
                "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
            }
            (Self::OtlpGrpc, Signal::Metrics) => {
                "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
            }
            (Self::OtlpGrpc, Signal::Logs) => {
                "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
            }
            (Self::OtlpHttp, Signal::Traces) => "/v1/traces",
            (Self::OtlpHttp, Signal::Metrics) => "/v1/metrics",
            (Self::OtlpHttp, Signal::Logs) => "/v1/logs",
            (Self::RemoteWrite, _) => "/api/v1/push",
            (Self::Loki, _) => "/loki/api/v1/push",
        }
    }

    /// The headers that describe the body.
    pub(crate) fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::OtlpGrpc => &[("content-type", "application/grpc"), ("te", "trailers")],
            Self::RemoteWrite => &[
                ("content-type", "application/x-protobuf"),
                ("content-encoding", "snappy"),
                ("x-prometheus-remote-write-version", "0.1.0"),
            ],
            // Loki's own clients send no Content-Encoding: protobuf bodies are snappy always.
            Self::OtlpHttp | Self::Loki => &[("content-type", "application/x-protobuf")],
        }
    }

    /// `count` bodies of about `size` bytes each, gRPC's five-byte prefix included. Every one holds at least one item, so
    /// the smallest are some 200 bytes.
    pub(crate) fn bodies(self, signal: Signal, size: usize, count: usize) -> Vec<Bytes> {
        (0..count)
            .map(|n| {
                let mut values = Values::new(n as u64);
                self.body(signal, size, &mut values)
            })
            .collect()
    }

    fn body(self, signal: Signal, size: usize, values: &mut Values) -> Bytes {
        // A message grows by about the same with every item: two samples give the line.
        const PROBE: usize = 32;
        let one = self.encode(signal, 1, values).len();
        let many = self.encode(signal, 1 + PROBE, values).len();
        let growth = many.saturating_sub(one).max(PROBE);
        let more = (size.saturating_sub(one) * PROBE + growth / 2) / growth;
        let body = self.encode(signal, 1 + more, values);
        // Snappy finds more to save in a large body than in the samples, so the guess is corrected by what came out.
        let corrected = ((1 + more) * size + body.len() / 2) / body.len().max(1);
        self.encode(signal, corrected.max(1), values)
    }

    fn encode(self, signal: Signal, items: usize, values: &mut Values) -> Bytes {
        let otlp = |values: &mut Values| match signal {
            Signal::Traces => traces(items, values),
            Signal::Metrics => metrics(items, values),
            Signal::Logs => logs(items, values),
        };
        match self {
            Self::OtlpGrpc => grpc_message(&otlp(values).into_bytes()),
            Self::OtlpHttp => otlp(values).into_bytes().into(),
            Self::RemoteWrite => snappy(&remote_write(items, values).into_bytes()),
            Self::Loki => snappy(&loki(items, values).into_bytes()),
        }
    }
}

/// Puts gRPC's prefix before a message: not compressed, length in four bytes.
fn grpc_message(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut framed = Vec::with_capacity(5 + message.len());
    framed.push(0);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(message);
    framed.into()
}

fn snappy(plain: &[u8]) -> Bytes {
    // Only a body over 4 GiB can fail; an empty one then shows at once in the upstream's byte count.
    snap::raw::Encoder::new()
        .compress_vec(plain)
        .unwrap_or_default()
        .into()
}

/// Where values come from: the time of construction, and splitmix64, so that equal seeds give equal bodies.
struct Values {
    state: u64,
    now: Duration,
}

impl Values {
    fn new(seed: u64) -> Self {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Self { state: seed, now }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A measured value below 1,000 with a few decimals.
    fn measurement(&mut self) -> f64 {
        let thousandths = u32::try_from(self.below(1_000_000)).unwrap_or_default();
        f64::from(thousandths) / 1000.0
    }

    fn now_nanos(&self) -> u64 {
        u64::try_from(self.now.as_nanos()).unwrap_or(u64::MAX)
    }

    fn now_millis(&self) -> u64 {
        u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX)
    }

    fn log_line(&mut self) -> String {
        format!(
            "level=info method=GET path=/orders/{:08x} status=200 duration_ms={} trace={:016x}",
            self.below(1 << 32),
            self.below(900),
            self.next()
        )
    }
}

fn any_string(text: impl AsRef<[u8]>) -> Message {
    Message::default().bytes(1, text)
}

fn attribute(key: &str, value: impl AsRef<[u8]>) -> Message {
    Message::default()
        .bytes(1, key)
        .message(2, any_string(value))
}

/// `{1: {1: Resource, 2: {1: InstrumentationScope, 2: item…}}}`: the frame that all three OTLP requests share.
fn otlp_request(values: &mut Values, items: impl IntoIterator<Item = Message>) -> Message {
    let instance = format!("checkout-{:04x}", values.below(1 << 16));
    let resource = Message::default().messages(
        1,
        [
            attribute("service.name", "checkout"),
            attribute("service.instance.id", instance),
        ],
    );
    let scope = Message::default().bytes(1, "loadtest");
    let scoped = Message::default().message(1, scope).messages(2, items);
    let of_resource = Message::default().message(1, resource).message(2, scoped);
    Message::default().message(1, of_resource)
}

fn traces(count: usize, values: &mut Values) -> Message {
    let spans: Vec<_> = (0..count)
        .map(|_| {
            let end = values.now_nanos();
            let start = end - values.below(50_000_000);
            let mut trace_id = values.next().to_le_bytes().to_vec();
            trace_id.extend_from_slice(&values.next().to_le_bytes());
            Message::default()
                .bytes(1, trace_id)
                .bytes(2, values.next().to_le_bytes())
                .bytes(5, "GET /orders/{id}")
                .varint(6, 2) // server
                .fixed64(7, start)
                .fixed64(8, end)
                .message(
                    9,
                    attribute("url.path", format!("/orders/{:08x}", values.below(1 << 32))),
                )
        })
        .collect();
    otlp_request(values, spans)
}

fn metrics(count: usize, values: &mut Values) -> Message {
    let metrics: Vec<_> = (0..count)
        .map(|_| {
            let point = Message::default()
                .fixed64(3, values.now_nanos())
                .double(4, values.measurement())
                .message(
                    7,
                    attribute("pod", format!("checkout-{:08x}", values.below(1 << 32))),
                );
            Message::default()
                .bytes(1, "queue.depth")
                .bytes(3, "{item}")
                .message(5, Message::default().message(1, point))
        })
        .collect();
    otlp_request(values, metrics)
}

fn logs(count: usize, values: &mut Values) -> Message {
    let records: Vec<_> = (0..count)
        .map(|_| {
            Message::default()
                .fixed64(1, values.now_nanos())
                .varint(2, 9) // INFO
                .bytes(3, "INFO")
                .message(5, any_string(values.log_line()))
                .fixed64(11, values.now_nanos())
        })
        .collect();
    otlp_request(values, records)
}

fn remote_write(count: usize, values: &mut Values) -> Message {
    let label = |name: &str, value: &str| Message::default().bytes(1, name).bytes(2, value);
    let series: Vec<_> = (0..count)
        .map(|_| {
            let pod = format!("checkout-{:016x}", values.next());
            let sample = Message::default()
                .double(1, values.measurement())
                .varint(2, values.now_millis());
            Message::default()
                .messages(
                    1,
                    [
                        label("__name__", "http_requests_total"),
                        label("job", "checkout"),
                        label("pod", &pod),
                    ],
                )
                .message(2, sample)
        })
        .collect();
    Message::default().messages(1, series)
}

fn loki(count: usize, values: &mut Values) -> Message {
    let time = Message::default()
        .varint(1, values.now.as_secs())
        .varint(2, u64::from(values.now.subsec_nanos()))
        .into_bytes();
    let labels = format!(
        "{{job=\"checkout\", pod=\"checkout-{:08x}\"}}",
        values.below(1 << 32)
    );
    let entries: Vec<_> = (0..count)
        .map(|_| {
            Message::default()
                .bytes(1, &time)
                .bytes(2, values.log_line())
        })
        .collect();
    let stream = Message::default().bytes(1, labels).messages(2, entries);
    Message::default().message(1, stream)
}

#[cfg(test)]
mod tests;
