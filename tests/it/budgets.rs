//! Requests per second: what Cloudbeds sees of them, who waits, and what those are told who do not get their turn.
//!
//! The sandbox's judge counts every call by its arrival, in every second, whatever the proxy says of itself.

use std::time::{Duration, Instant};

use cloudbeds_auth_proxy::sandbox::{self, Hotel, Protocols, Rule, Sandbox, Settings, Verdict};
use rustix::process::Signal;
use tokio::net::{TcpListener, TcpStream};

use super::harness::{Answer, Caller, EITHER, Proxy, together, until};

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
        let hog = async {
            let answers = together((0..45).map(|_| hotels(&proxy, "1001"))).await;
            assert!(answers.iter().all(|answer| answer.status == 200));
            begun.elapsed()
        };
        let other = async {
            // While the hog's queue is long, and each time behind its whole window.
            tokio::time::sleep(Duration::from_millis(300)).await;
            for _ in 0..3 {
                assert_eq!(hotels(&proxy, "1002").await.status, 200);
            }
            begun.elapsed()
        };
        let (hog, other) = tokio::join!(hog, other);
        // Three turns, at most one window each; first come, first served, the hog's queue would have been empty before.
        assert!(other < hog, "{other:?}, {hog:?}");
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

/// How long the connections of [`slow_to_connect`] take, one after the other.
const DELAYS: [u64; 6] = [900, 50, 1300, 0, 600, 200];

/// A way to the sandbox on which the first bytes of connections are held up, each for another time: a slow TLS connect
/// as the proxy sees it. Its address at which the sandbox's certificate is good.
async fn slow_to_connect(cloudbeds: &Sandbox, delays: &'static [u64]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = (listener.local_addr().unwrap(), cloudbeds.address());
    tokio::spawn(async move {
        for delay in delays.iter().copied().cycle() {
            let (mut caller, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(delay)).await;
                let Ok(mut upstream) = TcpStream::connect(far).await else { return };
                caller.set_nodelay(true).unwrap();
                upstream.set_nodelay(true).unwrap();
                // Either side may end it as it likes.
                tokio::io::copy_bidirectional(&mut caller, &mut upstream).await.ok();
            });
        }
    });
    format!("https://localhost:{}", near.port())
}

#[tokio::test]
async fn slow_connects_bring_no_calls_closer_together() {
    for protocols in EITHER {
        let (cloudbeds, keys, client_id) = judged(protocols).await;
        let origin = slow_to_connect(&cloudbeds, &DELAYS).await;
        // Connections are given up all the time, so that there is always one that takes long.
        let proxy = Proxy::to_origin(&origin, cloudbeds.root_pem())
            .key("1001", &keys[0].key)
            .config("limits: { max_wait: 60s }")
            .env("UPSTREAM__POOL__MAX_AGE", "400ms")
            .start()
            .await;
        let answers = together((0..35).map(|_| hotels(&proxy, "1001"))).await;
        for answer in answers {
            assert_eq!(answer.status, 200, "{protocols:?}: {}", answer.text());
        }
        assert_within(cloudbeds.verdict(&client_id), 35, &format!("{protocols:?}"));
        assert!(cloudbeds.connections() >= 3, "{}", cloudbeds.connections());
    }
}

#[tokio::test]
async fn once_connections_are_there_a_steady_overload_uses_the_budget() {
    for protocols in EITHER {
        let (cloudbeds, keys, client_id) = judged(protocols).await;
        let origin = slow_to_connect(&cloudbeds, &DELAYS).await;
        let proxy = Proxy::to_origin(&origin, cloudbeds.root_pem())
            .key("1001", &keys[0].key)
            .config("limits: { max_wait: 60s }")
            .start()
            .await;
        let calls = together((0..70).map(|_| async {
            assert_eq!(hotels(&proxy, "1001").await.status, 200);
            Instant::now()
        }));
        let mut ends = calls.await;
        assert_within(cloudbeds.verdict(&client_id), 70, &format!("{protocols:?}"));
        ends.sort_unstable();
        // Behind the first twenty nobody connects. One window is left to a machine that does other things, too.
        let (steady, calls) = (ends[69].duration_since(ends[19]).as_secs_f64(), 50.0);
        let least = 0.95 * GRANTED as f64 * (steady - 1.0);
        assert!(calls >= least, "{protocols:?}: {calls} in {steady} s, at least {least}");
    }
}

#[tokio::test]
async fn calls_of_a_hotel_that_wait_are_sent_in_the_order_in_which_they_came() {
    let (cloudbeds, keys, client_id) = judged(Protocols::Both).await;
    // One at a time: two that start in the same moment may arrive either way.
    let limits = "limits: { requests_per_second: 1, max_wait: 60s }";
    let proxy = Proxy::to(&cloudbeds, &keys).config(limits).start().await;
    assert_eq!(hotels(&proxy, "1001").await.status, 200);
    // Each on a connection of its own, and once those before it have been sent or stand in the queue.
    let calls = (0..6).map(|number| {
        let (proxy, cloudbeds, client_id) = (&proxy, &cloudbeds, &client_id);
        async move {
            until("the calls before", async || {
                let sent = cloudbeds.verdict(client_id).calls - 1;
                sent as f64 + proxy.metric("budget_waiting{app=\"default\"}").await >= f64::from(number)
            })
            .await;
            let target = format!("/sandbox/echo?number={number}");
            let call = if number % 3 == 1 { proxy.get(&target) } else { proxy.call("POST", &target).body("x") };
            assert_eq!(call.property("1001").send().await.status, 200);
        }
    });
    together(calls).await;
    let seen = cloudbeds.requests();
    let order: Vec<_> = seen.iter().filter_map(|seen| seen.target.strip_prefix("/sandbox/echo?number=")).collect();
    assert_eq!(order, ["0", "1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn a_call_that_may_change_something_and_waited_is_not_overtaken_while_it_makes_a_connection() {
    let (cloudbeds, keys, client_id) = judged(Protocols::Http1).await;
    // The first connection is there at once, the second takes its time.
    let origin = slow_to_connect(&cloudbeds, &[0, 800]).await;
    let proxy = Proxy::to_origin(&origin, cloudbeds.root_pem())
        .key("1001", &keys[0].key)
        .key("1002", &keys[1].key)
        // Both hotels' connections are of one core.
        .config("limits: { requests_per_second: 4, max_wait: 60s }\nworkers: 1")
        // So that a booking takes none that was used before.
        .env("UPSTREAM__POOL__UNSAFE_REUSE", "1ms")
        .start()
        .await;
    for _ in 0..4 {
        assert_eq!(hotels(&proxy, "1001").await.status, 200);
    }
    let calls = [(0, "POST", "1001"), (1, "GET", "1001"), (2, "GET", "1002")];
    let calls = calls.into_iter().map(|(number, method, property)| {
        let proxy = &proxy;
        async move {
            // It comes behind those before it, and before the booking is through.
            tokio::time::sleep(Duration::from_millis(100) * number).await;
            let target = format!("/sandbox/echo?number={number}");
            let call = proxy.call(method, &target);
            let call = if method == "POST" { call.body("x") } else { call };
            assert_eq!(call.property(property).send().await.status, 200);
        }
    });
    together(calls).await;
    let seen = cloudbeds.requests();
    let order: Vec<_> = seen.iter().filter_map(|seen| seen.target.strip_prefix("/sandbox/echo?number=")).collect();
    // The other hotel's look-up need not wait for the booking; the one behind it would have gone on the first connection.
    assert_eq!(order, ["2", "0", "1"]);
    assert_within(cloudbeds.verdict(&client_id), 7, "a booking that connects");
}

#[tokio::test]
async fn a_drain_ends_at_its_maximum_whoever_still_waits() {
    let (cloudbeds, keys, client_id) = judged(Protocols::Both).await;
    let limits = "limits: { requests_per_second: 1, max_wait: 1h }\ndrain: { min: 0s, max: 300ms }";
    let mut proxy = Proxy::to(&cloudbeds, &keys).config(limits).start().await;
    assert_eq!(hotels(&proxy, "1001").await.status, 200);
    let mut waiting = Vec::new();
    for _ in 0..30 {
        let mut caller = Caller::connect(&proxy).await;
        caller.head("GET", "/api/v1.3/getHotels", "").await;
        waiting.push(caller);
    }
    proxy.wait_for_metric("budget_waiting{app=\"default\"}", |waiting| waiting >= 20.0).await;
    proxy.signal(Signal::TERM);
    assert!(proxy.ended().await.success());
    assert!(cloudbeds.verdict(&client_id).calls < 30, "it did not wait for all of them");
    let mut cut = 0;
    for mut caller in waiting {
        cut += usize::from(caller.rest().await.0.is_empty());
    }
    assert!(cut > 0, "those who still waited have no answer");
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

#[tokio::test]
async fn calls_that_wait_while_their_key_becomes_another_apps_are_counted_for_that_one() {
    let (cloudbeds, known, _) = judged(Protocols::Both).await;
    let apps =
        "apps:\n  old: { client_id: old, requests_per_second: 2 }\n  new: { client_id: new, requests_per_second: 1 }";
    let proxy =
        Proxy::to(&cloudbeds, &known).config("limits: { max_wait: 30s }").config(apps).log("info").start().await;
    let key = &known[0].key;
    let calls = together((0..8).map(|_| hotels(&proxy, "1001")));
    let replaced = async {
        // Two went at once, and two have their turn in each of the next seconds.
        proxy.wait_for_metric("budget_waiting{app=\"old\"}", |waiting| waiting == 6.0).await;
        proxy.write_keys(&format!("\"1001\": {{ key: {key}, app: new }}\n"));
    };
    let (answers, ()) = tokio::join!(calls, replaced);
    assert!(answers.iter().all(|answer| answer.status == 200));
    // Of two that come over in a second, one waits for another.
    let waits = proxy.metric("budget_waits_total{app=\"new\"}").await;
    assert!((2.0..=6.0).contains(&waits), "{waits}");
}
