use super::*;

fn count(format: Format, body: &[u8]) -> Result<u64, Uncounted> {
    let mut counter = Counter::new(format);
    counter.push(body);
    let whole = counter.finish();
    let mut counter = Counter::new(format);
    for byte in body {
        counter.push(&[*byte]);
    }
    assert_eq!(counter.finish(), whole, "byte by byte");
    whole
}

/// A length-delimited field with a number under 16 and less than 128 bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap();
    assert!(number < 16 && length < 128);
    [&[number << 3 | 2, length], content].concat()
}

/// A metrics request with one metric of this content.
fn metric(content: &[Vec<u8>]) -> Vec<u8> {
    field(1, &field(2, &field(2, &content.concat())))
}

#[test]
fn an_empty_body_has_no_items() {
    for format in Format::ALL {
        assert_eq!(count(format, &[]), Ok(0));
    }
}

#[test]
fn samples_and_histograms_are_items_and_exemplars_are_none() {
    let series = |numbers: &[u8]| {
        numbers
            .iter()
            .flat_map(|n| field(*n, b""))
            .collect::<Vec<_>>()
    };
    // 1.0 has exemplars at 3, 2.0 has them at 4.
    let fields = series(&[1, 2, 2, 3, 4, 4, 4]);
    assert_eq!(count(Format::RemoteWrite1, &field(1, &fields)), Ok(5));
    assert_eq!(count(Format::RemoteWrite2, &field(5, &fields)), Ok(3));
    // Either reads the other's body as empty.
    assert_eq!(count(Format::RemoteWrite1, &field(5, &fields)), Ok(0));
    assert_eq!(count(Format::RemoteWrite2, &field(1, &fields)), Ok(0));
}

#[test]
fn the_last_kind_of_a_metric_counts_and_blocks_of_it_merge() {
    let (one, two) = (field(1, b""), [field(1, b""), field(1, b"")].concat());
    let (gauge, sum) = (
        |points: &[u8]| field(5, points),
        |points: &[u8]| field(7, points),
    );
    let points = |content: &[Vec<u8>]| count(Format::Metrics, &metric(content));
    assert_eq!(points(&[gauge(&one), gauge(&two)]), Ok(3));
    assert_eq!(points(&[gauge(&two), sum(&one)]), Ok(1));
    assert_eq!(points(&[gauge(&two), sum(&one), gauge(&one)]), Ok(1));
    assert_eq!(points(&[gauge(&two), sum(b"")]), Ok(0));
    // What came before the metric stays.
    let two_metrics = [metric(&[gauge(&two)]), metric(&[sum(&one), gauge(&one)])].concat();
    assert_eq!(count(Format::Metrics, &two_metrics), Ok(3));
}

#[test]
fn damage_on_the_way_to_the_items_is_named() {
    let cases: [(&[u8], Uncounted); 14] = [
        // An entry that is announced longer than its stream.
        (&[0x0a, 0x02, 0x12, 0x01, 0x00], Uncounted::Overrun),
        // A key, a length and a number that reach beyond their stream.
        (&[0x0a, 0x01, 0x92, 0x01, 0x00], Uncounted::Overrun),
        (&[0x0a, 0x01, 0x12, 0x00], Uncounted::Overrun),
        (&[0x0a, 0x01, 0x18, 0x00], Uncounted::Overrun),
        // The body ends in a key, before a length, in an entry, in a stream.
        (&[0x8a], Uncounted::Truncated),
        (&[0x0a], Uncounted::Truncated),
        (&[0x0a, 0x04, 0x12, 0x02, 0x00], Uncounted::Truncated),
        (&[0x0a, 0x04, 0x12, 0x00], Uncounted::Truncated),
        // Eleven bytes; more than 64 bits.
        (&[0x80; 11], Uncounted::Varint),
        (
            &[
                0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02,
            ],
            Uncounted::Varint,
        ),
        // Field 0; a key of 33 bits that says 1 to those who cut it off.
        (&[0x02, 0x00], Uncounted::FieldNumber),
        (
            &[0x8a, 0x80, 0x80, 0x80, 0x80, 0x01, 0x00],
            Uncounted::FieldNumber,
        ),
        // Streams as a number; wire type 7.
        (&[0x08, 0x00], Uncounted::WireType),
        (&[0x1f], Uncounted::WireType),
    ];
    for (body, why) in cases {
        assert_eq!(count(Format::LokiPush, body), Err(why), "{body:02x?}");
    }
}

#[test]
fn a_group_is_passed_over_with_all_that_is_in_it() {
    // A group of field 9 with streams and a group inside.
    let inside = [&field(1, &field(2, b""))[..], &[0x53, 0x54]].concat();
    let group = [&[0x4b], &inside[..], &[0x4c]].concat();
    let body = [
        &field(1, &field(2, b""))[..],
        &group,
        &field(1, &field(2, b"")),
    ]
    .concat();
    assert_eq!(count(Format::LokiPush, &body), Ok(2));
    // Not begun; not ended; not ended within the stream.
    assert_eq!(count(Format::LokiPush, &[0x4c]), Err(Uncounted::Group));
    assert_eq!(count(Format::LokiPush, &[0x4b]), Err(Uncounted::Group));
    let open = [&field(1, &[0x4b, 0x20, 0x01])[..], &[0x4c]].concat();
    assert_eq!(count(Format::LokiPush, &open), Err(Uncounted::Group));
}

#[test]
fn lengths_near_the_largest_number_do_not_overflow() {
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    for key in [0x0a, 0x12] {
        let body = [&[key], &huge[..], &[0; 64]].concat();
        assert!(count(Format::LokiPush, &body).is_err());
        let nested = [&[0x0a, 0x0b, key], &huge[..]].concat();
        assert!(count(Format::LokiPush, &nested).is_err());
    }
}
