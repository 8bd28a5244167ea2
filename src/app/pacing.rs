//! The budgets, and the thread that serves their queues.
//!
//! In: the configuration's limits and apps. Out: a budget for each app, and a thread of its own that gives permits out at
//! their times: on a core they would wait for its requests, and on the control plane for its scrapes.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::budget::{Account, Budgets, Limits, Why};
use crate::config::Config;
use crate::proxy::limit::Limiter;
use crate::telemetry::metrics::Budget;

/// What the budget is called of keys that belong to no app because none is configured.
const NO_APP: &str = "default";

/// The thread, and what the cores need; nothing where budgets are off.
pub(super) struct Pacing {
    pub(super) limiter: Option<Limiter>,
    /// Dropped, the thread ends.
    _stop: Option<oneshot::Sender<()>>,
}

impl Pacing {
    /// Starts the thread.
    pub(super) fn start(config: &Config) -> io::Result<Self> {
        let Some(limiter) = limiter(config) else { return Ok(Self { limiter: None, _stop: None }) };
        let (stop, stopped) = oneshot::channel::<()>();
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let budgets = Arc::clone(&limiter.budgets);
        std::thread::Builder::new().name("pacer".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let mut queues = JoinSet::new();
                for budget in budgets.iter() {
                    let budget = Arc::clone(budget);
                    queues.spawn(async move { budget.serve_queue().await });
                }
                // A sender that is gone means the same as a word from it.
                drop(stopped.await);
            });
        })?;
        Ok(Self { limiter: Some(limiter), _stop: Some(stop) })
    }

    /// The budgets.
    pub(super) fn budgets(&self) -> Option<Arc<Budgets>> {
        self.limiter.as_ref().map(|limiter| Arc::clone(&limiter.budgets))
    }
}

fn limiter(config: &Config) -> Option<Limiter> {
    let typed = config.limits.as_ref()?;
    let weights: HashMap<_, _> = typed.weights.iter().map(|(property, weight)| (*property, *weight)).collect();
    let limits = Limits {
        max_wait: typed.max_wait,
        max_waiting: typed.max_waiting,
        max_waiting_per_property: typed.max_waiting_per_property,
        weights: Arc::new(weights),
    };
    let per_second = |number: u64| usize::try_from(number).unwrap_or(1);
    let apps = config.apps.iter().map(|app| (app.name.clone(), per_second(app.requests_per_second)));
    let mut apps: Vec<_> = apps.collect();
    if apps.is_empty() {
        apps.push((NO_APP.to_owned(), per_second(typed.requests_per_second)));
    }
    Some(Limiter { budgets: Arc::new(Budgets::new(apps, &limits)), announce: typed.announce })
}

/// The budgets as metrics have them.
pub(super) fn told(budgets: &Budgets) -> Vec<Budget> {
    let one = |account: Account| Budget {
        app: account.app,
        granted: account.granted,
        allowed: account.allowed,
        used: account.used,
        waiting: account.waiting,
        paused: account.paused,
        waits: account.waits,
        waited: account.waited,
        refused: Why::ALL.iter().map(|why| (why.as_str(), account.refused[*why as usize])).collect(),
        pauses: account.pauses,
        properties: account
            .hotels
            .iter()
            .map(|hotel| (hotel.property, hotel.waiting, hotel.waited, hotel.refused))
            .collect(),
    };
    budgets.iter().map(|budget| one(budget.account())).collect()
}
