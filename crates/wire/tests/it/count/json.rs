//! A JSON body is counted as a full decode counts it, however it is written and cut, and refused where it is no JSON.

use opentelemetry_proto::tonic::{logs, metrics, profiles, trace};
use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
use wire::count::{Format, JsonCounter, JsonFormat, Uncounted};

use super::{bodies, cuts, damage, damaged, decoded};

/// Counts `body` in frames that end at `cuts`.
fn count(format: JsonFormat, body: &[u8], cuts: &[Index]) -> Result<u64, Uncounted> {
    let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
    ends.extend([0, body.len()]);
    ends.sort_unstable();
    let mut counter = JsonCounter::new(format);
    for ends in ends.windows(2) {
        counter.push(&body[ends[0]..ends[1]]);
    }
    counter.finish()
}

/// What a protobuf body is in JSON, by the messages' own rules.
fn as_json(format: Format, body: &[u8]) -> Option<(JsonFormat, Value)> {
    let of = |format, value: serde_json::Result<Value>| Some((format, value.unwrap()));
    match format {
        Format::Traces => {
            let data = trace::v1::TracesData::decode(body).unwrap();
            of(JsonFormat::Traces, serde_json::to_value(data))
        }
        Format::Metrics => {
            let data = metrics::v1::MetricsData::decode(body).unwrap();
            of(JsonFormat::Metrics, serde_json::to_value(data))
        }
        Format::Logs => {
            let data = logs::v1::LogsData::decode(body).unwrap();
            of(JsonFormat::Logs, serde_json::to_value(data))
        }
        Format::Profiles => {
            let data = profiles::v1development::ProfilesData::decode(body).unwrap();
            of(JsonFormat::Profiles, serde_json::to_value(data))
        }
        _ => None,
    }
}

/// Every name as protobuf has it.
fn snake_case(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.into_iter().map(|(name, value)| {
                let mut snake = String::new();
                for c in name.chars() {
                    if c.is_ascii_uppercase() {
                        snake.push('_');
                    }
                    snake.push(c.to_ascii_lowercase());
                }
                (snake, snake_case(value))
            });
            Value::Object(members.collect())
        }
        Value::Array(elements) => elements.into_iter().map(snake_case).collect(),
        other => other,
    }
}

const NAMES: [&str; 16] = [
    "resourceMetrics",
    "scope_metrics",
    "metrics",
    "gauge",
    "sum",
    "dataPoints",
    "data_points",
    "resourceSpans",
    "scopeSpans",
    "spans",
    "streams",
    "values",
    "entries",
    "stream",
    "span",
    "\u{73}pans\u{e9}",
];

/// Any JSON, in which the names on the way to items are frequent.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        Just(json!("a \"quoted\" \\ text\n")),
    ];
    leaf.prop_recursive(9, 200, 5, |inner| {
        let name = prop::sample::select(NAMES.to_vec());
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..5).prop_map(|members| {
                let members = members
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value));
                Value::Object(members.collect::<Map<_, _>>())
            }),
        ]
    })
}

/// The items of a value, by its tree.
fn items(format: JsonFormat, value: &Value) -> u64 {
    fn along(value: &Value, way: &[&[&str]]) -> u64 {
        let Some((names, way)) = way.split_first() else {
            return value.as_array().map_or(0, |items| items.len() as u64);
        };
        let object = value.as_object().into_iter().flatten();
        let members = object.filter(|(name, _)| names.contains(&name.as_str()));
        members
            .map(|(_, member)| match way {
                [] => along(member, way),
                _ => member
                    .as_array()
                    .map_or(0, |all| all.iter().map(|one| along(one, way)).sum()),
            })
            .sum()
    }
    match format {
        JsonFormat::Traces => along(
            value,
            &[
                &["resourceSpans", "resource_spans"],
                &["scopeSpans", "scope_spans"],
                &["spans"],
            ],
        ),
        JsonFormat::LokiPush => along(value, &[&["streams"], &["values"]]),
        JsonFormat::LokiLegacyPush => along(value, &[&["streams"], &["entries"]]),
        _ => unreachable!("not generated"),
    }
}

/// A text of `value` with white space and escapes that nobody needs; `odd` says where.
fn write(out: &mut String, value: &Value, odd: &mut impl Iterator<Item = u8>) {
    let space = |out: &mut String, odd: &mut dyn Iterator<Item = u8>| {
        out.push_str(["", "", " ", "\n\t", "\r\n "][usize::from(odd.next().unwrap_or(0)) % 5]);
    };
    space(out, odd);
    match value {
        Value::Array(elements) => {
            out.push('[');
            for (n, element) in elements.iter().enumerate() {
                out.push_str(if n > 0 { "," } else { "" });
                write(out, element, odd);
            }
            space(out, odd);
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (n, (name, value)) in members.iter().enumerate() {
                out.push_str(if n > 0 { "," } else { "" });
                space(out, odd);
                if odd.next().unwrap_or(0).is_multiple_of(3) {
                    out.push('"');
                    for c in name.encode_utf16() {
                        out.push_str(&format!("\\u{c:04X}"));
                    }
                    out.push('"');
                } else {
                    out.push_str(&json!(name).to_string());
                }
                space(out, odd);
                out.push(':');
                write(out, value, odd);
            }
            space(out, odd);
            out.push('}');
        }
        plain => out.push_str(&plain.to_string()),
    }
    space(out, odd);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn otlp_in_json_is_counted_as_a_full_decode_counts_it((format, body) in bodies(), cuts in cuts()) {
        if let Some((json_format, value)) = as_json(format, &body) {
            let items = decoded::items(format, &body).unwrap();
            let text = value.to_string();
            prop_assert_eq!(count(json_format, text.as_bytes(), &cuts), Ok(items), "{}", text);
            let text = snake_case(value).to_string();
            prop_assert_eq!(count(json_format, text.as_bytes(), &cuts), Ok(items), "{}", text);
        }
    }

    #[test]
    fn any_json_is_counted_however_it_is_written(
        value in any_json(),
        odd: Vec<u8>,
        cuts in cuts(),
        damages in prop::collection::vec(damage(), 1..3),
    ) {
        let mut text = String::new();
        write(&mut text, &value, &mut odd.iter().copied().cycle().take(10_000));
        for format in [JsonFormat::Traces, JsonFormat::LokiPush, JsonFormat::LokiLegacyPush] {
            prop_assert_eq!(count(format, text.as_bytes(), &cuts), Ok(items(format, &value)), "{}", text);
        }
        let broken = damaged(text.into_bytes(), &damages);
        let counted = count(JsonFormat::Traces, &broken, &cuts);
        prop_assert_eq!(count(JsonFormat::Traces, &broken, &[]), counted, "cut differently");
        match serde_json::from_slice::<IgnoredAny>(&broken) {
            Ok(_) => prop_assert!(counted.is_ok(), "{:?}: {}", counted, String::from_utf8_lossy(&broken)),
            // What stands in strings is not judged.
            Err(error) => prop_assert!(
                counted.is_err() || error.to_string().contains("control character"),
                "{}: {}", error, String::from_utf8_lossy(&broken)
            ),
        }
    }

    #[test]
    fn no_bytes_make_it_panic(body: Vec<u8>, cuts in cuts()) {
        for format in JsonFormat::ALL {
            prop_assert_eq!(count(format, &body, &cuts), count(format, &body, &[]));
        }
    }
}

#[test]
fn of_several_kinds_of_data_the_last_one_counts() {
    let points = |text: &str| {
        let body =
            format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{text}]}}]}}]}}"#);
        count(JsonFormat::Metrics, body.as_bytes(), &[])
    };
    let gauge = r#""gauge":{"dataPoints":[{},{}]}"#;
    let sum = r#""sum":{"data_points":[{}],"aggregationTemporality":2}"#;
    assert_eq!(points(&format!("{{{gauge}}},{{{sum}}}")), Ok(3));
    assert_eq!(points(&format!("{{{gauge},{sum}}}")), Ok(1));
    assert_eq!(points(&format!("{{{sum},{gauge}}},{{{sum}}}")), Ok(3));
    assert_eq!(points(&format!("{{{gauge},\"name\":\"x\"}}")), Ok(2));
    assert_eq!(points(r#"{"gauge":{"x":{"dataPoints":[1,2]}}}"#), Ok(0));
}

#[test]
fn deep_nesting_ends_in_an_error_and_not_in_a_full_stack() {
    let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
    assert_eq!(count(JsonFormat::Logs, &nested(1024), &[]), Ok(0));
    for depth in [1025, 10_000, 1_000_000] {
        let counted = count(JsonFormat::Logs, &nested(depth), &[]);
        assert_eq!(counted, Err(Uncounted::Depth));
    }
}

#[test]
fn what_is_no_json_is_named() {
    for (text, why) in [
        ("", Uncounted::Truncated),
        ("{", Uncounted::Truncated),
        ("[1,2", Uncounted::Truncated),
        (r#"{"a":"b"#, Uncounted::Truncated),
        ("-", Uncounted::Truncated),
        ("01", Uncounted::Json),
        ("1.", Uncounted::Truncated),
        ("1.e5", Uncounted::Json),
        ("+1", Uncounted::Json),
        ("nul", Uncounted::Truncated),
        ("nulL", Uncounted::Json),
        ("[1,]", Uncounted::Json),
        ("{1:2}", Uncounted::Json),
        (r#"{"a" 1}"#, Uncounted::Json),
        (r#"{"a":1,}"#, Uncounted::Json),
        ("[}", Uncounted::Json),
        ("{]", Uncounted::Json),
        ("[1]]", Uncounted::Json),
        ("{} {}", Uncounted::Json),
        (r#""\x""#, Uncounted::Json),
        (r#""\u12G4""#, Uncounted::Json),
        ("'a'", Uncounted::Json),
    ] {
        assert_eq!(
            count(JsonFormat::Logs, text.as_bytes(), &[]),
            Err(why),
            "{text}"
        );
    }
}
