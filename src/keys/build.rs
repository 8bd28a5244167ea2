//! Rows become a set.
//!
//! In: properties and keys, one after the other. Out: a [`KeySet`] in which equal keys are one, or the place of the row
//! that named a property first.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use dashmap::DashMap;

use super::{Key, KeySet};
use crate::origin::{NotAnOrigin, Origin};
use crate::property::PropertyId;

/// A [`KeySet`] in the making. `P` is whatever tells a row's place.
pub(super) struct Builder<P> {
    rows: HashMap<PropertyId, (Arc<Key>, P)>,
    keys: HashSet<Arc<Key>>,
    origins: HashMap<String, Arc<Origin>>,
}

impl<P: Copy> Builder<P> {
    pub(super) fn new() -> Self {
        Self { rows: HashMap::new(), keys: HashSet::new(), origins: HashMap::new() }
    }

    /// Equal origins become one as well: a pool of connections belongs to each.
    pub(super) fn origin(&mut self, text: &str) -> Result<Arc<Origin>, NotAnOrigin> {
        let origin: Origin = text.parse()?;
        Ok(Arc::clone(self.origins.entry(origin.to_string()).or_insert_with(|| Arc::new(origin))))
    }

    /// The one `Arc` of this key.
    pub(super) fn key(&mut self, key: Key) -> Arc<Key> {
        if let Some(known) = self.keys.get(&key) {
            return Arc::clone(known);
        }
        let key = Arc::new(key);
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

    /// The finished set; nothing when there is no row.
    pub(super) fn finish(self) -> Option<KeySet> {
        let (properties, keys) = (self.rows.len(), self.keys.len());
        let map = DashMap::with_capacity(properties);
        for (property, (key, _)) in self.rows {
            map.insert(property, key);
        }
        (properties > 0).then(|| KeySet::of(map, keys))
    }
}
