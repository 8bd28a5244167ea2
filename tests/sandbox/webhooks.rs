//! App states and the webhooks about them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloudbeds_auth_proxy::sandbox::{Sandbox, Webhooks};
use http::Request;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::connect::{CLIENT, started};
use crate::client::{Client, Http};

const FORM: &str = "application/x-www-form-urlencoded";

/// An endpoint that answers with these statuses, the last one for ever, and keeps what it was sent. 0 hangs up.
struct Endpoint {
    url: String,
    got: Arc<Mutex<Vec<Value>>>,
}

impl Endpoint {
    async fn start(statuses: &'static [u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?secret=1", listener.local_addr().unwrap());
        let got = Arc::<Mutex<Vec<Value>>>::default();
        let seen = Arc::clone(&got);
        tokio::spawn(async move {
            for number in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = Vec::new();
                let body = loop {
                    let mut part = [0; 4096];
                    let read = stream.read(&mut part).await.unwrap();
                    bytes.extend_from_slice(&part[..read]);
                    let text = String::from_utf8_lossy(&bytes);
                    if let Some((head, body)) = text.split_once("\r\n\r\n") {
                        assert!(head.starts_with("POST /hook?secret=1 HTTP/1.1\r\n"), "{head}");
                        if let Ok(body) = serde_json::from_str(body) {
                            break body;
                        }
                    }
                };
                seen.lock().unwrap().push(body);
                let status = statuses[number.min(statuses.len() - 1)];
                if status > 0 {
                    let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        });
        Self { url, got }
    }

    /// Waits until that many have come, and gives their states.
    async fn states(&self, count: usize) -> Vec<(String, String)> {
        until(|| self.got.lock().unwrap().len() >= count).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let got = self.got.lock().unwrap();
        got.iter().map(|body| (text(&body["oldState"]), text(&body["newState"]))).collect()
    }
}

async fn until(done: impl Fn() -> bool) {
    for _ in 0..2000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(done(), "not within ten seconds");
}

async fn subscribe(client: &mut Client, key: &str, url: &str) -> Value {
    let form = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("object", "integration"), ("action", "appstate_changed"), ("endpointUrl", url)])
        .finish();
    client.post("/api/v1.3/postWebhook", key, FORM, form).await.json()
}

async fn connect(sandbox: &Sandbox, property: &str) -> String {
    let sent = sandbox.approve(property.parse().unwrap(), CLIENT, None).unwrap();
    let code = super::connect::query(&sent)["code"].clone();
    let answer = super::exchange::exchange(sandbox, &super::exchange::fields(&code)).await.json();
    answer["access_token"].as_str().unwrap().to_owned()
}

fn pair(old: &str, new: &str) -> (String, String) {
    (old.to_owned(), new.to_owned())
}

#[tokio::test]
async fn an_exchange_and_a_disconnection_are_told_and_the_subscription_ends_with_the_latter() {
    let sandbox = started(|_| {}).await;
    let endpoint = Endpoint::start(&[200]).await;
    let mut client = Client::connect(&sandbox, Http::One).await;
    let key = connect(&sandbox, "1003").await;
    let subscribed = subscribe(&mut client, &key, &endpoint.url).await;
    let id = subscribed["data"]["subscriptionID"].as_str().unwrap();
    let listed = client.get("/api/v1.3/getWebhooks", &key).await.json();
    assert_eq!((&listed["data"][0]["id"], listed["data"].as_array().unwrap().len()), (&json!(id), 1));
    assert_eq!(listed["data"][0]["subscriptionData"]["endpoint"], endpoint.url);

    let key = connect(&sandbox, "1003").await;
    assert_eq!(endpoint.states(2).await, [pair("enabled", "installing"), pair("installing", "enabled")]);
    let first = endpoint.got.lock().unwrap()[0].clone();
    assert_eq!(first["event"], "integration/appstate_changed");
    assert_eq!((&first["propertyID"], &first["propertyID_str"]), (&json!(1003), &json!("1003")));
    assert_eq!(first["clientID"], CLIENT);
    assert_eq!(client.get("/api/v1.3/getAppState", &key).await.json()["data"], json!({"app_state": "enabled"}));

    let done = client.post("/api/v1.3/postAppState", &key, FORM, "app_state=disabled").await.json();
    assert_eq!(done, json!({"success": true}));
    assert_eq!(endpoint.states(3).await[2], pair("enabled", "disabled"));
    assert_eq!(client.get("/api/v1.3/getAppState", &key).await.json()["detail"], "401 UNAUTHORIZED");
    let key = connect(&sandbox, "1003").await;
    assert_eq!(client.get("/api/v1.3/getWebhooks", &key).await.json()["data"], json!([]));
}

#[tokio::test]
async fn an_app_may_set_its_state_and_end_a_subscription_and_bad_wishes_are_refused() {
    let sandbox = started(|_| {}).await;
    let key = sandbox.key("1001".parse().unwrap(), CLIENT).unwrap();
    let mut client = Client::connect(&sandbox, Http::Two).await;
    client.post("/api/v1.3/postAppState", &key, FORM, "app_state=pending&propertyID=1001").await;
    assert_eq!(client.get("/api/v1.3/getAppState", &key).await.json()["data"]["app_state"], "pending");
    for form in ["", "app_state=gone", "app_state=enabled&propertyID=1002"] {
        assert_eq!(client.post("/api/v1.3/postAppState", &key, FORM, form).await.json()["success"], false, "{form}");
    }
    for url in ["http://app.example/x", "/x", "ftp://127.0.0.1/"] {
        assert_eq!(subscribe(&mut client, &key, url).await["success"], false, "{url}");
    }
    let id = subscribe(&mut client, &key, "https://app.example/x").await["data"]["subscriptionID"].clone();
    for expected in [true, false] {
        let target = format!("/api/v1.3/deleteWebhook?subscriptionID={}", id.as_str().unwrap());
        let request = Request::delete(target).header("authorization", format!("Bearer {key}"));
        let answer = client.send(request.body(bytes::Bytes::new()).unwrap()).await.unwrap();
        assert_eq!(answer.json()["success"], expected);
    }
}

#[tokio::test]
async fn a_webhook_is_tried_five_times_a_minute_apart_on_the_sandbox_s_clock() {
    let endpoint = Endpoint::start(&[500, 0, 302]).await;
    let url = endpoint.url.clone();
    let sandbox = started(|app| app.webhook = Some(url)).await;
    sandbox.disconnect("1001".parse().unwrap(), CLIENT);
    for tries in 1..=5 {
        until(|| sandbox.delivered().len() == tries).await;
        sandbox.advance_clock(Duration::from_secs(61));
    }
    // A sixth try would be due; what happens next is another webhook's first.
    sandbox.disconnect("1002".parse().unwrap(), CLIENT);
    until(|| sandbox.delivered().len() == 6).await;
    let tries = sandbox.delivered();
    assert_eq!(tries.iter().map(|one| one.attempt).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 1]);
    for two in tries[..5].windows(2) {
        assert!(two[1].at.duration_since(two[0].at).unwrap() >= Duration::from_secs(60));
    }
    assert_eq!((&tries[0].outcome, &tries[2].outcome), (&Ok(500), &Ok(302)));
    assert!(tries[1].outcome.is_err());
    assert_eq!(endpoint.got.lock().unwrap().len(), 6);
}

#[tokio::test]
async fn webhooks_come_twice_in_the_wrong_order_or_not_at_all_on_request() {
    let endpoint = Endpoint::start(&[200]).await;
    let url = endpoint.url.clone();
    let sandbox = started(|app| app.webhook = Some(url)).await;
    sandbox.set_webhooks(Webhooks { copies: 0, reversed: false });
    connect(&sandbox, "1003").await;
    sandbox.set_webhooks(Webhooks { copies: 2, reversed: true });
    connect(&sandbox, "1003").await;
    let (enabled, installing) = (pair("installing", "enabled"), pair("enabled", "installing"));
    assert_eq!(endpoint.states(4).await, [enabled.clone(), enabled, installing.clone(), installing]);
}

#[tokio::test]
async fn a_webhook_over_https_goes_to_no_server_whose_certificate_is_not_trusted() {
    let untrusted = started(|_| {}).await;
    let url = format!("{}/hook", untrusted.base_url());
    let sandbox = started(|app| app.webhook = Some(url)).await;
    sandbox.disconnect("1001".parse().unwrap(), CLIENT);
    until(|| sandbox.delivered().len() == 1).await;
    let outcome = sandbox.delivered()[0].outcome.clone();
    assert!(outcome.clone().unwrap_err().starts_with("no trusted TLS connection to https://localhost:"), "{outcome:?}");
    assert!(untrusted.requests().is_empty());
}
