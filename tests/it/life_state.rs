//! The state file of a running proxy: what outlives it, however it ends, and what is wrong with it that must not matter.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use cloudbeds_auth_proxy::keys::state;
use cloudbeds_auth_proxy::sandbox::Protocols;
use cloudbeds_auth_proxy::secret::{ApiKey, Fingerprint};
use rustix::process::Signal;

use crate::harness::{Builder, Proxy, cloudbeds};

const DAY: u64 = 24 * 60 * 60;

fn name(key: &str) -> Fingerprint {
    ApiKey::parse(key).unwrap().fingerprint()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The state file that a proxy keeps beside its keys.
fn file(proxy: &Proxy) -> PathBuf {
    proxy.path("keys.state.json")
}

/// Writes a state in which the key was used last so many days ago.
pub(crate) fn used_before(path: &Path, key: &str, days: u64) {
    let then = now() - days * DAY;
    let record = serde_json::json!({ "properties": ["1001"], "first_seen": then, "last_used": then });
    let state = serde_json::json!({ "format": 1, "keys": { name(key).to_string(): record } });
    std::fs::write(path, state.to_string()).unwrap();
}

#[tokio::test]
async fn the_last_use_is_written_down_without_the_key() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let proxy = Proxy::to(&cloudbeds, &hotels).start().await;
    assert_eq!(proxy.get("/api/v1.3/getRooms").property("1001").send().await.status, 200);
    let mut proxy = proxy;
    // The orderly end writes what the last minute brought.
    proxy.signal(Signal::TERM);
    assert!(proxy.ended().await.success());
    let state = state::read(&file(&proxy)).unwrap();
    let record = state.get(name(&hotels[0].key)).unwrap();
    assert!(now() - record.last_used.unwrap().0 < 60);
    assert_eq!(state.get(name(&hotels[1].key)).unwrap().last_used, None);
    let text = std::fs::read_to_string(file(&proxy)).unwrap();
    for secret in &proxy.secrets {
        assert!(!text.contains(secret.strip_prefix("cbat_").unwrap()));
    }
}

#[tokio::test]
async fn keys_list_tells_what_the_proxy_has_written_down() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let key = hotels[0].key.clone();
    let seed = move |directory: &Path| used_before(&directory.join("keys.state.json"), &key, 21);
    let (directory, _, _) = Proxy::to(&cloudbeds, &hotels).before(seed).command();
    let ran = std::process::Command::new(env!("CARGO_BIN_EXE_cloudbeds-auth-proxy"))
        .args(["keys", "list", "--json", "--config"])
        .arg(directory.path().join("config.yaml"))
        .output()
        .unwrap();
    let rows: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((&rows[0]["verdict"], &rows[0]["idle_days"]), (&"idle".into(), &21.into()), "{rows}");
    assert!(rows[1]["verdict"].is_null(), "nothing is known of the other one: {rows}");
}

/// A second proxy on the files of a first one.
fn again(builder: Builder, from: &Proxy) -> Builder {
    let state = std::fs::read(file(from)).unwrap();
    builder.before(move |directory| std::fs::write(directory.join("keys.state.json"), state).unwrap())
}

#[tokio::test]
async fn a_kill_does_not_bring_a_dead_key_back() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let mut proxy = Proxy::to(&cloudbeds, &hotels).start().await;
    cloudbeds.revoke(&hotels[0].key);
    let started = std::time::Instant::now();
    while proxy.get("/api/v1.3/getRooms").property("1001").send().await.status != 424 {
        assert!(started.elapsed() < crate::harness::PATIENCE);
    }
    // The state is written at most once a minute; the first time is at the start, so this end is an orderly one …
    proxy.signal(Signal::TERM);
    proxy.ended().await;
    let mut next = again(Proxy::to(&cloudbeds, &hotels), &proxy).start().await;
    let calls = cloudbeds.requests().len();
    assert_eq!(next.get("/api/v1.3/getRooms").property("1001").send().await.status, 424);
    // … and this one is not.
    next.signal(Signal::KILL);
    next.ended().await;
    let last = again(Proxy::to(&cloudbeds, &hotels), &next).start().await;
    assert_eq!(last.get("/api/v1.3/getRooms").property("1001").send().await.status, 424);
    assert_eq!(cloudbeds.requests().len(), calls);
}

#[tokio::test]
async fn an_idle_key_is_shown_and_used_when_keep_alive_is_on() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    for (days, verdict) in [(21, "idle"), (26, "expiring")] {
        let key = hotels[0].key.clone();
        let seeded = Proxy::to(&cloudbeds, &hotels)
            .before(move |directory| used_before(&directory.join("keys.state.json"), &key, days));
        let proxy = seeded.start().await;
        let series = format!("key_idle_seconds{{property=\"1001\",verdict=\"{verdict}\"}}");
        proxy.wait_for_metric(&series, |idle| idle == (days * DAY) as f64).await;
        proxy
            .wait_for("the warning", || {
                proxy.events().into_iter().find(|event| event["level"] == "WARN" && event["key.idle_days"] == days)
            })
            .await;
        assert!(cloudbeds.requests().is_empty(), "keep_alive is off");
    }
    // Two replicas share a state.
    let shared = tempfile::tempdir().unwrap();
    let path = shared.path().join("shared.json");
    used_before(&path, &hotels[0].key, 22);
    let config = format!("keys: {{ file: keys.yaml, keep_alive: true, state_file: {} }}", path.display());
    let one = Proxy::to(&cloudbeds, &hotels).config(&config).start().await;
    let two = Proxy::to(&cloudbeds, &hotels).config(&config).start().await;
    one.wait_for("the call", || (cloudbeds.requests().len() == 1).then_some(())).await;
    let seen = cloudbeds.requests().pop().unwrap();
    assert_eq!(
        (&*seen.target, seen.header("authorization")),
        ("/api/v1.3/userinfo", vec![format!("Bearer {}", hotels[0].key).as_bytes()])
    );
    two.wait_for_metric("key_verdicts{verdict=\"idle\"}", |_| true).await;
    for proxy in [one, two] {
        let mut proxy = proxy;
        proxy.signal(Signal::TERM);
        proxy.ended().await;
    }
    assert_eq!(cloudbeds.requests().len(), 1);
    let record = state::read(&path).unwrap();
    assert!(now() - record.get(name(&hotels[0].key)).unwrap().last_used.unwrap().0 < 60);
}

#[tokio::test]
async fn a_state_file_that_cannot_be_used_keeps_nobody_from_serving() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let damage =
        |text: &'static str| move |directory: &Path| std::fs::write(directory.join("keys.state.json"), text).unwrap();
    let scenes: [(Builder, &str, bool); 4] = [
        (Proxy::to(&cloudbeds, &hotels).before(damage("{\"format\":1,")), "is damaged and was set aside", true),
        (Proxy::to(&cloudbeds, &hotels).before(damage("{\"format\":2}")), "newer version", false),
        (
            Proxy::to(&cloudbeds, &hotels).env("KEYS__STATE_FILE", "/proc/none/state.json"),
            "choose another keys.state_file",
            false,
        ),
        (Proxy::to(&cloudbeds, &hotels).env("KEYS__STATE_FILE", "off"), "", false),
    ];
    for (builder, words, replaced) in scenes {
        let proxy = builder.start().await;
        assert_eq!(proxy.get("/api/v1.3/getRooms").property("1001").send().await.status, 200, "{words}");
        if !words.is_empty() {
            let told = |event: &serde_json::Value| event["message"].as_str().is_some_and(|text| text.contains(words));
            let event = proxy.wait_for(words, || proxy.events().into_iter().find(told)).await;
            assert_eq!(event["level"], "WARN");
        }
        if replaced {
            proxy.wait_for("the new one", || state::read(&file(&proxy)).ok()).await;
        }
    }
}

#[tokio::test]
async fn times_of_a_clock_that_was_ahead_do_not_outlast_it() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let future = now() + 100 * DAY;
    let record = |property: &str| {
        serde_json::json!({ "properties": [property], "first_seen": future, "last_used": future, "accepted": future,
                            "kept_alive": future, "judgement": { "judged": future } })
    };
    let keys = [(&hotels[0].key, record("1001")), (&hotels[1].key, record("1002"))];
    let keys: serde_json::Map<_, _> = keys.into_iter().map(|(key, record)| (name(key).to_string(), record)).collect();
    let state = serde_json::json!({ "format": 1, "keys": keys }).to_string();
    let seed = move |directory: &Path| std::fs::write(directory.join("keys.state.json"), state).unwrap();
    let mut proxy = Proxy::to(&cloudbeds, &hotels).before(seed).start().await;
    assert_eq!(proxy.get("/api/v1.3/getRooms").property("1001").send().await.status, 200);
    // A verdict of today counts, although one of the future was there.
    cloudbeds.revoke(&hotels[1].key);
    let started = std::time::Instant::now();
    while proxy.get("/api/v1.3/getRooms").property("1002").send().await.status != 424 {
        assert!(started.elapsed() < crate::harness::PATIENCE);
    }
    proxy.signal(Signal::TERM);
    assert!(proxy.ended().await.success());
    let state = state::read(&file(&proxy)).unwrap();
    for hotel in &hotels[..2] {
        let record = state.get(name(&hotel.key)).unwrap();
        assert!(
            record.last_used.unwrap().0 <= now() && record.first_seen.0 <= now() && record.judgement.judged.0 <= now()
        );
    }
    assert!(state.get(name(&hotels[1].key)).unwrap().judgement.dead.is_some());
}
