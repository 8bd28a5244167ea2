//! The replicas, and the budget that each of them asks.
//!
//! In: how many, and what they are granted together. Out: a budget for each. As things are, one process owns a budget, so
//! all of them hold the same one and a replica is a name on a call. Whoever shares it another way gives each replica a
//! [`Budget`] of its own here; nothing else in this bench would notice.

use std::sync::Arc;

use cloudbeds_auth_proxy::budget::{Budget, Limits};

/// The budgets of all replicas, by number.
#[derive(Debug)]
pub(crate) struct Replicas(Vec<Arc<Budget>>);

impl Replicas {
    /// So many callers of one budget.
    pub(crate) fn of_one_budget(replicas: usize, per_second: usize, limits: Limits) -> Self {
        let budget = Arc::new(Budget::new("app", per_second, limits));
        Self(vec![budget; replicas])
    }

    /// The budget that this replica asks.
    pub(crate) fn budget(&self, replica: usize) -> &Arc<Budget> {
        &self.0[replica % self.0.len()]
    }

    /// Each budget once, to serve its queue and to read its account.
    pub(crate) fn distinct(&self) -> Vec<&Arc<Budget>> {
        let mut distinct: Vec<&Arc<Budget>> = Vec::new();
        for budget in &self.0 {
            if !distinct.iter().any(|other| Arc::ptr_eq(other, budget)) {
                distinct.push(budget);
            }
        }
        distinct
    }
}
