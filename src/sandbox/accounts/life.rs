//! What happens between an app and a hotel: approved, exchanged, reset, disconnected.
//!
//! In: what partners and hotel users do. Out: codes, keys, and each change of state noted for the webhooks.

use std::time::SystemTime;

use super::{Accounts, AppIndex, AppState, Change, Connection, Delivery, Owner};
use crate::property::PropertyId;

/// What an approval led to.
pub(in crate::sandbox) enum Approved {
    /// The code, for the app's redirect URI.
    Code(String),
    /// The partner was told by e-mail.
    Told,
}

/// Why an exchange fails, in the order in which it is looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::sandbox) enum Refused {
    /// A field is not there.
    Missing(&'static str),
    /// Another grant than the api key's.
    GrantType,
    /// No such app.
    Client,
    /// Not its secret.
    Secret,
    /// Not the registered redirect URI.
    RedirectUri,
    /// Unknown, used, older than ten minutes, or another app's.
    Code,
}

/// The fields of an exchange, as they came.
pub(in crate::sandbox) struct Exchange<'a> {
    pub(in crate::sandbox) grant_type: Option<&'a str>,
    pub(in crate::sandbox) client_id: Option<&'a str>,
    pub(in crate::sandbox) client_secret: Option<&'a str>,
    pub(in crate::sandbox) redirect_uri: Option<&'a str>,
    pub(in crate::sandbox) code: Option<&'a str>,
}

/// The only grant there is here (the vendor's guide).
const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:api-key";

impl Accounts {
    /// A hotel user said yes, for this hotel or for its whole organisation.
    pub(in crate::sandbox) fn approve(
        &mut self,
        app: AppIndex,
        property: PropertyId,
        whole: bool,
        now: SystemTime,
    ) -> Option<Approved> {
        let place = self.hotels.get(&property)?;
        let whole = whole && self.siblings(property).len() > 1;
        let owner =
            if whole { Owner::Organization(place.organization.clone()) } else { Owner::Property(place.property) };
        match self.apps[app.0].delivery.clone() {
            Delivery::Automatic => {
                for property in self.properties(&owner) {
                    let fresh = Connection { state: AppState::Disabled, owner: owner.clone() };
                    let connection = self.connections.entry((app, property)).or_insert(fresh);
                    // Not told to anybody: the vendor's notices begin with the exchange.
                    if connection.state == AppState::Disabled {
                        connection.state = AppState::Pending;
                    }
                }
                Some(Approved::Code(self.codes.issue(app, owner, now)))
            }
            Delivery::Email(to) => {
                let name = &self.apps[app.0].name;
                self.mails.push(format!("To {to}: property {property} ({}) has connected {name}.", place.name));
                self.install(app, &owner);
                Some(Approved::Told)
            }
        }
    }

    /// A code becomes a key, and the owner's last key ends.
    pub(in crate::sandbox) fn exchange(
        &mut self,
        sent: &Exchange<'_>,
        now: SystemTime,
    ) -> Result<(String, Owner), Refused> {
        let needed = |field: Option<&'_ str>, name| field.map(str::to_owned).ok_or(Refused::Missing(name));
        if needed(sent.grant_type, "grant_type")? != GRANT_TYPE {
            return Err(Refused::GrantType);
        }
        let client_id = needed(sent.client_id, "client_id")?;
        let secret = needed(sent.client_secret, "client_secret")?;
        let redirect_uri = needed(sent.redirect_uri, "redirect_uri")?;
        let code = needed(sent.code, "code")?;
        let app = self.find(&client_id).ok_or(Refused::Client)?;
        if self.app(app).client_secret != secret {
            return Err(Refused::Secret);
        }
        if self.app(app).redirect_uri != redirect_uri {
            return Err(Refused::RedirectUri);
        }
        let owner = self.codes.redeem(&code, app, now).ok_or(Refused::Code)?;
        let key = self.keys.issue(app, owner.clone(), self.properties(&owner), now);
        self.install(app, &owner);
        Ok((key, owner))
    }

    /// A new key for a connected hotel; the last one ends.
    pub(in crate::sandbox) fn regenerate(
        &mut self,
        app: AppIndex,
        property: PropertyId,
        now: SystemTime,
    ) -> Option<String> {
        let connection = self.connections.get(&(app, property))?;
        if connection.state == AppState::Disabled {
            return None;
        }
        let owner = connection.owner.clone();
        let properties = self.properties(&owner);
        Some(self.keys.issue(app, owner, properties, now))
    }

    /// The hotel disconnects the app, or the app itself does.
    pub(in crate::sandbox) fn disconnect(&mut self, app: AppIndex, property: PropertyId) {
        self.keys.disconnect(app, property);
        self.set_state(app, property, AppState::Disabled);
    }

    pub(in crate::sandbox) fn set_state(&mut self, app: AppIndex, property: PropertyId, new: AppState) {
        if let Some(connection) = self.connections.get_mut(&(app, property)) {
            let old = std::mem::replace(&mut connection.state, new);
            if old != new {
                self.changes.push(Change { app, property, old, new });
            }
        }
    }

    /// "installing" immediately followed by "enabled", as the vendor describes it.
    fn install(&mut self, app: AppIndex, owner: &Owner) {
        for property in self.properties(owner) {
            let fresh = Connection { state: AppState::Disabled, owner: owner.clone() };
            self.connections.entry((app, property)).or_insert(fresh).owner = owner.clone();
            self.set_state(app, property, AppState::Installing);
            self.set_state(app, property, AppState::Enabled);
        }
    }
}
