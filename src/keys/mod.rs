//! Which key belongs to which property, looked up on every request and replaced as a whole when the file changes.
//!
//! In: a key file or a directory of them. Out: a [`KeySet`] that never changes, and a [`KeyStore`] that holds the one in
//! force. A set is parsed completely before it is swapped in; a bad file leaves the last good set where it is. A key that
//! was revoked is in no set. Only [`write`] changes the file. Nothing here displays a key, and no fault quotes a file.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;

use dashmap::{DashMap, ReadOnlyView};

use self::refused::Refused;

use crate::fault::Fault;
use crate::origin::Origin;
use crate::property::{IdHasher, PropertyId};
use crate::secret::ApiKey;

mod build;
mod change;
mod complaints;
mod edit;
mod file;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod keeper;
mod kept;
mod leftover;
pub mod life;
mod lock;
pub mod names;
pub mod paste;
pub mod peers;
pub mod pending;
mod read;
pub mod record;
mod refused;
pub mod report;
mod rows;
mod secret_file;
pub mod state;
mod store;
pub mod verdict;
mod watch;
pub mod write;

pub use life::{Life, Lives, Time};
pub use secret_file::{client_secret, private_file, redis_password, token};
pub use store::{KeyReader, KeyStore, Reload};
pub use verdict::Verdict;
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
#[derive(Debug)]
pub struct Key {
    secret: ApiKey,
    life: Arc<Life>,
    /// The organisation of the hotels it opens, as the file says.
    pub organization: Option<Box<str>>,
    /// The name of the partner app it was made for; nothing means the first one. Keys of an app share it.
    pub app: Option<Arc<str>>,
    /// Where requests with this key go instead of the configured origin.
    pub base_url: Option<Arc<Origin>>,
    /// Whether the classic API is told the property in the query as well, where a GET names none.
    pub add_property_id: bool,
    /// Whether Cloudbeds says which properties it opens (`properties: auto`).
    pub auto: bool,
}

/// Two rows are the same key when they say the same. Its life follows from the secret.
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        let Self { secret, life: _, organization, app, base_url, add_property_id, auto } = self;
        *secret == other.secret
            && *organization == other.organization
            && *app == other.app
            && *base_url == other.base_url
            && (*add_property_id, *auto) == (other.add_property_id, other.auto)
    }
}

impl Eq for Key {}

impl Key {
    /// What is known of it, and whether it may be used.
    #[must_use]
    pub fn life(&self) -> &Arc<Life> {
        &self.life
    }

    /// Has everything that a request needs of the key on its way into this core's caches at once. With many keys each part
    /// is far away in memory, and whoever counts its holders up first waits for one after the other.
    #[inline]
    pub(crate) fn fetch(&self) {
        std::hint::black_box((self.secret.fetched(), self.life.is_blocked(), self.add_property_id));
    }

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

/// A [`KeySet`]'s rows while they are put together.
type Rows = DashMap<PropertyId, Arc<Key>, BuildHasherDefault<IdHasher>>;

/// All keys of one moment. Looking one up takes no lock.
pub struct KeySet {
    by_property: ReadOnlyView<PropertyId, Arc<Key>, BuildHasherDefault<IdHasher>>,
    by_organization: HashMap<Box<str>, Option<Arc<Key>>>,
    /// Those with `properties: auto`, which may have no property yet.
    auto: Vec<Arc<Key>>,
    properties: usize,
    keys: usize,
}

/// Why an organisation alone does not lead to a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NoOrganization {
    /// No row names it.
    Unknown,
    /// Rows with different keys name it.
    Several,
}

impl KeySet {
    /// The set from the text of a key file, which faults call `name`.
    ///
    /// # Errors
    /// Every bad row, at most [`crate::fault::FAULTS_MAX`] of them, with line and column and without any value.
    pub fn parse(name: &str, text: &str) -> Result<Self, Vec<Fault>> {
        file::parse(name, text, None, &Lives::default())
    }

    /// The key of a property. Clone the `Arc` before any `.await`: a request finishes on the key it started with.
    #[must_use]
    pub fn get(&self, property: PropertyId) -> Option<&Arc<Key>> {
        self.by_property.get(&property)
    }

    /// The key of an organisation, where one key names it.
    ///
    /// # Errors
    /// When none does, or more than one.
    pub fn of_organization(&self, organization: &str) -> Result<&Arc<Key>, NoOrganization> {
        let found = self.by_organization.get(organization).ok_or(NoOrganization::Unknown)?;
        found.as_ref().ok_or(NoOrganization::Several)
    }

    /// The keys whose properties Cloudbeds tells.
    #[must_use]
    pub fn auto(&self) -> &[Arc<Key>] {
        &self.auto
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

#[allow(clippy::mutable_key_type, reason = "hash and equality of a key leave its life out")]
impl KeySet {
    /// A set that says by itself that there are no keys.
    fn none() -> Self {
        Self::of(Rows::default(), HashSet::new())
    }

    fn of(map: Rows, all: HashSet<Arc<Key>>) -> Self {
        let mut by_organization: HashMap<Box<str>, Option<Arc<Key>>> = HashMap::new();
        for key in &all {
            if let Some(organization) = &key.organization {
                let only = by_organization.entry(organization.clone()).or_insert_with(|| Some(Arc::clone(key)));
                only.take_if(|only| !Arc::ptr_eq(only, key));
            }
        }
        let (properties, keys) = (map.len(), all.len());
        let auto = all.into_iter().filter(|key| key.auto).collect();
        Self { by_property: map.into_read_only(), by_organization, auto, properties, keys }
    }

    /// The same without the keys on a list; nothing where it holds none of them.
    fn without(&self, refused: &Refused) -> Option<Self> {
        let mut all = self.iter().map(|(_, key)| key).chain(&self.auto);
        if refused.is_empty() || !all.any(|key| refused.holds(&key.secret)) {
            return None;
        }
        let map = Rows::default();
        let mut keys: HashSet<_> = self.auto.iter().filter(|key| !refused.holds(&key.secret)).cloned().collect();
        for (property, key) in self.iter().filter(|(_, key)| !refused.holds(&key.secret)) {
            keys.insert(Arc::clone(key));
            map.insert(property, Arc::clone(key));
        }
        Some(Self::of(map, keys))
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "KeySet({} properties, {} keys)", self.properties, self.keys)
    }
}

#[cfg(test)]
mod tests;
