//! The exchange of a code for a key, as strict as the vendor's guide.

use std::time::Duration;

use cloudbeds_auth_proxy::sandbox::{AppState, Sandbox};
use serde_json::json;

use super::connect::{CLIENT, query, started};
use crate::client::{Answer, BOTH, Client, Http};

const REDIRECT: &str = "https://app.example/api_key?a=1";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:api-key";
const EXPIRED: &str = "The authorization code is invalid or has expired.";

fn code(sandbox: &Sandbox, property: &str) -> String {
    let sent = sandbox.approve(property.parse().unwrap(), CLIENT, None).unwrap();
    query(&sent)["code"].clone()
}

pub(crate) fn fields(code: &str) -> Vec<(&str, &str)> {
    let secret = ("client_secret", "secret");
    vec![("grant_type", GRANT), ("client_id", CLIENT), secret, ("redirect_uri", REDIRECT), ("code", code)]
}

pub(crate) async fn exchange(sandbox: &Sandbox, fields: &[(&str, &str)]) -> Answer {
    Client::connect(sandbox, Http::One).await.submit("/api/v1.1/access_token", fields).await
}

#[tokio::test]
async fn a_code_becomes_a_key_in_both_forms_and_all_versions() {
    for http in BOTH {
        let sandbox = started(|_| {}).await;
        let mut client = Client::connect(&sandbox, http).await;
        let mut last = String::new();
        for (version, multipart) in [("v1.1", true), ("v1.2", false), ("v1.3", true)] {
            let code = code(&sandbox, "1003");
            let target = format!("/api/{version}/access_token");
            let answer = if multipart {
                let part = |(name, value): &(&str, &str)| {
                    format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
                };
                let body: String = fields(&code).iter().map(part).chain(["--b--\r\n".to_owned()]).collect();
                client.post(&target, "", "multipart/form-data; boundary=b", body).await
            } else {
                client.submit(&target, &fields(&code)).await
            };
            let body = answer.json();
            let key = body["access_token"].as_str().unwrap().to_owned();
            assert_eq!((answer.status.as_u16(), answer.header("cache-control")), (200, "no-store"));
            assert_eq!(body["resources"], json!([{"type": "property", "id": "1003"}]));
            assert!(key.starts_with("cbat_") && key.len() == 37);
            assert_eq!(client.get("/api/v1.3/getHotels", &key).await.json()["data"][0]["propertyID"], "1003");
            // A new key ends the one before.
            if !last.is_empty() {
                let dead = client.get("/api/v1.3/getHotels", &last).await;
                assert_eq!((dead.status.as_u16(), &dead.json()["title"]), (401, &json!("Unauthorized")));
            }
            last = key;
        }
        let property = "1003".parse().unwrap();
        assert_eq!(sandbox.key(property, CLIENT).as_deref(), Some(last.as_str()));
        assert_eq!(sandbox.app_state(property, CLIENT), AppState::Enabled);
    }
}

#[tokio::test]
async fn a_code_is_good_once_for_ten_minutes_and_for_its_own_app() {
    let sandbox = started(|_| {}).await;
    let expired = json!({"error": "server_error", "error_description": EXPIRED});
    let used = code(&sandbox, "1003");
    assert_eq!(exchange(&sandbox, &fields(&used)).await.status, 200);
    let old = code(&sandbox, "1003");
    sandbox.advance_clock(Duration::from_secs(11 * 60));
    for bad in [used.as_str(), &old, "unknown"] {
        let answer = exchange(&sandbox, &fields(bad)).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (401, expired.clone()));
    }
    let young = code(&sandbox, "1003");
    sandbox.advance_clock(Duration::from_secs(9 * 60));
    assert_eq!(exchange(&sandbox, &fields(&young)).await.status, 200);
}

#[tokio::test]
async fn every_field_is_checked_and_a_failed_attempt_does_not_use_the_code_up() {
    let sandbox = started(|_| {}).await;
    let code = code(&sandbox, "1003");
    let with = |name: &str, value: &'static str| -> Vec<(String, String)> {
        let fields = fields(&code).into_iter().filter(|(field, _)| *field != name);
        let fields = fields.map(|(field, value)| (field.to_owned(), value.to_owned()));
        fields.chain((!value.is_empty()).then(|| (name.to_owned(), value.to_owned()))).collect()
    };
    for (name, value, status, error, words) in [
        ("grant_type", "authorization_code", 400, "unsupported_grant_type", "authorization grant type"),
        ("grant_type", "", 400, "invalid_request", "missing a required parameter"),
        ("client_id", "nobody", 401, "server_error", "Entity not found: CloudBeds\\MyFrontDesk\\API\\Models\\Client"),
        ("client_id", "", 400, "invalid_request", "missing a required parameter"),
        ("client_secret", "Secret", 401, "invalid_client", "Client authentication failed"),
        ("client_secret", "", 400, "invalid_request", "missing a required parameter"),
        ("redirect_uri", "https://app.example/api_key", 400, "invalid_request", "otherwise malformed"),
        ("redirect_uri", "", 400, "invalid_request", "missing a required parameter"),
        ("code", "", 400, "invalid_request", "missing a required parameter"),
    ] {
        let changed = with(name, value);
        let changed: Vec<(&str, &str)> = changed.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let answer = exchange(&sandbox, &changed).await;
        let body = answer.json();
        assert_eq!((answer.status.as_u16(), &body["error"]), (status, &json!(error)), "{name}={value}");
        assert!(body["error_description"].as_str().unwrap().contains(words), "{body}");
    }
    let mut client = Client::connect(&sandbox, Http::One).await;
    let body = serde_json::to_vec(&json!({"grant_type": GRANT, "client_id": CLIENT})).unwrap();
    assert_eq!(client.post("/api/v1.3/access_token", "", "application/json", body).await.status, 400);
    assert_eq!(client.look("/api/v1.3/access_token").await.status, 404);
    assert_eq!(exchange(&sandbox, &fields(&code)).await.status, 200);
}

#[tokio::test]
async fn a_key_of_an_organisation_opens_all_of_it_and_says_so() {
    let sandbox = started(|_| {}).await;
    let sent = sandbox.approve_organization("1005".parse().unwrap(), CLIENT, Some("x")).unwrap();
    assert_eq!(query(&sent)["state"], "x");
    let answer = exchange(&sandbox, &fields(&query(&sent)["code"])).await.json();
    assert_eq!(answer["resources"], json!([{"type": "association", "id": "77"}]));
    let mut client = Client::connect(&sandbox, Http::One).await;
    let key = answer["access_token"].as_str().unwrap();
    let hotels = client.get("/api/v1.3/getHotels", key).await.json();
    assert_eq!((&hotels["total"], &hotels["data"][1]["organizationID"]), (&json!(2), &json!("77")));
}
