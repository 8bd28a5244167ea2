//! Whether the server's clock goes on as ours does.
//!
//! In: what it showed, between two moments of our own clock. Out: whether it was set, or stood still, since the last time. It
//! reads no clock.

use std::time::Duration;

use tokio::time::Instant;

/// By how much of the time that passes two clocks may drift apart: one in so many.
const DRIFT: i128 = 100;

/// By how much more the server's clock may be off before it counts as set, in microseconds.
const OFF: i128 = 3000;

/// How the server's clock goes beside ours, for as long as the server runs. It is set, or stands still with the machine
/// that it is on, without the server's noticing: then places were counted for too short a time.
#[derive(Debug)]
pub(super) struct Course {
    since: Instant,
    /// How far it is ahead of ours, in microseconds: between these two, at this moment.
    ahead: (i128, i128),
    at: Instant,
    /// It has jumped, and the server has not been told.
    pub(super) jumped: bool,
}

impl Course {
    /// The first answer: what it showed between these two moments.
    pub(super) fn new(shown: u64, sent: Instant, received: Instant) -> Self {
        Self { since: sent, ahead: ahead(sent, shown, sent, received), at: received, jumped: false }
    }

    /// The next one. False when the clock cannot have shown that without a jump.
    pub(super) fn goes_on(&mut self, shown: u64, sent: Instant, received: Instant) -> bool {
        let (least, most) = ahead(self.since, shown, sent, received);
        let drift = micros(received.saturating_duration_since(self.at)) / DRIFT;
        let (before_least, before_most) = (self.ahead.0 - drift, self.ahead.1 + drift);
        self.at = received;
        if least > before_most + OFF || most < before_least - OFF {
            (self.ahead, self.jumped) = ((least, most), true);
            return false;
        }
        // What both say; where they are apart by less than counts, what the last one says.
        let both = (least.max(before_least), most.min(before_most));
        self.ahead = if both.0 <= both.1 { both } else { (least, most) };
        true
    }
}

/// Both clocks are read in whole steps.
fn ahead(since: Instant, shown: u64, sent: Instant, received: Instant) -> (i128, i128) {
    let ours = |at: Instant| micros(at.saturating_duration_since(since));
    let shown = i128::from(shown) * 1000;
    (shown - ours(received) - 1, shown + 1000 - ours(sent))
}

fn micros(time: Duration) -> i128 {
    i128::try_from(time.as_micros()).unwrap_or(i128::from(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_or_stands_still_is_noticed_and_one_that_drifts_is_not() {
        let t0 = Instant::now();
        // Each answer takes between sent and received; the clock is read 1 ms after it was sent.
        let ask = |course: &mut Course, at: u64, off: i64, took: u64| {
            let sent = t0 + Duration::from_millis(at);
            course.goes_on((5_000_001 + at).saturating_add_signed(off), sent, sent + Duration::from_millis(took))
        };
        let course = || Course::new(5_000_001, t0, t0 + Duration::from_millis(2));
        for off in [-1500, -100, -20, 20, 100, 1500] {
            let mut course = course();
            assert!(ask(&mut course, 150, 0, 2) && !course.jumped);
            assert!(!ask(&mut course, 300, off, 2) && course.jumped, "{off}");
            assert!(ask(&mut course, 450, off, 2), "that is its time from then on");
        }
        // An answer that took long says less, but does not make up for it.
        let mut slow = course();
        assert!(ask(&mut slow, 150, 60, 140));
        assert!(!ask(&mut slow, 300, 60, 2));
        let mut drifts = course();
        for beat in 1..4000u64 {
            // Two in a thousand, and a day in between.
            let at = beat * 25 + if beat > 2000 { 86_400_000 } else { 0 };
            assert!(ask(&mut drifts, at, i64::try_from(at / 500).unwrap(), 2), "{beat}");
        }
        assert!(!ask(&mut course(), 1, i64::MAX, 1));
    }
}
