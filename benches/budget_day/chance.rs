//! Numbers that look random and are the same in every run.

use std::time::Duration;

/// A stream of them (Steele, Lea and Flood's SplitMix64).
#[derive(Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    /// One for each purpose, so that a further one changes none of the others.
    pub(crate) fn of(purpose: u64, number: u64) -> Self {
        let mut chance = Self(purpose << 40 ^ number);
        chance.next();
        chance
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    /// From 0 up to, but not, 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From 0 up to, but not, `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.unit() * end as f64) as usize
    }

    /// Any time between the two, in milliseconds.
    pub(crate) fn millis(&mut self, least: f64, most: f64) -> Duration {
        Duration::from_secs_f64((least + (most - least) * self.unit()) / 1000.0)
    }

    /// How long until the next of events that come so many times a second.
    pub(crate) fn gap(&mut self, per_second: f64) -> Duration {
        Duration::from_secs_f64((-(1.0 - self.unit()).ln() / per_second).min(1e6))
    }
}
