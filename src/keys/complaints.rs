//! What Cloudbeds says against a key in answers that carry 200, counted until one succeeds.
//!
//! In: failures in Cloudbeds' words, and successes of keys that have some. Out: how many there were in a row. The head
//! of such an answer looks like a success, so it must not end the count as it ends that of 401s. Of a key that opens
//! several properties each is counted alone, since one that left does not end the others. There are rarely any, so all
//! lives share one table, and a life has one bit that says whether to look at it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::verdict::Sign;
use crate::property::PropertyId;
use crate::secret::Fingerprint;

/// What is held against a key, or against one of its properties.
type Complaint = (Sign, Option<PropertyId>);

/// The counts of all keys.
#[derive(Debug, Default)]
pub(super) struct Complaints(Mutex<HashMap<Fingerprint, Vec<(Complaint, u32)>>>);

impl Complaints {
    /// One more; `mark` runs before anything else can be counted or forgotten.
    pub(super) fn add(&self, name: Fingerprint, sign: Sign, property: Option<PropertyId>, mark: impl FnOnce()) {
        let mut table = self.table();
        let own = table.entry(name).or_default();
        match own.iter_mut().find(|(complaint, _)| *complaint == about(sign, property)) {
            Some((_, times)) => *times = times.saturating_add(1),
            None => own.push((about(sign, property), 1)),
        }
        mark();
    }

    /// How often in a row this was said.
    pub(super) fn count(&self, name: Fingerprint, sign: Sign, property: Option<PropertyId>) -> u32 {
        let table = self.table();
        let mut own = table.get(&name).into_iter().flatten();
        own.find(|(complaint, _)| *complaint == about(sign, property)).map_or(0, |(_, times)| *times)
    }

    /// How often in a row the most frequent of them was said.
    pub(super) fn most(&self, name: Fingerprint) -> u32 {
        self.table().get(&name).into_iter().flatten().map(|(_, times)| *times).max().unwrap_or(0)
    }

    /// A call about the property succeeded; `clear` runs where nothing is left.
    pub(super) fn succeeded(&self, name: Fingerprint, property: Option<PropertyId>, clear: impl FnOnce()) {
        let mut table = self.table();
        if let Some(own) = table.get_mut(&name) {
            own.retain(|((_, about), _)| about.is_some() && *about != property);
            if !own.is_empty() {
                return;
            }
            table.remove(&name);
        }
        clear();
    }

    /// All that was said of the key no longer counts.
    pub(super) fn forget(&self, name: Fingerprint, clear: impl FnOnce()) {
        let mut table = self.table();
        table.remove(&name);
        clear();
    }

    /// Counts are changed in one step each, so a poisoned lock is as good as any.
    fn table(&self) -> MutexGuard<'_, HashMap<Fingerprint, Vec<(Complaint, u32)>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Only a property can leave alone; all else is about the key.
fn about(sign: Sign, property: Option<PropertyId>) -> Complaint {
    (sign, property.filter(|_| sign == Sign::PropertyLeft))
}
