//! The starts of one app that still count.
//!
//! In: starts, and how many are allowed in a window. Out: whether one more fits now, and when the n-th from now will.
//! A sliding window over the last starts themselves: a token bucket of the same rate would let twice as many through in
//! the second in which it is full. It reads no clock; whoever calls says what time it is.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// What Cloudbeds counts in.
pub const SECOND: Duration = Duration::from_secs(1);

/// How much closer two requests may be when they arrive than they were when they left: the first was held up on its
/// way, the second was not. More than that, and Cloudbeds would see them in one second. With it a steady overload uses
/// 96 % of what is allowed.
pub const MARGIN: Duration = Duration::from_millis(40);

/// How long a start counts.
pub const COUNTS: Duration = SECOND.saturating_add(MARGIN);

/// What a window has room for at first: more than Cloudbeds grants anybody.
const SMALL: usize = 16;

/// The windows that so many starts fill.
pub(super) fn rounds(starts: usize, allowed: usize) -> Duration {
    // A number of windows that nobody waits for, and that no clock overflows by.
    COUNTS * u32::try_from(starts / allowed.max(1)).unwrap_or(u32::MAX).min(1_000_000)
}

/// The starts of the whole windows in a time.
pub(super) fn starts_within(time: Duration, allowed: usize) -> usize {
    let windows = time.as_nanos() / COUNTS.as_nanos();
    allowed.saturating_mul(usize::try_from(windows).unwrap_or(usize::MAX))
}

/// Starts that count, and places kept for some that are about to be.
#[derive(Debug)]
pub(super) struct Window {
    /// In order.
    starts: VecDeque<Instant>,
    /// Allowed, but not sent yet: they count from now until a window after they are.
    kept: usize,
}

impl Window {
    /// For so many starts at most. It grows with those there are: memory it goes round in is fetched anew each time.
    pub(super) fn new(most: usize) -> Self {
        Self { starts: VecDeque::with_capacity(most.min(SMALL)), kept: 0 }
    }

    /// Drops what no longer counts.
    pub(super) fn pass(&mut self, now: Instant) {
        while self.starts.front().is_some_and(|start| *start + COUNTS <= now) {
            self.starts.pop_front();
        }
    }

    /// Starts that count, with how long ago each was.
    pub(super) fn ages(&self, now: Instant) -> impl Iterator<Item = Duration> {
        self.starts.iter().map(move |start| now.saturating_duration_since(*start))
    }

    /// Places kept.
    pub(super) fn kept(&self) -> usize {
        self.kept
    }

    /// How many count.
    pub(super) fn used(&self) -> usize {
        self.starts.len() + self.kept
    }

    /// A start. Cores read their clocks before they come here, so one may be a little behind: the later date counts.
    pub(super) fn start(&mut self, now: Instant) -> Instant {
        let start = self.starts.back().map_or(now, |last| now.max(*last));
        self.starts.push_back(start);
        start
    }

    /// Keeps a place.
    pub(super) fn keep(&mut self) {
        self.kept += 1;
    }

    /// A place that was kept becomes a start.
    pub(super) fn start_kept(&mut self, now: Instant) -> Instant {
        self.kept = self.kept.saturating_sub(1);
        self.start(now)
    }

    /// A start that has not happened becomes a kept place; false when it counts no longer, and its place may be gone.
    pub(super) fn unstart(&mut self, start: Instant) -> bool {
        let found = self.forget(start);
        self.kept += usize::from(found);
        found
    }

    /// A start that is not going to happen.
    pub(super) fn forget(&mut self, start: Instant) -> bool {
        // It is among the last ones: the time between the two is that of a dial at most.
        let found = self.starts.iter().rposition(|other| *other == start);
        found.and_then(|at| self.starts.remove(at)).is_some()
    }

    /// A kept place that is not needed.
    pub(super) fn forget_kept(&mut self) {
        self.kept = self.kept.saturating_sub(1);
    }

    /// When the start behind `ahead` others can be, if all of them start as early as they can.
    pub(super) fn when(&self, ahead: usize, allowed: usize, now: Instant) -> Instant {
        let allowed = allowed.max(1);
        // Each start makes room for another one a window later. Kept places are the newest, and may start now.
        let later = rounds(ahead, allowed);
        match (self.used() + ahead % allowed).checked_sub(allowed) {
            None => now + later,
            Some(at) => self.starts.get(at).copied().unwrap_or(now) + COUNTS + later,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn a_window_tells_when_the_next_one_fits() {
        let (mut window, t0) = (Window::new(3), Instant::now());
        assert_eq!(window.when(2, 3, t0), t0);
        for millis in [0, 100, 200] {
            window.start(at(t0, millis));
        }
        let now = at(t0, 300);
        window.pass(now);
        assert_eq!(window.used(), 3);
        let expected = [1040, 1140, 1240, 2080, 2180];
        for (ahead, millis) in expected.into_iter().enumerate() {
            assert_eq!(window.when(ahead, 3, now), at(t0, millis), "{ahead}");
        }
        window.pass(at(t0, 1040));
        assert_eq!((window.used(), window.when(0, 3, at(t0, 1040))), (2, at(t0, 1040)));
        // When fewer are allowed than before, as many must go first.
        assert_eq!(window.when(0, 1, at(t0, 1040)), at(t0, 1240));
    }

    #[test]
    fn a_kept_place_counts_until_a_window_after_its_start() {
        let (mut window, t0) = (Window::new(2), Instant::now());
        let first = window.start(t0);
        assert!(window.unstart(first));
        window.pass(at(t0, 5000));
        assert_eq!(window.used(), 1, "it has not started yet");
        window.start_kept(at(t0, 5000));
        window.pass(at(t0, 6039));
        assert_eq!(window.used(), 1);
        window.pass(at(t0, 6040));
        assert_eq!(window.used(), 0);
        assert!(!window.unstart(first), "its place is gone");
        window.keep();
        window.forget_kept();
        assert_eq!(window.used(), 0);
    }

    proptest! {
        /// Whatever comes when, and however long after its admission it is sent.
        #[test]
        fn no_second_has_more_starts_than_allowed(
            allowed in 1usize..8,
            steps in prop::collection::vec((0u64..400, 0u64..3, 0u64..2500), 1..200),
        ) {
            let (mut window, t0, mut now) = (Window::new(allowed), Instant::now(), 0);
            let (mut sent, mut due): (Vec<u64>, Vec<u64>) = (Vec::new(), Vec::new());
            for (gap, kind, dial) in steps {
                now += gap;
                due.sort_unstable();
                while due.first().is_some_and(|due| *due <= now) {
                    let at_last = due.remove(0);
                    window.pass(at(t0, at_last));
                    window.start_kept(at(t0, at_last));
                    sent.push(at_last);
                }
                window.pass(at(t0, now));
                if window.used() >= allowed {
                    prop_assert!(window.when(0, allowed, at(t0, now)) > at(t0, now));
                    continue;
                }
                match kind {
                    0 => {
                        window.start(at(t0, now));
                        sent.push(now);
                    }
                    1 => {
                        let start = window.start(at(t0, now));
                        prop_assert!(window.unstart(start));
                        due.push(now + dial);
                    }
                    _ => {
                        let start = window.start(at(t0, now));
                        prop_assert!(window.forget(start));
                    }
                }
            }
            sent.sort_unstable();
            for group in sent.windows(allowed + 1) {
                prop_assert!(group[allowed] - group[0] >= 1000, "{group:?}");
            }
        }
    }
}
