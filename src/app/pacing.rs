//! The budgets, the thread that serves their queues, and the one that shares them.
//!
//! In: the configuration's limits and apps, and where Redis is. Out: a budget for each app, and a thread of its own that
//! gives permits out at their times: on a core they would wait for its requests, and on the control plane for its scrapes.
//! Another one talks with Redis, if there is one.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::budget::{Account, Apart, Budgets, Fallback, Limits, Why};
use crate::config::Config;
use crate::proxy::limit::Limiter;
use crate::shared::{self, Server};
use crate::telemetry::metrics::{Budget, Sharing};

/// What the budget is called of keys that belong to no app because none is configured.
const NO_APP: &str = "default";

/// The thread, and what the cores need; nothing where budgets are off.
pub(super) struct Pacing {
    pub(super) limiter: Option<Limiter>,
    /// Dropped, the thread ends.
    _stop: Option<oneshot::Sender<()>>,
    sharing: Option<Sharer>,
}

/// The thread that talks with Redis.
struct Sharer {
    stop: watch::Sender<bool>,
    ended: oneshot::Receiver<()>,
}

/// How long the end of the process waits for the goodbyes.
const GOODBYE: Duration = Duration::from_millis(500);

impl Pacing {
    /// Starts the threads; budgets are shared where there is a server.
    pub(super) fn start(config: &Config, server: Option<Arc<Server>>) -> io::Result<Self> {
        let Some(limiter) = limiter(config) else { return Ok(Self { limiter: None, _stop: None, sharing: None }) };
        let sharing = match server {
            Some(server) => Some(Sharer::start(server, Arc::clone(&limiter.budgets))?),
            None => None,
        };
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
        Ok(Self { limiter: Some(limiter), _stop: Some(stop), sharing })
    }

    /// Tells the other replicas that this one's share is free. Nothing can start afterwards.
    pub(super) async fn say_goodbye(&mut self) {
        if let Some(Sharer { stop, ended }) = self.sharing.take() {
            drop(stop);
            let _ = tokio::time::timeout(GOODBYE, ended).await;
        }
    }

    /// The budgets.
    pub(super) fn budgets(&self) -> Option<Arc<Budgets>> {
        self.limiter.as_ref().map(|limiter| Arc::clone(&limiter.budgets))
    }
}

impl Sharer {
    fn start(server: Arc<Server>, budgets: Arc<Budgets>) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let (tell_ended, ended) = oneshot::channel();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("sharer".to_owned()).spawn(move || {
            runtime.block_on(shared::serve(server, budgets, stopped));
            runtime.shutdown_background();
            let _ = tell_ended.send(());
        })?;
        Ok(Self { stop, ended })
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
    let budgets = match &config.shared {
        None => Budgets::new(apps, &limits),
        Some(shared) => Budgets::shared(apps, &limits, |granted| {
            let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
            let fallback = shared
                .fallback_share
                .map(|share| Fallback { share: whole(share.of(granted as u64)), parts: whole(share.parts()) });
            Apart { fallback, gone: shared.cut_off }
        }),
    };
    Some(Limiter { budgets: Arc::new(budgets), announce: typed.announce })
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
        sharing: account.sharing.map(|sharing| Sharing {
            up: sharing.up,
            share: sharing.share,
            replicas: sharing.members,
            losses: sharing.losses,
        }),
        properties: account
            .hotels
            .iter()
            .map(|hotel| (hotel.property, hotel.waiting, hotel.waited, hotel.refused))
            .collect(),
    };
    budgets.iter().map(|budget| one(budget.account())).collect()
}
