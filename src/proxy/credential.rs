//! The key for the request's property.
//!
//! In: [`Admitted`] and the current key set. Out: [`Credentialed`], which holds the key by an `Arc` of its own, so that
//! a reload while the request is under way changes nothing for it; or the refusal of a property that is not ours.

use std::sync::Arc;

use super::error::ProxyError;
use super::identify::Identified;
use super::limit::Admitted;
use crate::keys::{Key, KeySet};
use crate::property::PropertyId;

/// A request and the key it will travel with.
#[derive(Debug)]
pub struct Credentialed {
    pub(super) identified: Identified,
    pub(super) key: Arc<Key>,
}

impl Credentialed {
    /// The property that stands for the request in log and metrics; it is in the key set.
    #[must_use]
    pub fn property(&self) -> PropertyId {
        self.identified.properties.first()
    }
}

/// Looks the key up. A list of properties passes when one key serves them all.
///
/// # Errors
/// When a property has no key, or the listed properties have different ones.
pub fn attach(admitted: Admitted, keys: &KeySet) -> Result<Credentialed, ProxyError> {
    let identified = admitted.authorized.identified;
    let first = identified.properties.first();
    let key = keys.get(first).ok_or(ProxyError::PropertyUnknown(first))?;
    for property in identified.properties.more() {
        let other = keys.get(*property).ok_or(ProxyError::PropertyUnknown(*property))?;
        // Rows with the same key share one `Key`.
        if !Arc::ptr_eq(key, other) {
            return Err(ProxyError::PropertiesApart);
        }
    }
    let key = Arc::clone(key);
    Ok(Credentialed { identified, key })
}
