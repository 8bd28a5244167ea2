//! What becomes of keys: idle, reset, disconnected, left behind.

use std::time::Duration;

use cloudbeds_auth_proxy::property::PropertyId;
use cloudbeds_auth_proxy::sandbox::{self, AppState, Sandbox, Settings};
use serde_json::{Value, json};

use crate::client::{Client, Http};

const DAY: Duration = Duration::from_secs(86_400);

/// The demo, its app's client id, and the keys of 1001 and 1002.
async fn started() -> (Sandbox, String, [String; 2]) {
    let settings = Settings::demo();
    let keys = [settings.hotels[0].key.clone(), settings.hotels[1].key.clone()];
    let client_id = settings.apps[0].client_id.clone();
    (sandbox::start(settings).await.unwrap(), client_id, keys)
}

fn property(id: &str) -> PropertyId {
    id.parse().unwrap()
}

async fn call(sandbox: &Sandbox, key: &str) -> (u16, Value) {
    let answer = Client::connect(sandbox, Http::One).await.get("/api/v1.3/getHotelDetails", key).await;
    (answer.status.as_u16(), answer.json())
}

#[tokio::test]
async fn a_key_dies_after_thirty_idle_days_and_use_keeps_it() {
    let (sandbox, _, [used, idle]) = started().await;
    for _ in 0..3 {
        sandbox.advance_clock(DAY * 29);
        assert_eq!(call(&sandbox, &used).await.0, 200);
    }
    let (status, body) = call(&sandbox, &idle).await;
    assert_eq!((status, &body["hint"]), (401, &json!("Access token is invalid")));
    sandbox.advance_clock(DAY * 30);
    assert_eq!(call(&sandbox, &used).await.0, 401);
}

#[tokio::test]
async fn a_reset_key_and_a_disconnected_app_are_answered_as_revoked() {
    let (sandbox, client_id, [first, second]) = started().await;
    let fresh = sandbox.regenerate(property("1001"), &client_id).unwrap();
    assert_eq!(call(&sandbox, &first).await.1["detail"], "401 UNAUTHORIZED");
    assert_eq!(call(&sandbox, &fresh).await.0, 200);
    sandbox.disconnect(property("1002"), &client_id);
    assert_eq!(call(&sandbox, &second).await.1["detail"], "401 UNAUTHORIZED");
    assert_eq!(sandbox.app_state(property("1002"), &client_id), AppState::Disabled);
    // Nothing to reset where nothing is connected.
    assert_eq!(sandbox.regenerate(property("1002"), &client_id), None);
    assert_eq!(call(&sandbox, &fresh).await.0, 200);
}

#[tokio::test]
async fn a_user_who_left_takes_the_keys_along_until_somebody_connects_again() {
    let (sandbox, client_id, [first, second]) = started().await;
    sandbox.user_left(property("1001"));
    let (status, body) = call(&sandbox, &first).await;
    let words = "User who approved this connection is not active anymore";
    assert_eq!((status, body), (200, json!({"success": false, "message": words})));
    assert_eq!(call(&sandbox, &second).await.1["success"], true);
    let fresh = sandbox.regenerate(property("1001"), &client_id).unwrap();
    assert_eq!(call(&sandbox, &fresh).await.1["success"], true);
}

#[tokio::test]
async fn a_property_that_left_is_canceled_to_every_key_and_its_sisters_go_on() {
    let mut settings = Settings::demo();
    settings.hotels[1].key = settings.hotels[0].key.clone();
    let key = settings.hotels[0].key.clone();
    let sandbox = sandbox::start(settings).await.unwrap();
    let mut client = Client::connect(&sandbox, Http::One).await;
    sandbox.property_left(property("1002"), true);
    let gone = client.get("/api/v1.3/getHotelDetails?propertyID=1002", &key).await;
    let message = gone.json()["message"].as_str().unwrap().to_owned();
    assert_eq!(gone.status, 200);
    assert!(message.contains("have an invalid status. See details:\ncanceled: 1002"), "{message}");
    assert_eq!(client.get("/api/v1.3/getHotels", &key).await.json()["total"], 1);
    sandbox.property_left(property("1001"), true);
    let message = client.get("/api/v1.3/userinfo", &key).await.json()["message"].to_string();
    assert!(message.contains("canceled: 1001, 1002"), "{message}");
    sandbox.property_left(property("1001"), false);
    sandbox.property_left(property("1002"), false);
    assert_eq!(client.get("/api/v1.3/getHotels", &key).await.json()["total"], 2);
}
