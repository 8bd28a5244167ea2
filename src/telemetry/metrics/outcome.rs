//! How requests ended, counted: one number per class of status and error code that really occurred.
//!
//! In: outcomes from the one thread that owns the counters. Out: their counts, to any thread. What has not happened
//! takes no memory, so that 100,000 properties are affordable.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::property::PropertyId;
use crate::wire::problem::Code;

/// A counter with one writer and any number of readers.
///
/// A load and a store instead of one atomic addition, which would cost the core a locked instruction. Two writers
/// would lose counts, hence [`super::Recorder`] can be neither cloned nor shared.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    /// For the owner.
    pub(super) fn add(&self, more: u64) {
        self.0.store(self.get().wrapping_add(more), Ordering::Relaxed);
    }

    /// For anyone.
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The class of the status that was answered, and our error code if there was one.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Outcome {
    /// The status' first digit; 0 for a status outside 100 to 599.
    class: u8,
    /// A [`Code`]'s number, or [`UPSTREAMS_OWN`].
    code: u8,
}

/// In the place of a code: the answer is the upstream's.
const UPSTREAMS_OWN: u8 = u8::MAX;

impl Outcome {
    /// What to count a request under.
    pub(super) fn new(status: u16, code: Option<Code>) -> Self {
        let class = match status {
            100..=599 => (status / 100) as u8,
            _ => 0,
        };
        Self { class, code: code.map_or(UPSTREAMS_OWN, |code| code as u8) }
    }

    /// The label `class`.
    pub(super) fn class(self) -> &'static str {
        match self.class {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            5 => "5xx",
            _ => "other",
        }
    }

    /// The label `code`.
    pub(super) fn code(self) -> &'static str {
        Code::ALL.get(usize::from(self.code)).map_or("", |code| code.as_str())
    }
}

/// Counts as a reader holds them.
pub(super) type Counts = BTreeMap<Outcome, u64>;

/// Counts as their owner holds them: a list that only grows. The outcome that came first, nearly always success, is
/// found first; a walk to the end passes as many as there have been kinds of outcome.
#[derive(Debug, Default)]
pub(super) struct Outcomes(OnceLock<Box<Entry>>);

#[derive(Debug)]
struct Entry {
    outcome: Outcome,
    count: Counter,
    next: Outcomes,
}

impl Outcomes {
    /// One more of these. For the owner only.
    pub(super) fn count(&self, outcome: Outcome) {
        self.first(outcome).count(outcome);
    }

    /// Adds all counts to `sums`.
    pub(super) fn add_to(&self, sums: &mut Counts) {
        if let Some(first) = self.0.get() {
            first.add_to(sums);
        }
    }

    /// The first entry; where there is none yet, it is for this outcome.
    fn first(&self, outcome: Outcome) -> &Entry {
        self.0.get_or_init(|| Box::new(Entry::new(outcome)))
    }
}

impl Entry {
    fn new(outcome: Outcome) -> Self {
        Self { outcome, count: Counter::default(), next: Outcomes::default() }
    }

    fn count(&self, outcome: Outcome) {
        let mut entry = self;
        while entry.outcome != outcome {
            entry = entry.next.first(outcome);
        }
        entry.count.add(1);
    }

    fn add_to(&self, sums: &mut Counts) {
        let mut place = Some(self);
        while let Some(entry) = place {
            *sums.entry(entry.outcome).or_default() += entry.count.get();
            place = entry.next.0.get().map(|next| &**next);
        }
    }
}

/// One worker's counts for one property, of which there is a first one. That is in here: with many properties each step to
/// another place in memory is one that no cache knows.
#[derive(Debug)]
pub(super) struct PropertyOutcomes {
    pub(super) property: PropertyId,
    first: Entry,
}

impl PropertyOutcomes {
    /// Counts nothing yet.
    pub(super) fn new(property: PropertyId, first: Outcome) -> Self {
        Self { property, first: Entry::new(first) }
    }

    /// Looks at the memory that they are in, for [`super::Recorder::fetch`].
    #[inline]
    pub(super) fn fetched(&self) -> u64 {
        self.first.count.get()
    }

    /// One more of these. For the owner only.
    pub(super) fn count(&self, outcome: Outcome) {
        self.first.count(outcome);
    }

    /// Adds all counts to `sums`.
    pub(super) fn add_to(&self, sums: &mut Counts) {
        self.first.add_to(sums);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_outcome_has_its_own_count_and_its_labels() {
        let outcomes = Outcomes::default();
        for (status, code) in
            [(200, None), (502, Some(Code::UpstreamReset)), (204, None), (200, Some(Code::UpstreamReset)), (999, None)]
        {
            outcomes.count(Outcome::new(status, code));
        }
        let mut counts = Counts::new();
        outcomes.add_to(&mut counts);
        let read: Vec<_> = counts.iter().map(|(outcome, count)| (outcome.class(), outcome.code(), *count)).collect();
        assert_eq!(
            read,
            [("other", "", 1), ("2xx", "upstream_reset", 1), ("2xx", "", 2), ("5xx", "upstream_reset", 1)]
        );
    }

    #[test]
    fn a_property_costs_little_until_its_requests_fail_in_many_ways() {
        assert!(size_of::<PropertyOutcomes>() <= 40);
        assert!(size_of::<Entry>() <= 32);
    }
}
