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
mod subscriptions;

pub(super) use app::is_loopback;
pub use app::{App, Delivery, NotAnApp};
pub use budget::Budget;
use budget::Calls;
pub(super) use budget::Spent;
use code::Codes;
use keys::Keys;
pub(super) use keys::{Grant, NoGrant};
pub(super) use life::{Approved, Exchange, Refused};
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

/// A hotel before anything has happened to it.
pub(super) struct Place {
    pub(super) property: PropertyId,
    pub(super) name: String,
    pub(super) organization: String,
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

    pub(super) fn set_budget(&mut self, budget: Option<Budget>) {
        self.budget = budget;
    }

    pub(super) fn budget(&self) -> Option<Budget> {
        self.budget
    }

    /// Counts a call of an app.
    pub(super) fn spend(&mut self, app: AppIndex, now: SystemTime) -> Spent {
        let Some(budget) = self.budget else { return Spent::Served };
        let spent = self.calls.entry(app).or_default().spend(budget, now);
        if spent == Spent::Last {
            let name = &self.apps[app.0].name;
            self.mails.push(format!("To the partner: {name} exceeds its rate limit and is suspended. Confirm a fix."));
        }
        spent
    }

    pub(super) fn is_suspended(&self, app: AppIndex) -> bool {
        self.calls.get(&app).is_some_and(Calls::is_suspended)
    }

    /// The partner has confirmed a fix.
    pub(super) fn reinstate(&mut self, app: AppIndex) {
        if let Some(calls) = self.calls.get_mut(&app) {
            calls.reinstate();
        }
    }

    /// Whether a key opens a hotel; does not count as its use.
    pub(super) fn concerns(&self, key: &str, property: PropertyId) -> bool {
        self.keys.peek(key).is_some_and(|grant| grant.properties.contains(&property))
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

    /// The key an app has for a hotel, with the time of its last use and whether it works.
    pub(super) fn key(&self, app: AppIndex, property: PropertyId, now: SystemTime) -> Option<(&str, SystemTime, bool)> {
        self.keys.current(app, &self.connections.get(&(app, property))?.owner, now)
    }

    /// The hotels an app has ever been connected to, in order.
    pub(super) fn connected(&self, app: AppIndex) -> Vec<PropertyId> {
        let mut found: Vec<PropertyId> =
            self.connections.keys().filter(|(index, _)| *index == app).map(|(_, property)| *property).collect();
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

/// The organisation of hotels that came with one key is named after the first of them.
fn organization_of(first: PropertyId) -> String {
    format!("9{first}")
}

/// All hotels of the settings, with the organisation each belongs to.
pub(super) fn places(settings: &Settings) -> Vec<Place> {
    let mut first: HashMap<&str, PropertyId> = HashMap::new();
    let connected = settings.hotels.iter().map(|hotel| {
        let organization = organization_of(*first.entry(&hotel.key).or_insert(hotel.property));
        Place { property: hotel.property, name: hotel.name.clone(), organization }
    });
    let mut all: Vec<Place> = connected.collect();
    all.extend(settings.unconnected.iter().map(|hotel| {
        let organization = hotel.organization.clone().unwrap_or_else(|| organization_of(hotel.property));
        Place { property: hotel.property, name: hotel.name.clone(), organization }
    }));
    all
}
