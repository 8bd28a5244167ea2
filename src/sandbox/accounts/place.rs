//! The hotels of the settings, and the organisation each belongs to.
//!
//! In: [`Settings`]. Out: a [`Place`] per hotel, connected ones first.

use std::collections::HashMap;

use crate::property::PropertyId;
use crate::sandbox::Settings;

/// A hotel before anything has happened to it.
pub(in crate::sandbox) struct Place {
    pub(in crate::sandbox) property: PropertyId,
    pub(in crate::sandbox) name: String,
    pub(in crate::sandbox) organization: String,
}

/// The organisation of hotels that came with one key is named after the first of them.
pub(super) fn organization_of(first: PropertyId) -> String {
    format!("9{first}")
}

/// All hotels of the settings, with the organisation each belongs to.
pub(in crate::sandbox) fn places(settings: &Settings) -> Vec<Place> {
    let mut first: HashMap<&str, PropertyId> = HashMap::new();
    let connected = settings.hotels.iter().map(|hotel| {
        let organization = organization_of(*first.entry(&hotel.key).or_insert(hotel.property));
        Place { property: hotel.property, name: hotel.name.clone(), organization }
    });
    let mut all: Vec<Place> = connected.collect();
    all.extend(settings.unconnected.iter().map(|hotel| {
        let organization = hotel.organization.clone().unwrap_or_else(|| organization_of(hotel.property));
        Place { property: hotel.property, name: hotel.name.clone(), organization }
    }));
    all
}
