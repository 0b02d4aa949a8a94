//! What a credential costs before the keyring is asked: form, checksum and digest.
#![expect(
    clippy::expect_used,
    reason = "a benchmark that cannot be set up should stop"
)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use model::ApiKey;

fn keys(c: &mut Criterion) {
    let key = ApiKey::generate().expect("randomness");
    let text = key.reveal().to_owned();
    let mut wrong = text.clone().into_bytes();
    wrong.swap(20, 21);
    c.bench_function("parse a key and digest it", |b| {
        b.iter(|| ApiKey::parse(black_box(text.as_bytes())).map(|key| key.digest()));
    });
    c.bench_function("refuse a key with a wrong checksum", |b| {
        b.iter(|| ApiKey::parse(black_box(&wrong)).is_err());
    });
}

criterion_group!(benches, keys);
criterion_main!(benches);
