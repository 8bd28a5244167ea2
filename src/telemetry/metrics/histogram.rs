//! How long things took, as one worker counts it.
//!
//! In: durations. Out: counts per bucket and their sum. The buckets are fixed for the life of the process; sums of
//! workers are sums of buckets.

use std::time::Duration;

use super::outcome::Counter;

/// Upper bounds in microseconds, inclusive. From what the proxy adds by itself (about a millisecond at the very most)
/// to the longest default deadline (120 s until the first byte).
const BOUNDS: [u64; 16] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
];

/// One worker's durations of one kind.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// The last one has no bound.
    buckets: [Counter; BOUNDS.len() + 1],
    /// Microseconds: ten thousand requests at a time would overflow nanoseconds within three weeks.
    sum: Counter,
}

impl Histogram {
    /// One more duration. For the owner only.
    pub(super) fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.buckets[BOUNDS.partition_point(|bound| *bound < micros)].add(1);
        self.sum.add(micros);
    }
}

/// Durations of all workers.
#[derive(Debug, Default)]
pub(super) struct Durations {
    buckets: [u64; BOUNDS.len() + 1],
    sum: u64,
}

impl Durations {
    pub(super) fn add(&mut self, worker: &Histogram) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&worker.buckets) {
            *sum += bucket.get();
        }
        self.sum += worker.sum.get();
    }

    /// Seconds in all.
    pub(super) fn sum(&self) -> f64 {
        self.sum as f64 / 1e6
    }

    /// How many durations.
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Upper bound in seconds and the number in that bucket alone.
    pub(super) fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = BOUNDS.iter().map(|micros| *micros as f64 / 1e6).chain([f64::INFINITY]);
        bounds.zip(self.buckets).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_whose_bound_it_does_not_exceed() {
        let worker = Histogram::default();
        for micros in [0, 1_000, 1_001, 120_000_000, 120_000_001] {
            worker.observe(Duration::from_micros(micros));
        }
        let mut all = Durations::default();
        all.add(&worker);
        all.add(&worker);
        let buckets = all.buckets();
        assert_eq!(buckets[0], (0.001, 4));
        assert_eq!(buckets[1], (0.0025, 2));
        assert_eq!(buckets[15], (120.0, 2));
        assert_eq!(buckets[16], (f64::INFINITY, 2));
        assert_eq!(all.count(), 10);
        assert!((all.sum() - 480.004_004).abs() < 1e-9);
    }
}
