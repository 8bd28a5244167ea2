//! How many calls an app may make in a second, and what happens to one that makes more.
//!
//! In: calls. Out: whether each is served, refused, or comes from an app that is suspended. The vendor counts per client
//! id, tolerates some excess and then suspends the credentials until the partner has confirmed a fix (its developer
//! pages' FAQ); how much it tolerates is not published.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use super::{Accounts, AppIndex};

/// The limit in force for every app.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Budget {
    /// Calls in any one second; the vendor's is 10 for partners, 5 for properties.
    pub per_second: u32,
    /// Calls beyond it that are answered 429 before the app is suspended.
    pub tolerance: u32,
}

/// What a call comes to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::sandbox) enum Spent {
    Served,
    /// 429.
    Excess,
    /// 429, and the last one before the app was suspended.
    Last,
    Suspended,
}

/// One app's account of its calls.
#[derive(Default)]
pub(super) struct Calls {
    recent: VecDeque<SystemTime>,
    excess: u32,
    suspended: bool,
}

const WINDOW: Duration = Duration::from_secs(1);

impl Calls {
    fn spend(&mut self, budget: Budget, now: SystemTime) -> Spent {
        if self.suspended {
            return Spent::Suspended;
        }
        while self.recent.front().is_some_and(|call| now.duration_since(*call).is_ok_and(|age| age >= WINDOW)) {
            self.recent.pop_front();
        }
        if self.recent.len() < budget.per_second as usize {
            self.recent.push_back(now);
            return Spent::Served;
        }
        self.excess += 1;
        self.suspended = self.excess > budget.tolerance;
        if self.suspended { Spent::Last } else { Spent::Excess }
    }

    fn is_suspended(&self) -> bool {
        self.suspended
    }

    /// The partner has confirmed a fix.
    fn reinstate(&mut self) {
        *self = Self::default();
    }
}

impl Accounts {
    pub(in crate::sandbox) fn set_budget(&mut self, budget: Option<Budget>) {
        self.budget = budget;
    }

    pub(in crate::sandbox) fn budget(&self) -> Option<Budget> {
        self.budget
    }

    /// Counts a call of an app.
    pub(in crate::sandbox) fn spend(&mut self, app: AppIndex, now: SystemTime) -> Spent {
        let Some(budget) = self.budget else { return Spent::Served };
        let spent = self.calls.entry(app).or_default().spend(budget, now);
        if spent == Spent::Last {
            let name = &self.apps[app.0].name;
            self.mails.push(format!("To the partner: {name} exceeds its rate limit and is suspended. Confirm a fix."));
        }
        spent
    }

    pub(in crate::sandbox) fn is_suspended(&self, app: AppIndex) -> bool {
        self.calls.get(&app).is_some_and(Calls::is_suspended)
    }

    /// The partner has confirmed a fix.
    pub(in crate::sandbox) fn reinstate(&mut self, app: AppIndex) {
        if let Some(calls) = self.calls.get_mut(&app) {
            calls.reinstate();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holds_no_more_than_its_calls_and_too_much_excess_suspends() {
        let (budget, start) = (Budget { per_second: 2, tolerance: 2 }, SystemTime::UNIX_EPOCH);
        let mut calls = Calls::default();
        let mut spend = |millis| calls.spend(budget, start + Duration::from_millis(millis));
        let spent = [0, 600, 999, 1000, 1001, 1600, 2000].map(&mut spend);
        let expected =
            [Spent::Served, Spent::Served, Spent::Excess, Spent::Served, Spent::Excess, Spent::Served, Spent::Served];
        assert_eq!(spent, expected);
        assert_eq!(spend(2001), Spent::Last);
        assert_eq!(spend(9000), Spent::Suspended);
        calls.reinstate();
        assert_eq!(calls.spend(budget, start), Spent::Served);
    }
}
