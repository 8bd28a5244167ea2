//! What becomes of keys: idle, reset, disconnected, left behind.

use std::time::Duration;

use bytes::Bytes;
use cloudbeds_auth_proxy::property::PropertyId;
use cloudbeds_auth_proxy::sandbox::{self, AppState, Budget, Hotel, Rule, Sandbox, Settings};
use http::Request;
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

#[tokio::test]
async fn an_app_that_exceeds_its_budget_gets_429_and_is_then_suspended_until_reinstated() {
    let (sandbox, client_id, [first, second]) = started().await;
    sandbox.stop_clock();
    sandbox.set_budget(Some(Budget { per_second: 3, tolerance: 1 }));
    let mut client = Client::connect(&sandbox, Http::One).await;
    let mut statuses = Vec::new();
    for key in [&first, &second, &first, &second, &first, &first] {
        let answer = client.get("/api/v1.3/userinfo", key).await;
        if answer.status == 429 {
            assert_eq!(answer.header("retry-after"), "1");
        }
        statuses.push(answer.status.as_u16());
    }
    // Both hotels' keys are one app's.
    assert_eq!(statuses, [200, 200, 200, 429, 429, 401]);
    assert!(sandbox.mails()[0].contains("exceeds its rate limit and is suspended"));
    sandbox.advance_clock(DAY);
    assert_eq!(client.get("/api/v1.3/userinfo", &first).await.status, 401);
    sandbox.reinstate(&client_id);
    assert_eq!(client.get("/api/v1.3/userinfo", &first).await.status, 200);
}

#[tokio::test]
async fn a_rule_sends_the_next_requests_of_a_hotel_or_a_path_into_trouble() {
    let (sandbox, _, [first, second]) = started().await;
    let rule = |property: Option<&str>, path: &str, room: &str| Rule {
        property: property.map(|id| id.parse().unwrap()),
        path: path.to_owned(),
        times: 1,
        room: room.to_owned(),
    };
    let mut client = Client::connect(&sandbox, Http::Two).await;
    let mut status = async |target: &str, key: &str| client.get(target, key).await.status.as_u16();
    sandbox.add_rule(rule(Some("1001"), "", "fail?kind=error&status=503"));
    assert_eq!(status("/api/v1.3/getHotels", &second).await, 200);
    assert_eq!(status("/api/v1.3/getHotels", &first).await, 503);
    assert_eq!(status("/api/v1.3/getHotels", &first).await, 200);
    sandbox.add_rule(rule(None, "getRooms", "missing"));
    assert_eq!(status("/api/v1.3/getHotels", &first).await, 200);
    assert_eq!(status("/api/v1.3/getRooms", &first).await, 404);
    sandbox.add_rule(rule(None, "access_token", "fail?kind=limit"));
    assert_eq!(client.submit("/api/v1.3/access_token", &[]).await.status, 429);
    sandbox.add_rule(rule(None, "", "reset?head=0"));
    let request = Request::get("/api/v1.3/getHotels").body(Bytes::new()).unwrap();
    assert!(client.send(request).await.is_err());
    sandbox.add_rule(rule(None, "", "hang"));
    let mut client = Client::connect(&sandbox, Http::One).await;
    let hanging = client.get("/api/v1.3/getHotels", &first);
    assert!(tokio::time::timeout(Duration::from_millis(100), hanging).await.is_err());
    sandbox.add_rule(rule(None, "", "missing"));
    sandbox.clear_rules();
    let mut client = Client::connect(&sandbox, Http::One).await;
    assert_eq!(client.get("/api/v1.3/getHotels", &first).await.status, 200);
}

#[tokio::test]
async fn an_organisation_s_hotels_come_in_pages_of_twenty() {
    let mut settings = Settings::demo();
    let key = settings.hotels[0].key.clone();
    settings.hotels = (1001..=1045)
        .map(|id: u64| Hotel { property: id.to_string().parse().unwrap(), name: format!("H{id}"), key: key.clone() })
        .collect();
    let sandbox = sandbox::start(settings).await.unwrap();
    let mut client = Client::connect(&sandbox, Http::One).await;
    for (page, count) in [(1, 20), (2, 20), (3, 5), (4, 0)] {
        let answer = client.get(&format!("/api/v1.3/getHotels?pageNumber={page}"), &key).await.json();
        assert_eq!((&answer["count"], &answer["total"]), (&json!(count), &json!(45)));
    }
    let unnamed = client.get("/api/v1.3/getAppState", &key).await.json();
    assert_eq!(unnamed["message"], "Please specify \"propertyID\" parameter for this call");
}
