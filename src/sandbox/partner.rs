//! The partner's own page at the vendor: an app's API Keys list, where keys delivered by e-mail are fetched and reset.
//!
//! | path | what it does |
//! |---|---|
//! | `GET /partner/{client id}/keys` | the hotels that have connected the app, each with its key's state, never the key |
//! | `POST` to the same | resets a hotel's key and shows the new one, once (the vendor's guide, "Retrieve/reset an API key") |

use askama::Template;
use bytes::Bytes;
use http::{Method, Response, StatusCode};

use super::accounts::{App, AppIndex, AppState, Delivery};
use super::body::{self, Body};
use super::calendar::stamp;
use super::page::{message, page};
use super::query::Pairs;
use super::routes::State;
use crate::property::PropertyId;

/// The largest form that is read.
const FORM_MAX: usize = 4096;

/// The most hotels on one page.
const ROWS: usize = 200;

struct Row {
    property: PropertyId,
    name: String,
    state: &'static str,
    key: &'static str,
    used: String,
    can_reset: bool,
}

#[derive(Template)]
#[template(path = "sandbox/keys.html")]
struct Keys<'a> {
    app: &'a str,
    client_id: &'a str,
    redirect_uri: &'a str,
    mail: Option<&'a str>,
    fresh: Option<(PropertyId, String)>,
    rows: Vec<Row>,
    more: bool,
    ticket: String,
}

/// Answers what is below `/partner/`; `None` for a path that is not there.
pub(super) async fn answer<B>(state: &State, method: &Method, path: &str, body: B) -> Option<Response<Body>>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let (form, _) = body::read(body, FORM_MAX).await;
    let client_id = path.strip_suffix("/keys")?;
    let client_id = percent_encoding::percent_decode_str(client_id).decode_utf8().ok()?;
    let app = state.accounts().find(&client_id)?;
    match *method {
        Method::GET | Method::HEAD => Some(list(state, app, None)),
        Method::POST => Some(reset(state, app, &Pairs::parse(&form))),
        _ => None,
    }
}

fn reset(state: &State, app: AppIndex, form: &Pairs) -> Response<Body> {
    let shown_for = form.get("ticket").and_then(|ticket| state.listed.redeem(ticket));
    let property = form.get("property").and_then(|id| id.parse().ok());
    let Some(property) = property.filter(|_| shown_for == Some(app)) else {
        let text = "It was used already, or the sandbox was started anew. Open the list of keys again.";
        return message(StatusCode::CONFLICT, "This page is out of date", text);
    };
    let now = state.clock.now();
    let mut accounts = state.accounts();
    let by_mail = matches!(accounts.app(app).delivery, Delivery::Email(_));
    let fresh = if by_mail { accounts.regenerate(app, property, now) } else { None };
    drop(accounts);
    match fresh {
        Some(key) => list(state, app, Some((property, key))),
        None => {
            let text = "The property has not connected this app, or the app's keys are delivered automatically.";
            message(StatusCode::CONFLICT, "There is no key to regenerate", text)
        }
    }
}

fn list(state: &State, index: AppIndex, fresh: Option<(PropertyId, String)>) -> Response<Body> {
    let now = state.clock.now();
    let accounts = state.accounts();
    let app: &App = accounts.app(index);
    let connected = accounts.connected(index);
    let row = |property: &PropertyId| {
        let key = accounts.key(index, *property, now);
        let app_state = accounts.state(index, *property);
        Row {
            property: *property,
            name: accounts.hotel(*property).map(|place| place.name.clone()).unwrap_or_default(),
            state: app_state.as_str(),
            key: match &key {
                Some(key) if key.dead.is_none() => "cbat_••••••••",
                Some(_) => "not valid any more",
                None => "none yet",
            },
            used: key.map(|key| stamp(key.used)).unwrap_or_default(),
            can_reset: app_state != AppState::Disabled,
        }
    };
    let rows = connected.iter().take(ROWS).map(row).collect();
    let mail = match &app.delivery {
        Delivery::Email(to) => Some(to.as_str()),
        Delivery::Automatic => None,
    };
    page(
        StatusCode::OK,
        &Keys {
            app: &app.name,
            client_id: &app.client_id,
            redirect_uri: &app.redirect_uri,
            mail,
            fresh,
            rows,
            more: connected.len() > ROWS,
            ticket: state.listed.issue(index),
        },
    )
}
