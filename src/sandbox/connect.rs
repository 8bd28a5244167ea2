//! Connecting an app to a hotel, as the hotel's user sees it in a browser.
//!
//! In: the connect link of the vendor's guide. Out: pages, and in the end a redirect to the app with `code` and `state`,
//! or with `error` (RFC 6749 4.1.2.1). The vendor would ask the user to log in first; here everybody is that user.
//!
//! | path | what it does |
//! |---|---|
//! | `/connect/{property}#/app/{client id}` | goes on to the consent page; without script or fragment, offers a form, the marketplace, and the connected apps with Disconnect |
//! | `/connect/{property}/consent?client_id=` | names the app and its scopes, with Approve and Deny |
//! | `POST /connect/{property}/disconnect` | what Disconnect does |
//!
//! A `state` in the query of either, or behind the fragment's path, is passed on unchanged. Without one the vendor makes
//! one up, as the guide's example of a redirection shows.

use std::sync::Arc;

use askama::Template;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, LOCATION, REFERRER_POLICY};
use http::{HeaderValue, Method, Response, StatusCode};

use super::accounts::{AppIndex, AppState, Approved};
use super::body::{self, Body};
use super::keys::random_bytes;
use super::page::{message, page, script, style};
use super::query::Pairs;
use super::routes::State;
use crate::property::PropertyId;

/// The largest form that is read.
const FORM_MAX: usize = 64 * 1024;

/// What a consent page was shown for.
pub(super) struct Asked {
    property: PropertyId,
    app: AppIndex,
    state: String,
}

#[derive(Template)]
#[template(path = "sandbox/connect.html")]
struct Connect<'a> {
    hotel: &'a str,
    property: PropertyId,
    state: Option<&'a str>,
    market: Vec<(&'a str, &'a str)>,
    /// The connected apps, each with a ticket to disconnect it.
    connected: Vec<(&'a str, String)>,
}

#[derive(Template)]
#[template(path = "sandbox/consent.html")]
struct Consent<'a> {
    app: &'a str,
    client_id: &'a str,
    hotel: &'a str,
    property: PropertyId,
    scopes: &'a [String],
    siblings: &'a [PropertyId],
    connected: bool,
    ticket: String,
}

/// Answers what is below `/connect/`; `None` for a path that is not there.
pub(super) async fn answer<B>(
    state: &Arc<State>,
    method: &Method,
    path: &str,
    query: &Pairs,
    body: B,
) -> Option<Response<Body>>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let (form, _) = body::read(body, FORM_MAX).await;
    let read = matches!(*method, Method::GET | Method::HEAD);
    let (property, rest) = path.split_once('/').unwrap_or((path, ""));
    match (property, rest) {
        ("style.css", "") if read => Some(style()),
        ("script.js", "") if read => Some(script()),
        (_, "") if read => Some(start(state, property.parse().ok()?, query)),
        (_, "consent") if read => Some(ask(state, property.parse().ok()?, query)),
        (_, "consent") if *method == Method::POST => Some(decide(state, property.parse().ok()?, &Pairs::parse(&form))),
        (_, "disconnect") if *method == Method::POST => Some(disconnect(state, &Pairs::parse(&form))),
        _ => None,
    }
}

fn start(state: &State, property: PropertyId, query: &Pairs) -> Response<Body> {
    let accounts = state.accounts();
    let Some(hotel) = accounts.hotel(property) else { return unknown_property() };
    let market = accounts.apps().filter(|(_, app)| app.marketplace);
    let market = market.map(|(_, app)| (app.name.as_str(), app.client_id.as_str())).collect();
    let connected = accounts.apps().filter(|(index, _)| accounts.state(*index, property) != AppState::Disabled);
    let connected = connected
        .map(|(app, known)| (known.name.as_str(), state.asked.issue(Asked { property, app, state: String::new() })));
    let connected = connected.collect();
    page(StatusCode::OK, &Connect { hotel: &hotel.name, property, state: query.get("state"), market, connected })
}

fn disconnect(state: &Arc<State>, form: &Pairs) -> Response<Body> {
    let Some(asked) = form.get("ticket").and_then(|ticket| state.asked.redeem(ticket)) else { return out_of_date() };
    state.accounts().disconnect(asked.app, asked.property);
    state.announce();
    message(StatusCode::OK, "Disconnected", "The app's key for this property has stopped working.")
}

fn ask(state: &State, property: PropertyId, query: &Pairs) -> Response<Body> {
    let accounts = state.accounts();
    let Some(hotel) = accounts.hotel(property) else { return unknown_property() };
    let Some(index) = query.get("client_id").and_then(|id| accounts.find(id)) else {
        let text = "No app has this client id. Look at the connect link again: /connect/PROPERTY#/app/CLIENT_ID.";
        return message(StatusCode::NOT_FOUND, "Unknown app", text);
    };
    let app = accounts.app(index);
    let ticket = state.asked.issue(Asked {
        property,
        app: index,
        // As long as the guide's example, and of the same characters.
        state: query.get("state").map_or_else(made_up_state, str::to_owned),
    });
    page(
        StatusCode::OK,
        &Consent {
            app: &app.name,
            client_id: &app.client_id,
            hotel: &hotel.name,
            property,
            scopes: &app.scopes,
            siblings: accounts.siblings(property),
            connected: accounts.state(index, property) == AppState::Enabled,
            ticket,
        },
    )
}

fn decide(state: &Arc<State>, property: PropertyId, form: &Pairs) -> Response<Body> {
    let asked = form.get("ticket").and_then(|ticket| state.asked.redeem(ticket));
    let Some(asked) = asked.filter(|asked| asked.property == property) else { return out_of_date() };
    let answer = match form.get("answer") {
        Some("approve") => state.approve(asked.app, property, form.flag("whole"), &asked.state),
        _ => Some(Decided::Redirect(state.deny(asked.app, &asked.state))),
    };
    match answer {
        Some(Decided::Redirect(to)) => redirect(&to),
        Some(Decided::Told) => {
            // The pop-up of the guide, "App authorization" under e-mail delivery.
            let text = "The app was told by e-mail, and may follow up with further onboarding instructions.";
            message(StatusCode::OK, "Connected", text)
        }
        None => unknown_property(),
    }
}

/// What the browser gets to see after a decision.
pub(super) enum Decided {
    /// It goes there.
    Redirect(String),
    /// It stays; the partner was told by e-mail.
    Told,
}

impl State {
    /// The hotel's user approves an app.
    pub(super) fn approve(
        self: &Arc<Self>,
        app: AppIndex,
        property: PropertyId,
        whole: bool,
        passed: &str,
    ) -> Option<Decided> {
        let now = self.clock.now();
        let mut accounts = self.accounts();
        let approved = accounts.approve(app, property, whole, now)?;
        let decided = match approved {
            Approved::Code(code) => {
                Decided::Redirect(accounts.app(app).redirect(&[("code", &code), ("state", passed)]))
            }
            Approved::Told => Decided::Told,
        };
        drop(accounts);
        self.announce();
        Some(decided)
    }

    /// The hotel's user says no (RFC 6749 4.1.2.1; the vendor's guide leaves it out).
    pub(super) fn deny(&self, app: AppIndex, passed: &str) -> String {
        let words = "The resource owner or authorization server denied the request.";
        let pairs = [("error", "access_denied"), ("error_description", words), ("state", passed)];
        self.accounts().app(app).redirect(&pairs)
    }
}

/// A `state` of the vendor's own.
pub(super) fn made_up_state() -> String {
    random_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn redirect(to: &str) -> Response<Body> {
    let mut answer = Response::new(Body::full(Bytes::new()));
    *answer.status_mut() = StatusCode::FOUND;
    // A registered redirect URI is a URI, and what was added to it is percent-encoded.
    let Ok(location) = HeaderValue::from_str(to) else { return unknown_property() };
    answer.headers_mut().insert(LOCATION, location);
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    answer
}

fn out_of_date() -> Response<Body> {
    let text = "It was used already, or the sandbox was started anew. Open the connect link again.";
    message(StatusCode::CONFLICT, "This page is out of date", text)
}

fn unknown_property() -> Response<Body> {
    message(StatusCode::NOT_FOUND, "Unknown property", "The sandbox has no hotel with this property id.")
}
