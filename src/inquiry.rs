//! What the keeper of the keys asks Cloudbeds.
//!
//! In: a key, and what is in question. Out: what Cloudbeds thinks of it, or which hotels it opens. It chooses the call
//! and reads the answer's meaning; the call itself is [`crate::cloudbeds`]'s. An answer that is not about the key, or
//! none, settles nothing.

use std::sync::Arc;

use crate::budget::Budgets;
use crate::cloudbeds::{Cloudbeds, Unanswered};
use crate::https::Dialer;
use crate::keys::keeper::{Answered, Probe, Vendor};
use crate::keys::verdict::Sign;
use crate::keys::{Key, Verdict};
use crate::origin::Origin;
use crate::property::PropertyId;

/// The way the keeper's questions take.
#[derive(Clone)]
pub struct Inquiry {
    cloudbeds: Cloudbeds,
    base: Arc<Origin>,
    budgets: Option<Arc<Budgets>>,
}

impl Inquiry {
    /// Asks `base`, or a key's own origin, within the budget of the key's app where there are budgets.
    #[must_use]
    pub fn new(dialer: Dialer, base: Origin, budgets: Option<Arc<Budgets>>) -> Self {
        Self { cloudbeds: Cloudbeds::new(dialer), base: Arc::new(base), budgets }
    }

    /// Cloudbeds counts these calls too.
    fn for_key(&self, key: &Key) -> Cloudbeds {
        let budget = self.budgets.as_ref().and_then(|budgets| budgets.of(key.app.as_deref()));
        self.cloudbeds.within(budget.map(Arc::clone))
    }

    async fn probe(&self, key: &Key, property: Option<PropertyId>, sign: Option<Sign>) -> Probe {
        let (secret, origin) = (key.secret(), key.base_url.as_ref().unwrap_or(&self.base));
        // The cheapest call says nothing about a property.
        let answered = match (sign, property) {
            (Some(Sign::PropertyLeft), Some(property)) => self.for_key(key).opens(secret, origin, property).await,
            _ => self.for_key(key).accepts(secret, origin).await,
        };
        match answered {
            Ok(()) => Probe::Good,
            Err(Unanswered::Rejected) => Probe::Dead(Verdict::Rejected),
            Err(Unanswered::UserLeft) => Probe::Dead(Verdict::UserLeft),
            Err(Unanswered::PropertyLeft) => Probe::Dead(Verdict::PropertyLeft),
            Err(
                unclear @ (Unanswered::Refused(_)
                | Unanswered::Unreachable(_)
                | Unanswered::Broken(_)
                | Unanswered::NoTurn(_)),
            ) => {
                tracing::debug!("a question about a key settled nothing: {unclear}");
                Probe::Unclear
            }
        }
    }

    async fn hotels(&self, key: &Key) -> Option<Vec<PropertyId>> {
        let origin = key.base_url.as_ref().unwrap_or(&self.base);
        match self.for_key(key).whose(key.secret(), origin).await {
            Ok(hotels) => Some(hotels.into_iter().map(|hotel| hotel.property).collect()),
            Err(error) => {
                tracing::debug!("the hotels of a key are not known: {error}");
                None
            }
        }
    }
}

impl Vendor for Inquiry {
    fn probe(&self, key: Arc<Key>, property: Option<PropertyId>, sign: Option<Sign>) -> Answered<Probe> {
        let here = self.clone();
        Box::pin(async move { here.probe(&key, property, sign).await })
    }

    fn hotels(&self, key: Arc<Key>) -> Answered<Option<Vec<PropertyId>>> {
        let here = self.clone();
        Box::pin(async move { here.hotels(&key).await })
    }
}
