//! A hotel connects in a real browser: the demo's third one, through the stand-in's consent page.

use crate::harness::chromium::Chromium;
use crate::harness::hotel::property;
use crate::harness::{Browser, Run, Scene, Wire};

/// The address that a line of the demo begins with.
fn printed_url<'a>(printed: &'a str, holds: &str) -> &'a str {
    printed.lines().map(str::trim).find(|line| line.starts_with("http://") && line.contains(holds)).expect(holds)
}

#[tokio::test]
async fn the_demos_third_hotel_connects_in_a_browser_and_its_next_call_works() {
    let Some(chromium) = Chromium::start().await else { return };
    let directory = tempfile::tempdir().unwrap();
    let free = ["demo", "--port", "0", "--admin-port", "0", "--sandbox-port", "0", "--connect-port", "0"];
    let mut demo = Run::start(directory.path(), &free, &[]);
    demo.prints("Ctrl-C ends everything").await;
    let printed = demo.printed();
    let link = printed_url(&printed, "/connect/1003");
    let curl = printed.lines().find(|line| line.contains("X-Property-Id: 1003")).unwrap();
    let proxy: std::net::SocketAddr = curl.split_once("http://").unwrap().1.split('/').next().unwrap().parse().unwrap();
    let secrets = demo.secrets();
    let call = async || Wire::tcp(proxy, &secrets).await.get("/api/v1.3/getHotelDetails", "1003").await;
    assert_eq!(call().await.code(), "property_unknown");

    // The user says no first.
    chromium.goto(link).await;
    chromium.shows("h1", "Demo Channel Manager asks for access to Lakeside Demo Inn").await;
    chromium.pictures("1-consent").await;
    chromium.click("button.no").await;
    chromium.shows("h1", "Not connected: access was not allowed").await;
    chromium.pictures("2-denied").await;
    assert_eq!(call().await.code(), "property_unknown");

    // And then, by the page's own button, yes.
    chromium.click("a.button").await;
    chromium.shows("h1", "Demo Channel Manager asks for access to Lakeside Demo Inn").await;
    chromium.click("button.yes").await;
    chromium.shows("h1", "Lakeside Demo Inn is connected").await;
    chromium.pictures("3-connected").await;
    let answer = call().await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()["data"]["propertyName"].as_str()),
        (200, Some("Lakeside Demo Inn"))
    );

    // A reload and the back button change nothing.
    chromium.client.refresh().await.unwrap();
    chromium.shows("h1", "Lakeside Demo Inn is connected").await;
    chromium.client.back().await.unwrap();
    chromium.client.forward().await.unwrap();
    chromium.shows("h1", "Lakeside Demo Inn is connected").await;
    assert_eq!(call().await.status, 200);

    // Nothing of ours is stored where a script could read it, and nothing was loaded from elsewhere.
    let script = "return document.cookie + '|' + performance.getEntriesByType('resource').length";
    assert_eq!(chromium.client.execute(script, vec![]).await.unwrap(), "|0");
    chromium.close().await;
    assert_eq!(demo.said().matches("cbat_").count(), 0, "{}", demo.said());
}

#[tokio::test]
async fn every_page_looks_right_on_a_desk_and_on_a_phone() {
    let Some(chromium) = Chromium::start().await else { return };
    // Without TLS before it, so that the browser can go there.
    let mut hotels = Scene::new().plain().start().await;
    let base = format!("http://{}", hotels.connect);
    let mut other = Browser::default();
    let strange = hotels.begin(&mut other, 1003).await;
    let strange = hotels.approve(1003, Some(&strange));

    for (name, path, heading) in [
        ("unknown-app", "/connect/1003?app=nobody", "This app is not known here"),
        ("not-a-property", "/connect/abc", "This link is not complete"),
        ("not-found", "/", "There is nothing here"),
        ("incomplete", "/api_key", "Something is missing"),
        ("state-unknown", "/api_key?code=a&state=b", "Please connect again"),
        ("other-browser", strange.as_str(), "Begun in another browser"),
    ] {
        chromium.goto(&format!("{base}{path}")).await;
        chromium.shows("h1", heading).await;
        chromium.pictures(name).await;
    }

    // The rest are outcomes: the browser's own connection, in one kind of trouble after the other.
    for (name, call, room, user_takes, heading) in [
        ("wrong-property", "", "", 1004, "That was another hotel"),
        ("unclear", "access_token", "fail?kind=error", 1003, "Cloudbeds did not answer"),
        ("set-up", "access_token", "missing", 1003, "Not connected: the app is not set up correctly"),
        ("rejected", "getHotels", "fail?kind=revoked", 1003, "This access has ended already"),
        ("saved", "userinfo", "fail?kind=error", 1003, "Saved, not yet checked"),
    ] {
        // The sandbox's page is left out: what it would do is done at once.
        chromium.goto(&format!("{base}/connect/1003")).await;
        let state = chromium.client.current_url().await.unwrap();
        let state = state.query_pairs().find(|(name, _)| name == "state").expect("a state").1.into_owned();
        let times = u32::from(!call.is_empty());
        let rule =
            cloudbeds_auth_proxy::sandbox::Rule { property: None, path: call.to_owned(), times, room: room.to_owned() };
        hotels.cloudbeds.add_rule(rule);
        let back = hotels.cloudbeds.approve(property(user_takes), crate::harness::hotel::CLIENT, Some(&state)).unwrap();
        chromium.goto(&format!("{base}{}", back.strip_prefix("https://connect.example.com").unwrap())).await;
        chromium.shows("h1", heading).await;
        chromium.pictures(name).await;
        hotels.cloudbeds.clear_rules();
    }
    chromium.close().await;
}
