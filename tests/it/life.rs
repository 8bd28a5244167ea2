//! What Cloudbeds' answers mean for a key: a verdict, a refusal without a call, a second try with a newer key; and what
//! they do not mean.

use cloudbeds_auth_proxy::sandbox::{Protocols, Rule, Sandbox};

use crate::harness::proxy::write_private;
use crate::harness::{EITHER, HTTP1, Peer, Proxy, Upstream, cloudbeds, key};

/// A dead key is asked about again soon, so that a test need not wait a minute.
const SOON: &str = "keys: { file: keys.yaml, poll: 1h, cool_down: { min: 1s, max: 2s } }";

const APPS: &str = "apps: { main: { client_id: live1_x }, other: { client_id: live1_y } }";

/// How many requests for this path arrived.
fn arrived(cloudbeds: &Sandbox, path: &str) -> usize {
    cloudbeds.requests().iter().filter(|seen| seen.target == path).count()
}

/// Calls until the key is refused, and returns the refusal and the answers before.
pub async fn until_refused(proxy: &Proxy, property: &str) -> (crate::harness::Answer, Vec<crate::harness::Answer>) {
    let mut before = Vec::new();
    let started = std::time::Instant::now();
    loop {
        let answer = proxy.get("/api/v1.3/getRooms").property(property).send().await;
        if answer.status == 424 {
            return (answer, before);
        }
        before.push(answer);
        assert!(started.elapsed() < crate::harness::PATIENCE, "it is never refused");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// What `/api/keys` says of a property.
async fn told(proxy: &Proxy, property: &str) -> serde_json::Value {
    let all = proxy.admin("/api/keys").await.json();
    all["keys"].as_array().unwrap().iter().find(|key| key["property"] == property).unwrap().clone()
}

#[tokio::test]
async fn a_revoked_key_is_refused_without_a_call_until_a_new_one_is_there() {
    for protocols in EITHER {
        let (cloudbeds, hotels) = cloudbeds(protocols).await;
        let never = "keys: { file: keys.yaml, poll: 1h, cool_down: { min: 1h, max: 1h } }";
        let mut proxy = Proxy::to(&cloudbeds, &hotels).config(never).config(APPS).start().await;
        assert_eq!(told(&proxy, "1001").await["verdict"], "pending");
        assert_eq!(proxy.get("/api/v1.3/getRooms").property("1001").send().await.status, 200);
        cloudbeds.revoke(&hotels[0].key);
        let (refused, before) = until_refused(&proxy, "1001").await;
        // Until the verdict is confirmed, Cloudbeds' own words come through.
        assert!(before.iter().all(|answer| answer.status == 401 && answer.text().contains("401 UNAUTHORIZED")));
        assert!(!before.is_empty());
        refused.assert_refused("key_rejected");
        refused.assert_proxy_status("http_request_denied", "a dead key");
        let body = refused.json();
        assert_eq!(body["verdict"], "rejected");
        assert_eq!(body["connect_url"], "https://hotels.cloudbeds.com/connect/1001#/app/live1_x");
        let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((3500..=4320).contains(&wait), "{wait}");

        let (all, probes) = (cloudbeds.requests().len(), arrived(&cloudbeds, "/api/v1.3/userinfo"));
        assert_eq!(probes, 1, "a single 401 is confirmed by one call of our own");
        for method in ["GET", "POST", "HEAD"] {
            let answer = proxy.call(method, "/api/v1.3/getRooms").property("1001").send().await;
            assert_eq!(answer.status, 424, "{method}");
        }
        assert_eq!(cloudbeds.requests().len(), all, "nothing is sent for a dead key");
        assert_eq!(told(&proxy, "1001").await["verdict"], "rejected");
        assert_eq!(proxy.metric("key_verdicts{verdict=\"rejected\"}").await, 1.0);
        assert_eq!(proxy.metric("requests_total{property=\"1001\",class=\"4xx\",code=\"key_rejected\"}").await, 4.0);
        // Other hotels go on, and so does this one with a new key, at once.
        assert_eq!(proxy.get("/api/v1.3/getRooms").property("1002").send().await.status, 200);
        let new = key();
        proxy.secrets.push(new.clone());
        proxy.write_keys(&format!("\"1001\": {}\n\"1003\": {new}\n", hotels[1].key));
        proxy.wait_for_event("new keys are in force").await;
        assert_eq!(proxy.get("/api/v1.3/getRooms?propertyIDs=1002").property("1002").send().await.status, 403);
        assert_ne!(proxy.get("/sandbox/echo").property("1001").send().await.status, 424);
    }
}

#[tokio::test]
async fn a_dead_key_is_asked_about_again_and_again_ever_more_seldom() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let proxy = Proxy::to(&cloudbeds, &hotels).config(SOON).start().await;
    cloudbeds.revoke(&hotels[0].key);
    until_refused(&proxy, "1001").await;
    proxy.wait_for("two more questions", || (arrived(&cloudbeds, "/api/v1.3/userinfo") >= 3).then_some(())).await;
    assert_eq!(proxy.get("/api/v1.3/getRooms").property("1001").send().await.status, 424);
}

#[tokio::test]
async fn an_odd_401_is_confirmed_by_one_call_and_is_no_verdict() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let proxy = Proxy::to(&cloudbeds, &hotels).config(SOON).start().await;
    for _ in 0..5 {
        assert_eq!(proxy.get("/sandbox/fail?kind=revoked").property("1001").send().await.status, 401);
    }
    proxy.wait_for("the question", || (arrived(&cloudbeds, "/api/v1.3/userinfo") == 1).then_some(())).await;
    for _ in 0..20 {
        assert_eq!(proxy.get("/sandbox/fail?kind=revoked").property("1001").send().await.status, 401);
        assert_eq!(proxy.get("/api/v1.3/getRooms").property("1001").send().await.status, 200);
    }
    assert_eq!(arrived(&cloudbeds, "/api/v1.3/userinfo"), 1);
}

#[tokio::test]
async fn a_user_or_a_property_that_left_is_seen_in_answers_that_say_200() {
    for (verdict, words) in [("user_left", "not active anymore"), ("property_left", "invalid status")] {
        let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
        let proxy = Proxy::to(&cloudbeds, &hotels).config(SOON).start().await;
        match verdict {
            "user_left" => cloudbeds.user_left(hotels[0].property),
            _ => cloudbeds.property_left(hotels[0].property, true),
        }
        let (refused, before) = until_refused(&proxy, "1001").await;
        assert!(!before.is_empty());
        for answer in before {
            assert_eq!((answer.status.as_u16(), &answer.json()["success"]), (200, &false.into()));
            assert!(answer.text().contains(words), "{}", answer.text());
        }
        refused.assert_refused("key_rejected");
        assert_eq!(refused.json()["verdict"], verdict);
        assert_eq!(told(&proxy, "1001").await["verdict"], verdict);
        assert_eq!(proxy.get("/api/v1.3/getRooms").property("1002").send().await.status, 200);
        if verdict == "property_left" {
            cloudbeds.property_left(hotels[0].property, false);
            let started = std::time::Instant::now();
            while proxy.get("/api/v1.3/getRooms").property("1001").send().await.status == 424 {
                assert!(started.elapsed() < crate::harness::PATIENCE, "it is never accepted again");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

#[tokio::test]
async fn who_left_is_believed_in_the_end_though_cloudbeds_answers_none_of_our_own_calls() {
    for verdict in ["user_left", "property_left"] {
        let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
        let proxy = Proxy::to(&cloudbeds, &hotels).config(SOON).start().await;
        for path in ["userinfo", "getHotelDetails"] {
            let room = "fail?kind=error".to_owned();
            cloudbeds.add_rule(Rule { property: None, path: path.to_owned(), times: 1_000, room });
        }
        match verdict {
            "user_left" => cloudbeds.user_left(hotels[0].property),
            _ => cloudbeds.property_left(hotels[0].property, true),
        }
        let (refused, before) = until_refused(&proxy, "1001").await;
        assert!(before.len() >= 10, "{} answers are not enough to go by", before.len());
        refused.assert_refused("key_rejected");
        assert_eq!(refused.json()["verdict"], verdict);
        assert_eq!(proxy.get("/api/v1.3/getRooms").property("1002").send().await.status, 200);
    }
}

/// An upstream that answers 401 to `old` as soon as the file `go` is there, and 200 to every other key.
async fn resets(old: &str, go: std::path::PathBuf) -> Upstream {
    let old = format!("bearer {old}").to_lowercase();
    Upstream::start(HTTP1, move |mut peer: Peer| {
        let (old, go) = (old.clone(), go.clone());
        async move {
            while let Some(head) = peer.request().await {
                if !head.to_lowercase().contains(&old) {
                    peer.answer("ok").await;
                    continue;
                }
                while !go.exists() {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
                peer.write("HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\nno").await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_get_answered_401_with_a_replaced_key_is_tried_once_with_the_new_one_and_nothing_else_is() {
    for (method, expected, sent) in [("GET", 200, 2), ("HEAD", 200, 2), ("POST", 401, 1), ("DELETE", 401, 1)] {
        let directory = tempfile::tempdir().unwrap();
        let go = directory.path().join("go");
        let (old, new) = (key(), key());
        let upstream = resets(&old, go.clone()).await;
        let mut proxy = Proxy::to_origin(&upstream.base_url(), upstream.root_pem()).key("1001", &old).start().await;
        proxy.secrets.push(new.clone());
        let target = "/api/v1.3/getRooms?a=b";
        let answer = async { proxy.call(method, target).property("1001").send().await };
        let reset = async {
            let line = format!("{method} {target}");
            proxy.wait_for("the call", || upstream.request_lines().contains(&line).then_some(())).await;
            proxy.write_keys(&format!("\"1001\": {new}\n"));
            proxy.wait_for_event("new keys are in force").await;
            std::fs::write(&go, "").unwrap();
        };
        let (answer, ()) = tokio::join!(answer, reset);
        assert_eq!(answer.status, expected, "{method}");
        let line = format!("{method} {target}");
        assert_eq!(upstream.request_lines().iter().filter(|seen| **seen == line).count(), sent, "{method}");
        let probes = upstream.request_lines().iter().filter(|line| line.contains("userinfo")).count();
        assert_eq!(probes, 0, "{method}: the old key's end says nothing about the new one");
    }
}

#[tokio::test]
async fn an_organisations_key_serves_its_hotels_and_the_organisation_itself() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let rows = format!(
        "\"1002\": {}\nkeys:\n  - {{ key: {}, properties: auto, organization: acme, add_property_id: true }}\n",
        hotels[1].key, hotels[0].key
    );
    let mut proxy = Proxy::to_origin(&cloudbeds.base_url(), cloudbeds.root_pem())
        .before(move |directory| write_private(&directory.join("keys.yaml"), &rows))
        .start()
        .await;
    proxy.secrets.extend(hotels.iter().map(|hotel| hotel.key.clone()));
    // Which hotels it opens comes from Cloudbeds.
    proxy.wait_for_metric("properties_loaded", |count| count == 2.0).await;
    let query = |cloudbeds: &Sandbox| {
        let target = cloudbeds.requests().pop().unwrap().target;
        target.split_once('?').map(|(_, query)| query.to_owned()).unwrap_or_default()
    };
    for (method, target, expected) in [
        ("GET", "/api/v1.3/getRooms", "propertyID=1001"),
        ("GET", "/api/v1.3/getRooms?pageSize=5", "pageSize=5&propertyID=1001"),
        ("GET", "/api/v1.3/getRooms?propertyIDs=1001", "propertyIDs=1001"),
        ("GET", "/sandbox/echo", ""),
        ("POST", "/api/v1.3/postReservation", ""),
    ] {
        proxy.call(method, target).property("1001").send().await;
        assert_eq!(query(&cloudbeds), expected, "{method} {target}");
    }
    // A key that does not say so leaves the query alone.
    proxy.get("/api/v1.3/getRooms").property("1002").send().await;
    assert_eq!(query(&cloudbeds), "");

    let answer = proxy.get("/sandbox/echo").header("x-organization-id", "acme").send().await;
    assert_eq!(answer.status, 200);
    let seen = cloudbeds.requests().pop().unwrap();
    assert_eq!(seen.header("authorization"), [format!("Bearer {}", hotels[0].key).as_bytes()]);
    assert_eq!(seen.header("x-organization-id"), [b"acme"]);
    assert!(seen.header("x-property-id").is_empty());
    // No call of one organisation names another's hotel.
    let named = |target: &'static str| proxy.get(target).header("x-organization-id", "acme").send();
    assert_eq!(named("/api/v1.3/getRooms?propertyID=1001").await.status, 200);
    named("/api/v1.3/getRooms?propertyID=1002").await.assert_refused("property_invalid");
    let refused = |name: &'static str, value: &'static str| proxy.get("/sandbox/echo").header(name, value).send();
    refused("x-organization-id", "nobody").await.assert_refused("property_unknown");
    refused("x_organization_id", "acme").await.assert_refused("property_invalid");
    refused("x-organization-id", " ").await.assert_refused("property_missing");
    let twice = proxy.get("/sandbox/echo").header("x-organization-id", "acme").header("x-organization-id", "acme");
    twice.send().await.assert_refused("property_invalid");
    // Beside a property it is no clearer.
    let beside = |name: &'static str| {
        let call = proxy.get("/sandbox/echo").property("1001").header("x-organization-id", "acme");
        call.header(name, "acme").send()
    };
    for name in ["x-organization-id", "x_organization_id", "x-organization_id"] {
        beside(name).await.assert_refused("property_invalid");
    }
    assert_eq!(beside("x-other").await.status, 200);
}

#[tokio::test]
async fn an_organisation_that_several_keys_name_is_not_enough() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let row = |hotel: usize| format!("{{ key: {}, organization: acme }}", hotels[hotel].key);
    let rows = format!("\"1001\": {}\n\"1002\": {}\n", row(0), row(1));
    let mut proxy = Proxy::to_origin(&cloudbeds.base_url(), cloudbeds.root_pem())
        .before(move |directory| write_private(&directory.join("keys.yaml"), &rows))
        .start()
        .await;
    proxy.secrets.extend(hotels.iter().map(|hotel| hotel.key.clone()));
    let call = |target| proxy.get(target).header("x-organization-id", "acme");
    call("/sandbox/echo").send().await.assert_refused("property_invalid");
    assert_eq!(call("/sandbox/echo").property("1001").send().await.status, 200);
}
