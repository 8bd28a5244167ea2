//! How many requests an app may start at Cloudbeds, and whose turn it is.
//!
//! In: requests that want to start, each of a hotel and an app (a client id: Cloudbeds counts by it, whatever the hotel
//! or the key), and what Cloudbeds answers. Out: a [`Permit`] at the right moment, or [`Exhausted`] with an honest
//! `Retry-After`. In any second no more start than the app was granted; hotels take turns; nobody waits for longer than
//! `max_wait`. Nothing here knows of HTTP connections or holds any part of a request.
//!
//! One process owns the whole budget, or leases places from one that replicas share (`places.rs`, `shared.rs`). Who grants
//! them is none of this module's business: somebody carries a [`Report`] there and a [`Grant`] back.

mod local;
mod pause;
mod permit;
mod places;
mod queue;
mod shared;
mod tally;
mod window;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::local::Local;
pub use self::permit::{Permit, retry_after};
pub use self::shared::{
    Apart, BEAT, Fallback, GAP, GONE, GRACE, Grant, PATIENCE, Report, SIGN, SILENT, Sharing, TRIAL, VALID, beat,
};
pub use self::tally::{Account, Hotel};
pub use self::window::{COUNTS, MARGIN, SECOND};
use crate::property::PropertyId;

/// What holds for every app.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The longest wait for a turn.
    pub max_wait: Duration,
    /// The most requests that wait at a time, of one app.
    pub max_waiting: usize,
    /// The most of one hotel.
    pub max_waiting_per_property: usize,
    /// Hotels that have more than one request in a turn.
    pub weights: Arc<HashMap<PropertyId, usize>>,
}

/// On whose behalf a request wants to start.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Flow {
    /// A hotel's.
    Property(PropertyId),
    /// An organisation's, which names no hotel; the number stands for its name.
    Organization(u64),
    /// Our own.
    Own,
}

impl Flow {
    /// The hotel, if it is one.
    #[must_use]
    pub fn property(self) -> Option<PropertyId> {
        if let Self::Property(property) = self { Some(property) } else { None }
    }
}

/// Whether a request yields to others.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Priority {
    /// As people wait for it.
    #[default]
    Normal,
    /// As nobody does: it goes when no other waits, and otherwise all such requests have turns like one more hotel.
    Low,
}

/// Who asks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ask {
    /// For whom.
    pub flow: Flow,
    /// How urgently.
    pub priority: Priority,
    /// Whether it may change something, by its method: those of its hotel that come later must not overtake it.
    pub is_unsafe: bool,
}

impl Ask {
    /// For one that is like most: nothing need wait behind it.
    #[must_use]
    pub fn normal(flow: Flow) -> Self {
        Self { flow, priority: Priority::Normal, is_unsafe: false }
    }
}

/// Why a request did not get its turn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Why {
    /// As many of the app wait as may.
    Full,
    /// As many of the hotel wait as may.
    PropertyFull,
    /// Its turn would come, or did not come, within the longest wait.
    TooLong,
    /// Cloudbeds asked us to wait for longer than that.
    Paused,
}

impl Why {
    /// Each of them, in the order of the declaration.
    pub const ALL: [Self; 4] = [Self::Full, Self::PropertyFull, Self::TooLong, Self::Paused];

    /// The metric's label `why`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::PropertyFull => "property_full",
            Self::TooLong => "too_long",
            Self::Paused => "paused",
        }
    }
}

/// No turn; nothing was sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no turn within the budget: {}", .why.as_str())]
pub struct Exhausted {
    /// Why.
    pub why: Why,
    /// After so many seconds a new request would get its turn within the longest wait, if no others come before it; at
    /// least 1.
    pub retry_after: u64,
    /// How long it waited before that was known.
    pub waited: Duration,
}

/// One app's budget.
#[derive(Debug)]
pub struct Budget {
    name: Box<str>,
    local: Arc<Local>,
}

impl Budget {
    /// A budget of so many starts a second.
    #[must_use]
    pub fn new(name: &str, per_second: usize, limits: Limits) -> Self {
        Self { name: name.into(), local: Arc::new(Local::new(name, per_second, limits)) }
    }

    /// A budget of which replicas share so many starts a second. Nothing starts before the first [`Grant`], unless the
    /// configuration names a share.
    #[must_use]
    pub fn shared(name: &str, per_second: usize, limits: Limits, apart: Apart) -> Self {
        Self { name: name.into(), local: Arc::new(Local::leased(name, per_second, limits, apart)) }
    }

    /// What is to be told to whoever grants. `lost` says that the last answer did not come.
    #[must_use]
    pub fn report(&self, lost: bool, now: Instant) -> Report {
        self.local.report(lost, now)
    }

    /// What was answered to the report of `sent`.
    pub fn granted(&self, grant: &Grant, sent: Instant) {
        self.local.granted(grant, sent, Instant::now());
    }

    /// Nobody grants any more: from now on there is this replica's share. Out: how large that is.
    pub fn leave(&self) -> usize {
        self.local.leave(Instant::now())
    }

    /// Whoever grants is asked then, and not earlier.
    pub fn asks(&self, at: Instant) {
        self.local.asks(at);
    }

    /// Nothing starts any more.
    pub fn close(&self) {
        self.local.close(Instant::now());
    }

    /// Whether it has been left alone for so long that nobody keeps its share free any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.local.is_over(Instant::now())
    }

    /// Whether it should be asked for more.
    #[must_use]
    pub fn hungry(&self) -> bool {
        self.local.hungry(Instant::now())
    }

    /// Ends when somebody may want more than there is.
    pub async fn asked(&self) {
        self.local.asked().await;
    }

    /// The app's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A permit, at once if there is one for the taking, or in turn. `now` may be a little behind: the time the request
    /// came, say. Dropped, it gives its place in the queue back.
    ///
    /// # Errors
    /// When the turn does not come in time; at once, where that can be known.
    pub async fn take(&self, ask: Ask, now: Instant) -> Result<Permit, Exhausted> {
        self.local.take(ask, now, Duration::ZERO).await
    }

    /// The same for one that has waited for another budget before: that is taken off the longest wait.
    ///
    /// # Errors
    /// As for [`Budget::take`].
    pub async fn take_after(&self, waited: Duration, ask: Ask, now: Instant) -> Result<Permit, Exhausted> {
        self.local.take(ask, now, waited).await
    }

    /// Serves those who wait. To be run once, for as long as anybody may wait.
    pub async fn serve_queue(&self) {
        self.local.serve_queue().await;
    }

    /// What is allowed, in use and waiting now, and what was so far.
    #[must_use]
    pub fn account(&self) -> Account {
        self.local.account(Instant::now())
    }

    /// Starts that are left in this second, and when there is one more than now: for `RateLimit`.
    #[must_use]
    pub fn left(&self) -> Left {
        self.local.left(Instant::now())
    }
}

/// What an app has left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Left {
    /// What a second may have.
    pub allowed: usize,
    /// What is left of it.
    pub remaining: usize,
    /// Until one more is free.
    pub reset: Duration,
}

/// The budgets of all apps.
#[derive(Debug)]
pub struct Budgets {
    all: Vec<Arc<Budget>>,
    by_name: HashMap<Box<str>, Arc<Budget>>,
}

impl Budgets {
    /// By name, the first being that of keys which name no app; never none.
    #[must_use]
    pub fn new(apps: Vec<(String, usize)>, limits: &Limits) -> Self {
        Self::of_each(apps, |name, granted| Budget::new(name, granted, limits.clone()))
    }

    /// The same, shared by replicas; `apart` is what the configuration says of an app that is granted so much.
    #[must_use]
    pub fn shared(apps: Vec<(String, usize)>, limits: &Limits, apart: impl Fn(usize) -> Apart) -> Self {
        Self::of_each(apps, |name, granted| Budget::shared(name, granted, limits.clone(), apart(granted)))
    }

    fn of_each(apps: Vec<(String, usize)>, budget: impl Fn(&str, usize) -> Budget) -> Self {
        let all: Vec<_> = apps.into_iter().map(|(name, granted)| Arc::new(budget(&name, granted))).collect();
        let by_name = all.iter().map(|budget| (budget.name.clone(), Arc::clone(budget))).collect();
        Self { all, by_name }
    }

    /// The budget of a key's app.
    #[must_use]
    pub fn of(&self, app: Option<&str>) -> Option<&Arc<Budget>> {
        match (&*self.all, app) {
            ([_, _, ..], Some(name)) => self.by_name.get(name).or(self.all.first()),
            (all, _) => all.first(),
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Budget>> {
        self.all.iter()
    }
}

#[cfg(test)]
mod tests;
