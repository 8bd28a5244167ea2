//! Rows become a set.
//!
//! In: properties and keys, one after the other. Out: a [`KeySet`] in which equal keys are one, or the place of the row
//! that named a property first.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use super::{Key, KeySet, Lives, Rows};
use crate::origin::{NotAnOrigin, Origin};
use crate::property::PropertyId;
use crate::secret::ApiKey;

/// A key as its row says it.
pub(super) struct Said {
    pub(super) secret: ApiKey,
    pub(super) organization: Option<Box<str>>,
    pub(super) app: Option<Box<str>>,
    pub(super) base_url: Option<Arc<Origin>>,
    pub(super) add_property_id: bool,
    pub(super) auto: bool,
}

/// A [`KeySet`] in the making. `P` is whatever tells a row's place.
pub(super) struct Builder<'a, P> {
    lives: &'a Lives,
    rows: HashMap<PropertyId, (Arc<Key>, P)>,
    keys: HashSet<Arc<Key>>,
    auto: Vec<Arc<Key>>,
    origins: HashMap<String, Arc<Origin>>,
}

impl<'a, P: Copy> Builder<'a, P> {
    /// Keys take up the lives they have in `lives`.
    pub(super) fn new(lives: &'a Lives) -> Self {
        Self { lives, auto: Vec::new(), rows: HashMap::new(), keys: HashSet::new(), origins: HashMap::new() }
    }

    /// Equal origins become one as well: a pool of connections belongs to each.
    pub(super) fn origin(&mut self, text: &str) -> Result<Arc<Origin>, NotAnOrigin> {
        let origin: Origin = text.parse()?;
        Ok(Arc::clone(self.origins.entry(origin.to_string()).or_insert_with(|| Arc::new(origin))))
    }

    /// The one `Arc` of this key.
    pub(super) fn key(&mut self, said: Said) -> Arc<Key> {
        let Said { secret, organization, app, base_url, add_property_id, auto } = said;
        let life = self.lives.of(secret.fingerprint());
        let key = Key { secret, life, organization, app, base_url, add_property_id, auto };
        if let Some(known) = self.keys.get(&key) {
            return Arc::clone(known);
        }
        let key = Arc::new(key);
        if key.auto {
            self.auto.push(Arc::clone(&key));
        }
        self.keys.insert(Arc::clone(&key));
        key
    }

    /// Gives a property its key; the place of the row that did so before is an error.
    pub(super) fn row(&mut self, property: PropertyId, key: Arc<Key>, place: P) -> Result<(), P> {
        match self.rows.entry(property) {
            Entry::Occupied(first) => Err(first.get().1),
            Entry::Vacant(free) => {
                free.insert((key, place));
                Ok(())
            }
        }
    }

    /// The finished set; nothing when there is no row. A property of an organisation that has a row of its own keeps it.
    pub(super) fn finish(self) -> Option<KeySet> {
        let Self { rows, keys, auto, .. } = self;
        let map = Rows::with_capacity_and_hasher(rows.len(), BuildHasherDefault::default());
        for (property, (key, _)) in rows {
            map.insert(property, key);
        }
        for key in &auto {
            for property in key.life.snapshot().hotels.unwrap_or_default().properties {
                map.entry(property).or_insert_with(|| Arc::clone(key));
            }
        }
        (!keys.is_empty()).then(|| KeySet::of(map, keys))
    }
}
