//! What Prometheus reads: counted by each worker on its own, added up when somebody asks.
//!
//! In: [`Recorder`]s, one per worker, and [`Control`] for everything that is not a request. Out: one page of
//! Prometheus text. Counting takes no lock and shares no cache line between cores; the scrape pays for the sums. No
//! name or label holds anything a caller or Cloudbeds sent, but for property ids, and those only while keys name them.

mod budget;
mod control;
mod encode;
mod histogram;
mod onboarding;
mod outcome;
mod recorder;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use self::control::Control;
use self::encode::Scrape;
pub use self::encode::{CONTENT_TYPE, PREFIX};
pub use self::onboarding::{Connect, Onboarding, Webhook};
use self::outcome::{Counts, Outcome, PropertyOutcomes};
use self::recorder::Cells;
pub use self::recorder::{Leak, Recorder};
use crate::property::PropertyId;

/// All the process's metrics. Clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<Shared>);

/// What the keys' owner knows and the counters do not, at the time of a scrape.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Gauges {
    /// Keys in the set being served.
    pub keys_loaded: usize,
    /// Properties those keys serve.
    pub properties_loaded: usize,
    /// How many properties have a key of each verdict.
    pub verdicts: Vec<(&'static str, usize)>,
    /// Properties whose key needs somebody: its verdict, and the days without use.
    pub troubled: Vec<(PropertyId, &'static str, u64)>,
    /// Each app's budget; none where budgets are off.
    pub budgets: Vec<Budget>,
}

/// One app's budget at the time of a scrape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// The app's name.
    pub app: String,
    /// Starts a second: as configured, as allowed now, and those that count now.
    pub granted: usize,
    /// See there.
    pub allowed: usize,
    /// See there.
    pub used: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// How much longer Cloudbeds wants to hear nothing.
    pub paused: Duration,
    /// Requests that waited for their turn and got it, and how long they waited together.
    pub waits: u64,
    /// See there.
    pub waited: Duration,
    /// Requests that got none, by the reason.
    pub refused: Vec<(&'static str, u64)>,
    /// How often Cloudbeds has refused for our pace.
    pub pauses: u64,
    /// How replicas share it, if they do.
    pub sharing: Option<Sharing>,
    /// Properties of which a request ever waited: waiting now, waited so far, refused so far.
    pub properties: Vec<(PropertyId, usize, Duration, u64)>,
}

/// How replicas share a budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    /// Whether Redis answers.
    pub up: bool,
    /// Starts a second that this replica has while it does not.
    pub share: usize,
    /// Replicas, as last heard.
    pub replicas: usize,
    /// Times that it was lost.
    pub losses: u64,
}

struct Shared {
    workers: usize,
    control: Control,
    onboarding: Onboarding,
    // Touched by a worker's start, by its first request for a property, and by scrapes.
    registry: Mutex<Registry>,
}

/// Who counts, so that a scrape can find all of them.
#[derive(Default)]
struct Registry {
    cells: Vec<Arc<Cells>>,
    properties: Vec<Counted>,
    /// Requests whose property has since lost its key.
    retired: Counts,
}

/// One worker's counts for one property. They stay until the process ends: 100 bytes or so per property once used.
struct Counted {
    outcomes: Arc<PropertyOutcomes>,
    /// How much of them has been handed over to [`Registry::retired`]. Were it subtracted from the counts instead, the
    /// scrape would write to what only the worker may write to.
    retired: Counts,
}

impl Metrics {
    /// Metrics of a process with this many workers; the number itself is one of them.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self(Arc::new(Shared {
            workers,
            control: Control::new(),
            onboarding: Onboarding::default(),
            registry: Mutex::default(),
        }))
    }

    /// A recorder for one worker, with counters of its own. What it counted remains when it is gone.
    #[must_use]
    pub fn recorder(&self) -> Recorder {
        let cells = Arc::new(Cells::default());
        self.0.registry().cells.push(Arc::clone(&cells));
        Recorder::new(self.clone(), cells)
    }

    /// The counters that are not a worker's.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.0.control
    }

    /// The counters of the onboarding listener.
    #[must_use]
    pub fn onboarding(&self) -> &Onboarding {
        &self.0.onboarding
    }

    /// The page in Prometheus' text format 0.0.4 ([`CONTENT_TYPE`]).
    ///
    /// `known` says whether a property has a key now. Requests of one that has none are counted under the empty
    /// property from this scrape on, and its own series ends: labels never outlive the keys that justify them.
    #[must_use]
    pub fn encode(&self, gauges: &Gauges, known: &dyn Fn(PropertyId) -> bool) -> String {
        // The text is written without the lock: a worker may be at a property's first request.
        let scrape = Scrape::take(&self.0, gauges, known);
        scrape.text()
    }

    /// Counters for a property, which the next scrape will find; the first thing they count will be this.
    fn register(&self, property: PropertyId, first: Outcome) -> Arc<PropertyOutcomes> {
        let outcomes = Arc::new(PropertyOutcomes::new(property, first));
        self.0.registry().properties.push(Counted { outcomes: Arc::clone(&outcomes), retired: Counts::default() });
        outcomes
    }
}

impl Shared {
    fn registry(&self) -> MutexGuard<'_, Registry> {
        // Nothing in here can be half done: a panic elsewhere must not cost the metrics that would show it.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Metrics").field("workers", &self.0.workers).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
