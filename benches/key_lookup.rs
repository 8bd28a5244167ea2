//! What a look-up of a property's key costs, and whether it grows with the number of keys.
//!
//! In: key files of 1, 1,000 and 100,000 rows, read by the code that reads real ones. Out: the time of one
//! [`KeySet::get`] with ids in no order, of one that finds nothing, and of reading the largest file.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a benchmark may end itself")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;

use cloudbeds_auth_proxy::keys::KeySet;
use cloudbeds_auth_proxy::property::PropertyId;
use cloudbeds_auth_proxy::sandbox::random_key;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

/// Ids of the length seen in the field.
const FIRST: u64 = 100_000_000_000_001;

fn file(rows: u64) -> String {
    let mut text = String::new();
    for id in 0..rows {
        writeln!(text, "\"{}\": {}", FIRST + id, random_key()).unwrap();
    }
    text
}

fn id(number: u64) -> PropertyId {
    number.to_string().parse().unwrap()
}

/// Ids of the file in no order, so that neighbouring look-ups touch different parts of the map.
fn shuffled(rows: u64) -> Vec<PropertyId> {
    // An odd multiplier that shares no factor with the row counts visits every row.
    (0..rows.min(65_536)).map(|at| id(FIRST + at * 7_919 % rows)).collect()
}

fn look_up(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("key_lookup");
    for rows in [1, 1_000, 100_000] {
        let keys = KeySet::parse("bench", &file(rows)).unwrap_or_else(|faults| panic!("{faults:?}"));
        let wanted = shuffled(rows);
        let mut next = wanted.iter().cycle();
        group.bench_function(BenchmarkId::new("found", rows), |bench| {
            bench.iter(|| keys.get(black_box(*next.next().unwrap())).is_some());
        });
        let stranger = id(7);
        group.bench_function(BenchmarkId::new("unknown", rows), |bench| {
            bench.iter(|| keys.get(black_box(stranger)).is_some());
        });
    }
    group.finish();
}

fn load(criterion: &mut Criterion) {
    let text = file(100_000);
    let mut group = criterion.benchmark_group("key_file");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    group.bench_function("parse_100000", |bench| {
        bench.iter(|| KeySet::parse("bench", black_box(&text)).unwrap_or_else(|faults| panic!("{faults:?}")));
    });
    group.finish();
}

criterion_group!(benches, look_up, load);
criterion_main!(benches);
