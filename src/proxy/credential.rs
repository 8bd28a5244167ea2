//! The key for the request's property.
//!
//! In: [`Admitted`] and the current key set. Out: [`Credentialed`], which holds the key by an `Arc` of its own, so that
//! a reload while the request is under way changes nothing for it; or the refusal of a property that is not ours.

use std::sync::Arc;

use super::error::ProxyError;
use super::identify::{Identified, Properties, Subject};
use super::limit::{Admitted, Pass};
use super::verdict::{self, ConnectLinks};
use crate::budget::Permit;
use crate::keys::{Key, KeySet, NoOrganization};
use crate::property::PropertyId;

/// A request and the key it will travel with.
#[derive(Debug)]
pub struct Credentialed {
    pub(super) identified: Identified,
    pub(super) key: Arc<Key>,
    pub(super) permit: Option<Permit>,
}

impl Credentialed {
    /// The property that stands for the request in log and metrics; it is in the key set.
    #[must_use]
    pub fn property(&self) -> Option<PropertyId> {
        self.identified.subject.first()
    }
}

/// Looks the key up. A list of properties passes when one key serves them all.
///
/// # Errors
/// When a property has no key, the listed properties have different ones, or the key is known to be dead; `links` tell
/// where its hotel connects again.
pub fn attach(admitted: Admitted, keys: &KeySet, links: &ConnectLinks) -> Result<Credentialed, ProxyError> {
    let Admitted { authorized, pass } = admitted;
    let identified = authorized.identified;
    let key = match &identified.subject {
        Subject::Properties(properties) => {
            let first = properties.first();
            let key = keys.get(first).ok_or(ProxyError::PropertyUnknown(first))?;
            key.fetch();
            verdict::alive(key, Some(first), links)?;
            for property in properties.more() {
                let other = keys.get(*property).ok_or(ProxyError::PropertyUnknown(*property))?;
                // Rows with the same key share one `Key`.
                if !Arc::ptr_eq(key, other) {
                    return Err(ProxyError::PropertiesApart);
                }
                verdict::alive(key, Some(*property), links)?;
            }
            key
        }
        Subject::Organization { name, within } => {
            let key = keys.of_organization(name).map_err(|none| match none {
                NoOrganization::Unknown => ProxyError::OrganizationUnknown,
                NoOrganization::Several => ProxyError::OrganizationApart,
            })?;
            // The query of one organisation's call must not name another's hotel. What has no key here is theirs to
            // refuse: their list of properties may be newer than ours.
            let within = within.iter().flat_map(Properties::all);
            if within.filter_map(|property| keys.get(property)).any(|other| !Arc::ptr_eq(key, other)) {
                return Err(ProxyError::PropertiesApart);
            }
            verdict::alive(key, None, links)?;
            key
        }
    };
    let key = Arc::clone(key);
    let permit = match pass {
        Pass::Free => None,
        Pass::Permit(permit) => Some(permit),
        // A moment ago there was none, so nobody has asked whether it may start.
        Pass::None => {
            return Err(identified
                .subject
                .first()
                .map_or(ProxyError::OrganizationUnknown, ProxyError::PropertyUnknown));
        }
    };
    Ok(Credentialed { identified, key, permit })
}
