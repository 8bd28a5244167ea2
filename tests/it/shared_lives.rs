//! What replicas tell each other of keys through a real Redis, where they share no disk.

use std::path::Path;
use std::time::Duration;

use cloudbeds_auth_proxy::sandbox::{Hotel, Protocols, Sandbox};

use crate::harness::{Proxy, Redis, WallClock, cloudbeds};
use crate::life_state::used_before;

/// A dead key is not asked about again while a test runs.
const LATER: &str = "keys: { file: keys.yaml, poll: 1h, cool_down: { min: 1h, max: 1h } }";

/// The harness has none otherwise.
const LIMITS: &str = "limits: { max_wait: 60s }";

async fn replica(cloudbeds: &Sandbox, hotels: &[Hotel], redis: &Redis) -> Proxy {
    let proxy = Proxy::to(cloudbeds, hotels).config(LATER).config(LIMITS).config(&redis.config()).start().await;
    proxy.wait_for_metric("shared_up{app=\"default\"}", |up| up == 1.0).await;
    proxy
}

fn probes(cloudbeds: &Sandbox) -> usize {
    cloudbeds.requests().iter().filter(|seen| seen.target.ends_with("/userinfo")).count()
}

async fn until_refused(proxy: &Proxy) {
    let begun = std::time::Instant::now();
    while proxy.get("/api/v1.3/getRooms").property("1001").send().await.status != 424 {
        assert!(begun.elapsed() < crate::harness::PATIENCE, "it is never refused");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the replica knows, by what it says of its keys: no call shows it.
async fn until_rejected(proxy: &Proxy) {
    proxy.wait_for_metric("key_verdicts{verdict=\"rejected\"}", |keys| keys == 1.0).await;
}

#[tokio::test]
async fn a_key_that_one_replica_finds_dead_is_dead_at_all_of_them_without_a_call() {
    let Some(mut redis) = Redis::start() else { return };
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let one = replica(&cloudbeds, &hotels, &redis).await;
    let two = replica(&cloudbeds, &hotels, &redis).await;
    cloudbeds.revoke(&hotels[0].key);
    until_refused(&one).await;
    until_rejected(&two).await;
    let calls = cloudbeds.requests().len();
    let refused = two.get("/api/v1.3/getRooms").property("1001").send().await;
    refused.assert_refused("key_rejected");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((3300..=4320).contains(&wait), "the cool-down is the one that replica began: {wait}");
    assert_eq!((cloudbeds.requests().len(), probes(&cloudbeds)), (calls, 1));
    assert_eq!(two.get("/api/v1.3/getRooms").property("1002").send().await.status, 200);
    // One that starts later reads it, and so it does from an empty Redis that the others have told again.
    let three = replica(&cloudbeds, &hotels, &redis).await;
    until_rejected(&three).await;
    redis.start_again();
    let four = replica(&cloudbeds, &hotels, &redis).await;
    until_rejected(&four).await;
    assert_eq!(probes(&cloudbeds), 1);
    // What is told names keys, and holds none.
    for hotel in &hotels {
        assert!(!redis.call(&["HVALS", "{cbap:lives}:records"]).contains(&hotel.key[5..]));
    }
}

#[tokio::test]
async fn an_idle_key_is_kept_alive_by_one_replica_for_all() {
    let Some(redis) = Redis::start() else { return };
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let keep_alive = "keys: { file: keys.yaml, keep_alive: true }";
    let start = async || {
        let key = hotels[0].key.clone();
        let seed = move |directory: &Path| used_before(&directory.join("keys.state.json"), &key, 22);
        Proxy::to(&cloudbeds, &hotels)
            .config(keep_alive)
            .config(LIMITS)
            .config(&redis.config())
            .before(seed)
            .start()
            .await
    };
    let (one, two) = (start().await, start().await);
    for proxy in [&one, &two] {
        proxy.wait_for_metric("key_verdicts{verdict=\"active\"}", |keys| keys == 1.0).await;
    }
    assert_eq!(probes(&cloudbeds), 1, "each of them was due");
}

#[tokio::test]
async fn without_redis_each_replica_finds_out_for_itself() {
    let Some(mut redis) = Redis::start() else { return };
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let one = replica(&cloudbeds, &hotels, &redis).await;
    let two = replica(&cloudbeds, &hotels, &redis).await;
    for proxy in [&one, &two] {
        // What a replica may start without Redis it must have been told before.
        proxy.wait_for_metric("shared_share{app=\"default\"}", |share| share >= 1.0).await;
    }
    redis.kill();
    cloudbeds.revoke(&hotels[0].key);
    for proxy in [&one, &two] {
        until_refused(proxy).await;
    }
    assert_eq!(probes(&cloudbeds), 2);
}

#[tokio::test]
async fn a_replica_whose_clock_is_weeks_off_keeps_to_itself_what_it_knows_of_keys() {
    let (Some(redis), Some(clock)) = (Redis::start(), WallClock::off_by("+40d")) else { return };
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let builder = Proxy::to(&cloudbeds, &hotels).config(LATER).config(LIMITS).config(&redis.config());
    let wrong = builder.by(&clock.words()).start().await;
    let told =
        || wrong.log().contains("this machine are more than a day apart; what this replica learns").then_some(());
    wrong.wait_for("it is told", told).await;
    assert!(redis.command("EXISTS {cbap:lives}:records").starts_with(":0"), "it tells nothing of keys");
    let right = replica(&cloudbeds, &hotels, &redis).await;
    cloudbeds.revoke(&hotels[0].key);
    until_refused(&right).await;
    // More than the pause after which it tries again.
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(wrong.metric("key_verdicts{verdict=\"rejected\"}").await, 0.0);
    assert!(!wrong.log().contains("Redis is there: replicas know"));
    clock.set("+0");
    until_rejected(&wrong).await;
    wrong.wait_for_event("Redis is there: replicas know of each other's keys").await;
}
