//! Which hotels a call is about.
//!
//! In: what the key opens, and what the call names. Out: hotels, or the vendor's words for why not.

use super::Failure;
use crate::property::{NotAPropertyId, PropertyId};
use crate::sandbox::accounts::Grant;
use crate::sandbox::data::{Data, House};

const FOREIGN: &str = "None of the included property id's match the access_token user's property id";
const UNSPECIFIED: &str = "Please specify \"propertyID\" parameter for this call";

/// For hotels that left the vendor.
pub(super) fn canceled(left: &[PropertyId]) -> String {
    let ids: Vec<String> = left.iter().map(ToString::to_string).collect();
    format!(
        "Your request could not be fully completed. The property(ies) you are accessing have an invalid status. See \
         details:\ncanceled: {}",
        ids.join(", ")
    )
}

impl Grant {
    /// The one hotel a call is about: the named one, or the key's only one.
    pub(super) fn one<'a>(&self, data: &'a Data, named: Option<&str>) -> Result<&'a House, Failure> {
        data.house(self.id(named)?).ok_or_else(|| FOREIGN.to_owned())
    }

    /// The same, by its id.
    pub(super) fn id(&self, named: Option<&str>) -> Result<PropertyId, Failure> {
        match self.ids(named)?.as_slice() {
            [property] => Ok(*property),
            _ => Err(UNSPECIFIED.to_owned()),
        }
    }

    /// The hotels a call is about: those named that the key opens, or all it opens.
    pub(super) fn several<'a>(&self, data: &'a Data, named: Option<&str>) -> Result<Vec<&'a House>, Failure> {
        Ok(self.ids(named)?.into_iter().filter_map(|id| data.house(id)).collect())
    }

    /// The same, by their ids.
    pub(super) fn ids(&self, named: Option<&str>) -> Result<Vec<PropertyId>, Failure> {
        let Some(list) = named else { return Ok(self.properties.clone()) };
        let ids: Result<Vec<PropertyId>, NotAPropertyId> = list.split(',').map(|id| id.trim().parse()).collect();
        let ids = ids.unwrap_or_default();
        let left: Vec<PropertyId> = ids.iter().copied().filter(|id| self.left.contains(id)).collect();
        if !left.is_empty() {
            return Err(canceled(&left));
        }
        let wanted: Vec<PropertyId> = ids.into_iter().filter(|id| self.properties.contains(id)).collect();
        if wanted.is_empty() { Err(FOREIGN.to_owned()) } else { Ok(wanted) }
    }
}
