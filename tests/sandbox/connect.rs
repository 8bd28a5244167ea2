//! Connecting an app in a browser: the link, the consent page, and where it leads.

use std::collections::HashMap;

use cloudbeds_auth_proxy::sandbox::{self, App, AppState, Delivery, Sandbox, Settings, Unconnected};

use crate::client::{Answer, Client, Http};

pub(crate) const CLIENT: &str = "live1_1001_test";

/// The demo's hotels, with 1003 and the organisation of 1004 and 1005 not connected to the app.
pub(crate) async fn started(change: impl FnOnce(&mut App)) -> Sandbox {
    let mut app = App::new(CLIENT, "secret", "https://app.example/api_key?a=1");
    app.name = "Channel <Manager>".to_owned();
    change(&mut app);
    let mut settings = Settings::demo();
    settings.apps = vec![app];
    let vacant = [(1003, "Lake & Forest", None), (1004, "North", Some("77")), (1005, "South", Some("77"))];
    settings.unconnected = vacant
        .into_iter()
        .map(|(id, name, organization): (u64, &str, Option<&str>)| Unconnected {
            property: id.to_string().parse().unwrap(),
            name: name.to_owned(),
            organization: organization.map(str::to_owned),
        })
        .collect();
    sandbox::start(settings).await.unwrap()
}

/// The query of a redirect.
pub(crate) fn query(location: &str) -> HashMap<String, String> {
    form_urlencoded::parse(location.split_once('?').unwrap().1.as_bytes()).into_owned().collect()
}

async fn consent(client: &mut Client, property: u64, rest: &str) -> Answer {
    client.look(&format!("/connect/{property}/consent?client_id={CLIENT}{rest}")).await
}

#[tokio::test]
async fn the_connect_link_leads_a_browser_without_script_to_the_same_page() {
    let sandbox = started(|_| {}).await;
    let property = "1003".parse().unwrap();
    let link = sandbox.connect_link(property, CLIENT);
    assert_eq!(link, format!("{}/connect/1003#/app/{CLIENT}", sandbox.base_url()));
    let mut client = Client::connect(&sandbox, Http::One).await;
    let page = client.look("/connect/1003?state=abc").await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("Lake &#38; Forest") && page.text().contains("src=\"/connect/script.js\""));
    assert_eq!(page.input("state"), "abc");
    assert!(page.text().contains(&format!("/connect/1003/consent?client_id={CLIENT}")), "the marketplace's link");
    for (path, kind) in [("/connect/script.js", "text/javascript"), ("/connect/style.css", "text/css")] {
        let file = client.look(path).await;
        assert!(file.status == 200 && file.header("content-type").starts_with(kind), "{path}");
    }
    for path in ["/connect/7", "/connect/7/consent", "/connect/x", "/connect/1003/other", "/connect/"] {
        assert_eq!(client.look(path).await.status, 404, "{path}");
    }
    assert_eq!(client.look("/connect/1003/consent?client_id=nobody").await.status, 404);
}

#[tokio::test]
async fn the_consent_page_names_the_app_and_its_scopes_and_may_not_be_framed_or_kept() {
    let sandbox = started(|_| {}).await;
    let mut client = Client::connect(&sandbox, Http::Two).await;
    let page = consent(&mut client, 1003, "").await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("Channel &#60;Manager&#62; asks for access to Lake &#38; Forest"), "{}", page.text());
    assert!(page.text().contains("<code>read:reservation</code>") && !page.text().contains("connected already"));
    assert!(page.header("content-security-policy").contains("frame-ancestors 'none'"));
    assert_eq!((page.header("cache-control"), page.header("referrer-policy")), ("no-store", "no-referrer"));
    assert!(consent(&mut client, 1001, "").await.text().contains("connected already"));
}

#[tokio::test]
async fn approval_sends_the_browser_to_the_app_with_a_code_and_the_state_as_it_came() {
    let sandbox = started(|_| {}).await;
    let mut client = Client::connect(&sandbox, Http::One).await;
    let page = consent(&mut client, 1003, "&state=a%26b%3D%22c").await;
    let ticket = page.input("ticket");
    let form = [("ticket", ticket.as_str()), ("answer", "approve")];
    let sent = client.submit("/connect/1003/consent", &form).await;
    let location = sent.header("location").to_owned();
    assert_eq!(sent.status, 302);
    assert!(location.starts_with("https://app.example/api_key?a=1&code="), "{location}");
    assert_eq!((query(&location)["state"].as_str(), query(&location)["code"].len()), ("a&b=\"c", 32));
    assert_eq!(sandbox.app_state("1003".parse().unwrap(), CLIENT), AppState::Pending);
    // The page is good for one answer, and only for the hotel it was shown for.
    assert_eq!(client.submit("/connect/1003/consent", &form).await.status, 409);
    let ticket = consent(&mut client, 1003, "").await.input("ticket");
    let other = client.submit("/connect/1004/consent", &[("ticket", &ticket), ("answer", "approve")]).await;
    assert_eq!(other.status, 409);
    assert_eq!(client.submit("/connect/1003/consent", &[("answer", "approve")]).await.status, 409);
}

#[tokio::test]
async fn without_a_state_the_vendor_makes_one_up_and_a_refusal_says_access_denied() {
    let sandbox = started(|_| {}).await;
    let mut client = Client::connect(&sandbox, Http::One).await;
    let ticket = consent(&mut client, 1003, "").await.input("ticket");
    let sent = client.submit("/connect/1003/consent", &[("ticket", &ticket), ("answer", "deny")]).await;
    let found = query(sent.header("location"));
    assert_eq!((found["error"].as_str(), found.get("code"), found["state"].len()), ("access_denied", None, 32));
    assert_eq!(sandbox.app_state("1003".parse().unwrap(), CLIENT), AppState::Disabled);
    let helper = query(&sandbox.deny(CLIENT, Some("mine")).unwrap());
    assert_eq!((helper["error"].as_str(), helper["state"].as_str()), ("access_denied", "mine"));
}

#[tokio::test]
async fn an_organisation_is_connected_as_a_whole_only_where_there_is_one() {
    let sandbox = started(|_| {}).await;
    let mut client = Client::connect(&sandbox, Http::One).await;
    assert!(!consent(&mut client, 1003, "").await.text().contains("properties of the organisation"));
    let page = consent(&mut client, 1005, "").await;
    assert!(page.text().contains("all 2 properties of the organisation"));
    let ticket = page.input("ticket");
    client.submit("/connect/1005/consent", &[("ticket", &ticket), ("answer", "approve"), ("whole", "1")]).await;
    for property in ["1004", "1005"] {
        assert_eq!(sandbox.app_state(property.parse().unwrap(), CLIENT), AppState::Pending);
    }
}

#[tokio::test]
async fn an_app_with_delivery_by_e_mail_gets_no_redirect() {
    let sandbox = started(|app| app.delivery = Delivery::Email("keys@app.example".to_owned())).await;
    let mut client = Client::connect(&sandbox, Http::One).await;
    let ticket = consent(&mut client, 1003, "").await.input("ticket");
    let page = client.submit("/connect/1003/consent", &[("ticket", &ticket), ("answer", "approve")]).await;
    assert_eq!((page.status.as_u16(), page.header("location")), (200, ""));
    assert!(page.text().contains("further onboarding instructions"));
    assert_eq!(sandbox.app_state("1003".parse().unwrap(), CLIENT), AppState::Enabled);
}
