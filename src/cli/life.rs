//! What is known of a key's life: its verdict, its age, and how long it was not used.
//!
//! In: a configuration. Out: for a key, what a proxy with that configuration has written into its state file; nothing
//! where it keeps none, or the file cannot be read. A running proxy writes at most once a minute, so this may lag.

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
    now: Time,
    limits: IdleDays,
}

impl Lives {
    /// Reads what a proxy with this configuration has written down.
    pub(super) fn read(config: &Config) -> Self {
        let (idle_days, expiring_days) = config.keys.idle_days;
        let state = config.keys.state_file.as_deref().and_then(|file| state::read(file).ok());
        Self { state: state.unwrap_or_default(), now: Time::now(), limits: IdleDays { idle_days, expiring_days } }
    }

    /// What is known of one key, as the key of one property.
    pub(super) fn of(&self, key: &Key, property: PropertyId) -> Option<Life> {
        let record = self.state.get(key.life().fingerprint())?;
        let verdict = record.verdict_for(property, self.now, self.limits);
        Some((verdict.to_string(), self.now.since(record.first_seen) / DAY, record.idle_days(self.now)))
    }
}
