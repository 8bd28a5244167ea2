//! Requests per second: what Cloudbeds sees of them, who waits, and what those are told who do not get their turn.
//!
//! The sandbox's judge counts every call by its arrival, in every second, whatever the proxy says of itself.

use std::time::{Duration, Instant};

use cloudbeds_auth_proxy::sandbox::{self, Hotel, Protocols, Rule, Sandbox, Settings, Verdict};
use rustix::process::Signal;

use super::harness::{Answer, EITHER, Proxy, together};

/// What the proxy is granted, and the judge allows.
const GRANTED: usize = 10;

/// A sandbox with a judge, its hotels, and the client id of their keys' app.
async fn judged(protocols: Protocols) -> (Sandbox, Vec<Hotel>, String) {
    let settings = Settings { protocols, strict: Some(GRANTED), ..Settings::demo() };
    let (hotels, client_id) = (settings.hotels.clone(), settings.apps[0].client_id.clone());
    (sandbox::start(settings).await.unwrap(), hotels, client_id)
}

async fn hotels(proxy: &Proxy, property: &str) -> Answer {
    proxy.get("/api/v1.3/getHotels").property(property).send().await
}

fn assert_within(verdict: Verdict, calls: u64, what: &str) {
    assert_eq!((verdict.excess, verdict.calls), (None, calls), "{what}: {verdict:?}");
}

#[tokio::test]
async fn no_second_has_more_calls_than_granted_and_a_hog_does_not_hold_up_another_hotel() {
    for protocols in EITHER {
        let (cloudbeds, keys, client_id) = judged(protocols).await;
        let proxy = Proxy::to(&cloudbeds, &keys).config("limits: { max_wait: 30s }").log("info").start().await;
        let begun = Instant::now();
        let hog = together((0..45).map(|_| hotels(&proxy, "1001")));
        let other = async {
            // While the hog's queue is long, and each time behind its whole window.
            tokio::time::sleep(Duration::from_millis(300)).await;
            let came = Instant::now();
            for _ in 0..3 {
                assert_eq!(hotels(&proxy, "1002").await.status, 200);
            }
            came.elapsed()
        };
        let (answers, other) = tokio::join!(hog, other);
        assert!(answers.iter().all(|answer| answer.status == 200));
        // Three turns, at most one window each; a first-come queue would have taken longer than four.
        assert!(other < begun.elapsed(), "{other:?}");
        assert_within(cloudbeds.verdict(&client_id), 48, &format!("{protocols:?}"));
        let waits = proxy.metric("budget_waits_total{app=\"default\"}").await;
        assert!((35.0..=38.0).contains(&waits), "{waits}");
        let line = proxy.wait_for_access(|line| line.get("queued_ms").is_some()).await;
        assert!(line["queued_ms"].as_f64().unwrap() > 0.0);
        assert!(proxy.metric("budget_property_waited_seconds_total{app=\"default\",property=\"1001\"}").await > 1.0);
    }
}

#[tokio::test]
async fn bursts_after_pauses_stay_within_every_second() {
    let (cloudbeds, keys, client_id) = judged(Protocols::Both).await;
    let proxy = Proxy::to(&cloudbeds, &keys).config("limits: { max_wait: 30s }").log("info").start().await;
    let mut calls = 0;
    // The bursts come at odd distances, so that they meet the window in different places.
    for (count, pause) in [(3, 700), (9, 350), (4, 900), (13, 130), (1, 1300), (12, 0)] {
        let answers = together((0..count).map(|_| hotels(&proxy, "1001"))).await;
        assert!(answers.iter().all(|answer| answer.status == 200));
        calls += count;
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    assert_within(cloudbeds.verdict(&client_id), calls, "bursts");
}

#[tokio::test]
async fn whoever_would_wait_too_long_is_told_at_once_when_to_come_back() {
    let (cloudbeds, keys, client_id) = judged(Protocols::Both).await;
    let limits = "limits: { requests_per_second: 2, max_wait: 0s, announce: true }";
    let proxy = Proxy::to(&cloudbeds, &keys).config(limits).start().await;
    let answers = together((0..4).map(|_| hotels(&proxy, "1001"))).await;
    let (served, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!((served.len(), refused.len()), (2, 2));
    for answer in &refused {
        answer.assert_refused("budget_exhausted");
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=2).contains(&wait), "{wait}");
    }
    for answer in &answers {
        assert_eq!(answer.header("ratelimit-policy"), Some("\"default\";q=2;w=1"));
        let left = answer.header("ratelimit").unwrap();
        assert!(left.starts_with("\"default\";r="), "{left}");
    }
    proxy.wait_for_metric("budget_refused_total{app=\"default\",why=\"too_long\"}", |count| count == 2.0).await;
    proxy
        .wait_for_metric("requests_total{property=\"1001\",class=\"4xx\",code=\"budget_exhausted\"}", |n| n == 2.0)
        .await;
    assert_eq!(cloudbeds.verdict(&client_id).calls, 2, "what is refused does not leave");
}

#[tokio::test]
async fn a_caller_that_breaks_off_gives_its_place_back() {
    let (cloudbeds, keys, client_id) = judged(Protocols::Both).await;
    let limits = "limits: { requests_per_second: 1, max_wait: 1h }";
    let proxy = Proxy::to(&cloudbeds, &keys).config(limits).start().await;
    assert_eq!(hotels(&proxy, "1001").await.status, 200);
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let stream = tokio::net::TcpStream::connect(proxy.address).await.unwrap();
        let head = "GET /api/v1.3/getHotels HTTP/1.1\r\nhost: proxy\r\nx-property-id: 1001\r\n\r\n";
        assert_eq!(stream.try_write(head.as_bytes()).unwrap(), head.len());
        stream.set_zero_linger().unwrap();
        waiting.push(stream);
    }
    let queue = "budget_waiting{app=\"default\"}";
    proxy.wait_for_metric(queue, |waiting| waiting >= 17.0).await;
    drop(waiting);
    proxy.wait_for_metric(queue, |waiting| waiting == 0.0).await;
    let gone = proxy.metric("requests_unfinished_total{end=\"client_gone\"}").await;
    assert!(gone >= 15.0, "{gone}");
    assert!(cloudbeds.verdict(&client_id).calls < 7);
}

#[tokio::test]
async fn a_429_of_cloudbeds_is_passed_on_and_the_next_calls_wait_for_its_time() {
    let (cloudbeds, keys, client_id) = judged(Protocols::Both).await;
    let proxy = Proxy::to(&cloudbeds, &keys).config("limits: {}").start().await;
    cloudbeds.add_rule(Rule { property: None, path: String::new(), times: 1, room: "fail?kind=limit".to_owned() });
    let told = hotels(&proxy, "1001").await;
    assert_eq!((told.status.as_u16(), told.header("retry-after")), (429, Some("1")));
    assert!(told.header("proxy-status").is_none(), "it is Cloudbeds' own");
    let answers = together((0..4).map(|_| hotels(&proxy, "1002"))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(proxy.metric("budget_allowed{app=\"default\"}").await, 9.0);
    assert_eq!(proxy.metric("budget_pauses_total{app=\"default\"}").await, 1.0);
    let line = proxy.wait_for_access(|line| line["property"] == "1002").await;
    assert!(line["queued_ms"].as_f64().unwrap() > 500.0, "{line}");
    assert_eq!(cloudbeds.verdict(&client_id).calls, 5);
}

#[tokio::test]
async fn a_drain_lets_the_queue_run_out() {
    let (cloudbeds, keys, _) = judged(Protocols::Both).await;
    let limits = "limits: { requests_per_second: 2, max_wait: 20s }\ndrain: { min: 0s, max: 20s }";
    let mut proxy = Proxy::to(&cloudbeds, &keys).config(limits).start().await;
    let waiting = async {
        proxy.wait_for_metric("budget_waiting{app=\"default\"}", |waiting| waiting == 4.0).await;
        proxy.signal(Signal::TERM);
    };
    let (answers, ()) = tokio::join!(together((0..6).map(|_| hotels(&proxy, "1001"))), waiting);
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert!(proxy.ended().await.success());
}

#[tokio::test]
async fn a_request_without_a_usable_key_costs_nothing() {
    let (cloudbeds, keys, _) = judged(Protocols::Both).await;
    let proxy = Proxy::to(&cloudbeds, &keys).config("limits: { requests_per_second: 1, max_wait: 0s }").start().await;
    for _ in 0..3 {
        hotels(&proxy, "4711").await.assert_refused("property_unknown");
    }
    assert_eq!(hotels(&proxy, "1001").await.status, 200);
}

#[tokio::test]
async fn without_limits_nothing_waits() {
    let (cloudbeds, keys, client_id) = judged(Protocols::Both).await;
    let proxy = Proxy::to(&cloudbeds, &keys).config("limits: null").start().await;
    let answers = together((0..30).map(|_| hotels(&proxy, "1001"))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert!(!proxy.admin("/metrics").await.text().contains("budget"));
    // The judge is not blind.
    assert!(cloudbeds.verdict(&client_id).excess.is_some());
}
