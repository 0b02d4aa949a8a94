//! Loki push as JSON: the two schemas senders use, and the one the sink shows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A push of either schema or of protobuf, as the sink shows it.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Push {
    pub(super) streams: Vec<Stream>,
}

/// Entries that share labels.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Stream {
    /// `{a="b", c="d"}`
    pub(super) labels: String,
    pub(super) entries: Vec<Entry>,
}

/// A log line.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Entry {
    /// Nanoseconds since the Unix epoch; as text, because JSON's numbers are too short for it.
    #[serde(serialize_with = "as_text")]
    pub(super) timestamp: i128,
    pub(super) line: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) structured_metadata: BTreeMap<String, String>,
}

/// The schema of `/loki/api/v1/push`.
#[derive(Deserialize)]
struct PushV1 {
    streams: Vec<StreamV1>,
}

#[derive(Deserialize)]
struct StreamV1 {
    stream: BTreeMap<String, String>,
    #[serde(default)]
    values: Vec<Value>,
}

/// The schema of `/api/prom/push`.
#[derive(Deserialize)]
struct PushV0 {
    streams: Vec<StreamV0>,
}

#[derive(Deserialize)]
struct StreamV0 {
    labels: String,
    #[serde(default)]
    entries: Vec<EntryV0>,
}

#[derive(Deserialize)]
struct EntryV0 {
    ts: String,
    line: String,
}

/// Reads the schema of `/loki/api/v1/push`. The error names the place.
pub(super) fn parse_v1(body: &[u8]) -> Result<Push, String> {
    let push: PushV1 = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let stream = |(s, stream): (usize, StreamV1)| {
        let values = stream.values.iter().enumerate();
        let entries = values.map(|(v, value)| {
            entry_v1(value).ok_or_else(|| {
                format!(
                    "streams[{s}].values[{v}]: want [\"<nanoseconds>\", \"line\"], or these two and an object of strings"
                )
            })
        });
        Ok(Stream {
            entries: entries.collect::<Result<_, String>>()?,
            labels: label_text(&stream.stream),
        })
    };
    let streams = push.streams.into_iter().enumerate().map(stream);
    Ok(Push {
        streams: streams.collect::<Result<_, String>>()?,
    })
}

/// Reads the schema of `/api/prom/push`. The error names the place.
pub(super) fn parse_v0(body: &[u8]) -> Result<Push, String> {
    let push: PushV0 = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let entry = |entry: EntryV0| {
        let at = OffsetDateTime::parse(&entry.ts, &Rfc3339)
            .map_err(|error| format!("ts {:?}: {error}", entry.ts))?;
        Ok(Entry {
            timestamp: at.unix_timestamp_nanos(),
            line: entry.line,
            structured_metadata: BTreeMap::new(),
        })
    };
    let stream = |stream: StreamV0| {
        Ok(Stream {
            labels: stream.labels,
            entries: stream
                .entries
                .into_iter()
                .map(entry)
                .collect::<Result<_, String>>()?,
        })
    };
    let streams = push.streams.into_iter().map(stream);
    Ok(Push {
        streams: streams.collect::<Result<_, String>>()?,
    })
}

fn entry_v1(value: &Value) -> Option<Entry> {
    let (timestamp, line, metadata) = match value.as_array()?.as_slice() {
        [timestamp, line] => (timestamp, line, None),
        [timestamp, line, metadata] => (timestamp, line, Some(metadata.as_object()?)),
        _ => return None,
    };
    let text = |value: &Value| Some(value.as_str()?.to_owned());
    Some(Entry {
        timestamp: timestamp.as_str()?.parse::<i64>().ok()?.into(),
        line: text(line)?,
        structured_metadata: metadata
            .into_iter()
            .flatten()
            .map(|(name, value)| Some((name.clone(), text(value)?)))
            .collect::<Option<_>>()?,
    })
}

/// Labels in the form that Loki keeps them in.
fn label_text(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<_> = labels
        .iter()
        .map(|(name, value)| format!("{name}={value:?}"))
        .collect();
    format!("{{{}}}", pairs.join(", "))
}

fn as_text<S: Serializer>(timestamp: &i128, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(timestamp)
}
