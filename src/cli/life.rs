//! What is known of a key's life: its verdict, its age, and how long it was not used.
//!
//! In: a configuration. Out: for a key, what the proxy has written down about it; nothing where it keeps no record.

use crate::config::Config;
use crate::keys::Key;
use crate::property::PropertyId;

/// A verdict's word, days since the key was first seen, days since it was used.
pub(super) type Life = (String, u64, u64);

/// All that is known.
pub(super) struct Lives;

impl Lives {
    /// Reads what a proxy with this configuration has written down.
    pub(super) fn read(_: &Config) -> Self {
        Self
    }

    /// What is known of one key, as the key of one property.
    pub(super) fn of(&self, _: &Key, _: PropertyId) -> Option<Life> {
        None
    }
}
