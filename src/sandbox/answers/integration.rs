//! `getAppState`, `postAppState`, `postWebhook`, `getWebhooks` and `deleteWebhook`: how an app stands with a hotel, and
//! what it wants to be told.
//!
//! In: what the key opens, and a query or a form. Out: the vendor's JSON.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Failure, need};
use crate::sandbox::accounts::{AppState, Grant, Subscription};
use crate::sandbox::query::Pairs;
use crate::sandbox::routes::State;
use crate::sandbox::webhooks::can_reach;

pub(super) fn state(state: &State, grant: &Grant, query: &Pairs) -> Result<Value, Failure> {
    let property = grant.id(query.get("propertyID"))?;
    let app_state = state.accounts().state(grant.app, property);
    Ok(json!({"success": true, "data": {"app_state": app_state.as_str()}}))
}

pub(super) fn set_state(state: &Arc<State>, grant: &Grant, form: &Pairs) -> Result<Value, Failure> {
    let property = grant.id(form.get("propertyID"))?;
    let wanted = need(form, "app_state")?;
    let wanted = AppState::parse(wanted).ok_or("Parameter app_state is invalid")?;
    match wanted {
        // It ends all sessions of the app at the hotel, this one included.
        AppState::Disabled => state.accounts().disconnect(grant.app, property),
        _ => state.accounts().set_state(grant.app, property, wanted),
    }
    state.announce();
    Ok(json!({"success": true}))
}

pub(super) fn subscribe(state: &State, grant: &Grant, form: &Pairs) -> Result<Value, Failure> {
    let (entity, action, endpoint) = (need(form, "object")?, need(form, "action")?, need(form, "endpointUrl")?);
    let properties = grant.ids(form.get("propertyID"))?;
    if !can_reach(endpoint) {
        return Err("Parameter endpointUrl is invalid".to_owned());
    }
    let added = state.accounts().subscriptions.add(grant.app, properties, (entity, action), endpoint);
    let id = added.ok_or("Too many subscriptions")?;
    Ok(json!({"success": true, "data": {"subscriptionID": id}}))
}

pub(super) fn unsubscribe(state: &State, grant: &Grant, query: &Pairs) -> Result<Value, Failure> {
    let id = need(query, "subscriptionID")?;
    grant.ids(query.get("propertyIDs"))?;
    match state.accounts().subscriptions.remove(grant.app, id) {
        true => Ok(json!({"success": true})),
        false => Err("Subscription not found".to_owned()),
    }
}

pub(super) fn list(state: &State, grant: &Grant, query: &Pairs) -> Result<Value, Failure> {
    let properties = grant.ids(query.get("propertyID"))?;
    let accounts = state.accounts();
    let owner = &accounts.app(grant.app).client_id;
    let entry = |one: &Subscription| {
        let first = one.properties.first().copied();
        let organization = first.and_then(|id| accounts.hotel(id)).map(|place| place.organization.as_str());
        let key = match one.properties.len() {
            1 => json!({"type": "property", "id": first.map(|id| id.to_string())}),
            _ => json!({"type": "association", "id": organization}),
        };
        json!({
            "id": one.id,
            "key": key,
            "event": {"entity": one.entity, "action": one.action},
            "owner": {"type": "api_client", "id": owner},
            "subscriptionType": "webhook",
            "subscriptionData": {"endpoint": one.endpoint},
        })
    };
    let all: Vec<Value> = accounts.subscriptions.of(grant.app, &properties).map(entry).collect();
    Ok(json!({"success": true, "data": all}))
}
