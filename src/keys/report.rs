//! The keys in force as an operator sees them.
//!
//! In: the set in force. Out: one [`Row`] per property, with its key's verdict, age and idle days, and no key. Reading
//! it takes each key's lock for a moment, so it is for pages and lists, not for the request path.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Key;
use super::life::Time;
use super::record::{DAY, IdleDays};
use super::store::KeyStore;
use super::verdict::Verdict;
use crate::property::PropertyId;

/// What is known of one property's key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Row {
    /// Whose key it is.
    pub property: PropertyId,
    /// The key's name; it cannot be turned back.
    pub fingerprint: String,
    /// As the key file says.
    pub organization: Option<String>,
    /// As the key file says.
    pub app: Option<String>,
    /// Its standing now.
    pub verdict: Verdict,
    /// Days since it was first in force here.
    pub age_days: u64,
    /// Days since it was used, or since it is known where it never was.
    pub idle_days: u64,
    /// When it was used last.
    pub last_used: Option<Time>,
    /// For a dead key: when Cloudbeds is asked again.
    pub asked_again: Option<Time>,
}

/// Every property, by id.
#[must_use]
pub fn rows(store: &KeyStore, limits: IdleDays) -> Vec<Row> {
    let (set, now) = (store.current(), store.lives().now());
    let mut rows: Vec<Row> = set
        .iter()
        .map(|(property, key)| {
            let record = key.life().snapshot();
            Row {
                property,
                fingerprint: key.life().fingerprint().to_string(),
                organization: key.organization.as_deref().map(str::to_owned),
                app: key.app.as_deref().map(str::to_owned),
                verdict: record.verdict_for(property, now, limits),
                age_days: now.since(record.first_seen) / DAY,
                idle_days: record.idle_days(now),
                last_used: record.last_used,
                asked_again: key.life().blocked(Some(property)).map(|blocked| blocked.until),
            }
        })
        .collect();
    rows.sort_unstable_by_key(|row| row.property);
    rows
}

/// How many properties have a key of each verdict; all verdicts are there.
#[must_use]
pub fn counts(rows: &[Row]) -> BTreeMap<Verdict, usize> {
    let mut counts: BTreeMap<_, _> = Verdict::ALL.into_iter().map(|verdict| (verdict, 0)).collect();
    for row in rows {
        *counts.entry(row.verdict).or_default() += 1;
    }
    counts
}

/// The different lives of the set in force, each with one of its properties where it has any.
pub(super) fn lives(store: &KeyStore) -> Vec<(Arc<Key>, Option<PropertyId>)> {
    let set = store.current();
    let mut found: BTreeMap<_, (Arc<Key>, Option<PropertyId>)> = BTreeMap::new();
    let mut note = |key: &Arc<Key>, property| {
        let name = key.life().fingerprint();
        let entry = found.entry(name).or_insert_with(|| (Arc::clone(key), property));
        entry.1 = entry.1.or(property);
    };
    set.auto().iter().for_each(|key| note(key, None));
    set.iter().for_each(|(property, key)| note(key, Some(property)));
    found.into_values().collect()
}
