//! What Cloudbeds thinks of our pace.
//!
//! In: its 429s, with the wait it asks for, and answers of any other kind. Out: whether anything may start, and how many
//! starts a window may have now. A 429 stops everything until the time it names, or for a second, then two, then four;
//! after that one request tries, and the others follow when its answer is another one. The documented limit may not be
//! the one that is counted, so each 429 takes a step off it, and each minute without one gives a step back.

use std::time::Duration;

use tokio::time::Instant;

/// The first pause where Cloudbeds names none; it doubles with each further one.
const FIRST: Duration = Duration::from_secs(1);

/// The longest pause, whatever Cloudbeds says: a mistaken `Retry-After` of a day must not be a day's outage.
pub(super) const LONGEST: Duration = Duration::from_secs(60);

/// How long one that tries has for its answer before another one may try as well: it may be a report that takes a minute.
const TRIAL: Duration = Duration::from_secs(5);

/// How long without a 429 until a step is given back.
const CLEAN: Duration = Duration::from_secs(60);

/// Whether a request may start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Gate {
    Open,
    /// One may, to try.
    Trial,
    /// None may before this moment.
    Shut(Instant),
}

/// The standing with Cloudbeds.
#[derive(Debug)]
pub(super) struct Pace {
    /// What the configuration says, and what is left of it.
    granted: usize,
    allowed: usize,
    /// When a step is given back.
    better: Option<Instant>,
    pause: Option<Pause>,
    /// Pauses since an answer that was none.
    in_a_row: u32,
}

#[derive(Debug)]
struct Pause {
    until: Instant,
    trying: Option<Instant>,
    /// Cloudbeds told us, and not only another replica.
    ours: bool,
}

impl Pace {
    pub(super) fn new(granted: usize) -> Self {
        Self { granted, allowed: granted, better: None, pause: None, in_a_row: 0 }
    }

    /// How many starts a window may have.
    pub(super) fn allowed(&mut self, now: Instant) -> usize {
        while let Some(better) = self.better.filter(|better| *better <= now) {
            self.allowed = (self.allowed + self.step()).min(self.granted);
            self.better = (self.allowed < self.granted).then_some(better + CLEAN);
        }
        self.allowed
    }

    pub(super) fn gate(&self, now: Instant) -> Gate {
        match &self.pause {
            None => Gate::Open,
            Some(Pause { until, .. }) if *until > now => Gate::Shut(*until),
            Some(Pause { trying: Some(since), .. }) if *since + TRIAL > now => Gate::Shut(*since + TRIAL),
            Some(_) => Gate::Trial,
        }
    }

    /// The end of the pause, if there is one.
    pub(super) fn paused(&self, now: Instant) -> Option<Instant> {
        self.pause.as_ref().map(|pause| pause.until.max(now))
    }

    /// The same, where Cloudbeds told us and not only another replica.
    pub(super) fn paused_here(&self, now: Instant) -> Option<Instant> {
        self.pause.as_ref().filter(|pause| pause.ours && pause.until > now).map(|pause| pause.until)
    }

    /// Another replica was told to wait.
    pub(super) fn told(&mut self, until: Instant) {
        match &mut self.pause {
            Some(pause) if pause.until >= until => {}
            Some(pause) => (pause.until, pause.trying) = (until, None),
            None => self.pause = Some(Pause { until, trying: None, ours: false }),
        }
    }

    /// One goes to try.
    pub(super) fn try_one(&mut self, now: Instant) {
        if let Some(pause) = &mut self.pause {
            pause.trying = Some(now);
        }
    }

    /// The one that tried has no answer, or one that says nothing.
    pub(super) fn trial_over(&mut self) {
        if let Some(pause) = &mut self.pause {
            pause.trying = None;
        }
    }

    /// It has an answer that is no 429.
    pub(super) fn welcome(&mut self) {
        self.pause = None;
        self.in_a_row = 0;
    }

    /// A 429, perhaps with the wait it asks for. Out: the pause and what is allowed behind it, when this is news: those
    /// that were under way together are told the same thing together.
    pub(super) fn refused(&mut self, trial: bool, asked: Option<Duration>, now: Instant) -> Option<(Duration, usize)> {
        let asked = asked.map(|asked| asked.min(LONGEST));
        if let Some(pause) = self.pause.as_mut().filter(|_| !trial) {
            let until = now + asked.unwrap_or_default();
            if until > pause.until {
                (pause.until, pause.ours) = (until, true);
            }
            return None;
        }
        let doubled = FIRST.saturating_mul(1u32.checked_shl(self.in_a_row).unwrap_or(u32::MAX)).min(LONGEST);
        self.in_a_row = self.in_a_row.saturating_add(1).min(16);
        let length = asked.unwrap_or(doubled).max(Duration::from_millis(100));
        self.pause = Some(Pause { until: now + length, trying: None, ours: true });
        self.allowed = self.allowed.saturating_sub(self.step()).max(1);
        self.better = (self.allowed < self.granted).then_some(now + length + CLEAN);
        Some((length, self.allowed))
    }

    /// A tenth, and at least one.
    fn step(&self) -> usize {
        self.granted.div_ceil(10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_refusal_pauses_for_as_long_as_it_says_or_twice_as_long_each_time() {
        let (mut pace, t0) = (Pace::new(10), Instant::now());
        assert_eq!(pace.gate(t0), Gate::Open);
        assert_eq!(pace.refused(false, Some(seconds(7)), t0), Some((seconds(7), 9)));
        assert_eq!(pace.gate(t0), Gate::Shut(t0 + seconds(7)));
        assert_eq!(pace.refused(false, None, t0), None, "it went up together with the first");
        assert_eq!(pace.gate(t0 + seconds(7)), Gate::Trial);
        let mut now = t0 + seconds(7);
        for expected in [2, 4, 8, 16, 32, 60, 60] {
            pace.try_one(now);
            assert_eq!(pace.gate(now), Gate::Shut(now + TRIAL), "one tries, the others wait");
            assert_eq!(pace.refused(true, None, now).unwrap().0, seconds(expected));
            now += seconds(expected);
        }
        pace.try_one(now);
        pace.welcome();
        assert_eq!(pace.gate(now), Gate::Open);
        assert_eq!(pace.refused(false, Some(seconds(86_400)), now).unwrap().0, LONGEST);
    }

    #[test]
    fn what_another_replica_was_told_stops_this_one_and_is_not_passed_on() {
        let (mut pace, t0) = (Pace::new(10), Instant::now());
        pace.told(t0 + seconds(3));
        pace.told(t0 + seconds(2));
        assert_eq!(pace.gate(t0), Gate::Shut(t0 + seconds(3)));
        assert_eq!((pace.paused_here(t0), pace.allowed(t0)), (None, 10));
        assert_eq!(pace.gate(t0 + seconds(3)), Gate::Trial);
        assert_eq!(pace.refused(false, Some(seconds(5)), t0), None);
        assert_eq!(pace.paused_here(t0), Some(t0 + seconds(5)), "now we were told as well");
        assert_eq!(pace.paused_here(t0 + seconds(5)), None);
    }

    #[test]
    fn one_that_tries_and_has_no_answer_does_not_hold_up_the_next() {
        let (mut pace, t0) = (Pace::new(10), Instant::now());
        pace.refused(false, None, t0);
        let now = t0 + seconds(1);
        pace.try_one(now);
        pace.trial_over();
        assert_eq!(pace.gate(now), Gate::Trial);
        pace.try_one(now);
        assert_eq!(pace.gate(now + TRIAL), Gate::Trial);
    }

    #[test]
    fn each_refusal_takes_a_step_off_and_each_clean_minute_gives_one_back() {
        let (mut pace, mut now) = (Pace::new(3), Instant::now());
        for expected in [2, 1, 1] {
            assert_eq!(pace.refused(true, None, now).unwrap().1, expected);
            now += seconds(5);
        }
        // The last one was followed by four seconds of pause.
        assert_eq!(pace.allowed(now + seconds(58)), 1);
        assert_eq!(pace.allowed(now + seconds(59)), 2);
        assert_eq!(pace.allowed(now + seconds(118)), 2);
        assert_eq!(pace.allowed(now + seconds(119)), 3);
        assert_eq!(pace.allowed(now + seconds(10_000)), 3, "never more than was granted");
    }
}
