//! Who may do what: apps, hotels, their connections, codes and keys.
//!
//! In: what partners, hotel users and time do. Out: keys and codes, and the changes of state that webhooks tell about.
//! Nothing here is HTTP, and nothing reads a clock: whoever calls says what time it is.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use super::Settings;
use crate::property::PropertyId;

mod app;
mod budget;
mod code;
mod keys;
mod life;
mod place;
mod subscriptions;

pub(super) use app::is_loopback;
pub use app::{App, Delivery, NotAnApp};
pub use budget::Budget;
use budget::Calls;
pub(super) use budget::Spent;
use code::Codes;
use keys::{Current, Keys};
pub(super) use keys::{Grant, NoGrant};
pub(super) use life::{Approved, Exchange, Refused};
use place::organization_of;
pub(super) use place::{Place, places};
pub(super) use subscriptions::{Subscription, Subscriptions};

/// Where an app stands in the list; apps are added and changed, never removed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct AppIndex(usize);

/// Whom a key belongs to.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum Owner {
    Property(PropertyId),
    /// All hotels of an organisation, by its id.
    Organization(String),
}

/// How an app stands with a hotel (the vendor's "Connecting & Disconnecting Apps").
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AppState {
    /// It has a key and may call.
    Enabled,
    /// It has none, or no more.
    Disabled,
    /// The key is being made.
    Installing,
    /// Approved, the key not yet fetched; or set so by the app.
    Pending,
}

impl AppState {
    /// The vendor's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
            Self::Installing => "installing",
            Self::Pending => "pending",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        [Self::Enabled, Self::Disabled, Self::Installing, Self::Pending].into_iter().find(|one| one.as_str() == text)
    }
}

/// A state that changed, for those who subscribed to it.
#[derive(Clone, Copy)]
pub(super) struct Change {
    pub(super) app: AppIndex,
    pub(super) property: PropertyId,
    pub(super) old: AppState,
    pub(super) new: AppState,
}

struct Connection {
    state: AppState,
    owner: Owner,
}

/// Everything of it.
pub(super) struct Accounts {
    apps: Vec<App>,
    hotels: HashMap<PropertyId, Place>,
    organizations: HashMap<String, Vec<PropertyId>>,
    connections: HashMap<(AppIndex, PropertyId), Connection>,
    codes: Codes,
    keys: Keys,
    left: HashSet<PropertyId>,
    budget: Option<Budget>,
    calls: HashMap<AppIndex, Calls>,
    /// Who wants to hear of changes.
    pub(super) subscriptions: Subscriptions,
    changes: Vec<Change>,
    mails: Vec<String>,
}

impl Accounts {
    pub(super) fn new(settings: &Settings, now: SystemTime) -> Self {
        let mut apps = settings.apps.clone();
        if apps.is_empty() {
            // The keys of the settings must have been made for somebody.
            apps.push(super::demo_app());
        }
        let mut of_key: HashMap<&str, Vec<PropertyId>> = HashMap::new();
        for hotel in &settings.hotels {
            of_key.entry(&hotel.key).or_default().push(hotel.property);
        }
        let (mut keys, mut connections) = (Keys::default(), HashMap::new());
        let first = AppIndex(0);
        let mut organizations: HashMap<String, Vec<PropertyId>> = HashMap::new();
        let places = places(settings);
        for place in &places {
            organizations.entry(place.organization.clone()).or_default().push(place.property);
        }
        for (text, properties) in of_key {
            let owner = match properties.as_slice() {
                [alone] => Owner::Property(*alone),
                several => Owner::Organization(organization_of(several[0])),
            };
            for property in &properties {
                let connection = Connection { state: AppState::Enabled, owner: owner.clone() };
                connections.insert((first, *property), connection);
            }
            keys.add(text.to_owned(), first, owner, properties, now);
        }
        let hotels = places.into_iter().map(|place| (place.property, place)).collect();
        let codes = Codes::default();
        let (left, subscriptions) = (HashSet::new(), Subscriptions::default());
        Self {
            apps,
            hotels,
            organizations,
            connections,
            codes,
            keys,
            left,
            budget: settings.budget,
            calls: HashMap::new(),
            subscriptions,
            changes: Vec::new(),
            mails: Vec::new(),
        }
    }

    pub(super) fn find(&self, client_id: &str) -> Option<AppIndex> {
        self.apps.iter().position(|app| app.client_id == client_id).map(AppIndex)
    }

    pub(super) fn app(&self, index: AppIndex) -> &App {
        // An index comes from this list only, which never gets shorter.
        &self.apps[index.0]
    }

    pub(super) fn apps(&self) -> impl Iterator<Item = (AppIndex, &App)> {
        self.apps.iter().enumerate().map(|(index, app)| (AppIndex(index), app))
    }

    /// Adds an app, or changes the one with its client id.
    pub(super) fn set_app(&mut self, app: App) {
        match self.find(&app.client_id) {
            Some(index) => self.apps[index.0] = app,
            None => self.apps.push(app),
        }
    }

    pub(super) fn hotel(&self, property: PropertyId) -> Option<&Place> {
        self.hotels.get(&property)
    }

    /// All hotels of the organisation a hotel belongs to, itself included.
    pub(super) fn siblings(&self, property: PropertyId) -> &[PropertyId] {
        let organization = self.hotels.get(&property).map(|place| place.organization.as_str()).unwrap_or_default();
        self.organizations.get(organization).map_or(&[], Vec::as_slice)
    }

    pub(super) fn state(&self, app: AppIndex, property: PropertyId) -> AppState {
        self.connections.get(&(app, property)).map_or(AppState::Disabled, |connection| connection.state)
    }

    pub(super) fn revoke(&mut self, key: &str) {
        self.keys.revoke(key);
    }

    pub(super) fn user_left(&mut self, property: PropertyId) {
        self.keys.user_left(property);
    }

    /// The hotel leaves the vendor, or comes back.
    pub(super) fn set_left(&mut self, property: PropertyId, left: bool) {
        if left {
            self.left.insert(property)
        } else {
            self.left.remove(&property)
        };
    }

    pub(super) fn has_left(&self, property: PropertyId) -> bool {
        self.left.contains(&property)
    }

    /// Whether a key opens a hotel; does not count as its use.
    pub(super) fn concerns(&self, key: &str, property: PropertyId) -> bool {
        self.keys.peek(key).is_some_and(|grant| grant.properties.contains(&property))
    }

    /// The app a key was made for; does not count as its use.
    pub(super) fn made_for(&self, key: &str) -> Option<AppIndex> {
        self.keys.peek(key).map(|grant| grant.app)
    }

    /// What a key opens now; counts as its use.
    pub(super) fn open(&mut self, key: &str, now: SystemTime) -> Result<Arc<Grant>, NoGrant> {
        let grant = self.keys.open(key, now)?;
        if self.left.is_empty() {
            return Ok(grant);
        }
        let (left, properties) = grant.properties.iter().partition(|id| self.left.contains(id));
        Ok(Arc::new(Grant { app: grant.app, properties, left }))
    }

    /// The last key an app was given for a hotel.
    pub(super) fn key(&self, app: AppIndex, property: PropertyId, now: SystemTime) -> Option<Current<'_>> {
        self.keys.current(app, &self.connections.get(&(app, property))?.owner, now)
    }

    /// The hotels an app has ever been connected to, in order.
    pub(super) fn connected(&self, app: AppIndex) -> Vec<PropertyId> {
        let mut found: Vec<PropertyId> =
            self.connections.keys().filter(|(index, _)| *index == app).map(|(_, property)| *property).collect();
        found.sort_unstable();
        found
    }

    /// Hotels that an app has never been connected to, so many at most.
    pub(super) fn unconnected(&self, app: AppIndex, most: usize) -> Vec<PropertyId> {
        let strange = self.hotels.keys().filter(|id| !self.connections.contains_key(&(app, **id)));
        let mut found: Vec<PropertyId> = strange.take(most).copied().collect();
        found.sort_unstable();
        found
    }

    /// The changes since this was last asked.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// The notices sent by e-mail so far, one line each.
    pub(super) fn mails(&self) -> &[String] {
        &self.mails
    }

    fn properties(&self, owner: &Owner) -> Vec<PropertyId> {
        match owner {
            Owner::Property(property) => vec![*property],
            Owner::Organization(id) => self.organizations.get(id).cloned().unwrap_or_default(),
        }
    }
}
