//! Which key belongs to which property, looked up on every request and replaced as a whole when the file changes.
//!
//! In: a key file or a directory of them. Out: a [`KeySet`] that never changes, and a [`KeyStore`] that holds the one in
//! force. A set is parsed completely before it is swapped in; a bad file leaves the last good set where it is. A key that
//! was revoked is in no set. Only [`write`] changes the file. Nothing here displays a key, and no fault quotes a file.

use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use dashmap::{DashMap, ReadOnlyView};

use self::refused::Refused;

use crate::fault::Fault;
use crate::origin::Origin;
use crate::property::PropertyId;
use crate::secret::ApiKey;

mod build;
mod change;
mod edit;
mod file;
mod lock;
pub mod names;
pub mod paste;
mod read;
mod refused;
mod rows;
mod secret_file;
mod store;
mod watch;
pub mod write;

pub use secret_file::{client_secret, path_secret};
pub use store::{KeyReader, KeyStore, Reload};
pub use watch::{mounted_alone, watch};

/// The properties at `path` whose keys were revoked, so that nothing uses them.
///
/// # Errors
/// What is wrong with the keys or the list.
pub fn revoked(path: &std::path::Path) -> Result<Vec<PropertyId>, Vec<Fault>> {
    let refused = refused::read(path)?;
    let set = read::set(path)?;
    let mut found: Vec<_> =
        set.iter().filter(|(_, key)| refused.holds(&key.secret)).map(|(property, _)| property).collect();
    found.sort_unstable();
    Ok(found)
}

/// A key and what belongs to it. Rows of a file that say the same share one `Arc`, so `Arc::ptr_eq` tells whether two
/// properties have the same key.
#[derive(Debug, Eq, PartialEq)]
pub struct Key {
    secret: ApiKey,
    /// The organisation of the hotels it opens, as the file says.
    pub organization: Option<Box<str>>,
    /// The name of the partner app it was made for; nothing means the first one.
    pub app: Option<Box<str>>,
    /// Where requests with this key go instead of the configured origin.
    pub base_url: Option<Arc<Origin>>,
}

impl Key {
    /// The secret itself, for `proxy::rewrite`.
    pub(crate) fn secret(&self) -> &ApiKey {
        &self.secret
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The rest differs too rarely to be worth hashing; equality looks at all of it.
        self.secret.hash(state);
    }
}

/// All keys of one moment. Looking one up takes no lock.
pub struct KeySet {
    by_property: ReadOnlyView<PropertyId, Arc<Key>>,
    properties: usize,
    keys: usize,
}

impl KeySet {
    /// The set from the text of a key file, which faults call `name`.
    ///
    /// # Errors
    /// Every bad row, at most [`crate::fault::FAULTS_MAX`] of them, with line and column and without any value.
    pub fn parse(name: &str, text: &str) -> Result<Self, Vec<Fault>> {
        file::parse(name, text, None)
    }

    /// The key of a property. Clone the `Arc` before any `.await`: a request finishes on the key it started with.
    #[must_use]
    pub fn get(&self, property: PropertyId) -> Option<&Arc<Key>> {
        self.by_property.get(&property)
    }

    /// Whether a property is ours.
    #[must_use]
    pub fn contains(&self, property: PropertyId) -> bool {
        self.by_property.contains_key(&property)
    }

    /// Every property with its key, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (PropertyId, &Arc<Key>)> {
        self.by_property.iter().map(|(property, key)| (*property, key))
    }

    /// How many properties there are.
    #[must_use]
    pub fn properties(&self) -> usize {
        self.properties
    }

    /// How many different keys they have.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.keys
    }
}

impl KeySet {
    /// A set that says by itself that there are no keys.
    fn none() -> Self {
        Self::of(DashMap::new(), 0)
    }

    fn of(map: DashMap<PropertyId, Arc<Key>>, keys: usize) -> Self {
        let properties = map.len();
        Self { by_property: map.into_read_only(), properties, keys }
    }

    /// The same without the keys on a list; nothing where it holds none of them.
    fn without(&self, refused: &Refused) -> Option<Self> {
        if refused.is_empty() || !self.iter().any(|(_, key)| refused.holds(&key.secret)) {
            return None;
        }
        let (map, mut keys) = (DashMap::new(), HashSet::new());
        for (property, key) in self.iter().filter(|(_, key)| !refused.holds(&key.secret)) {
            keys.insert(Arc::as_ptr(key));
            map.insert(property, Arc::clone(key));
        }
        Some(Self::of(map, keys.len()))
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "KeySet({} properties, {} keys)", self.properties, self.keys)
    }
}

#[cfg(test)]
mod tests;
