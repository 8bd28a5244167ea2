//! The replicas: one that owns its budget, or many that share one as they do in a deployment.
//!
//! In: how many, what they are granted together, and who answers their reports. Out: a [`Budget`] for each, with a queue,
//! places and pauses of its own, and with the task that carries its reports. It is all code of the proxy; nothing is made
//! up here but their names.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cloudbeds_auth_proxy::budget::{Apart, Budget, Budgets, Limits};
use cloudbeds_auth_proxy::https::Dialer;
use cloudbeds_auth_proxy::shared::{self, Server, Stand};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::sleep;

use crate::kit::Sentence;

/// Until all replicas share, and know of each other.
pub(crate) const WARM_UP: Duration = Duration::from_secs(10);

/// Between the starts of two replicas. They do not report in step.
const APART: Duration = Duration::from_millis(7);

/// Replicas at work. They end with it, as if they were killed.
#[derive(Debug)]
pub(crate) struct Replicas {
    budgets: Vec<Arc<Budget>>,
    tasks: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

impl Drop for Replicas {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Replicas {
    /// One that owns the budget.
    pub(crate) fn alone(per_second: usize, limits: Limits) -> Self {
        let budget = Arc::new(Budget::new("app", per_second, limits));
        let serving = serve_queue(&budget);
        Self { budgets: vec![budget], tasks: vec![serving], stop: watch::channel(false).0 }
    }

    /// So many that share one.
    ///
    /// # Errors
    /// When one cannot be made.
    pub(crate) fn sharing(
        count: u32,
        per_second: usize,
        limits: &Limits,
        stand: &Arc<dyn Stand>,
    ) -> Result<Self, Sentence> {
        let (stop, _) = watch::channel(false);
        let mut replicas = Self { budgets: Vec::new(), tasks: Vec::new(), stop: stop.clone() };
        for number in 0..count {
            let budgets = Arc::new(Budgets::shared(vec![("app".to_owned(), per_second)], limits, |_| Apart::default()));
            let budget = Arc::clone(budgets.of(None).ok_or("no budget")?);
            let (server, stop) = (server(number, stand)?, stop.subscribe());
            replicas.tasks.push(serve_queue(&budget));
            replicas.tasks.push(spawn_local(async move {
                sleep(APART * number).await;
                shared::serve(server, budgets, stop).await;
            }));
            replicas.budgets.push(budget);
        }
        Ok(replicas)
    }

    /// The budget that this replica asks.
    pub(crate) fn budget(&self, replica: usize) -> &Arc<Budget> {
        &self.budgets[replica % self.budgets.len()]
    }

    /// All of them end, and say so.
    pub(crate) fn goodbye(&self) {
        self.stop.send_replace(true);
    }

    /// How many requests wait.
    pub(crate) fn waiting(&self) -> usize {
        self.budgets.iter().map(|budget| budget.account().waiting).sum()
    }

    /// How often one was left alone.
    pub(crate) fn losses(&self) -> u64 {
        self.budgets.iter().filter_map(|budget| budget.account().sharing).map(|sharing| sharing.losses).sum()
    }
}

fn serve_queue(budget: &Arc<Budget>) -> JoinHandle<()> {
    let budget = Arc::clone(budget);
    spawn_local(async move { budget.serve_queue().await })
}

/// Where a replica of this name shares.
fn server(number: u32, stand: &Arc<dyn Stand>) -> Result<Arc<Server>, Sentence> {
    let limit = Duration::from_secs(1);
    Ok(Arc::new(Server {
        url: "redis://127.0.0.1:1".parse().map_err(|_| "no URL")?,
        user: None,
        password: None,
        name: format!("replica {number}"),
        prefix: "bench".to_owned(),
        clients: HashMap::new(),
        dialer: Dialer::without_http(None, limit, limit).map_err(|error| format!("no dialer: {error}"))?,
        stand: Some(Arc::clone(stand)),
    }))
}
