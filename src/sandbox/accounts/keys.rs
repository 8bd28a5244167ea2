//! The keys that open something, and what becomes of them.
//!
//! In: who gets a key, later a key that somebody sent. Out: a [`Grant`], or why there is none. One owner has one key per
//! app: a new one ends the old one (the vendor's guide, FAQ). A key unused for 30 days is gone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{AppIndex, Owner};
use crate::property::PropertyId;
use crate::sandbox::keys::random_key;

/// How long a key lives without being used (the vendor's guide, FAQ).
pub(in crate::sandbox) const IDLE_LIFE: Duration = Duration::from_secs(30 * 86_400);

/// What a key opens.
#[derive(Clone)]
pub(in crate::sandbox) struct Grant {
    /// The app it was made for, whose budget its calls count against.
    pub(in crate::sandbox) app: AppIndex,
    /// In the order of the settings. Empty only where all have left.
    pub(in crate::sandbox) properties: Vec<PropertyId>,
    /// Those it would open, had they not left the vendor.
    pub(in crate::sandbox) left: Vec<PropertyId>,
}

/// Why a request opens nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::sandbox) enum NoGrant {
    /// It carries no key.
    Missing,
    /// There is no such key. One that was not used for 30 days is answered the same way; the vendor's pages do not say
    /// what an expired key gets, and a key that is gone is the plainest reading.
    Invalid,
    /// It was replaced, disconnected or disabled.
    Revoked,
    /// Whoever approved the connection does not work there any more.
    UserLeft,
}

enum Fate {
    Alive,
    Revoked,
    UserLeft,
}

struct Key {
    grant: Arc<Grant>,
    used: SystemTime,
    fate: Fate,
}

/// The last key an owner was given.
pub(in crate::sandbox) struct Current<'a> {
    pub(in crate::sandbox) text: &'a str,
    /// When it was last used, or made.
    pub(in crate::sandbox) used: SystemTime,
    /// Why it does not work any more, if so.
    pub(in crate::sandbox) dead: Option<&'static str>,
}

/// All keys, dead ones too.
#[derive(Default)]
pub(super) struct Keys {
    by_text: HashMap<String, Key>,
    current: HashMap<(AppIndex, Owner), String>,
}

impl Keys {
    /// A key the settings bring along.
    pub(super) fn add(
        &mut self,
        text: String,
        app: AppIndex,
        owner: Owner,
        properties: Vec<PropertyId>,
        now: SystemTime,
    ) {
        let grant = Arc::new(Grant { app, properties, left: Vec::new() });
        if let Some(before) = self.current.insert((app, owner), text.clone()) {
            self.revoke(&before);
        }
        self.by_text.insert(text, Key { grant, used: now, fate: Fate::Alive });
    }

    /// A fresh key; the owner's last one is dead from here on.
    pub(super) fn issue(
        &mut self,
        app: AppIndex,
        owner: Owner,
        properties: Vec<PropertyId>,
        now: SystemTime,
    ) -> String {
        let text = random_key();
        self.add(text.clone(), app, owner, properties, now);
        text
    }

    /// What a key opens; counts as its use.
    pub(super) fn open(&mut self, text: &str, now: SystemTime) -> Result<Arc<Grant>, NoGrant> {
        let key = self.by_text.get_mut(text).ok_or(NoGrant::Invalid)?;
        match key.fate {
            Fate::Revoked => return Err(NoGrant::Revoked),
            Fate::UserLeft => return Err(NoGrant::UserLeft),
            Fate::Alive => {}
        }
        if is_expired(key.used, now) {
            return Err(NoGrant::Invalid);
        }
        key.used = now;
        Ok(Arc::clone(&key.grant))
    }

    /// What a key was made for, dead or alive.
    pub(super) fn peek(&self, text: &str) -> Option<&Grant> {
        self.by_text.get(text).map(|key| &*key.grant)
    }

    pub(super) fn revoke(&mut self, text: &str) {
        if let Some(key) = self.by_text.get_mut(text) {
            key.fate = Fate::Revoked;
        }
    }

    /// Ends an app's keys at a hotel. A key of its whole organisation goes on for the other hotels.
    pub(super) fn disconnect(&mut self, app: AppIndex, property: PropertyId) {
        for key in self.by_text.values_mut().filter(|key| opens(key, app, property)) {
            match key.grant.properties.len() {
                1 => key.fate = Fate::Revoked,
                _ => Arc::make_mut(&mut key.grant).properties.retain(|id| *id != property),
            }
        }
    }

    /// Ends, in the vendor's own way, the keys that were approved at a hotel so far.
    pub(super) fn user_left(&mut self, property: PropertyId) {
        let alive = self.by_text.values_mut().filter(|key| matches!(key.fate, Fate::Alive));
        for key in alive.filter(|key| key.grant.properties.contains(&property)) {
            key.fate = Fate::UserLeft;
        }
    }

    /// The key an owner has.
    pub(super) fn current(&self, app: AppIndex, owner: &Owner, now: SystemTime) -> Option<Current<'_>> {
        let text = self.current.get(&(app, owner.clone()))?;
        let key = self.by_text.get(text)?;
        let dead = match key.fate {
            Fate::Revoked => Some("revoked"),
            Fate::UserLeft => Some("its user left"),
            Fate::Alive => is_expired(key.used, now).then_some("expired"),
        };
        Some(Current { text, used: key.used, dead })
    }
}

fn opens(key: &Key, app: AppIndex, property: PropertyId) -> bool {
    key.grant.app == app && key.grant.properties.contains(&property)
}

fn is_expired(used: SystemTime, now: SystemTime) -> bool {
    now.duration_since(used).is_ok_and(|idle| idle >= IDLE_LIFE)
}
