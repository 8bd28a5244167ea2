//! The set of keys in force.
//!
//! In: a path. Out: a [`KeyStore`] shared by everyone and a [`KeyReader`] for each core, which costs one comparison per
//! look-up while nothing changed. A reload swaps a complete set in, or changes nothing.

use std::fmt;
use std::hash::RandomState;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::read::{Snapshot, Unread, read};
use super::refused::{self, Refused};
use super::{KeySet, Lives};
use crate::fault::Fault;
use crate::property::PropertyId;
use crate::secret::ApiKey;

/// How long a key in the file may take to be in force: two looks at the file, and a parsing.
const IN_FORCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);

/// Holds the keys in force and knows where they come from.
pub struct KeyStore {
    path: PathBuf,
    /// The apps that rows may name; nothing where that is not checked.
    apps: Option<Vec<String>>,
    hashes: RandomState,
    lives: Arc<Lives>,
    current: Arc<ArcSwap<KeySet>>,
    state: Mutex<State>,
}

struct State {
    /// Of the content the set in force was made from.
    hash: u64,
    /// Of the content refused last, and why, so that it is not parsed again at every poll.
    refused: Option<(u64, Vec<Fault>)>,
    /// Sets no longer in force that a core may still look at. They are dropped here, since freeing 100,000 keys on a
    /// core would hold up its requests.
    retired: Vec<Arc<KeySet>>,
    /// Keys that were revoked. It only grows: a list that lost a line does not bring a key back.
    struck: Refused,
}

/// What a look at the file led to.
#[derive(Clone, Debug)]
pub enum Reload {
    /// The content is the one in force.
    Unchanged,
    /// A new set is in force.
    Swapped {
        /// How many properties it has.
        properties: usize,
        /// How many different keys they have.
        keys: usize,
    },
    /// The content cannot be used; the last good set stays in force.
    Refused(Vec<Fault>),
}

/// What was found at the path, before anything is done about it.
pub(super) enum Look {
    /// Nothing new: unchanged, or refused as before.
    Settled(Reload),
    /// Nothing is there.
    Gone(Vec<Fault>),
    /// Content that has not been seen yet.
    New(Snapshot),
}

impl KeyStore {
    /// Reads the keys for the first time. It blocks, for about a second with 100,000 keys.
    ///
    /// # Errors
    /// All faults of the file; there is no last good set yet to fall back to.
    pub fn open(path: impl Into<PathBuf>) -> Result<Arc<Self>, Vec<Fault>> {
        Self::open_for(path, None)
    }

    /// The same where rows may name only these `apps`.
    ///
    /// # Errors
    /// All faults of the file.
    pub fn open_for(path: impl Into<PathBuf>, apps: Option<Vec<String>>) -> Result<Arc<Self>, Vec<Fault>> {
        Self::resume(path, apps, Arc::default())
    }

    /// The same with keys that have lived before.
    ///
    /// # Errors
    /// All faults of the file.
    pub fn resume(
        path: impl Into<PathBuf>,
        apps: Option<Vec<String>>,
        lives: Arc<Lives>,
    ) -> Result<Arc<Self>, Vec<Fault>> {
        let (path, hashes) = (path.into(), RandomState::new());
        let struck = refused::read(&path)?;
        let snapshot = read(&path, &hashes).map_err(|unread| match unread {
            Unread::Gone(faults) | Unread::Bad(faults) => faults,
        })?;
        let set = left(snapshot.parse(&path, apps.as_deref(), &lives)?, &struck, &path);
        lives.follow(&set);
        let current = Arc::new(ArcSwap::from_pointee(set));
        let state = Mutex::new(State { hash: snapshot.hash, refused: None, retired: Vec::new(), struck });
        Ok(Arc::new(Self { path, apps, hashes, lives, current, state }))
    }

    /// The file or directory the keys come from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The lives of its keys.
    #[must_use]
    pub fn lives(&self) -> &Arc<Lives> {
        &self.lives
    }

    /// The set in force. For the request path, [`KeyStore::reader`] is cheaper.
    #[must_use]
    pub fn current(&self) -> Arc<KeySet> {
        self.current.load_full()
    }

    /// A reader of its own for each core.
    #[must_use]
    pub fn reader(self: &Arc<Self>) -> KeyReader {
        KeyReader(Cache::new(Arc::clone(&self.current)))
    }

    /// Reads the file again and swaps its keys in if they are new and good. It blocks like [`KeyStore::open`]. A writer
    /// in the middle of its work is not waited for; [`super::watch`] does that.
    pub fn reload(&self) -> Reload {
        match self.look() {
            Look::Settled(reload) => reload,
            Look::Gone(faults) => Reload::Refused(faults),
            Look::New(snapshot) => self.accept(&snapshot),
        }
    }

    /// Makes the set anew from the same file, since Cloudbeds has told of other properties. It blocks like
    /// [`KeyStore::open`].
    pub(super) fn remake(&self) -> Reload {
        match read(&self.path, &self.hashes) {
            Ok(snapshot) => self.accept(&snapshot),
            Err(Unread::Gone(faults) | Unread::Bad(faults)) => Reload::Refused(faults),
        }
    }

    /// Asks for a look at the key file, and waits until these properties have this key; false when they have not in time.
    pub async fn comes_to(&self, properties: &[PropertyId], key: &ApiKey, reload: &Notify) -> bool {
        let has = || {
            let set = self.current();
            properties.iter().all(|property| set.get(*property).is_some_and(|held| held.secret() == key))
        };
        reload.notify_one();
        let waited = async {
            while !has() {
                sleep(LOOK).await;
            }
        };
        timeout(IN_FORCE, waited).await.is_ok()
    }

    pub(super) fn look(&self) -> Look {
        // First, since it holds whatever the file is like: a revoked key leaves the set in force.
        let struck = match refused::read(&self.path) {
            Ok(refused) => self.strike(refused),
            Err(faults) => return Look::Settled(Reload::Refused(faults)),
        };
        let snapshot = match read(&self.path, &self.hashes) {
            Ok(snapshot) => snapshot,
            Err(Unread::Gone(faults)) => return Look::Gone(faults),
            Err(Unread::Bad(faults)) => return Look::Settled(Reload::Refused(faults)),
        };
        let mut state = self.state();
        state.retired.retain(|set| Arc::strong_count(set) > 1);
        if snapshot.hash == state.hash {
            state.refused = None;
            return Look::Settled(struck.unwrap_or(Reload::Unchanged));
        }
        match &state.refused {
            Some((hash, faults)) if *hash == snapshot.hash => Look::Settled(Reload::Refused(faults.clone())),
            _ => Look::New(snapshot),
        }
    }

    /// Takes newly revoked keys out of the set in force.
    fn strike(&self, refused: Refused) -> Option<Reload> {
        let mut state = self.state();
        if !state.struck.extend(refused) {
            return None;
        }
        let set = self.current().without(&state.struck)?;
        let reload = Reload::Swapped { properties: set.properties(), keys: set.keys() };
        let set = Arc::new(set);
        let retired = self.current.swap(Arc::clone(&set));
        self.lives.follow(&set);
        state.retired.push(retired);
        Some(reload)
    }

    pub(super) fn accept(&self, snapshot: &Snapshot) -> Reload {
        let parsed = snapshot.parse(&self.path, self.apps.as_deref(), &self.lives);
        let mut state = self.state();
        match parsed {
            Ok(set) => {
                let set = left(set, &state.struck, &self.path);
                let (properties, keys) = (set.properties(), set.keys());
                let set = Arc::new(set);
                let retired = self.current.swap(Arc::clone(&set));
                self.lives.follow(&set);
                state.retired.push(retired);
                (state.hash, state.refused) = (snapshot.hash, None);
                Reload::Swapped { properties, keys }
            }
            Err(faults) => {
                state.refused = Some((snapshot.hash, faults.clone()));
                Reload::Refused(faults)
            }
        }
    }

    /// No code that could panic runs under the lock, so a poisoned one is as good as any.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is left of a set without the revoked keys. That a file holds one is worth a word: it may come from a backup.
fn left(set: KeySet, struck: &Refused, path: &Path) -> KeySet {
    let Some(left) = set.without(struck) else { return set };
    let (file, gone) = (path.display(), set.properties() - left.properties());
    tracing::warn!(keys.file = %file, keys.properties = gone, "revoked keys in the key file are not used; remove them");
    left
}

impl fmt::Debug for KeyStore {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("KeyStore").field("path", &self.path).field("current", &self.current()).finish_non_exhaustive()
    }
}

/// One core's view of the set in force.
pub struct KeyReader(Cache<Arc<ArcSwap<KeySet>>, Arc<KeySet>>);

impl KeyReader {
    /// The set in force now. Clone what is needed out of it before any `.await`.
    pub fn load(&mut self) -> &Arc<KeySet> {
        self.0.load()
    }
}

impl Clone for KeyReader {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl fmt::Debug for KeyReader {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("KeyReader")
    }
}
