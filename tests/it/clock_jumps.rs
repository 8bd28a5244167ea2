//! The wall clock of a running proxy is set, weeks ahead and back: what lasts is not counted by it, and what is dated by it
//! is dated anew.

use std::time::{Duration, Instant, SystemTime};

use cloudbeds_auth_proxy::keys::state;
use cloudbeds_auth_proxy::sandbox::{Protocols, Sandbox, bulk};
use rustix::process::Signal;

use crate::harness::wire::get;
use crate::harness::{Caller, Proxy, WallClock, cloudbeds, together, until};

const DETAILS: &str = "/api/v1.3/getHotelDetails";

/// Starts a second with the budget of [`while_the_clock_is_set_weeks_ahead_and_back_no_request_fails`].
const GRANTED: usize = 40;

fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

/// Sends calls of two hotels, a dozen at a time, until `end`; how many were answered, each with 200.
async fn traffic(proxy: &Proxy, end: Instant) -> usize {
    let caller = async |property| {
        let mut answered = 0;
        while Instant::now() < end {
            let answer = proxy.get(DETAILS).property(property).send().await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            answered += 1;
        }
        answered
    };
    together(["1001", "1002"].into_iter().cycle().take(12).map(caller)).await.into_iter().sum()
}

/// The hour in which the newest line of the log is dated.
fn hour(proxy: &Proxy) -> String {
    proxy.access().pop().unwrap()["timestamp"].as_str().unwrap()[..13].to_owned()
}

#[tokio::test]
async fn while_the_clock_is_set_weeks_ahead_and_back_no_request_fails() {
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let Some(clock) = WallClock::off_by("+0") else { return };
        let (cloudbeds, hotels) = cloudbeds(protocols).await;
        let limits = format!("limits: {{ requests_per_second: {GRANTED} }}\nclient: {{ head_timeout: 1m }}");
        let proxy = Proxy::to(&cloudbeds, &hotels).config(&limits).log("info").by(&clock.words()).start().await;

        // An answer that is half read, one that has not begun, a body that is half sent, half a head, and nothing at all.
        let bytes = 64 << 20;
        let (mut download, mut slow) = (Caller::connect(&proxy).await, Caller::connect(&proxy).await);
        download.head("GET", &format!("/sandbox/download?bytes={bytes}"), "").await;
        assert!(download.answer_head().await.starts_with("HTTP/1.1 200 "));
        slow.head("GET", "/sandbox/slow?first_byte_ms=3000", "").await;
        let mut upload = Caller::connect(&proxy).await;
        upload.head("POST", "/sandbox/upload", "content-length: 8\r\n").await;
        upload.write("half").await;
        let (mut begun, mut idle) = (proxy.connect().await, proxy.connect().await);
        let request = get(DETAILS, "1001");
        begun.send(&request[..20]).await;
        assert_eq!(idle.get(DETAILS, "1001").await.status, 200);

        let (mut read, mut answered, mut hours) = (Vec::new(), 0, Vec::new());
        let began = Instant::now();
        for offset in ["+5h", "+3d", "+40d", "-20h", "+40d", "-5h", "+0"] {
            clock.set(offset);
            answered += traffic(&proxy, Instant::now() + Duration::from_millis(600)).await;
            read.extend(download.some(1 << 20).await);
            hours.push(hour(&proxy));
        }
        let most = GRANTED * (began.elapsed().as_secs_f64().ceil() as usize + 1);
        assert!(hours.windows(2).all(|hours| hours[0] != hours[1]), "it was set: {hours:?}");
        assert!((most / 3..=most).contains(&answered), "{answered} calls, of {most} at most");

        assert!(slow.answer_head().await.starts_with("HTTP/1.1 200 "));
        upload.write("full").await;
        assert!(upload.answer_head().await.starts_with("HTTP/1.1 200 "));
        begun.send(&request[20..]).await;
        assert_eq!(begun.answer().await.status, 200);
        assert_eq!(idle.get(DETAILS, "1001").await.status, 200);
        while read.len() < bytes {
            read.extend(download.some(1 << 20).await);
        }
        assert!(read == bulk::pattern(bytes as u64).flatten().collect::<Vec<u8>>(), "it is what was sent");
        for series in ["panics_total", "access_lines_lost_total", "requests_unfinished_total{end=\"cut\"}"] {
            assert_eq!(proxy.metric(series).await, 0.0, "{series}");
        }
    }
}

/// What the admin listener says of all keys.
async fn told(proxy: &Proxy) -> Vec<serde_json::Value> {
    proxy.admin("/api/keys").await.json()["keys"].as_array().unwrap().clone()
}

async fn all_are(proxy: &Proxy, verdict: &str) -> bool {
    told(proxy).await.iter().all(|key| key["verdict"] == verdict)
}

/// The keep-alive calls and questions about keys that Cloudbeds has seen.
fn userinfo(cloudbeds: &Sandbox) -> usize {
    cloudbeds.requests().iter().filter(|seen| seen.target == "/api/v1.3/userinfo").count()
}

#[tokio::test]
async fn keys_outlive_a_clock_that_was_weeks_ahead_and_nothing_of_it_remains() {
    let Some(clock) = WallClock::off_by("+0") else { return };
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let keep_alive = "keys: { file: keys.yaml, poll: 1h, keep_alive: true }";
    let mut proxy = Proxy::to(&cloudbeds, &hotels).config(keep_alive).by(&clock.words()).start().await;
    for hotel in &hotels {
        assert_eq!(proxy.get(DETAILS).property(&hotel.property.to_string()).send().await.status, 200);
    }
    // Uses are collected every ten seconds; a minute passes.
    clock.set("+1m");
    until("all keys were used", async || all_are(&proxy, "active").await).await;
    assert_eq!(userinfo(&cloudbeds), 0, "nothing is idle");

    // After 40 days none was used for 40 days, as it seems; none is dead, and each is used once in our own name.
    clock.set("+40d");
    assert_eq!(proxy.get(DETAILS).property("1001").send().await.status, 200);
    until("all keys are used again", async || all_are(&proxy, "active").await).await;
    assert!(userinfo(&cloudbeds) <= hotels.len(), "once each");
    assert!(userinfo(&cloudbeds) >= hotels.len() - 1, "but for the one that its app has used");
    // A 401 that means nothing: it is asked about, and then for some seconds nothing more is heard of the key.
    let asked = userinfo(&cloudbeds);
    assert_eq!(proxy.get("/sandbox/fail?kind=revoked").property("1002").send().await.status, 401);
    until("it is asked about", async || userinfo(&cloudbeds) > asked).await;

    clock.set("+0");
    proxy.wait_for_event("the clock was set back: times of keys that have not come yet are set back with it").await;
    for key in told(&proxy).await {
        assert_eq!((&key["verdict"], &key["idle_days"], &key["age_days"]), (&"active".into(), &0.into(), &0.into()));
        assert!(key["last_used"].as_u64().unwrap() <= now(), "{key}");
    }
    // It dies now, by the right clock.
    cloudbeds.revoke(&hotels[1].key);
    until("the dead key is known", async || proxy.get(DETAILS).property("1002").send().await.status == 424).await;
    let refused = proxy.get(DETAILS).property("1002").send().await;
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() <= 2 * 60 * 60);
    assert_eq!(proxy.get(DETAILS).property("1001").send().await.status, 200);

    proxy.signal(Signal::TERM);
    assert!(proxy.ended().await.success());
    let state = state::read(&proxy.path("keys.state.json")).unwrap();
    assert_eq!(state.keys.len(), hotels.len());
    for record in state.keys.values() {
        let times = [Some(record.first_seen), record.last_used, record.accepted, record.kept_alive];
        let judged = [Some(record.judgement.judged), record.judgement.dead.map(|dead| dead.since)];
        assert!(times.into_iter().chain(judged).flatten().all(|time| time.0 <= now()), "{record:?}");
    }
    assert_eq!(state.keys.values().filter(|record| record.judgement.dead.is_some()).count(), 1);
}
