//! What Cloudbeds thinks of our pace.
//!
//! In: its 429s, with the wait it asks for, and answers of any other kind. Out: whether anything may start, and how many
//! starts a window may have now. A 429 stops everything until the time it names, or for a second, then two, then four;
//! after that one request tries, and the others follow when its answer is another one. Where replicas share, whoever grants
//! says which of them lets one through, and its outcome is that of all. The documented limit may not be
//! the one that is counted, so each 429 takes a step off it, and each minute without one gives a step back.

use std::time::Duration;

use tokio::time::Instant;

use super::shared::{CommonPause, TRIAL};

/// The first pause where Cloudbeds names none; it doubles with each further one.
const FIRST: Duration = Duration::from_secs(1);

/// The longest pause, whatever Cloudbeds says: a mistaken `Retry-After` of a day must not be a day's outage.
pub(super) const LONGEST: Duration = Duration::from_secs(60);

/// How long without a 429 until a step is given back.
const CLEAN: Duration = Duration::from_secs(60);

/// How many pauses in a row are counted: twice as long as that is longer than any.
const IN_A_ROW_MAX: u32 = 16;

/// Whether a request may start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Gate {
    Open,
    /// One may, to try.
    Trial,
    /// One of all replicas may, when whoever grants says that it is ours.
    Asked,
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
    /// Refusals that brought a pause, or a longer one, here or at another replica.
    refusals: u64,
    /// Those of Cloudbeds to ourselves, and how many of them the last report told.
    heard: u64,
    reported: u64,
    /// The last pause of all replicas that one of ours has ended.
    lifted: u64,
    tries: Tries,
}

/// Who says that one may try.
#[derive(Clone, Copy, Debug)]
enum Tries {
    /// We do: there is nobody else, or nobody that can be asked.
    Own,
    /// Whoever grants. It has, until then.
    Lent(Option<Instant>),
}

/// What is told of it to whoever grants.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Word {
    /// Whether there is a pause, and how much is left of it before one may try.
    pub(super) paused: bool,
    pub(super) left: Duration,
    /// By what number it is known there; 0 where it is news.
    pub(super) number: u64,
    /// Refusals that Cloudbeds told us.
    pub(super) heard: u64,
    /// The last one that one of ours has ended.
    pub(super) lifted: u64,
    /// How much longer one of ours has for its answer.
    pub(super) trying: Duration,
}

/// One that goes to see whether a pause is over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Trial {
    since: Instant,
    /// Those that were known then. Its answer says nothing of what came later.
    refusals: u64,
}

#[derive(Clone, Copy, Debug)]
struct Pause {
    until: Instant,
    trying: Option<Instant>,
    /// By what whoever grants knows it; nothing where it does not yet.
    number: Option<u64>,
}

impl Pace {
    pub(super) fn new(granted: usize) -> Self {
        Self {
            granted,
            allowed: granted,
            better: None,
            pause: None,
            in_a_row: 0,
            refusals: 0,
            heard: 0,
            reported: 0,
            lifted: 0,
            tries: Tries::Own,
        }
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
            Some(_) => match self.tries {
                Tries::Own => Gate::Trial,
                Tries::Lent(until) if until.is_some_and(|until| until > now) => Gate::Trial,
                Tries::Lent(_) => Gate::Asked,
            },
        }
    }

    /// The end of the pause, if there is one.
    pub(super) fn paused(&self, now: Instant) -> Option<Instant> {
        self.pause.as_ref().map(|pause| pause.until.max(now))
    }

    /// What is reported now.
    pub(super) fn report(&mut self, now: Instant) -> Word {
        self.reported = self.heard;
        let word = Word { heard: self.heard, lifted: self.lifted, ..Word::default() };
        let Some(pause) = self.pause else { return word };
        let trying = pause.trying.map(|since| (since + TRIAL).saturating_duration_since(now)).unwrap_or_default();
        if trying.is_zero() {
            // Once this is read, another replica may have it.
            self.not_ours();
        }
        Word {
            paused: true,
            left: pause.until.saturating_duration_since(now),
            number: pause.number.unwrap_or(0),
            trying,
            ..word
        }
    }

    /// What whoever grants answered to the report of `sent`. Out: whether the pause is over by that.
    ///
    /// A pause has a number there, by which what we told comes back and is no news, however long it was under way; so a
    /// pause does not grow by being told, and none that is over comes back.
    pub(super) fn told(&mut self, common: CommonPause, sent: Instant, now: Instant) -> bool {
        let CommonPause { paused, left, number, trial } = common;
        self.tries = Tries::Lent((!trial.is_zero()).then(|| sent + trial));
        let until = now + left.min(LONGEST);
        match &mut self.pause {
            // News of ours that the report did not tell yet.
            Some(Pause { number: None, .. }) if self.reported != self.heard => return false,
            Some(pause) if paused && pause.number.is_none() => {
                (pause.number, pause.until) = (Some(number), pause.until.max(until));
                return false;
            }
            Some(Pause { number: known, until, .. }) if !paused => {
                let over = known.map_or(*until <= now, |known| known <= number);
                if over {
                    (self.pause, self.in_a_row) = (None, 0);
                }
                return over;
            }
            Some(Pause { number: known, .. }) if *known == Some(number) => return false,
            // It does not know yet that this one is over.
            None if !paused || number == self.lifted => return false,
            _ => {}
        }
        // Those that were under way together are told the same thing; a further one comes of a request that tried.
        let further = self.pause.as_ref().is_none_or(|pause| pause.until <= now);
        self.in_a_row = self.in_a_row.saturating_add(u32::from(further)).min(IN_A_ROW_MAX);
        self.refusals += 1;
        self.pause = Some(Pause { until, trying: None, number: Some(number) });
        false
    }

    /// Nobody can be asked who may try.
    pub(super) fn alone(&mut self) {
        self.tries = Tries::Own;
    }

    fn not_ours(&mut self) {
        if let Tries::Lent(until) = &mut self.tries {
            *until = None;
        }
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
            // It is another replica's turn to try.
            self.not_ours();
        }
    }

    /// It has an answer that is no 429. Out: whether the pause is over by that.
    pub(super) fn welcome(&mut self, trial: Trial) -> bool {
        let over = trial.refusals == self.refusals;
        if over {
            let number = self.pause.take().and_then(|pause| pause.number);
            self.lifted = number.unwrap_or(self.lifted);
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
                self.heard += 1;
                (pause.until, pause.number) = (until, None);
            }
            if let Some(trial) = trial {
                self.trial_over(trial);
            }
            return None;
        }
        self.refusals += 1;
        self.heard += 1;
        let doubled = FIRST.saturating_mul(1u32.checked_shl(self.in_a_row).unwrap_or(u32::MAX)).min(LONGEST);
        self.in_a_row = self.in_a_row.saturating_add(1).min(IN_A_ROW_MAX);
        let length = asked.unwrap_or(doubled).max(Duration::from_millis(100));
        self.pause = Some(Pause { until: now + length, trying: None, number: None });
        self.not_ours();
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

    /// What is known at whoever grants: a pause with so much left of it, and how long one of ours may try.
    fn common(number: u64, left: u64, trial: u64) -> CommonPause {
        CommonPause { paused: true, left: seconds(left), number, trial: seconds(trial) }
    }

    fn over(number: u64) -> CommonPause {
        CommonPause { number, ..CommonPause::default() }
    }

    #[test]
    fn what_another_replica_was_told_stops_this_one_until_one_of_all_has_come_through() {
        let (mut pace, t0) = (Pace::new(10), Instant::now());
        assert!(!pace.told(over(0), t0, t0));
        assert!(!pace.told(common(7, 3, 0), t0, t0));
        assert_eq!((pace.gate(t0), pace.allowed(t0)), (Gate::Shut(t0 + seconds(3)), 10));
        let word = pace.report(t0 + seconds(1));
        assert_eq!(
            (word.paused, word.number, word.heard, word.left),
            (true, 7, 0, seconds(2)),
            "it is no news of ours"
        );
        // Once it may end, another replica's request tries; or ours, when it is handed to us.
        let end = t0 + seconds(3);
        assert_eq!(pace.gate(end), Gate::Asked);
        pace.told(common(7, 0, 5), end, end);
        assert_eq!(pace.gate(end), Gate::Trial);
        // Unless it is not made use of by the next report: whoever reads that may hand it to somebody else.
        assert!(pace.report(end).trying.is_zero());
        assert_eq!(pace.gate(end), Gate::Asked);
        assert!(pace.told(over(7), end, end));
        assert_eq!(pace.gate(end), Gate::Open);
    }

    #[test]
    fn a_replica_whose_request_tries_tells_how_it_ends() {
        for ends in [true, false] {
            let (mut pace, t0) = (Pace::new(10), Instant::now());
            pace.told(common(7, 0, 5), t0, t0);
            let trial = pace.try_one(t0);
            assert_eq!(pace.report(t0 + seconds(1)).trying, TRIAL - seconds(1));
            let now = t0 + seconds(1);
            if ends {
                assert!(pace.welcome(trial));
                assert_eq!((pace.report(now).paused, pace.report(now).lifted), (false, 7));
                pace.told(common(7, 0, 0), now, now);
                assert_eq!(pace.gate(now), Gate::Open, "that answer was under way before ours was told");
                pace.told(common(8, 4, 0), now, now);
                assert_eq!(pace.gate(now), Gate::Shut(now + seconds(4)));
            } else {
                pace.refused(Some(trial), Some(seconds(2)), now);
                pace.told(common(7, 0, 0), now, now);
                let word = pace.report(now);
                assert_eq!((word.paused, word.number, word.heard, word.left), (true, 0, 1, seconds(2)));
                assert!(!pace.told(common(9, 2, 0), now, now));
                assert_eq!(pace.report(now).number, 9);
            }
        }
    }

    #[test]
    fn one_that_may_try_until_then_may_not_any_more_once_there_is_a_new_pause() {
        let (mut pace, t0) = (Pace::new(10), Instant::now());
        pace.told(common(7, 0, 5), t0, t0);
        let trial = pace.try_one(t0);
        pace.refused(Some(trial), Some(seconds(1)), t0);
        assert_eq!(pace.gate(t0 + seconds(1)), Gate::Asked);
        // Alone, nobody else can be asked.
        pace.alone();
        assert_eq!(pace.gate(t0 + seconds(1)), Gate::Trial);
    }

    #[test]
    fn a_trial_that_another_replica_made_meaningless_ends_no_pause() {
        let (mut pace, t0) = (Pace::new(10), Instant::now());
        pace.told(common(7, 0, 5), t0, t0);
        let trial = pace.try_one(t0);
        pace.told(common(8, 30, 0), t0, t0);
        assert!(!pace.welcome(trial));
        assert_eq!(pace.gate(t0), Gate::Shut(t0 + seconds(30)));
    }

    #[test]
    fn a_pause_that_was_overtaken_by_a_later_one_is_over_with_it() {
        let (mut pace, t0) = (Pace::new(10), Instant::now());
        pace.told(common(7, 3, 0), t0, t0);
        assert!(pace.told(over(9), t0, t0));
        // But not one that the other side cannot know of yet.
        pace.refused(None, Some(seconds(3)), t0);
        assert!(!pace.told(over(9), t0, t0));
        assert_eq!(pace.gate(t0), Gate::Shut(t0 + seconds(3)));
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
        let (mut now, mut there, mut told) = (t0, t0, 0);
        for _ in 0..100 {
            let word = pace.report(now);
            if word.paused && word.heard > told {
                (there, told) = (there.max(now + way + word.left), word.heard);
            }
            // The answer says how much is left there, and is as long under way.
            let left = there.saturating_duration_since(now + way);
            let sent = now;
            now += way + way;
            pace.told(CommonPause { left, ..common(7, 0, 0) }, sent, now);
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
