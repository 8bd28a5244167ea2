//! Who wants to be told what (the vendor's `postWebhook`).
//!
//! In: subscriptions of apps. Out: the endpoints an event goes to. An app's subscriptions for a hotel are gone once the
//! hotel disconnects it.

use super::AppIndex;
use crate::property::PropertyId;
use crate::sandbox::keys::random_token;

/// Subscriptions of one app; more than any real one has.
const MOST: usize = 1000;

/// One subscription.
#[derive(Clone)]
pub(in crate::sandbox) struct Subscription {
    pub(in crate::sandbox) id: String,
    pub(in crate::sandbox) app: AppIndex,
    pub(in crate::sandbox) properties: Vec<PropertyId>,
    pub(in crate::sandbox) entity: String,
    pub(in crate::sandbox) action: String,
    pub(in crate::sandbox) endpoint: String,
}

/// All of them, oldest first.
#[derive(Default)]
pub(in crate::sandbox) struct Subscriptions(Vec<Subscription>);

impl Subscriptions {
    /// The id of a new one; `None` when the app has too many.
    pub(in crate::sandbox) fn add(
        &mut self,
        app: AppIndex,
        properties: Vec<PropertyId>,
        (entity, action): (&str, &str),
        endpoint: &str,
    ) -> Option<String> {
        if self.0.iter().filter(|one| one.app == app).count() >= MOST {
            return None;
        }
        let id = random_token(14).to_ascii_lowercase();
        let (entity, action) = (entity.to_owned(), action.to_owned());
        let endpoint = endpoint.to_owned();
        self.0.push(Subscription { id: id.clone(), app, properties, entity, action, endpoint });
        Some(id)
    }

    /// Whether there was one.
    pub(in crate::sandbox) fn remove(&mut self, app: AppIndex, id: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|one| one.app != app || one.id != id);
        self.0.len() < before
    }

    /// Those of an app that concern one of these hotels.
    pub(in crate::sandbox) fn of<'a>(
        &'a self,
        app: AppIndex,
        properties: &'a [PropertyId],
    ) -> impl Iterator<Item = &'a Subscription> {
        self.0.iter().filter(move |one| one.app == app && one.properties.iter().any(|id| properties.contains(id)))
    }

    /// The hotel disconnected the app.
    pub(in crate::sandbox) fn forget(&mut self, app: AppIndex, property: PropertyId) {
        for one in self.0.iter_mut().filter(|one| one.app == app) {
            one.properties.retain(|id| *id != property);
        }
        self.0.retain(|one| !one.properties.is_empty());
    }
}
