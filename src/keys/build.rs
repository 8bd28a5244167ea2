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
    pub(super) app: Option<Arc<str>>,
    pub(super) base_url: Option<Arc<Origin>>,
    pub(super) add_property_id: bool,
    pub(super) auto: bool,
}

/// A [`KeySet`] in the making. `P` is whatever tells a row's place.
///
/// Keys and their lives are made at the end, once whatever was read is out of memory: in between its pieces they would
/// keep the allocator from giving any of it back.
pub(super) struct Builder<P> {
    rows: HashMap<PropertyId, (Nth, P)>,
    said: Vec<Said>,
    origins: HashMap<String, Arc<Origin>>,
    apps: HashSet<Arc<str>>,
}

/// Which of the keys a row has.
#[derive(Clone, Copy)]
pub(super) struct Nth(usize);

impl<P: Copy> Builder<P> {
    pub(super) fn new() -> Self {
        Self { rows: HashMap::new(), said: Vec::new(), origins: HashMap::new(), apps: HashSet::new() }
    }

    /// Equal origins become one: a pool of connections belongs to each.
    pub(super) fn origin(&mut self, text: &str) -> Result<Arc<Origin>, NotAnOrigin> {
        let origin: Origin = text.parse()?;
        Ok(Arc::clone(self.origins.entry(origin.to_string()).or_insert_with(|| Arc::new(origin))))
    }

    /// Equal names become one: thousands of keys have the same few.
    pub(super) fn app(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.apps.get(name) {
            return Arc::clone(known);
        }
        let name = Arc::<str>::from(name);
        self.apps.insert(Arc::clone(&name));
        name
    }

    /// Adds a key.
    pub(super) fn key(&mut self, said: Said) -> Nth {
        self.said.push(said);
        Nth(self.said.len() - 1)
    }

    /// Gives a property its key; the place of the row that did so before is an error.
    pub(super) fn row(&mut self, property: PropertyId, key: Nth, place: P) -> Result<(), P> {
        match self.rows.entry(property) {
            Entry::Occupied(first) => Err(first.get().1),
            Entry::Vacant(free) => {
                free.insert((key, place));
                Ok(())
            }
        }
    }

    /// The finished set, in which equal keys are one; nothing when there is no row. Keys take up the lives they have in
    /// `lives`. A property of an organisation that has a row of its own keeps it.
    pub(super) fn finish(self, lives: &Lives) -> Option<KeySet> {
        let Self { rows, said, origins: _, apps: _ } = self;
        let (mut keys, mut auto) = (HashSet::with_capacity(said.len()), Vec::new());
        let said: Vec<Arc<Key>> = said.into_iter().map(|said| only(&mut keys, &mut auto, said.lives(lives))).collect();
        let map = Rows::with_capacity_and_hasher(rows.len(), BuildHasherDefault::default());
        for (property, (Nth(key), _)) in rows {
            map.insert(property, Arc::clone(&said[key]));
        }
        for key in &auto {
            for property in key.life.snapshot().hotels.unwrap_or_default().properties {
                map.entry(property).or_insert_with(|| Arc::clone(key));
            }
        }
        (!keys.is_empty()).then(|| KeySet::of(map, keys))
    }
}

/// The one `Arc` of a key.
#[allow(clippy::mutable_key_type, reason = "hash and equality of a key leave its life out")]
fn only(keys: &mut HashSet<Arc<Key>>, auto: &mut Vec<Arc<Key>>, key: Key) -> Arc<Key> {
    if let Some(known) = keys.get(&key) {
        return Arc::clone(known);
    }
    let key = Arc::new(key);
    if key.auto {
        auto.push(Arc::clone(&key));
    }
    keys.insert(Arc::clone(&key));
    key
}

impl Said {
    fn lives(self, lives: &Lives) -> Key {
        let Self { secret, organization, app, base_url, add_property_id, auto } = self;
        let life = lives.of(secret.fingerprint());
        Key { secret, life, organization, app, base_url, add_property_id, auto }
    }
}
