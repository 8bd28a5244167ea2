//! What Cloudbeds thinks of our pace.
//!
//! In: its 429s, with the wait it asks for, and answers of any other kind. Out: whether anything may start, and how many
//! starts a window may have now. A 429 stops everything until the time it names, or for a second, then two, then four;
//! after that one request tries, and the others follow when its answer is another one. The documented limit may not be
//! the one that is counted, so each 429 takes a step off it, and each minute without one gives a step back.

use std::time::Duration;

use tokio::time::Instant;

use super::shared::PATIENCE;

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
    /// Refusals that brought a pause, or a longer one.
    refusals: u64,
}

/// One that goes to see whether a pause is over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Trial {
    since: Instant,
    /// Those that were known then. Its answer says nothing of what came later.
    refusals: u64,
}

#[derive(Debug)]
struct Pause {
    until: Instant,
    trying: Option<Instant>,
    /// The end that Cloudbeds told us, and not only another replica.
    ours: Option<Instant>,
}

impl Pace {
    pub(super) fn new(granted: usize) -> Self {
        Self { granted, allowed: granted, better: None, pause: None, in_a_row: 0, refusals: 0 }
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
        self.pause.as_ref().and_then(|pause| pause.ours).filter(|until| *until > now)
    }

    /// Another replica was told to wait, or what we told comes back: by the time it was under way later, so it is not ours
    /// to tell, or the pause would grow with every report.
    pub(super) fn told(&mut self, until: Instant) {
        let ours = match &mut self.pause {
            Some(pause) if pause.until + PATIENCE >= until => {
                pause.until = pause.until.max(until);
                return;
            }
            Some(pause) => pause.ours,
            None => None,
        };
        self.refusals += 1;
        self.pause = Some(Pause { until, trying: None, ours });
    }

    /// One goes to try.
    pub(super) fn try_one(&mut self, now: Instant) -> Trial {
        if let Some(pause) = &mut self.pause {
            pause.trying = Some(now);
        }
        Trial { since: now, refusals: self.refusals }
    }

    /// One that tried has no answer, or one that says nothing. Another one may be under way by now.
    pub(super) fn trial_over(&mut self, trial: Trial) {
        if let Some(pause) = self.pause.as_mut().filter(|pause| pause.trying == Some(trial.since)) {
            pause.trying = None;
        }
    }

    /// It has an answer that is no 429. Out: whether the pause is over by that.
    pub(super) fn welcome(&mut self, trial: Trial) -> bool {
        let over = trial.refusals == self.refusals;
        if over {
            self.pause = None;
            self.in_a_row = 0;
        } else {
            self.trial_over(trial);
        }
        over
    }

    /// A 429, perhaps with the wait it asks for. Out: the pause and what is allowed behind it, when this is news: those
    /// that were under way together are told the same thing together.
    pub(super) fn refused(
        &mut self,
        trial: Option<Trial>,
        asked: Option<Duration>,
        now: Instant,
    ) -> Option<(Duration, usize)> {
        let asked = asked.map(|asked| asked.min(LONGEST));
        let tried = trial.is_some_and(|trial| trial.refusals == self.refusals);
        if let Some(pause) = self.pause.as_mut().filter(|_| !tried) {
            let until = now + asked.unwrap_or_default();
            if until > pause.until.max(now) {
                self.refusals += 1;
                (pause.until, pause.ours) = (until, Some(until));
            }
            if let Some(trial) = trial {
                self.trial_over(trial);
            }
            return None;
        }
        self.refusals += 1;
        let doubled = FIRST.saturating_mul(1u32.checked_shl(self.in_a_row).unwrap_or(u32::MAX)).min(LONGEST);
        self.in_a_row = self.in_a_row.saturating_add(1).min(16);
        let length = asked.unwrap_or(doubled).max(Duration::from_millis(100));
        self.pause = Some(Pause { until: now + length, trying: None, ours: Some(now + length) });
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
        assert_eq!(pace.refused(None, Some(seconds(7)), t0), Some((seconds(7), 9)));
        assert_eq!(pace.gate(t0), Gate::Shut(t0 + seconds(7)));
        assert_eq!(pace.refused(None, None, t0), None, "it went up together with the first");
        assert_eq!(pace.gate(t0 + seconds(7)), Gate::Trial);
        let mut now = t0 + seconds(7);
        for expected in [2, 4, 8, 16, 32, 60, 60] {
            let trial = pace.try_one(now);
            assert_eq!(pace.gate(now), Gate::Shut(now + TRIAL), "one tries, the others wait");
            assert_eq!(pace.refused(Some(trial), None, now).unwrap().0, seconds(expected));
            now += seconds(expected);
        }
        let trial = pace.try_one(now);
        assert!(pace.welcome(trial));
        assert_eq!(pace.gate(now), Gate::Open);
        assert_eq!(pace.refused(None, Some(seconds(86_400)), now).unwrap().0, LONGEST);
    }

    #[test]
    fn what_another_replica_was_told_stops_this_one_and_is_not_passed_on() {
        let (mut pace, t0) = (Pace::new(10), Instant::now());
        pace.told(t0 + seconds(3));
        pace.told(t0 + seconds(2));
        assert_eq!(pace.gate(t0), Gate::Shut(t0 + seconds(3)));
        assert_eq!((pace.paused_here(t0), pace.allowed(t0)), (None, 10));
        assert_eq!(pace.gate(t0 + seconds(3)), Gate::Trial);
        assert_eq!(pace.refused(None, Some(seconds(5)), t0), None);
        assert_eq!(pace.paused_here(t0), Some(t0 + seconds(5)), "now we were told as well");
        assert_eq!(pace.paused_here(t0 + seconds(5)), None);
    }

    #[test]
    fn one_that_tries_and_has_no_answer_does_not_hold_up_the_next() {
        let (mut pace, t0) = (Pace::new(10), Instant::now());
        pace.refused(None, None, t0);
        let now = t0 + seconds(1);
        let trial = pace.try_one(now);
        pace.trial_over(trial);
        assert_eq!(pace.gate(now), Gate::Trial);
        let late = pace.try_one(now);
        assert_eq!(pace.gate(now + TRIAL), Gate::Trial);
        pace.try_one(now + TRIAL);
        pace.trial_over(late);
        assert_eq!(pace.gate(now + TRIAL), Gate::Shut(now + TRIAL + TRIAL), "the next one is still under way");
        assert!(pace.welcome(late), "an answer is one however late it is");
        assert_eq!(pace.gate(now + TRIAL), Gate::Open);
    }

    #[test]
    fn a_late_answer_ends_no_pause_that_it_knows_nothing_of() {
        for trial_was_told in [true, false] {
            let (mut pace, t0) = (Pace::new(10), Instant::now());
            pace.refused(None, None, t0);
            let late = pace.try_one(t0 + seconds(1));
            let now = t0 + seconds(1) + TRIAL;
            let until = now + seconds(30);
            if trial_was_told {
                let trial = pace.try_one(now);
                pace.refused(Some(trial), Some(seconds(30)), now);
            } else {
                // One that went up before the pause, and was answered after it.
                pace.refused(None, Some(seconds(30)), now);
            }
            assert!(!pace.welcome(late));
            assert_eq!(pace.gate(now), Gate::Shut(until));
            assert_eq!(pace.refused(Some(late), None, now), None, "nor does it make it a longer one");
            assert_eq!(pace.gate(now), Gate::Shut(until));
        }
    }

    #[test]
    fn a_pause_that_comes_back_from_where_it_was_told_does_not_grow() {
        let (mut pace, t0) = (Pace::new(10), Instant::now());
        pace.refused(None, Some(seconds(10)), t0);
        let way = Duration::from_millis(30);
        let (mut now, mut there) = (t0, t0);
        for _ in 0..100 {
            if let Some(until) = pace.paused_here(now) {
                there = there.max(now + way + (until - now));
            }
            // The answer says how much is left there, and is as long under way.
            let left = there.saturating_duration_since(now + way);
            now += way + way;
            if !left.is_zero() {
                pace.told(now + left);
            }
        }
        assert!(pace.paused(t0).unwrap() <= t0 + seconds(10) + way + way);
    }

    #[test]
    fn each_refusal_takes_a_step_off_and_each_clean_minute_gives_one_back() {
        let (mut pace, mut now) = (Pace::new(3), Instant::now());
        for expected in [2, 1, 1] {
            let trial = pace.try_one(now);
            assert_eq!(pace.refused(Some(trial), None, now).unwrap().1, expected);
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
