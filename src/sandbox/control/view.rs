//! What the control listener shows: the state of everything, what arrived, what was delivered.
//!
//! In: the sandbox's state. Out: JSON, in which keys are covered, and so is whatever else came as a credential.

use serde_json::{Value, json};

use crate::property::PropertyId;
use crate::sandbox::accounts::{Accounts, App, AppIndex, Delivery};
use crate::sandbox::calendar::stamp;
use crate::sandbox::routes::State;
use crate::sandbox::{Rule, Seen};
use crate::wire::mask;

/// The most hotels that are listed per app.
const HOTELS: usize = 200;

pub(super) fn state(state: &State) -> Value {
    let (manner, rules) = (state.webhooks(), state.rules.all());
    let accounts = state.accounts();
    let apps: Vec<Value> = accounts.apps().map(|(index, known)| app(state, &accounts, index, known)).collect();
    json!({
        "now": stamp(state.clock.now()),
        "moved_seconds": state.clock.moved().as_secs(),
        "apps": apps,
        "budget": accounts.budget().map(|budget| json!({"per_second": budget.per_second, "tolerance": budget.tolerance})),
        "resources": state.shows_resources(),
        "webhooks": {"copies": manner.copies, "reversed": manner.reversed},
        "rules": rules.iter().map(rule).collect::<Vec<_>>(),
        "mails": accounts.mails(),
    })
}

fn app(state: &State, accounts: &Accounts, index: AppIndex, app: &App) -> Value {
    let hotels: Vec<Value> =
        accounts.connected(index).iter().take(HOTELS).map(|id| hotel(state, accounts, index, *id)).collect();
    let delivery = match &app.delivery {
        Delivery::Automatic => "automatic",
        Delivery::Email(to) => to,
    };
    json!({
        "client_id": app.client_id,
        "name": app.name,
        "redirect_uri": app.redirect_uri,
        "delivery": delivery,
        "webhook": app.webhook,
        "suspended": accounts.is_suspended(index),
        "hotels": hotels,
        "unconnected": accounts.unconnected(index, HOTELS).iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn hotel(state: &State, accounts: &Accounts, app: AppIndex, property: PropertyId) -> Value {
    let now = state.clock.now();
    let key = accounts.key(app, property, now);
    let idle = key.as_ref().map(|key| now.duration_since(key.used).unwrap_or_default().as_secs() / 86_400);
    json!({
        "property": property.to_string(),
        "name": accounts.hotel(property).map(|place| place.name.as_str()),
        "state": accounts.state(app, property).as_str(),
        "key": key.map(|key| key.dead.unwrap_or("works")),
        "idle_days": idle,
        "left": accounts.has_left(property),
    })
}

fn rule(rule: &Rule) -> Value {
    let property = rule.property.map(|id| id.to_string());
    json!({"property": property, "path": rule.path, "times": rule.times, "room": rule.room})
}

pub(super) fn requests(state: &State, last: usize) -> Value {
    let all = state.recorder.requests();
    json!(all[all.len().saturating_sub(last)..].iter().map(seen).collect::<Vec<_>>())
}

fn seen(seen: &Seen) -> Value {
    let covered = |name: &str, value: &[u8]| {
        let text = String::from_utf8_lossy(value);
        let credential = matches!(name, "authorization" | "x-api-key" | "cookie" | "proxy-authorization");
        match mask::text(&text) {
            masked if !credential || masked != text => masked.into_owned(),
            _ => "(covered)".to_owned(),
        }
    };
    let headers: Vec<Value> = seen.headers.iter().map(|(name, value)| json!([name, covered(name, value)])).collect();
    // A query may carry a state; a code or a secret only by mistake, but then all the more.
    let (path, query) = seen.target.split_once('?').unwrap_or((&seen.target, ""));
    let pairs = form_urlencoded::parse(query.as_bytes()).map(|(name, value)| match &*name {
        "code" | "client_secret" | "access_token" => (name, "(covered)".into()),
        _ => (name, value),
    });
    let query: Vec<(String, String)> =
        pairs.map(|(name, value)| (name.into_owned(), mask::text(&value).into_owned())).collect();
    json!({
        "method": seen.method.as_str(),
        "path": mask::text(path),
        "query": query,
        "version": format!("{:?}", seen.version),
        "headers": headers,
        "body_bytes": seen.body_bytes,
        "connection": seen.connection,
    })
}

pub(super) fn webhooks(state: &State) -> Value {
    let all = state.delivered();
    let one = |one: &crate::sandbox::Delivered| {
        let (status, error) = match &one.outcome {
            Ok(status) => (Some(*status), None),
            Err(error) => (None, Some(error)),
        };
        json!({
            "endpoint": one.endpoint,
            "body": one.body,
            "attempt": one.attempt,
            "at": stamp(one.at),
            "status": status,
            "error": error,
        })
    };
    json!(all.iter().map(one).collect::<Vec<_>>())
}
