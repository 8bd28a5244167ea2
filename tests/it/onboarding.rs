//! A hotel connects itself: the way from the link to the next call, and everybody who must not be able to go it.

use cloudbeds_auth_proxy::sandbox::Protocols;
use http::Method;

use crate::harness::{Browser, Hotels, Scene, together};

#[tokio::test]
async fn a_hotel_connects_itself_and_its_next_call_works() {
    for scene in [Scene::new(), Scene::new().without_resources()] {
        let mut hotels = scene.start().await;
        let mut browser = Browser::default();
        assert_eq!(hotels.proxy.get("/api/v1.3/getHotels").property("1003").send().await.code(), "property_unknown");

        let page = hotels.connect(&mut browser, 1003).await;

        page.assert_page(200, "Lake &#38; Forest is connected");
        assert!(page.text().contains("<dd>1003</dd>"), "{}", page.text());
        assert!(hotels.works(1003).await && hotels.works(1001).await);
        assert_eq!(hotels.exchanges(), 1);
        assert_eq!((hotels.beside("arrived"), hotels.beside("aside")), (vec![], vec![]));
        assert_eq!(hotels.proxy.metric("connects_total{outcome=\"connected\"}").await, 1.0);
        assert_eq!(hotels.proxy.metric("connects_begun_total").await, 1.0);
        assert_eq!(hotels.proxy.metric("keys_waiting").await, 0.0);
        let line = hotels.proxy.wait_for_access(|line| line["path"] == "/api_key").await;
        assert_eq!((&line["status"], &line["property"]), (&200.into(), &"1003".into()));
    }
}

#[tokio::test]
async fn the_calls_of_a_connection_count_in_the_apps_budget() {
    const GRANTED: usize = 2;
    let mut hotels = Scene::new().granted(GRANTED).start().await;
    let mut browser = Browser::default();
    let state = hotels.begin(&mut browser, 1003).await;
    let back = hotels.approve(1003, Some(&state));
    let page = hotels.come_back(&browser, &back);
    let call = || async { hotels.proxy.get("/api/v1.3/getHotels").property("1001").send().await.status };
    let (page, traffic) = tokio::join!(page, together((0..6).map(|_| call())));
    page.unwrap().assert_page(200, "Lake &#38; Forest is connected");
    assert!(traffic.iter().all(|status| *status == 200), "{traffic:?}");
    let verdict = hotels.cloudbeds.verdict(crate::harness::hotel::CLIENT);
    assert_eq!(verdict.excess, None, "{verdict:?}");
    assert!(verdict.calls >= 8, "{verdict:?}");
}

#[tokio::test]
async fn the_exchange_is_sent_as_the_guide_shows_it() {
    let mut hotels = Scene::new().start().await;
    hotels.connect(&mut Browser::default(), 1003).await;
    let seen = hotels.cloudbeds.requests();
    let exchange = seen.iter().find(|seen| seen.target == "/api/v1.1/access_token").unwrap();
    assert_eq!(exchange.method, Method::POST);
    let content_type = String::from_utf8(exchange.header("content-type")[0].to_vec()).unwrap();
    assert!(content_type.starts_with("multipart/form-data; boundary="), "{content_type}");
    assert!(exchange.header("authorization").is_empty());
}

#[tokio::test]
async fn the_cookie_is_bound_to_the_host_where_there_is_tls_and_plain_in_a_rehearsal() {
    let mut hotels = Scene::new().start().await;
    let answer = hotels.open(&mut Browser::default(), "/connect/1003").await;
    let cookie = answer.header("set-cookie").unwrap();
    assert!(cookie.starts_with("__Host-cloudbeds-connect="), "{cookie}");
    for attribute in ["; Path=/;", "; HttpOnly", "; SameSite=Lax", "; Secure", "; Max-Age=600"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert_eq!((answer.status.as_u16(), answer.header("cache-control")), (303, Some("no-store")));
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));

    let mut rehearsal = Scene::new().plain().start().await;
    let mut browser = Browser::default();
    rehearsal.connect(&mut browser, 1003).await.assert_page(200, "Lake &#38; Forest is connected");
    assert!(browser.cookie.unwrap().starts_with("cloudbeds-connect="));
}

#[tokio::test]
async fn a_property_connected_twice_has_the_later_key() {
    let mut hotels = Scene::new().start().await;
    let mut browser = Browser::default();
    hotels.connect(&mut browser, 1003).await.assert_page(200, "Lake &#38; Forest is connected");
    let first = hotels.cloudbeds.key("1003".parse().unwrap(), crate::harness::hotel::CLIENT).unwrap();
    hotels.connect(&mut browser, 1003).await.assert_page(200, "Lake &#38; Forest is connected");
    assert!(!hotels.key_file().contains(&first) && hotels.works(1003).await);
    // One that the operator had put into the file is replaced in the same way.
    hotels.connect(&mut Browser::default(), 1001).await.assert_page(200, "Seaside Demo Hotel is connected");
    assert!(hotels.works(1001).await);
}

#[tokio::test]
async fn two_tabs_connect_one_hotel_or_two_whichever_comes_back_first() {
    let mut hotels = Scene::new().start().await;
    let mut browser = Browser::default();
    let one = hotels.begin(&mut browser, 1003).await;
    let cookie = browser.cookie.clone();
    let two = hotels.begin(&mut browser, 1003).await;
    let other = hotels.begin(&mut browser, 1004).await;
    assert_eq!(browser.cookie, cookie, "a second tab must not take the first one's cookie away");
    assert!(one != two && two != other);
    let (one, two, other) =
        (hotels.approve(1003, Some(&one)), hotels.approve(1003, Some(&two)), hotels.approve(1004, Some(&other)));
    hotels.open(&mut browser, &two).await.assert_page(200, "Lake &#38; Forest is connected");
    hotels.open(&mut browser, &other).await.assert_page(200, "North is connected");
    hotels.open(&mut browser, &one).await.assert_page(200, "Lake &#38; Forest is connected");
    hotels.remember_key(1003);
    assert!(hotels.works(1003).await && hotels.works(1004).await);
    assert_eq!(hotels.exchanges(), 3);
}

#[tokio::test]
async fn two_tabs_that_come_back_together_leave_the_key_that_lives() {
    let mut hotels = Scene::new().start().await;
    let mut browser = Browser::default();
    let mut backs = Vec::new();
    for _ in 0..4 {
        let state = hotels.begin(&mut browser, 1003).await;
        backs.push(hotels.approve(1003, Some(&state)));
    }
    for page in together(backs.iter().map(|back| hotels.come_back(&browser, back))).await {
        assert_eq!(page.unwrap().status, 200);
    }
    hotels.remember_key(1003);
    assert!(hotels.works(1003).await);
}

#[tokio::test]
async fn the_back_button_and_a_reload_show_the_same_page_and_exchange_nothing() {
    let mut hotels = Scene::new().start().await;
    let mut browser = Browser::default();
    let state = hotels.begin(&mut browser, 1003).await;
    let back = hotels.approve(1003, Some(&state));
    // A double click: the second one waits for the outcome of the first.
    for page in together((0..3).map(|_| hotels.come_back(&browser, &back))).await {
        assert_eq!(page.unwrap().status, 200);
    }
    hotels.open(&mut browser, &back).await.assert_page(200, "Lake &#38; Forest is connected");
    assert_eq!(hotels.exchanges(), 1);
    assert_eq!(hotels.proxy.metric("connects_total{outcome=\"connected\"}").await, 1.0);
    // The link itself, once more, begins anew.
    assert_ne!(hotels.begin(&mut browser, 1003).await, state);
}

#[tokio::test]
async fn a_browser_that_goes_away_does_not_stop_what_has_begun() {
    let mut hotels = Scene::new().start().await;
    let mut browser = Browser::default();
    let state = hotels.begin(&mut browser, 1003).await;
    let back = hotels.approve(1003, Some(&state));
    let mut stream = tokio::net::TcpStream::connect(hotels.connect).await.unwrap();
    let request = format!("GET {back} HTTP/1.1\r\nhost: x\r\ncookie: {}\r\n\r\n", browser.cookie.clone().unwrap());
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
    crate::harness::until("the exchange begins", async || hotels.exchanges() == 1).await;
    drop(stream);
    hotels.proxy.wait_for_metric("connects_total{outcome=\"connected\"}", |count| count == 1.0).await;
    assert!(hotels.works(1003).await);
    hotels.open(&mut browser, &back).await.assert_page(200, "Lake &#38; Forest is connected");
}

#[tokio::test]
async fn whoever_only_fetches_begins_nothing_and_ends_nothing() {
    let mut hotels = Scene::new().start().await;
    let mut browser = Browser::default();
    let document = ("sec-fetch-dest", "document");
    for (method, headers, status) in [
        (Method::HEAD, vec![], 200),
        (Method::HEAD, vec![document], 200),
        (Method::GET, vec![("sec-purpose", "prefetch"), document], 503),
        (Method::GET, vec![("sec-purpose", "prefetch;prerender"), document], 503),
        (Method::GET, vec![("purpose", "prefetch")], 503),
        (Method::GET, vec![("x-moz", "prefetch")], 503),
        (Method::GET, vec![("sec-fetch-dest", "iframe")], 200),
        (Method::GET, vec![("sec-fetch-dest", "image")], 200),
        (Method::GET, vec![("user-agent", "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)")], 200),
        (Method::GET, vec![("user-agent", "WhatsApp/2.23.20.0 A")], 200),
    ] {
        let answer = hotels.ask(&mut browser, method.clone(), "/connect/1003", &headers).await;
        assert_eq!(answer.status, status, "{method} {headers:?}");
        assert_eq!((answer.header("set-cookie"), answer.header("location")), (None, None), "{headers:?}");
    }
    assert_eq!(hotels.proxy.metric("connects_begun_total").await, 0.0);
    let preview = hotels.ask(&mut browser, Method::GET, "/connect/1003", &[("user-agent", "TwitterBot/1.0")]).await;
    preview.assert_page(200, "Connect property 1003");
    // An app's own browser may look like such a program, and has somebody before it who presses the button.
    let button = "href=\"/connect/1003?app=main&#38;open=1\">Go to Cloudbeds<";
    assert!(preview.text().contains(button), "{}", preview.text());
    let headers = [("user-agent", "TwitterBot/1.0")];
    let opened = hotels.ask(&mut Browser::default(), Method::GET, "/connect/1003?app=main&open=1", &headers).await;
    assert_eq!((opened.status.as_u16(), opened.header("set-cookie").is_some()), (303, true));

    // Nor is a code spent by a mail scanner that follows the last redirect before the user's browser does.
    let state = hotels.begin(&mut browser, 1003).await;
    let back = hotels.approve(1003, Some(&state));
    for (method, headers) in [(Method::HEAD, vec![]), (Method::GET, vec![("sec-purpose", "prefetch")])] {
        assert_eq!(hotels.ask(&mut browser, method, &back, &headers).await.status, 503);
    }
    assert_eq!(hotels.exchanges(), 0);
    hotels.open(&mut browser, &back).await.assert_page(200, "Lake &#38; Forest is connected");
}

#[tokio::test]
async fn a_stolen_state_is_of_no_use_in_another_browser_and_stays_good_in_its_own() {
    let mut hotels = Scene::new().marketplace().start().await;
    let mut browser = Browser::default();
    let state = hotels.begin(&mut browser, 1003).await;
    let back = hotels.approve(1003, Some(&state));
    let mut thief = Browser::default();
    hotels.open(&mut thief, &back).await.assert_page(403, "Begun in another browser");
    hotels.begin(&mut thief, 1003).await;
    hotels.open(&mut thief, &back).await.assert_page(403, "Begun in another browser");
    assert_eq!(hotels.exchanges(), 0);
    assert_eq!(hotels.proxy.metric("connects_total{outcome=\"other_browser\"}").await, 2.0);
    hotels.open(&mut browser, &back).await.assert_page(200, "Lake &#38; Forest is connected");
}

#[tokio::test]
async fn a_cookie_that_somebody_planted_is_not_taken_over() {
    let mut hotels = Scene::new().start().await;
    let planted = "__Host-cloudbeds-connect=AAAAAAAAAAAAAAAAAAAAAA".to_owned();
    let mut browser = Browser { cookie: Some(planted.clone()) };
    hotels.begin(&mut browser, 1003).await;
    assert_ne!(browser.cookie, Some(planted));
}

#[tokio::test]
async fn a_start_in_the_marketplace_needs_the_word_of_the_configuration() {
    let mut hotels = Scene::new().start().await;
    for state in [None, Some("12ddc1756afbc3552728d5bb44c78"), Some("AAAAAAAAAAAAAAAAAAAAAA")] {
        let back = hotels.approve(1003, state);
        hotels.open(&mut Browser::default(), &back).await.assert_page(410, "Please connect again");
    }
    let without = hotels.approve(1003, None).split("&state").next().unwrap().to_owned();
    hotels.open(&mut Browser::default(), &without).await.assert_page(410, "Please connect again");
    assert_eq!(hotels.exchanges(), 0);
}

#[tokio::test]
async fn a_start_in_the_marketplace_connects_the_property_of_the_exchange_never_that_of_the_query() {
    let mut hotels = Scene::new().marketplace().start().await;
    let mut browser = Browser::default();
    let back = hotels.approve(1003, Some("12ddc1756afbc3552728d5bb44c78"));
    let page = hotels.open(&mut browser, &format!("{back}&propertyID=1001&property=1001")).await;
    page.assert_page(200, "Lake &#38; Forest is connected");
    hotels.remember_key(1003);
    assert!(hotels.works(1003).await && hotels.works(1001).await);
    // The back button, here without any state of ours.
    hotels.open(&mut browser, &back).await.assert_page(200, "Lake &#38; Forest is connected");
    assert_eq!(hotels.exchanges(), 1);
}

#[tokio::test]
async fn an_organisations_key_serves_its_hotels_and_takes_none_away() {
    let mut hotels = Scene::new().start().await;
    let mut browser = Browser::default();
    let state = hotels.begin(&mut browser, 1005).await;
    let back = hotels.approve_organization(1005, Some(&state));
    let page = hotels.open(&mut browser, &back).await;
    page.assert_page(200, "South is connected");
    assert!(page.text().contains("whole organization") && page.text().contains("<dd>1004</dd>"), "{}", page.text());
    let text = hotels.key_file();
    assert!(text.contains("organization:") && text.contains("1004"), "{}", text.replace("cbat_", ""));
    let answer = hotels.proxy.get("/api/v1.3/getHotels").property("1004,1005").send().await;
    assert_eq!((answer.status.as_u16(), answer.json()["total"].as_u64()), (200, Some(2)));
    // Connected on its own, one of them leaves the shared row, and the other stays.
    hotels.connect(&mut browser, 1004).await.assert_page(200, "North is connected");
    assert!(hotels.works(1004).await);
}

#[tokio::test]
async fn either_http_version_will_do_for_cloudbeds() {
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let scene = Scene::new().speaking(protocols);
        let mut hotels: Hotels = scene.start().await;
        let page = hotels.connect(&mut Browser::default(), 1003).await;
        page.assert_page(200, "Lake &#38; Forest is connected");
    }
}

#[tokio::test]
async fn several_apps_have_links_and_rows_of_their_own() {
    let second = "live1_1001_theSecondApp";
    let mut hotels = Scene::new().another(second).start().await;
    let mut browser = Browser::default();
    let answer = hotels.open(&mut browser, "/connect/1003?app=second").await;
    let location = answer.header("location").unwrap().to_owned();
    let (state, app) = location.split_once("?state=").unwrap().1.split_once("#/app/").unwrap();
    assert_eq!(app, second);
    let back = hotels.cloudbeds.approve("1003".parse().unwrap(), second, Some(state)).unwrap();
    let page = hotels.open(&mut browser, back.strip_prefix("https://connect.example.com").unwrap()).await;
    page.assert_page(200, "Lake &#38; Forest is connected");
    let key = hotels.cloudbeds.key("1003".parse().unwrap(), second).unwrap();
    let row = format!("\"1003\": {{ key: {key}, app: second }}");
    assert!(hotels.key_file().lines().any(|line| line == row));
    hotels.proxy.secrets.push(key);
    assert!(hotels.works(1003).await);
    // Connected once more, to the first app, the row says so.
    hotels.connect(&mut browser, 1003).await.assert_page(200, "Lake &#38; Forest is connected");
    assert!(!hotels.key_file().contains("second") && hotels.works(1003).await);
}

#[tokio::test]
async fn an_app_whose_keys_come_by_e_mail_leads_to_cloudbeds_and_waits_for_nobody() {
    let mut hotels = Scene::new().by_email().start().await;
    let mut browser = Browser::default();
    let answer = hotels.open(&mut browser, "/connect/1003").await;
    let link = hotels.cloudbeds.connect_link("1003".parse().unwrap(), crate::harness::hotel::CLIENT);
    assert_eq!((answer.status.as_u16(), answer.header("location")), (303, Some(link.as_str())));
    assert_eq!(browser.cookie, None);
    hotels.open(&mut browser, "/api_key?code=a").await.assert_page(404, "There is nothing here");
}
