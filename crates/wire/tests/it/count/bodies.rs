//! Bodies as no encoder writes them and every decoder reads them: fields in any order and any number, kinds of a oneof one
//! after the other, unknown fields of every wire type, groups, and numbers longer than they need to be.

use proptest::prelude::*;
use wire::count::Format;

/// A field as it is written.
#[derive(Debug, Clone)]
struct Field {
    number: u32,
    value: Value,
    /// By how many bytes key and length are longer than they need to be.
    padding: (usize, usize),
}

#[derive(Debug, Clone)]
enum Value {
    Varint(u64),
    I64([u8; 8]),
    I32([u8; 4]),
    Bytes(Vec<u8>),
    Message(Vec<Field>),
    Group(Vec<Field>),
}

/// What the schema has at one depth: fields that lead to items, and fields beside them with a value that decoders take.
struct Level {
    path: &'static [u32],
    beside: Vec<(u32, Value)>,
}

/// A body of `format`.
pub(super) fn body(format: Format) -> impl Strategy<Value = Vec<u8>> {
    message(format, 0).prop_map(|fields| {
        let mut body = Vec::new();
        write_all(&mut body, &fields);
        body
    })
}

/// The content of a message with `depth` messages around it.
fn message(format: Format, depth: usize) -> BoxedStrategy<Vec<Field>> {
    let Some(level) = level(format, depth) else {
        // Inside an item.
        return prop::collection::vec(unknown(1), 0..2).boxed();
    };
    let inner = message(format, depth + 1).prop_map(Value::Message);
    let path = (prop::sample::select(level.path), inner, padding()).prop_map(field);
    if level.beside.is_empty() {
        return prop::collection::vec(prop_oneof![3 => path, 1 => unknown(3)], 0..4).boxed();
    }
    let beside = (prop::sample::select(level.beside), padding())
        .prop_map(|((number, value), padding)| field((number, value, padding)));
    prop::collection::vec(prop_oneof![3 => path, 1 => beside, 1 => unknown(3)], 0..4).boxed()
}

fn field((number, value, padding): (u32, Value, (usize, usize))) -> Field {
    Field {
        number,
        value,
        padding,
    }
}

/// A field that no schema knows, with groups up to `groups` deep.
fn unknown(groups: u32) -> BoxedStrategy<Field> {
    let plain = prop_oneof![
        any::<u64>().prop_map(Value::Varint),
        any::<[u8; 8]>().prop_map(Value::I64),
        any::<[u8; 4]>().prop_map(Value::I32),
        prop::collection::vec(any::<u8>(), 0..200).prop_map(Value::Bytes),
    ];
    let value = if groups == 0 {
        plain.boxed()
    } else {
        let group = prop::collection::vec(inside_group(groups - 1), 0..3).prop_map(Value::Group);
        prop_oneof![4 => plain, 1 => group].boxed()
    };
    (100..1_u32 << 29, value, padding()).prop_map(field).boxed()
}

/// Like an unknown field, but its number may be one that leads to items outside of the group.
fn inside_group(groups: u32) -> BoxedStrategy<Field> {
    (unknown(groups), prop::option::of(1..12_u32))
        .prop_map(|(field, number)| Field {
            number: number.unwrap_or(field.number),
            ..field
        })
        .boxed()
}

fn padding() -> impl Strategy<Value = (usize, usize)> {
    prop_oneof![4 => Just((0, 0)), 1 => (0..10_usize, 0..10_usize)]
}

fn level(format: Format, depth: usize) -> Option<Level> {
    let text = || Value::Bytes("Köln".into());
    let empty = || Value::Bytes(Vec::new());
    let level = |path, beside| Some(Level { path, beside });
    match (format, depth) {
        (Format::Traces | Format::Logs | Format::Metrics | Format::LokiPush, 0) => {
            level(&[1], vec![])
        }
        (Format::Profiles, 0) => level(&[1], vec![(2, empty())]),
        (Format::Traces | Format::Logs | Format::Metrics | Format::Profiles, 1 | 2) => {
            level(&[2], vec![(1, empty()), (3, text())])
        }
        (Format::Metrics, 3) => level(
            &[5, 7, 9, 10, 11],
            vec![(1, text()), (3, text()), (12, empty())],
        ),
        (Format::Metrics, 4) => level(&[1], vec![(2, Value::Varint(2)), (3, Value::Varint(1))]),
        (Format::Profiles, 3) => level(
            &[2],
            vec![(1, empty()), (3, Value::I64([7; 8])), (9, text())],
        ),
        (Format::RemoteWrite1, 0) => level(&[1], vec![(3, empty())]),
        (Format::RemoteWrite1, 1) => level(&[2, 4], vec![(1, empty()), (3, empty())]),
        (Format::RemoteWrite2, 0) => level(&[5], vec![(4, text())]),
        (Format::RemoteWrite2, 1) => {
            // Label references come packed and one by one.
            let packed = Value::Bytes(vec![1, 2, 3]);
            level(
                &[2, 3],
                vec![
                    (1, packed),
                    (1, Value::Varint(4)),
                    (4, empty()),
                    (5, empty()),
                ],
            )
        }
        (Format::LokiPush, 1) => level(&[2], vec![(1, text()), (3, Value::Varint(u64::MAX))]),
        _ => None,
    }
}

fn write_all(out: &mut Vec<u8>, fields: &[Field]) {
    for field in fields {
        write(out, field);
    }
}

fn write(out: &mut Vec<u8>, field: &Field) {
    let key = |wire_type| u64::from(field.number) << 3 | wire_type;
    let (of_key, of_length) = field.padding;
    match &field.value {
        Value::Varint(number) => {
            write_varint(out, key(0), of_key);
            write_varint(out, *number, of_length);
        }
        Value::I64(bytes) => {
            write_varint(out, key(1), of_key);
            out.extend_from_slice(bytes);
        }
        Value::I32(bytes) => {
            write_varint(out, key(5), of_key);
            out.extend_from_slice(bytes);
        }
        Value::Bytes(bytes) => {
            write_varint(out, key(2), of_key);
            write_varint(out, bytes.len() as u64, of_length);
            out.extend_from_slice(bytes);
        }
        Value::Message(fields) => {
            let mut content = Vec::new();
            write_all(&mut content, fields);
            write_varint(out, key(2), of_key);
            write_varint(out, content.len() as u64, of_length);
            out.extend_from_slice(&content);
        }
        Value::Group(fields) => {
            write_varint(out, key(3), of_key);
            write_all(out, fields);
            write_varint(out, key(4), of_length);
        }
    }
}

/// Writes a number in `padding` more bytes than it needs, but in ten at most.
fn write_varint(out: &mut Vec<u8>, number: u64, padding: usize) {
    let needed = (64 - (number | 1).leading_zeros() as usize).div_ceil(7);
    let length = (needed + padding).min(10);
    for at in 0..length {
        let bits = u8::try_from(number >> (7 * at) & 0x7f).unwrap();
        out.push(if at + 1 < length { bits | 0x80 } else { bits });
    }
}
