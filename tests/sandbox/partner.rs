//! Keys by e-mail: the partner's list of keys, and a hotel that disconnects.

use cloudbeds_auth_proxy::sandbox::{AppState, Delivery};

use super::connect::{CLIENT, started};
use crate::client::{Client, Http};

#[tokio::test]
async fn a_key_by_e_mail_is_shown_once_and_a_reset_kills_the_one_before() {
    let sandbox = started(|app| app.delivery = Delivery::Email("keys@app.example".to_owned())).await;
    let property = "1003".parse().unwrap();
    let page = format!("/partner/{CLIENT}/keys");
    let mut client = Client::connect(&sandbox, Http::One).await;
    assert!(!client.look(&page).await.text().contains("Lake"));
    assert_eq!(sandbox.approve(property, CLIENT, None), None);
    assert_eq!(sandbox.mails().len(), 1);
    assert!(sandbox.mails()[0].contains("keys@app.example: property 1003 (Lake & Forest) has connected"));
    assert!(client.look(&page).await.text().contains("none yet"));
    let mut last: Option<String> = None;
    for _ in 0..2 {
        let ticket = client.look(&page).await.input("ticket");
        let form = [("ticket", ticket.as_str()), ("property", "1003")];
        let shown = client.submit(&page, &form).await.text();
        let key = sandbox.key(property, CLIENT).unwrap();
        assert_eq!(shown.matches(&key).count(), 1);
        assert!(!client.look(&page).await.text().contains(&key));
        assert_eq!(client.get("/api/v1.3/userinfo", &key).await.status, 200);
        if let Some(last) = &last {
            assert_eq!(client.get("/api/v1.3/userinfo", last).await.json()["detail"], "401 UNAUTHORIZED");
        }
        // A reload of the page does not make another key.
        assert_eq!(client.submit(&page, &form).await.status, 409);
        assert_eq!(sandbox.key(property, CLIENT).as_deref(), Some(key.as_str()));
        last = Some(key);
    }
    assert_eq!(client.look("/partner/nobody/keys").await.status, 404);
}

#[tokio::test]
async fn with_automatic_delivery_the_list_offers_no_reset_and_no_key() {
    let sandbox = started(|_| {}).await;
    let page = format!("/partner/{CLIENT}/keys");
    let mut client = Client::connect(&sandbox, Http::Two).await;
    let text = client.look(&page).await.text();
    assert!(text.contains("Seaside Demo Hotel") && !text.contains("Regenerate"), "{text}");
    let key = sandbox.key("1001".parse().unwrap(), CLIENT).unwrap();
    assert!(!text.contains(&key[5..]));
    // Whoever has a ticket all the same is refused.
    let sandbox = started(|app| app.delivery = Delivery::Email("x@app.example".to_owned())).await;
    let mut client = Client::connect(&sandbox, Http::Two).await;
    let ticket = client.look(&page).await.input("ticket");
    sandbox.set_app(cloudbeds_auth_proxy::sandbox::App::new(CLIENT, "s", "https://app.example/")).unwrap();
    assert_eq!(client.submit(&page, &[("ticket", &ticket), ("property", "1001")]).await.status, 409);
}

#[tokio::test]
async fn a_hotel_disconnects_an_app_from_its_own_page() {
    let sandbox = started(|_| {}).await;
    let property = "1001".parse().unwrap();
    let key = sandbox.key(property, CLIENT).unwrap();
    let mut client = Client::connect(&sandbox, Http::One).await;
    let ticket = client.look("/connect/1001").await.input("ticket");
    let done = client.submit("/connect/1001/disconnect", &[("ticket", &ticket)]).await;
    assert!(done.status == 200 && done.text().contains("has stopped working"));
    assert_eq!(sandbox.app_state(property, CLIENT), AppState::Disabled);
    assert_eq!(client.get("/api/v1.3/userinfo", &key).await.status, 401);
    assert!(!client.look("/connect/1001").await.text().contains("Disconnect"));
}
