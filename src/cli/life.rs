//! What is known of a key's life: its verdict, its age, and how long it was not used.
//!
//! In: a configuration. Out: for a key, what the proxy has written down about it in the state file; nothing where it
//! keeps no record. It only looks: no lock is taken and nothing is changed, so it works beside a running proxy, which
//! writes once a minute at most.

use crate::config::Config;
use crate::keys::record::{DAY, IdleDays};
use crate::keys::state::{self, State};
use crate::keys::{Key, Time};
use crate::property::PropertyId;

/// A verdict's word, days since the key was first seen, days since it was used.
pub(super) type Life = (String, u64, u64);

/// All that is known.
pub(super) struct Lives {
    state: State,
    limits: IdleDays,
}

impl Lives {
    /// Reads what a proxy with this configuration has written down. A file that cannot be read says nothing; the
    /// proxy's log says why.
    pub(super) fn read(config: &Config) -> Self {
        let (idle_days, expiring_days) = config.keys.idle_days;
        let state = config.keys.state_file.as_deref().and_then(|path| state::read(path).ok());
        let state = state.unwrap_or_default();
        Self { state, limits: IdleDays { idle_days, expiring_days } }
    }

    /// What is known of one key, as the key of one property.
    pub(super) fn of(&self, key: &Key, property: PropertyId) -> Option<Life> {
        let (record, now) = (self.state.get(key.life().fingerprint())?, Time::now());
        let verdict = record.verdict_for(property, now, self.limits);
        Some((verdict.to_string(), now.since(record.first_seen) / DAY, record.idle_days(now)))
    }
}
