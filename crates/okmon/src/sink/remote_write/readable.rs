//! Remote-write messages as JSON for people and tests: one shape for both versions, symbols resolved.
//!
//! Labels are an object, times milliseconds since the Unix epoch. Values are numbers, or one of the texts `NaN`,
//! `+Inf`, `-Inf` and `StaleNaN`, because JSON has no such numbers. What is absent or 0 in the message may be left out.

use serde_json::{Map, Value, json};
use wire::prometheus::{v1 as one, v2 as two};

/// The NaN with which Prometheus ends a series (`model/value/value.go`).
const STALE_NAN: u64 = 0x7ff0_0000_0000_0002;

/// A reference that points nowhere, or a name without a value.
#[derive(Debug, thiserror::Error)]
#[error("timeseries[{series}]: {what}")]
pub(super) struct BadReference {
    series: usize,
    what: String,
}

/// `{"timeseries": [{"labels", "samples", "exemplars", "histograms"}], "metadata": [...]}`
pub(super) fn v1(request: &one::WriteRequest) -> Value {
    let labels = |labels: &[one::Label]| -> Value {
        let pair = |label: &one::Label| (label.name.clone(), Value::from(&*label.value));
        labels.iter().map(pair).collect::<Map<_, _>>().into()
    };
    let series = |series: &one::TimeSeries| {
        let samples = series.samples.iter();
        let exemplars = series.exemplars.iter();
        let histograms = series.histograms.iter();
        json!({
            "labels": labels(&series.labels),
            "samples": list(samples.map(|it| json!({"value": number(it.value), "timestamp": it.timestamp}))),
            "exemplars": list(exemplars.map(|it| {
                json!({"labels": labels(&it.labels), "value": number(it.value), "timestamp": it.timestamp})
            })),
            "histograms": list(histograms.map(histogram_v1)),
        })
    };
    let metadata = |metadata: &one::MetricMetadata| {
        json!({
            "metric_family_name": metadata.metric_family_name,
            "type": metadata.r#type().as_str_name().to_ascii_lowercase(),
            "help": metadata.help,
            "unit": metadata.unit,
        })
    };
    json!({
        "timeseries": list(request.timeseries.iter().map(series)),
        "metadata": list(request.metadata.iter().map(metadata)),
    })
}

/// `{"timeseries": [{"labels", "samples", "exemplars", "histograms", "metadata"}]}`
pub(super) fn v2(request: &two::Request) -> Result<Value, BadReference> {
    let series = request.timeseries.iter().enumerate().map(|(n, series)| {
        series_v2(&request.symbols, series).map_err(|what| BadReference { series: n, what })
    });
    Ok(json!({"timeseries": series.collect::<Result<Value, _>>()?}))
}

fn series_v2(symbols: &[String], series: &two::TimeSeries) -> Result<Value, String> {
    let sample = |it: &two::Sample| {
        let sample = json!({"value": number(it.value), "timestamp": it.timestamp});
        with_start(sample, it.start_timestamp)
    };
    let exemplar = |it: &two::Exemplar| -> Result<Value, String> {
        let labels = labels_v2(symbols, &it.labels_refs)?;
        Ok(json!({"labels": labels, "value": number(it.value), "timestamp": it.timestamp}))
    };
    let histogram = |it: &two::Histogram| with_start(histogram_v2(it), it.start_timestamp);
    let metadata = match &series.metadata {
        None => Value::Null,
        Some(metadata) => json!({
            "type": metadata.r#type().as_str_name().trim_start_matches("METRIC_TYPE_").to_ascii_lowercase(),
            "help": symbol(symbols, metadata.help_ref)?,
            "unit": symbol(symbols, metadata.unit_ref)?,
        }),
    };
    Ok(json!({
        "labels": labels_v2(symbols, &series.labels_refs)?,
        "samples": list(series.samples.iter().map(sample)),
        "exemplars": series.exemplars.iter().map(exemplar).collect::<Result<Value, _>>()?,
        "histograms": list(series.histograms.iter().map(histogram)),
        "metadata": metadata,
    }))
}

fn labels_v2(symbols: &[String], refs: &[u32]) -> Result<Map<String, Value>, String> {
    let pair = |pair: &[u32]| match pair {
        [name, value] => Ok((
            symbol(symbols, *name)?.to_owned(),
            symbol(symbols, *value)?.into(),
        )),
        _ => Err(format!(
            "labels_refs has {} entries, want an even number",
            refs.len()
        )),
    };
    refs.chunks(2).map(pair).collect()
}

fn symbol(symbols: &[String], reference: u32) -> Result<&str, String> {
    let found = usize::try_from(reference)
        .ok()
        .and_then(|index| symbols.get(index));
    // Metadata refers to the first symbol for "none", which a message without symbols leaves out.
    match found {
        Some(text) => Ok(text),
        None if reference == 0 => Ok(""),
        None => Err(format!(
            "symbol {reference} of {} does not exist",
            symbols.len()
        )),
    }
}

fn with_start(mut value: Value, start_timestamp: i64) -> Value {
    if let (Some(fields), true) = (value.as_object_mut(), start_timestamp != 0) {
        fields.insert("start_timestamp".to_owned(), start_timestamp.into());
    }
    value
}

/// The histograms of both versions have the same fields but are different types.
macro_rules! histogram {
    ($name:ident, $version:ident) => {
        fn $name(it: &$version::Histogram) -> Value {
            use $version::histogram::{Count, ZeroCount};
            let spans = |spans: &[$version::BucketSpan]| {
                list(spans.iter().map(|span| json!({"offset": span.offset, "length": span.length})))
            };
            let count = match it.count {
                Some(Count::CountInt(count)) => count.into(),
                Some(Count::CountFloat(count)) => number(count),
                None => Value::Null,
            };
            let zero_count = match it.zero_count {
                Some(ZeroCount::ZeroCountInt(count)) => count.into(),
                Some(ZeroCount::ZeroCountFloat(count)) => number(count),
                None => Value::Null,
            };
            let mut fields = json!({
                "timestamp": it.timestamp,
                "count": count,
                "sum": number(it.sum),
                "schema": it.schema,
                "zero_threshold": number(it.zero_threshold),
                "zero_count": zero_count,
                "negative_spans": spans(&it.negative_spans),
                "negative_deltas": it.negative_deltas,
                "negative_counts": numbers(&it.negative_counts),
                "positive_spans": spans(&it.positive_spans),
                "positive_deltas": it.positive_deltas,
                "positive_counts": numbers(&it.positive_counts),
                "custom_values": numbers(&it.custom_values),
                "reset_hint": it.reset_hint().as_str_name().trim_start_matches("RESET_HINT_").to_ascii_lowercase(),
            });
            if let Some(fields) = fields.as_object_mut() {
                fields.retain(|_, value| !value.as_array().is_some_and(Vec::is_empty));
            }
            fields
        }
    };
}

histogram!(histogram_v1, one);
histogram!(histogram_v2, two);

fn list(values: impl Iterator<Item = Value>) -> Value {
    Value::Array(values.collect())
}

fn numbers(values: &[f64]) -> Value {
    list(values.iter().copied().map(number))
}

fn number(value: f64) -> Value {
    if value.to_bits() == STALE_NAN {
        "StaleNaN".into()
    } else if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.into()
    } else {
        value.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_json_has_no_number_for_are_told_apart() {
        let special = [
            f64::from_bits(STALE_NAN),
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            0.5,
        ];
        assert_eq!(
            numbers(&special),
            json!(["StaleNaN", "NaN", "+Inf", "-Inf", 0.5])
        );
    }
}
