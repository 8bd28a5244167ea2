//! The acts of the control listener: what one can do to hotels, keys, time and the wire.
//!
//! | `do=` | further values | effect |
//! |---|---|---|
//! | `clock` | `by` | moves the clock forward |
//! | `approve` | `property`, `app`, `state`, `organization` | says yes on the consent page; answers where the browser goes |
//! | `deny` | `app`, `state` | says no |
//! | `disconnect` | `property`, `app` | the hotel disconnects the app |
//! | `regenerate` | `property`, `app` | resets the key; answers the new one |
//! | `revoke` | `property`, `app` | the key is answered as revoked; nothing else changes |
//! | `user_left` | `property` | whoever approved its keys is gone |
//! | `property_left`, `property_back` | `property` | the hotel leaves the vendor, or comes back |
//! | `fail` | `room`, `times` (1), `property`, `path` | trouble for the next requests; see [`Rule`] |
//! | `clear` | | ends that trouble |
//! | `budget` | `per_second`, `tolerance` (20) | limits the apps; without `per_second`, no more |
//! | `reinstate` | `app` | ends an app's suspension |
//! | `webhooks` | `copies` (1), `reversed` (no) | duplicates, disorder, or silence (`copies=0`) |
//! | `resources` | `on` (yes) | whether an exchange says what its key opens |
//! | `cut` | `how` (`reset` or `fin`) | ends every open connection |
//! | `app` | `app`, `redirect_uri`, `email`, `webhook`, `name` | changes an app; `email=-` is automatic delivery, `webhook=-` none |
//!
//! `app` is a client id, and the first app where it is left out.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::fields::{Fields, Mistake};
use crate::property::PropertyId;
use crate::sandbox::accounts::{AppIndex, Delivery};
use crate::sandbox::calendar::stamp;
use crate::sandbox::connect::{Decided, made_up_state};
use crate::sandbox::routes::State;
use crate::sandbox::{Budget, Cut, Rule, Webhooks};

/// The app that is meant: a client id, or the first one.
type Named = Option<String>;

/// One act.
pub(super) enum Act {
    Clock(Duration),
    Approve {
        property: PropertyId,
        app: Named,
        state: Option<String>,
        whole: bool,
    },
    Deny {
        app: Named,
        state: Option<String>,
    },
    Disconnect {
        property: PropertyId,
        app: Named,
    },
    Regenerate {
        property: PropertyId,
        app: Named,
    },
    Revoke {
        property: PropertyId,
        app: Named,
    },
    UserLeft(PropertyId),
    PropertyLeft(PropertyId, bool),
    Fail(Rule),
    Clear,
    Budget(Option<Budget>),
    Reinstate(Named),
    Webhooks(Webhooks),
    Resources(bool),
    Cut(Cut),
    App {
        app: Named,
        redirect_uri: Option<String>,
        email: Option<String>,
        webhook: Option<String>,
        name: Option<String>,
    },
}

impl Act {
    pub(super) fn parse(mut fields: Fields) -> Result<Self, Mistake> {
        let name = fields.need("do")?;
        let act = Self::read(&name, &mut fields)?;
        fields.end()?;
        Ok(act)
    }

    fn read(name: &str, fields: &mut Fields) -> Result<Self, Mistake> {
        let property =
            |fields: &mut Fields| fields.parse("property")?.ok_or_else(|| "`property` is missing".to_owned());
        Ok(match name {
            "clock" => Self::Clock(fields.duration("by")?),
            "approve" => Self::Approve {
                property: property(fields)?,
                app: fields.take("app"),
                state: fields.take("state"),
                whole: fields.flag("organization")?.unwrap_or(false),
            },
            "deny" => Self::Deny { app: fields.take("app"), state: fields.take("state") },
            "disconnect" => Self::Disconnect { property: property(fields)?, app: fields.take("app") },
            "regenerate" => Self::Regenerate { property: property(fields)?, app: fields.take("app") },
            "revoke" => Self::Revoke { property: property(fields)?, app: fields.take("app") },
            "user_left" => Self::UserLeft(property(fields)?),
            "property_left" => Self::PropertyLeft(property(fields)?, true),
            "property_back" => Self::PropertyLeft(property(fields)?, false),
            "fail" => Self::Fail(Rule {
                property: fields.parse("property")?,
                path: fields.take("path").unwrap_or_default(),
                times: fields.parse("times")?.unwrap_or(1),
                room: fields.need("room")?,
            }),
            "clear" => Self::Clear,
            "budget" => {
                let tolerance = fields.parse("tolerance")?.unwrap_or(20);
                Self::Budget(fields.parse("per_second")?.map(|per_second| Budget { per_second, tolerance }))
            }
            "reinstate" => Self::Reinstate(fields.take("app")),
            "webhooks" => Self::Webhooks(Webhooks {
                copies: fields.parse("copies")?.unwrap_or(1),
                reversed: fields.flag("reversed")?.unwrap_or(false),
            }),
            "resources" => Self::Resources(fields.flag("on")?.unwrap_or(true)),
            "cut" => Self::Cut(match fields.take("how").as_deref() {
                None | Some("reset") => Cut::Reset,
                Some("fin") => Cut::Fin,
                Some(_) => return Err("`how` must be reset or fin".to_owned()),
            }),
            "app" => Self::App {
                app: fields.take("app"),
                redirect_uri: fields.take("redirect_uri"),
                email: fields.take("email"),
                webhook: fields.take("webhook"),
                name: fields.take("name"),
            },
            _ => {
                let all = "clock, approve, deny, disconnect, regenerate, revoke, user_left, property_left, \
                           property_back, fail, clear, budget, reinstate, webhooks, resources, cut or app";
                return Err(format!("`do` must be {all}"));
            }
        })
    }

    /// Does it. Out: what came of it.
    pub(super) fn perform(self, state: &Arc<State>) -> Result<Value, Mistake> {
        let now = state.clock.now();
        let unconnected = || "this hotel has not connected this app".to_owned();
        match self {
            Self::Clock(by) => {
                state.clock.advance(by);
                return Ok(json!({"done": true, "now": stamp(state.clock.now())}));
            }
            Self::Approve { property, app, state: passed, whole } => {
                let app = index(state, app.as_deref())?;
                let passed = passed.unwrap_or_else(made_up_state);
                let decided = state.approve(app, property, whole, &passed).ok_or("there is no such hotel")?;
                let redirect = match decided {
                    Decided::Redirect(to) => Some(to),
                    Decided::Told => None,
                };
                return Ok(json!({"done": true, "redirect": redirect}));
            }
            Self::Deny { app, state: passed } => {
                let passed = passed.unwrap_or_else(made_up_state);
                return Ok(json!({"done": true, "redirect": state.deny(index(state, app.as_deref())?, &passed)}));
            }
            Self::Disconnect { property, app } => {
                let app = index(state, app.as_deref())?;
                state.accounts().disconnect(app, property);
                state.announce();
            }
            Self::Regenerate { property, app } => {
                let app = index(state, app.as_deref())?;
                let key = state.accounts().regenerate(app, property, now).ok_or_else(unconnected)?;
                return Ok(json!({"done": true, "key": key}));
            }
            Self::Revoke { property, app } => {
                let app = index(state, app.as_deref())?;
                let mut accounts = state.accounts();
                let key = accounts.key(app, property, now).ok_or_else(unconnected)?.text.to_owned();
                accounts.revoke(&key);
            }
            Self::UserLeft(property) => state.accounts().user_left(property),
            Self::PropertyLeft(property, left) => state.accounts().set_left(property, left),
            Self::Fail(rule) => state.rules.add(rule),
            Self::Clear => state.rules.clear(),
            Self::Budget(budget) => state.accounts().set_budget(budget),
            Self::Reinstate(app) => {
                let app = index(state, app.as_deref())?;
                state.accounts().reinstate(app);
            }
            Self::Webhooks(manner) => state.set_webhooks(manner),
            Self::Resources(on) => state.show_resources(on),
            Self::Cut(how) => {
                state.cut.send_replace(how);
            }
            Self::App { app, redirect_uri, email, webhook, name } => {
                let index = index(state, app.as_deref())?;
                let mut accounts = state.accounts();
                let mut app = accounts.app(index).clone();
                app.redirect_uri = redirect_uri.unwrap_or(app.redirect_uri);
                app.name = name.unwrap_or(app.name);
                match email.as_deref() {
                    None => {}
                    Some("-") => app.delivery = Delivery::Automatic,
                    Some(to) => app.delivery = Delivery::Email(to.to_owned()),
                }
                match webhook.as_deref() {
                    None => {}
                    Some("-") => app.webhook = None,
                    Some(to) => app.webhook = Some(to.to_owned()),
                }
                app.check().map_err(|error| error.to_string())?;
                accounts.set_app(app);
            }
        }
        Ok(json!({"done": true}))
    }
}

fn index(state: &State, named: Option<&str>) -> Result<AppIndex, Mistake> {
    let accounts = state.accounts();
    let found = match named {
        Some(client_id) => accounts.find(client_id),
        None => accounts.apps().next().map(|(index, _)| index),
    };
    found.ok_or_else(|| "there is no app with this client id".to_owned())
}
