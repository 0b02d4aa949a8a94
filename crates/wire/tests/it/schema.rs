//! The messages read bytes that were written by hand from the published schemas.

use prost::Message as _;
use wire::loki::PushRequest;
use wire::prometheus::{v1, v2};

/// A length-delimited field with a number under 16 and less than 128 bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap();
    assert!(number < 16 && length < 128);
    [&[number << 3 | 2, length], content].concat()
}

/// A double field with a number under 16.
fn double(number: u8, value: f64) -> Vec<u8> {
    [&[number << 3 | 1][..], &value.to_le_bytes()].concat()
}

#[test]
fn remote_write_1_has_exemplars_at_3_and_histograms_at_4() {
    let label = field(1, &[field(1, b"job"), field(2, b"a")].concat());
    let sample = field(2, &[double(1, 1.5), vec![0x10, 7]].concat());
    let exemplar = field(3, &double(2, 2.5));
    let histogram = field(4, &[double(3, 3.5), vec![0x20, 0x69]].concat());
    let bytes = field(1, &[label, sample, exemplar, histogram].concat());

    let request = v1::WriteRequest::decode(&*bytes).unwrap();

    let series = &request.timeseries[0];
    assert_eq!(series.labels[0].name, "job");
    assert_eq!(
        (series.samples[0].value, series.samples[0].timestamp),
        (1.5, 7)
    );
    assert_eq!(series.exemplars[0].value, 2.5);
    // 0x69 is the zigzag form of -53.
    assert_eq!(
        (series.histograms[0].sum, series.histograms[0].schema),
        (3.5, -53)
    );
    assert_eq!(request.encode_to_vec(), bytes);
}

#[test]
fn remote_write_2_has_histograms_at_3_and_exemplars_at_4() {
    let sample = field(2, &[double(1, 1.5), vec![0x10, 7, 0x18, 5]].concat());
    let histogram = field(3, &[&double(3, 3.5)[..], &[0x88, 0x01, 9]].concat());
    let exemplar = field(4, &double(2, 2.5));
    let metadata = field(5, &[0x08, 1, 0x18, 2, 0x20, 3]);
    let series = [field(1, &[1, 2]), sample, histogram, exemplar, metadata].concat();
    let bytes = [
        field(4, b""),
        field(4, b"job"),
        field(4, b"a"),
        field(5, &series),
    ]
    .concat();

    let request = v2::Request::decode(&*bytes).unwrap();

    assert_eq!(request.symbols, ["", "job", "a"]);
    let series = &request.timeseries[0];
    assert_eq!(series.labels_refs, [1, 2]);
    assert_eq!(series.samples[0].start_timestamp, 5);
    assert_eq!(
        (
            series.histograms[0].sum,
            series.histograms[0].start_timestamp
        ),
        (3.5, 9)
    );
    assert_eq!(series.exemplars[0].value, 2.5);
    let metadata = series.metadata.unwrap();
    assert_eq!(
        (metadata.r#type, metadata.help_ref, metadata.unit_ref),
        (1, 2, 3)
    );
    assert_eq!(request.encode_to_vec(), bytes);
}

#[test]
fn either_remote_write_reads_the_other_as_empty() {
    let one = field(1, &field(1, &field(1, b"job")));
    let two = [field(4, b""), field(5, &field(1, &[0, 0]))].concat();
    assert_eq!(v2::Request::decode(&*one).unwrap(), v2::Request::default());
    assert_eq!(
        v1::WriteRequest::decode(&*two).unwrap(),
        v1::WriteRequest::default()
    );
}

#[test]
fn loki_push_has_labels_entries_and_structured_metadata() {
    let pair = field(3, &[field(1, b"k"), field(2, b"v")].concat());
    let entry = field(
        2,
        &[field(1, &[0x08, 3, 0x10, 4]), field(2, b"line"), pair].concat(),
    );
    let bytes = field(1, &[field(1, b"{a=\"b\"}"), entry, vec![0x18, 9]].concat());

    let request = PushRequest::decode(&*bytes).unwrap();

    let stream = &request.streams[0];
    assert_eq!((stream.labels.as_str(), stream.hash), ("{a=\"b\"}", 9));
    let entry = &stream.entries[0];
    assert_eq!(entry.line, "line");
    assert_eq!(entry.timestamp.map(|t| (t.seconds, t.nanos)), Some((3, 4)));
    assert_eq!(entry.structured_metadata[0].value, "v");
    assert_eq!(request.encode_to_vec(), bytes);
}
