//! Counting on the wire finds what a full decode finds, however the body is written and cut.

mod bodies;
mod decoded;
mod inflated;
mod json;

use proptest::prelude::*;
use proptest::sample::Index;
use wire::count::{Counter, Format, Uncounted};

/// Counts `body` in frames that end at `cuts`.
fn count(format: Format, body: &[u8], cuts: &[Index]) -> Result<u64, Uncounted> {
    let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
    ends.sort_unstable();
    let mut counter = Counter::new(format);
    let (mut rest, mut start) = (body, 0);
    for end in ends {
        let (frame, after) = rest.split_at(end - start);
        counter.push(frame);
        (rest, start) = (after, end);
    }
    counter.push(rest);
    counter.finish()
}

/// What holds for every body, whoever wrote it.
fn check(format: Format, body: &[u8], cuts: &[Index]) -> Result<(), TestCaseError> {
    let counted = count(format, body, &[]);
    prop_assert_eq!(count(format, body, cuts), counted, "cut differently");
    if let Ok(items) = decoded::items(format, body) {
        prop_assert_eq!(counted, Ok(items), "a full decode finds as many");
    }
    match decoded::skeleton(format, body) {
        Ok(items) => prop_assert_eq!(counted, Ok(items), "the way to the items is whole"),
        Err(error) => prop_assert!(
            counted.is_err() || decoded::is_about_groups(&error),
            "the way to the items is damaged: {}, yet {:?}",
            error,
            counted
        ),
    }
    Ok(())
}

fn cuts() -> impl Strategy<Value = Vec<Index>> {
    prop::collection::vec(any::<Index>(), 0..12)
}

fn formats() -> impl Strategy<Value = Format> {
    prop::sample::select(Format::ALL.to_vec())
}

fn bodies() -> impl Strategy<Value = (Format, Vec<u8>)> {
    formats().prop_flat_map(|format| (Just(format), bodies::body(format)))
}

/// One change to a body.
#[derive(Debug, Clone)]
enum Damage {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index),
    End(Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        (at(), prop::collection::vec(any::<u8>(), 1..4))
            .prop_map(|(at, new)| Damage::Insert(at, new)),
        at().prop_map(Damage::Remove),
        at().prop_map(Damage::End),
    ]
}

fn damaged(mut body: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        match damage {
            _ if body.is_empty() => {}
            Damage::Set(at, byte) => *at.get_mut(&mut body) = *byte,
            Damage::Insert(at, new) => {
                let at = at.index(body.len());
                body.splice(at..at, new.iter().copied());
            }
            Damage::Remove(at) => {
                body.remove(at.index(body.len()));
            }
            Damage::End(at) => body.truncate(at.index(body.len())),
        }
    }
    body
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_body_is_counted_as_a_full_decode_counts_it((format, body) in bodies(), cuts in cuts()) {
        let items = decoded::items(format, &body);
        prop_assert!(items.is_ok(), "the generator writes what decoders take: {items:?}");
        check(format, &body, &cuts)?;
    }

    #[test]
    fn a_damaged_body_is_judged_as_decoders_judge_it(
        (format, body) in bodies(),
        damages in prop::collection::vec(damage(), 1..4),
        cuts in cuts(),
    ) {
        check(format, &damaged(body, &damages), &cuts)?;
    }

    #[test]
    fn no_bytes_make_counting_panic(format in formats(), body: Vec<u8>, cuts in cuts()) {
        check(format, &body, &cuts)?;
    }
}

#[test]
fn bodies_that_real_senders_sent_are_counted() {
    let recorded: [(&str, Format, u64); 9] = [
        ("python.traces", Format::Traces, 3),
        ("python.metrics", Format::Metrics, 7),
        ("python.logs", Format::Logs, 2),
        ("js.traces", Format::Traces, 3),
        ("js.metrics", Format::Metrics, 2),
        ("js.logs", Format::Logs, 2),
        ("winston.loki", Format::LokiPush, 2),
        ("prometheus.remote_write1", Format::RemoteWrite1, 28),
        ("prometheus.remote_write2", Format::RemoteWrite2, 28),
    ];
    for (file, format, items) in recorded {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        let body = std::fs::read(folder.join(file)).unwrap();
        assert_eq!(decoded::items(format, &body).unwrap(), items, "{file}");
        for size in 1..=body.len() {
            let mut counter = Counter::new(format);
            for frame in body.chunks(size) {
                counter.push(frame);
            }
            assert_eq!(counter.finish(), Ok(items), "{file} in frames of {size}");
        }
        for end in 0..body.len() {
            let cut_short = &body[..end];
            assert_eq!(
                count(format, cut_short, &[]).ok(),
                decoded::skeleton(format, cut_short).ok(),
                "{file} cut short at {end}"
            );
        }
    }
}
