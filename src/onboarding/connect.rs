//! `GET /connect/{property}?app=…`: the first step of a connection.
//!
//! In: a property and an app. Out: a state for this browser and the way to Cloudbeds' consent page, or a page that says
//! why not. It changes nothing but that state, and does not even do that for whoever only fetches.

use http::HeaderMap;

use super::cookie::Jar;
use super::state::{Asked, States};
use super::visitor::Visitor;
use super::words::{self, Notice};
use super::{App, page};
use crate::property::PropertyId;
use crate::wire::server::Answer;

/// How a first step ends.
pub(super) enum First {
    /// On the way to Cloudbeds.
    Gone(Answer),
    /// A page of ours.
    Page(Notice),
}

/// The app that a link means: the named one, or the first.
pub(super) fn app<'a>(apps: &'a [App], query: &str) -> Option<(usize, &'a App)> {
    let mut named = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "app").map(|(_, app)| app);
    match (named.next(), named.next()) {
        (None, _) => apps.first().map(|app| (0, app)),
        (Some(name), None) => apps.iter().enumerate().find(|(_, app)| app.name == *name),
        // Two names in one link: neither is what somebody meant.
        (Some(_), Some(_)) => None,
    }
}

/// Whether somebody has pressed the button of the page that previews are shown.
fn pressed(query: &str) -> bool {
    form_urlencoded::parse(query.as_bytes()).any(|(name, value)| (&*name, &*value) == ("open", "1"))
}

/// Begins the connection of `property`.
pub(super) fn begin(
    (at, app): (usize, &App),
    property: PropertyId,
    (visitor, query): (Visitor, &str),
    headers: &HeaderMap,
    states: &States,
    jar: Jar,
) -> First {
    match visitor {
        Visitor::Person => {}
        Visitor::Program if pressed(query) => {}
        Visitor::Ahead => return First::Page(Notice::Ahead),
        Visitor::Fetch | Visitor::Program => {
            let link = format!("{}&open=1", words::link(property, Some(&app.name)));
            return First::Page(Notice::Start { property, link });
        }
    }
    if app.codes.is_none() {
        // Its keys come by e-mail: there is no way back to us, so nothing to recognise.
        let there = page::redirect(&app.connect_link(property, None), None);
        return there.map_or(First::Page(Notice::Broken), First::Gone);
    }
    let Ok((state, browser)) = states.issue(Asked { property, app: at }, jar.shown(headers).as_ref()) else {
        return First::Page(Notice::Broken);
    };
    let target = app.connect_link(property, Some(&state.text()));
    page::redirect(&target, Some(&jar.set(&browser))).map_or(First::Page(Notice::Broken), First::Gone)
}
