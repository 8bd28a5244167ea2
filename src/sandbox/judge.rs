//! A strict judge of an app's pace.
//!
//! In: each arrival of a call, by the clock of this machine and not by that of the sandbox, which can be moved. Out: the
//! most calls that any one second had, and the first second that had more than allowed. Whatever the sandbox answers, and
//! whatever it tolerates, the judge counts.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// What the judge has seen of one app.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Verdict {
    /// Calls so far.
    pub calls: u64,
    /// The most in any one second.
    pub most: usize,
    /// The first second with more than allowed: when it ended, since the judge saw the app first, and its calls.
    pub excess: Option<(Duration, usize)>,
}

/// What it counts, by app.
#[derive(Debug)]
pub(super) struct Judge<K> {
    allowed: usize,
    apps: HashMap<K, App>,
}

#[derive(Debug)]
struct App {
    first: Instant,
    second: VecDeque<Instant>,
    verdict: Verdict,
    /// Each call that was one too many, as in the verdict.
    excesses: Vec<(Duration, usize)>,
}

/// The most calls too many that are remembered one by one.
const EXCESSES_MAX: usize = 10_000;

impl<K: Copy + Eq + std::hash::Hash> Judge<K> {
    /// Allows so many calls in a second.
    pub(super) fn new(allowed: usize) -> Self {
        Self { allowed, apps: HashMap::new() }
    }

    pub(super) fn arrived(&mut self, app: K, now: Instant) {
        let app = self.apps.entry(app).or_insert_with(|| App {
            first: now,
            second: VecDeque::new(),
            verdict: Verdict::default(),
            excesses: Vec::new(),
        });
        // What came exactly a second ago is not in the same second.
        while app.second.front().is_some_and(|call| now.duration_since(*call) >= SECOND) {
            app.second.pop_front();
        }
        app.second.push_back(now);
        let calls = app.second.len();
        app.verdict.calls += 1;
        app.verdict.most = app.verdict.most.max(calls);
        if calls > self.allowed {
            let excess = (now.duration_since(app.first), calls);
            app.verdict.excess.get_or_insert(excess);
            if app.excesses.len() < EXCESSES_MAX {
                app.excesses.push(excess);
            }
        }
    }

    /// Each call that was one too many.
    pub(super) fn excesses(&self, app: K) -> Vec<(Duration, usize)> {
        self.apps.get(&app).map(|app| app.excesses.clone()).unwrap_or_default()
    }

    pub(super) fn verdict(&self, app: K) -> Verdict {
        self.apps.get(&app).map(|app| app.verdict).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_is_looked_at_wherever_it_begins() {
        let (mut judge, start) = (Judge::new(2), Instant::now());
        for millis in [0, 900, 1000, 1899] {
            judge.arrived(1, start + Duration::from_millis(millis));
        }
        let first = (Duration::from_millis(1899), 3);
        let excess = Some(first);
        assert_eq!(judge.verdict(1), Verdict { calls: 4, most: 3, excess });
        judge.arrived(1, start + Duration::from_millis(1900));
        judge.arrived(1, start + Duration::from_millis(5000));
        let second = (Duration::from_millis(1900), 3);
        assert_eq!((judge.verdict(1).excess, judge.excesses(1)), (excess, vec![first, second]));
        for millis in [0, 999, 1000, 1999, 2000] {
            judge.arrived(2, start + Duration::from_millis(millis));
        }
        assert_eq!(judge.verdict(2), Verdict { calls: 5, most: 2, excess: None });
        assert_eq!(judge.verdict(3), Verdict::default());
    }
}
