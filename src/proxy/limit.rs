//! Whether Cloudbeds may be asked now.
//!
//! In: [`Authorized`]. Out: [`Admitted`]. There are no budgets in this version: everything that may be asked may be
//! asked at once, and an application keeps to Cloudbeds' requests per second itself.

use super::authorize::Authorized;

/// A request whose turn has come.
#[derive(Debug)]
pub struct Admitted {
    pub(super) authorized: Authorized,
}

/// Admits the request.
#[must_use]
pub fn admit(authorized: Authorized) -> Admitted {
    Admitted { authorized }
}
