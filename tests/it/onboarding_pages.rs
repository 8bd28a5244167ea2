//! Every way a connection can end but well: what is asked of Cloudbeds, what stays, and what the page says to do next.

use cloudbeds_auth_proxy::sandbox::Rule;
use http::Method;

use crate::harness::hotel::{CLIENT, REDIRECT, onboarding};
use crate::harness::proxy::write_private;
use crate::harness::{Answer, Browser, Gate, Hotels, Proxy, Scene, canary, until};

/// The next so many requests to a path end in a room of the sandbox.
fn trouble(hotels: &Hotels, path: &str, times: u32, room: &str) {
    hotels.cloudbeds.add_rule(Rule { property: None, path: path.to_owned(), times, room: room.to_owned() });
}

/// Asserts that the page's one button begins the connection of a property anew.
fn assert_again(page: &Answer, id: u64) {
    let button = format!("<a class=\"button\" href=\"/connect/{id}?app=main\">Connect again</a>");
    assert!(page.text().contains(&button), "no {button} in {}", page.text());
}

/// Asserts that the page's one button loads the page itself once more.
fn assert_reload(page: &Answer) {
    assert!(page.text().contains("<a class=\"button\" href=\"\">Try again</a>"), "{}", page.text());
}

async fn assert_counted(hotels: &Hotels, outcome: &str, times: f64) {
    assert_eq!(hotels.proxy.metric(&format!("connects_total{{outcome=\"{outcome}\"}}")).await, times, "{outcome}");
}

#[tokio::test]
async fn a_user_who_says_no_has_changed_nothing() {
    let mut hotels = Scene::new().start().await;
    let mut browser = Browser::default();
    let state = hotels.begin(&mut browser, 1003).await;
    let denied = hotels.cloudbeds.deny(CLIENT, Some(&state)).unwrap();
    let denied = denied.strip_prefix("https://connect.example.com").unwrap();
    let page = hotels.open(&mut browser, denied).await;
    page.assert_page(403, "Not connected: access was not allowed");
    assert_again(&page, 1003);
    assert_eq!(hotels.exchanges(), 0);
    assert_counted(&hotels, "denied", 1.0).await;
    // The state has ended with it.
    let late = hotels.approve(1003, Some(&state));
    hotels.open(&mut browser, &late).await.assert_page(410, "Please connect again");
    // Without a state it is the same page, and leads nowhere in particular.
    let page = hotels.open(&mut browser, "/api_key?error=access_denied").await;
    page.assert_page(403, "Not connected: access was not allowed");
    assert!(!page.text().contains("class=\"button\""));
}

#[tokio::test]
async fn a_code_that_is_eleven_minutes_old_is_refused_by_cloudbeds_and_the_page_says_so() {
    let mut hotels = Scene::new().start().await;
    let mut browser = Browser::default();
    let state = hotels.begin(&mut browser, 1003).await;
    let back = hotels.approve(1003, Some(&state));
    hotels.cloudbeds.advance_clock(std::time::Duration::from_secs(11 * 60));
    let page = hotels.open(&mut browser, &back).await;
    page.assert_page(410, "This took too long, or was used already");
    assert_again(&page, 1003);
    assert_eq!((hotels.exchanges(), hotels.beside("arrived").len()), (1, 0));
    assert_counted(&hotels, "code_refused", 1.0).await;
    assert_eq!(hotels.proxy.get("/api/v1.3/getHotels").property("1003").send().await.code(), "property_unknown");
}

#[tokio::test]
async fn a_code_is_exchanged_once_whichever_state_it_comes_with() {
    let mut hotels = Scene::new().marketplace().start().await;
    let mut browser = Browser::default();
    let (one, two) = (hotels.begin(&mut browser, 1003).await, hotels.begin(&mut browser, 1003).await);
    let back = hotels.approve(1003, Some(&one));
    hotels.open(&mut browser, &back).await.assert_page(200, "Lake &#38; Forest is connected");
    let other = back.replace(&one, &two);
    hotels.open(&mut browser, &other).await.assert_page(410, "This took too long, or was used already");
    let none = back.split("&state").next().unwrap().to_owned();
    hotels.open(&mut browser, &none).await.assert_page(410, "This took too long, or was used already");
    assert_eq!(hotels.exchanges(), 1);
    assert!(hotels.works(1003).await);
}

#[tokio::test]
async fn a_code_that_was_used_before_a_restart_is_refused_by_cloudbeds() {
    let mut hotels = Scene::new().marketplace().start().await;
    let back = hotels.approve(1003, None);
    hotels.open(&mut Browser::default(), &back).await.assert_page(200, "Lake &#38; Forest is connected");
    hotels.remember_key(1003);
    hotels.restart().await;
    let page = hotels.open(&mut Browser::default(), &back).await;
    page.assert_page(410, "This took too long, or was used already");
    assert_eq!(hotels.exchanges(), 2);
    assert!(hotels.works(1003).await);
}

#[tokio::test]
async fn an_app_that_is_set_up_wrongly_is_the_operators_to_mend() {
    let scenes = [
        ("secret", Scene::new().secret(canary("another client secret"))),
        ("redirect_uri", Scene::new().registered(|app| app.redirect_uri = format!("{REDIRECT}/"))),
        ("client_id", Scene::new().registered(|app| app.client_id = "live1_another".to_owned())),
    ];
    for (what, scene) in scenes {
        let mut hotels = scene.start().await;
        let mut browser = Browser::default();
        let state = hotels.begin(&mut browser, 1003).await;
        // What it would send back, if the browser had been sent by the app as registered.
        let code = canary("a code");
        let back = format!("/api_key?code={code}&state={state}");
        hotels.proxy.secrets.push(code.to_owned());
        let page = hotels.open(&mut browser, &back).await;
        page.assert_page(502, "Not connected: the app is not set up correctly");
        assert_counted(&hotels, "set_up", 1.0).await;
        let words = "Cloudbeds does not accept the app: check its client_id";
        let told = || hotels.proxy.log().contains(words).then_some(());
        hotels.proxy.wait_for(&format!("{what}: a word to the operator"), told).await;
    }
}

#[tokio::test]
async fn a_key_of_another_hotel_is_not_used_and_not_lost() {
    let mut hotels = Scene::new().start().await;
    let mut browser = Browser::default();
    let before = hotels.key_file();
    let state = hotels.begin(&mut browser, 1003).await;
    let back = hotels.approve(1004, Some(&state));
    let page = hotels.open(&mut browser, &back).await;
    hotels.remember_key(1004);
    page.assert_page(409, "That was another hotel");
    assert_again(&page, 1003);
    assert!(page.text().contains("property 1003") && page.text().contains("<dd>1004</dd>"), "{}", page.text());
    assert_eq!(hotels.key_file(), before);
    for id in ["1003", "1004"] {
        let refused = hotels.proxy.get("/api/v1.3/getHotels").property(id).send().await;
        assert_eq!(refused.code(), "property_unknown");
    }
    // The operator may still want it: what hotel 1004 had before has ended.
    assert_eq!((hotels.beside("arrived").len(), hotels.beside("aside").len()), (0, 1));
    let aside = hotels.proxy.path(&hotels.beside("aside")[0]);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&aside).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let key = hotels.cloudbeds.key("1004".parse().unwrap(), CLIENT).unwrap();
    assert!(std::fs::read_to_string(&aside).unwrap().lines().any(|line| line == format!("key: {key}")));
    let told = hotels.proxy.wait_for("a word to the operator", || {
        hotels.proxy.events().into_iter().find(|event| event["file"].as_str() == Some(&*aside.display().to_string()))
    });
    assert_eq!(told.await["opens"], "1004");
    assert_counted(&hotels, "wrong_property", 1.0).await;
    hotels.restart().await;
    assert_eq!((hotels.key_file(), hotels.beside("aside").len()), (before, 1));
}

#[tokio::test]
async fn a_link_says_what_is_wrong_with_it() {
    let mut hotels = Scene::new().start().await;
    let mut browser = Browser::default();
    for path in ["/connect/1003?app=nobody", "/connect/1003?app=", "/connect/1003?app=main&app=main"] {
        hotels.open(&mut browser, path).await.assert_page(404, "This app is not known here");
    }
    assert_counted(&hotels, "unknown_app", 3.0).await;
    for path in ["/connect/", "/connect/abc", "/connect/007", "/connect/1003%20", "/connect/1003/x"] {
        hotels.open(&mut browser, path).await.assert_page(404, "This link is not complete");
    }
    for path in ["/", "/connect", "/favicon.ico", "/api_key/", "/webhooks"] {
        hotels.open(&mut browser, path).await.assert_page(404, "There is nothing here");
    }
    for path in ["/api_key", "/api_key?state=x", "/api_key?code=", "/api_key?code=a%0Ab", "/api_key?code=a&code=b"] {
        hotels.open(&mut browser, path).await.assert_page(400, "Something is missing");
    }
    for path in ["/connect/1003", "/api_key?code=a"] {
        let answer = hotels.ask(&mut browser, Method::POST, path, &[]).await;
        answer.assert_page(405, "This page can only be opened");
        assert_eq!(answer.header("allow"), Some("GET, HEAD"));
    }
    assert_eq!((browser.cookie, hotels.exchanges()), (None, 0));
}

#[tokio::test]
async fn what_did_not_reach_cloudbeds_may_be_tried_again_with_the_same_code() {
    let scene = Scene::new();
    let (cloudbeds, keys) = scene.cloudbeds().await;
    let mut gate = Gate::shut(cloudbeds.address()).await;
    let scene = scene.exchange(&format!("{}/api/v1.1/access_token", gate.url()));
    let proxy = scene.proxy(&cloudbeds, &keys).start().await;
    let mut hotels = Hotels { connect: onboarding(&proxy), cloudbeds, proxy };
    let mut browser = Browser::default();
    let state = hotels.begin(&mut browser, 1003).await;
    let back = hotels.approve(1003, Some(&state));
    for _ in 0..2 {
        let page = hotels.open(&mut browser, &back).await;
        page.assert_page(503, "Cloudbeds cannot be reached");
        assert_reload(&page);
    }
    assert_eq!((hotels.exchanges(), hotels.beside("arrived").len()), (0, 0));
    gate.open().await;
    hotels.open(&mut browser, &back).await.assert_page(200, "Lake &#38; Forest is connected");
    assert_counted(&hotels, "unreachable", 2.0).await;
}

#[tokio::test]
async fn what_may_have_reached_cloudbeds_is_never_sent_again() {
    for room in ["reset?head=0", "fail?kind=error", "fail", "fail?kind=limit", "download?size=10"] {
        let mut hotels = Scene::new().start().await;
        let mut browser = Browser::default();
        let state = hotels.begin(&mut browser, 1003).await;
        let back = hotels.approve(1003, Some(&state));
        trouble(&hotels, "access_token", 1, room);
        for _ in 0..2 {
            let page = hotels.open(&mut browser, &back).await;
            page.assert_page(502, "Cloudbeds did not answer");
            assert_again(&page, 1003);
        }
        assert_eq!(hotels.exchanges(), 1, "{room}");
        assert_counted(&hotels, "unclear", 1.0).await;
        // And connecting again is what helps.
        hotels.connect(&mut browser, 1003).await.assert_page(200, "Lake &#38; Forest is connected");
    }
}

#[tokio::test]
async fn a_key_whose_hotel_cannot_be_asked_for_is_saved_and_comes_into_force_later() {
    for (scene, known) in [(Scene::new(), true), (Scene::new().without_resources(), false)] {
        let mut hotels = scene.start().await;
        let mut browser = Browser::default();
        trouble(&hotels, "getHotels", 2, "fail?kind=error");
        let page = hotels.connect(&mut browser, 1003).await;
        page.assert_page(202, "Saved, not yet checked");
        // Where the exchange said whose it is, it is in the key file already.
        assert_eq!(hotels.beside("arrived").len(), usize::from(!known));
        until("the next call works", async || {
            hotels.proxy.get("/api/v1.3/getHotelDetails").property("1003").send().await.status == 200
        })
        .await;
        until("nothing waits", async || hotels.beside("arrived").is_empty()).await;
        assert!(hotels.works(1003).await);
        hotels.proxy.wait_for_metric("keys_waiting", |waiting| waiting == 0.0).await;
    }
}

#[tokio::test]
async fn a_key_that_cloudbeds_rejects_at_once_is_dropped() {
    let mut hotels = Scene::new().start().await;
    let mut browser = Browser::default();
    trouble(&hotels, "getHotels", 1, "fail?kind=revoked");
    let page = hotels.connect(&mut browser, 1003).await;
    page.assert_page(409, "This access has ended already");
    assert_again(&page, 1003);
    assert_eq!(hotels.beside("arrived").len(), 0);
    assert_eq!(hotels.proxy.get("/api/v1.3/getHotels").property("1003").send().await.code(), "property_unknown");
}

#[tokio::test]
async fn where_no_key_could_be_written_no_code_is_spent() {
    let mut hotels = Scene::new().start().await;
    let mut browser = Browser::default();
    let state = hotels.begin(&mut browser, 1003).await;
    let back = hotels.approve(1003, Some(&state));
    // Not even root can take a lock that is a directory.
    std::fs::remove_file(hotels.proxy.path("keys.yaml.lock")).unwrap();
    std::fs::create_dir(hotels.proxy.path("keys.yaml.lock")).unwrap();
    for _ in 0..2 {
        let page = hotels.open(&mut browser, &back).await;
        page.assert_page(503, "We cannot store your access right now");
        assert_reload(&page);
    }
    assert_eq!(hotels.exchanges(), 0);
    assert_counted(&hotels, "not_saved", 2.0).await;
    std::fs::remove_dir(hotels.proxy.path("keys.yaml.lock")).unwrap();
    hotels.open(&mut browser, &back).await.assert_page(200, "Lake &#38; Forest is connected");
}

#[tokio::test]
async fn a_key_that_cannot_be_written_is_owned_up_to() {
    let scene = Scene::new();
    let (cloudbeds, keys) = scene.cloudbeds().await;
    let gate = Gate::open_to(cloudbeds.address()).await;
    let scene = scene.exchange(&format!("{}/api/v1.1/access_token", gate.url()));
    let text: String = keys.iter().map(|hotel| format!("\"{}\": {}\n", hotel.property, hotel.key)).collect();
    let proxy = scene.proxy(&cloudbeds, &keys).config("keys: { file: deep/keys.yaml, poll: 200ms }");
    let proxy = proxy.before(move |directory| {
        std::fs::create_dir(directory.join("deep")).unwrap();
        write_private(&directory.join("deep/keys.yaml"), &text);
    });
    let proxy = proxy.start().await;
    let mut hotels = Hotels { connect: onboarding(&proxy), cloudbeds, proxy };
    let mut browser = Browser::default();
    let state = hotels.begin(&mut browser, 1003).await;
    let back = hotels.approve(1003, Some(&state));
    gate.hold();
    let mut second = browser.clone();
    assert_eq!(hotels.exchanges(), 0);
    let page = hotels.come_back(&browser, &back);
    until("the exchange is under way", async || hotels.exchanges() == 1).await;
    // The disk goes away between the exchange and its answer.
    std::fs::rename(hotels.proxy.path("deep"), hotels.proxy.path("gone")).unwrap();
    gate.let_go();
    let page = page.await.unwrap();
    page.assert_page(500, "Your access could not be stored");
    assert_again(&page, 1003);
    hotels.remember_key(1003);
    assert_counted(&hotels, "not_saved", 1.0).await;
    std::fs::rename(hotels.proxy.path("gone"), hotels.proxy.path("deep")).unwrap();
    hotels.connect(&mut second, 1003).await.assert_page(200, "Lake &#38; Forest is connected");
}

#[tokio::test]
async fn nobody_can_make_the_proxy_exchange_more_than_so_many_codes_at_a_time() {
    let mut hotels = Scene::new().marketplace().start().await;
    let mut browser = Browser::default();
    for number in 0..20 {
        let page = hotels.open(&mut browser, &format!("/api_key?code=made-up-{number}")).await;
        page.assert_page(410, "This took too long, or was used already");
    }
    let page = hotels.open(&mut browser, "/api_key?code=made-up-20").await;
    page.assert_page(429, "One moment, please");
    assert_reload(&page);
    assert_eq!((hotels.exchanges(), page.header("retry-after")), (20, Some("30")));
    assert_counted(&hotels, "busy", 1.0).await;
}

#[tokio::test]
async fn the_address_of_a_redirect_leaves_no_trace() {
    let mut hotels = Scene::new().start().await;
    let mut browser = Browser::default();
    let state = hotels.begin(&mut browser, 1003).await;
    let back = hotels.approve(1003, Some(&state));
    hotels.open(&mut browser, &back).await.assert_page(200, "Lake &#38; Forest is connected");
    hotels.remember_key(1003);
    hotels.open(&mut browser, &back.replace("code=", "error=access_denied&code=")).await;
    let line = hotels.proxy.wait_for_access(|line| line["path"] == "/connect/1003").await;
    assert_eq!((&line["status"], &line["property"]), (&303.into(), &"1003".into()));
    hotels.proxy.wait_for_access(|line| line["path"] == "/api_key" && line["status"] == 200).await;
    // The harness looks for code, state, cookie, key and secret in the whole log, at level trace, when the scene ends.
    assert!(hotels.proxy.secrets.len() >= 7);
    let page = hotels.proxy.admin("/metrics").await.text();
    assert!(!page.contains(&state));
}

#[tokio::test]
async fn onboarding_is_off_unless_it_is_asked_for() {
    let (cloudbeds, keys) = Scene::new().cloudbeds().await;
    let proxy = Proxy::to(&cloudbeds, &keys).start().await;
    let ready = proxy.wait_for_event("ready").await;
    assert!(ready.get("onboarding").is_none(), "{ready}");
    for path in ["/connect/1003", "/webhook"] {
        assert_ne!(proxy.admin(path).await.status, 200);
    }
}
