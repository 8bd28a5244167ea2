//! Budgets that replicas share through a real Redis: what Cloudbeds sees of all of them together.
//!
//! Each replica is a process of its own. The sandbox's judge counts every call by its arrival, in every second.

use std::cell::Cell;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use cloudbeds_auth_proxy::sandbox::{self, Hotel, Protocols, Rule, Sandbox, Settings, Verdict};

use rustix::process::Signal;

use super::harness::redis::password;
use super::harness::{Answer, Builder, Proxy, Pulse, Redis, Slow, WallClock, certificate, together};

/// What all replicas together are granted, and the judge allows.
const GRANTED: usize = 10;

const UP: &str = "shared_up{app=\"default\"}";

/// What docs/budgets.md says an ACL user needs, and no more.
const PERMITTED: &str = "~{cbap:* -@all +info +evalsha +script|load +time +hgetall +hset +hdel +pexpire \
     +get +set +hget +zadd +zscore +zrangebyscore +expire";

/// How many seconds of all these tests together may say nothing, since this machine stood still in them.
const INCONCLUSIVE_MAX: usize = 2;

static INCONCLUSIVE: AtomicUsize = AtomicUsize::new(0);

/// A sandbox with a judge, and replicas before it.
pub(super) struct Scene {
    pub(super) cloudbeds: Sandbox,
    client_id: String,
    hotels: Vec<Hotel>,
    pub(super) replicas: Vec<Proxy>,
    pulse: Pulse,
    /// About when the judge saw the first call.
    first: Cell<Instant>,
    /// How many excesses were looked at, and the last that a standstill excused.
    judged: Cell<usize>,
    excused: Cell<Option<Duration>>,
}

impl Scene {
    pub(super) async fn new(redis: &Redis, replicas: usize) -> Self {
        let mut scene = Self::without_replicas().await;
        let shared = redis.config();
        let started = together((0..replicas).map(|_| scene.replica(&shared))).await;
        scene.replicas = started;
        scene
    }

    async fn without_replicas() -> Self {
        let settings = Settings { protocols: Protocols::Both, strict: Some(GRANTED), ..Settings::demo() };
        let (hotels, client_id) = (settings.hotels.clone(), settings.apps[0].client_id.clone());
        let cloudbeds = sandbox::start(settings).await.unwrap();
        Self {
            cloudbeds,
            client_id,
            hotels,
            replicas: Vec::new(),
            pulse: Pulse::start(),
            first: Cell::new(Instant::now()),
            judged: Cell::new(0),
            excused: Cell::new(None),
        }
    }

    fn builder(&self, shared: &str) -> Builder {
        let limits = "limits: { max_wait: 60s }\nworkers: 1";
        Proxy::to(&self.cloudbeds, &self.hotels).config(limits).config(shared).log("info")
    }

    async fn replica(&self, shared: &str) -> Proxy {
        self.builder(shared).start().await
    }

    /// Waits until each replica shares, and knows of all of them.
    pub(super) async fn together(&self) {
        for replica in &self.replicas {
            replica.wait_for_metric(UP, |up| up == 1.0).await;
            let all = self.replicas.len() as f64;
            replica.wait_for_metric("shared_replicas{app=\"default\"}", |members| members == all).await;
        }
        // Shares have been told once each replica has reported again.
        let shares = async || {
            together(self.replicas.iter().map(|replica| replica.metric("shared_share{app=\"default\"}"))).await
        };
        let begun = Instant::now();
        while shares().await.iter().sum::<f64>() < GRANTED.min(self.replicas.len()) as f64 {
            assert!(begun.elapsed() < Duration::from_secs(20));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.may_begin();
    }

    /// Every replica has a connection to Cloudbeds, and the second in which it was made is over.
    pub(super) async fn warm_up(&self, property: &str) {
        let served = together(self.replicas.iter().map(|replica| many(replica, property, 1))).await;
        assert_eq!(served, vec![1; self.replicas.len()]);
        seconds(2).await;
    }

    fn may_begin(&self) {
        if self.verdict().calls == 0 {
            self.first.set(Instant::now());
        }
    }

    /// Every replica has more requests than it may send, all the time, until `event` is over. Out: what came of it, and
    /// how many calls were answered.
    pub(super) async fn busy<T>(&self, event: impl Future<Output = T>) -> (T, usize) {
        self.busy_with(6, event).await
    }

    /// The same with so many requests at a time of each.
    async fn busy_with<T>(&self, at_a_time: usize, event: impl Future<Output = T>) -> (T, usize) {
        self.may_begin();
        let before = self.verdict().calls;
        let over = Cell::new(false);
        let hogs = self.replicas.iter().flat_map(|replica| std::iter::repeat_n(replica, at_a_time));
        let hogs = together(hogs.map(|replica| async {
            while !over.get() {
                hotels(replica, "1001").await;
            }
        }));
        let event = async {
            let event = event.await;
            over.set(true);
            event
        };
        let (event, _) = tokio::join!(event, hogs);
        (event, (self.verdict().calls - before) as usize)
    }

    pub(super) async fn all(&self, up: f64) {
        for replica in &self.replicas {
            replica.wait_for_metric(UP, |now| now == up).await;
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        self.cloudbeds.verdict(&self.client_id)
    }

    /// No second had too many calls. One in which this machine stood still says nothing, and is no excuse for another
    /// one; nor are many of them.
    pub(super) fn assert_within(&self, what: &str) {
        let excesses = self.cloudbeds.excesses(&self.client_id);
        let seen = self.judged.replace(excesses.len());
        for (at, calls) in excesses.into_iter().skip(seen) {
            let (from, until) = (at.saturating_sub(Duration::from_millis(1200)), at + Duration::from_millis(400));
            let stood_still = self.pulse.stood_still(self.first.get() + from, self.first.get() + until);
            let Some(long) = stood_still else { panic!("{what}: {calls} calls in the second up to {at:?}") };
            println!("INCONCLUSIVE: {what}: {calls} calls up to {at:?}, but this machine stood still for {long:?}");
            // Those of one standstill are one.
            if self.excused.get().is_none_or(|excused| at > excused + Duration::from_secs(2)) {
                self.excused.set(Some(at));
                let so_far = INCONCLUSIVE.fetch_add(1, Ordering::Relaxed) + 1;
                assert!(so_far <= INCONCLUSIVE_MAX, "{what}: this machine stands still too often to say anything");
            }
        }
    }
}

pub(super) async fn hotels(proxy: &Proxy, property: &str) -> Answer {
    proxy.get("/api/v1.3/getHotels").property(property).send().await
}

async fn many(proxy: &Proxy, property: &str, count: usize) -> usize {
    let answers = together((0..count).map(|_| hotels(proxy, property))).await;
    answers.iter().filter(|answer| answer.status == 200).count()
}

#[tokio::test]
async fn one_two_and_eight_replicas_together_never_exceed_one_budget_and_use_it() {
    let Some(redis) = Redis::start() else { return };
    for replicas in [1, 2, 8] {
        redis.command("FLUSHALL");
        let scene = Scene::new(&redis, replicas).await;
        scene.together().await;
        scene.warm_up("1002").await;
        let begun = Instant::now();
        let each = 80 / replicas;
        let served = together(scene.replicas.iter().map(|replica| many(replica, "1001", each))).await;
        let took = begun.elapsed();
        assert_eq!(served.iter().sum::<usize>(), 80);
        scene.assert_within(&format!("{replicas} replicas"));
        let used = (80 - GRANTED) as f64 / took.as_secs_f64() / GRANTED as f64;
        println!("{replicas} replicas used {used:.3} of the budget");
        // What is lost of it is the margin, and the time that a place needs to change hands; and here what this machine
        // needs to answer. `shared_clock` asserts the rest.
        assert!(used > 0.9, "{replicas} replicas used {used} of the budget");
    }
}

#[tokio::test]
async fn bursts_at_eight_replicas_and_restarts_of_redis_and_of_replicas_bring_no_second_too_many() {
    let Some(mut redis) = Redis::start() else { return };
    let mut scene = Scene::new(&redis, 8).await;
    scene.together().await;
    // At so many replicas, so many at each, at odd distances, so that they meet the window in different places.
    let bursts = async |scene: &Scene, bursts: &[(usize, usize, u64)]| {
        for (replicas, count, pause) in bursts.iter().copied() {
            let served = together(scene.replicas[..replicas].iter().map(|replica| many(replica, "1001", count))).await;
            assert_eq!(served, vec![count; replicas]);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    };
    bursts(&scene, &[(8, 1, 700), (1, 9, 350), (3, 4, 130), (8, 1, 60), (8, 2, 0)]).await;
    scene.assert_within("bursts at eight");

    let ((), served) = scene
        .busy_with(2, async {
            redis.kill();
            scene.all(0.0).await;
            seconds(2).await;
            redis.start_again();
            scene.all(1.0).await;
            seconds(1).await;
        })
        .await;
    scene.assert_within("Redis is lost to eight, and back empty");
    assert!(served > 20, "{served}");

    // It is another one before anybody has missed it.
    redis.start_again();
    bursts(&scene, &[(8, 1, 40), (2, 3, 0)]).await;
    redis.start_again();
    for replica in &mut scene.replicas[6..] {
        replica.kill();
        replica.restart().await;
    }
    bursts(&scene, &[(8, 1, 300), (8, 2, 0)]).await;
    scene.all(1.0).await;
    scene.assert_within("another Redis, and two of eight replicas once more");
}

#[tokio::test]
async fn a_hog_has_what_seven_replicas_without_work_do_not_use() {
    let Some(redis) = Redis::start() else { return };
    let scene = Scene::new(&redis, 8).await;
    scene.together().await;
    // Whoever was at work lately leases ahead.
    scene.warm_up("1002").await;
    let begun = Instant::now();
    assert_eq!(many(&scene.replicas[0], "1001", 60).await, 60);
    let used = (60 - GRANTED) as f64 / begun.elapsed().as_secs_f64() / GRANTED as f64;
    println!("a hog beside seven replicas without work used {used:.3} of the budget");
    assert!(used > 0.85, "{used}");
    scene.assert_within("a hog beside seven");
}

pub(super) async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test]
async fn while_redis_is_gone_frozen_full_read_only_slow_or_mad_each_replica_has_its_share() {
    let Some(mut redis) = Redis::start() else { return };
    let scene = Scene::new(&redis, 3).await;
    scene.together().await;
    scene.busy(seconds(1)).await;
    type Act = fn(&mut Redis);
    let troubles: [(&str, Act, Act); 6] = [
        ("frozen", |redis| redis.freeze(), |redis| redis.thaw()),
        ("killed, then empty", |redis| redis.kill(), |redis| redis.start_again()),
        (
            "full",
            |redis| drop(redis.command("CONFIG SET maxmemory 1")),
            |redis| {
                redis.command("CONFIG SET maxmemory 0");
            },
        ),
        (
            "failing over",
            |redis| drop(redis.command("REPLICAOF 127.0.0.1 1")),
            |redis| {
                redis.command("REPLICAOF NO ONE");
            },
        ),
        (
            "mad",
            |redis| drop(redis.command("HSET {cbap:default}:budget state nonsense")),
            |redis| {
                redis.command("DEL {cbap:default}:budget");
            },
        ),
        ("another kind of data", |redis| drop(redis.command("CONFIG SET slowlog-max-len 1")), |_| {}),
    ];
    for (trouble, begin, end) in troubles {
        if trouble == "another kind of data" {
            redis.command("DEL {cbap:default}:budget");
            redis.command("SET {cbap:default}:budget x");
        }
        begin(&mut redis);
        let ((), served) = scene
            .busy(async {
                scene.all(0.0).await;
                seconds(3).await;
            })
            .await;
        scene.assert_within(trouble);
        println!("{trouble}: {served} calls in some 3 seconds");
        // Shares are 4, 3 and 3; all of the budget, once everybody knows that Redis is gone.
        assert!(served > 20, "{trouble}: {served}");
        if trouble == "another kind of data" {
            redis.command("DEL {cbap:default}:budget");
        }
        end(&mut redis);
        let ((), served) = scene
            .busy(async {
                scene.all(1.0).await;
                seconds(2).await;
            })
            .await;
        scene.assert_within(&format!("back from {trouble}"));
        println!("back from {trouble}: {served} calls in some 3 seconds");
        assert!(served > 15, "{trouble}: {served}");
    }
    for replica in &scene.replicas {
        let lost = |event: &&serde_json::Value| {
            let message = event["message"].as_str().unwrap_or("");
            // What becomes of keys is told apart from it.
            message.starts_with("Redis is lost") && message.contains("its own share")
        };
        // Told once in a minute at most.
        assert!((1..=2).contains(&replica.events().iter().filter(lost).count()), "{}", replica.log());
        assert!(replica.metric("shared_losses_total{app=\"default\"}").await >= 6.0);
    }
}

#[tokio::test]
async fn while_redis_answers_late_or_now_late_and_now_not_no_second_has_too_many() {
    let Some(redis) = Redis::start() else { return };
    let mut scene = Scene::new(&redis, 0).await;
    // Each replica has a way of its own: one may be late where another is not.
    let ways = [Slow::to(redis.address).await, Slow::to(redis.address).await, Slow::to(redis.address).await];
    for way in &ways {
        let shared = format!("shared: {{ redis: 'redis://{}' }}", way.address);
        scene.replicas.push(scene.replica(&shared).await);
    }
    scene.together().await;
    // At least, up to so many milliseconds more, and whether that is in time for all, for none, or for some.
    let paces =
        [(40, 0, Some(1.0)), (90, 60, None), (100, 0, None), (180, 0, Some(0.0)), (60, 240, None), (400, 0, Some(0.0))];
    for (least, jitter, up) in paces {
        let what = format!("answers that take {least} to {} ms", least + jitter);
        for way in &ways {
            way.takes(least, jitter);
        }
        let ((), served) = scene
            .busy(async {
                if let Some(up) = up {
                    scene.all(up).await;
                }
                seconds(4).await;
            })
            .await;
        scene.assert_within(&what);
        println!("{what}: {served} calls in some 4 seconds");
        assert!(served > 10, "{what}: {served}");
        // One of them is in time now, and the others are not.
        ways[0].takes(0, 0);
        let ((), served) = scene.busy(seconds(3)).await;
        scene.assert_within(&format!("{what}, but for one"));
        println!("{what}, but for one: {served} calls in some 3 seconds");
    }
    for way in &ways {
        way.takes(0, 0);
    }
    let ((), served) = scene
        .busy(async {
            scene.all(1.0).await;
            seconds(3).await;
        })
        .await;
    assert!(served > 24, "{served}");
    scene.assert_within("answers in time again");
}

#[tokio::test]
async fn a_replica_without_work_that_loses_redis_has_a_place_of_its_own_at_once() {
    let Some(mut redis) = Redis::start() else { return };
    let scene = Scene::new(&redis, 3).await;
    scene.together().await;
    // Each has had the time to ask for one.
    seconds(1).await;
    redis.kill();
    scene.all(0.0).await;
    let served = together(scene.replicas.iter().map(|replica| many(replica, "1001", 1))).await;
    assert_eq!(served, [1, 1, 1]);
    for replica in &scene.replicas {
        let line = replica.wait_for_access(|line| line["property"] == "1001").await;
        // Whoever has none waits for two seconds, until nobody can use what others held.
        assert!(line["queued_ms"].as_f64().unwrap_or(0.0) < 500.0, "{line}");
    }
    let ((), _) = scene.busy(seconds(4)).await;
    scene.assert_within("left alone without work");
}

#[tokio::test]
async fn a_replica_that_is_cut_off_and_those_that_are_not_stay_within_one_budget() {
    let Some(redis) = Redis::start() else { return };
    let mut scene = Scene::new(&redis, 1).await;
    for user in ["one", "two"] {
        let password = password();
        redis.command(&format!("ACL SETUSER {user} on >{password} {PERMITTED}"));
        let shared = format!("shared: {{ redis: 'redis://{user}@{}', password_file: redis.pw }}", redis.address);
        let builder = scene.builder(&shared).log("trace,mio=info,polling=info");
        scene.replicas.push(builder.redis_password(&password).start().await);
    }
    scene.together().await;
    for user in ["one", "two"] {
        // In the middle of work.
        let ((), served) = scene
            .busy(async {
                seconds(1).await;
                redis.command(&format!("ACL SETUSER {user} off"));
                redis.command(&format!("CLIENT KILL USER {user}"));
                seconds(5).await;
            })
            .await;
        scene.assert_within(&format!("{user} is cut off"));
        println!("{user} is cut off: {served} calls in some 6 seconds");
        let ups = together(scene.replicas.iter().map(|replica| replica.metric(UP))).await;
        assert_eq!(ups.iter().sum::<f64>(), if user == "one" { 2.0 } else { 1.0 });
    }
    let ((), _) = scene
        .busy(async {
            for user in ["two", "one"] {
                redis.command(&format!("ACL SETUSER {user} on"));
                seconds(1).await;
            }
            scene.all(1.0).await;
        })
        .await;
    scene.assert_within("all are back");
}

#[tokio::test]
async fn a_replica_that_says_goodbye_leaves_its_share_and_one_that_is_killed_keeps_it_until_it_is_back() {
    let Some(redis) = Redis::start() else { return };
    let mut scene = Scene::new(&redis, 3).await;
    scene.together().await;
    let mut leaver = scene.replicas.pop().unwrap();
    leaver.signal(Signal::TERM);
    assert!(leaver.ended().await.success());
    let shares = async |scene: &Scene| {
        let shares = scene.replicas.iter().map(|replica| replica.metric("shared_share{app=\"default\"}"));
        together(shares).await.iter().sum::<f64>()
    };
    scene.together().await;
    let begun = Instant::now();
    while shares(&scene).await < GRANTED as f64 {
        assert!(begun.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (_, served) = scene.busy(seconds(4)).await;
    assert!(served > 33, "{served} calls in 4 seconds");
    // Whoever is killed may as well have lost Redis, and be at work.
    let mut killed = scene.replicas.pop().unwrap();
    killed.kill();
    seconds(3).await;
    let (_, served) = scene.busy(seconds(4)).await;
    assert!((18..=28).contains(&served), "{served} calls in 4 seconds, of 5 a second");
    assert_eq!(scene.replicas[0].metric("shared_replicas{app=\"default\"}").await, 2.0);
    // Started again in its place, it takes its share up.
    killed.restart().await;
    scene.replicas.push(killed);
    scene.together().await;
    let (_, served) = scene.busy(seconds(4)).await;
    assert!(served > 33, "{served} calls in 4 seconds");
    scene.assert_within("goodbye, death and resurrection");
}

#[tokio::test]
async fn a_replica_that_is_killed_and_started_again_at_once_serves_within_seconds() {
    let Some(redis) = Redis::start() else { return };
    let mut scene = Scene::new(&redis, 1).await;
    scene.together().await;
    scene.busy(seconds(1)).await;
    scene.replicas[0].kill();
    scene.replicas[0].restart().await;
    scene.together().await;
    let (_, served) = scene.busy(seconds(4)).await;
    assert!(served > 33, "{served} calls in 4 seconds");
    assert_eq!(scene.replicas[0].metric("shared_replicas{app=\"default\"}").await, 1.0);
    scene.assert_within("killed and started again");
}

#[tokio::test]
async fn a_429_that_one_replica_gets_stops_all_of_them() {
    let Some(redis) = Redis::start() else { return };
    let scene = Scene::new(&redis, 2).await;
    scene.together().await;
    scene.cloudbeds.add_rule(Rule {
        property: None,
        path: String::new(),
        times: 1,
        room: "fail?kind=limit".to_owned(),
    });
    assert_eq!(hotels(&scene.replicas[0], "1001").await.status.as_u16(), 429);
    scene.replicas[1].wait_for_metric("budget_paused_seconds{app=\"default\"}", |paused| paused > 0.0).await;
    assert_eq!(hotels(&scene.replicas[1], "1001").await.status, 200);
    let line = scene.replicas[1].wait_for_access(|line| line["property"] == "1001").await;
    assert!(line["queued_ms"].as_f64().unwrap() > 100.0, "{line}");
    scene.busy(seconds(3)).await;
    scene.assert_within("after a 429");
}

#[tokio::test]
async fn over_tls_the_server_must_prove_itself() {
    let (root, files) = certificate::redis();
    let options = ["--tls-port", "PORT", "--tls-auth-clients", "no", "--tls-cert-file", "cert.pem"];
    let Some(redis) = Redis::with_files(&[&options[..], &["--tls-key-file", "key.pem"]].concat(), &files) else {
        return;
    };
    let scene = Scene::new(&redis, 0).await;
    let port = redis.address.port();
    let shared = format!("shared: {{ redis: 'rediss://localhost:{port}', ca_file: redis.pem }}");
    let proxy =
        scene.builder(&shared).before(move |at| std::fs::write(at.join("redis.pem"), root).unwrap()).start().await;
    proxy.wait_for_metric(UP, |up| up == 1.0).await;
    assert_eq!(hotels(&proxy, "1001").await.status, 200);
    // Without its root, nothing is sent there, and nothing starts.
    let shared = format!("limits: {{ max_wait: 0s }}\nworkers: 1\nshared: {{ redis: 'rediss://localhost:{port}' }}");
    let distrustful = Proxy::to(&scene.cloudbeds, &scene.hotels).config(&shared).log("info").start().await;
    let said = |event: &serde_json::Value| {
        let message = event["message"].as_str().unwrap_or_default();
        message.starts_with("Redis cannot be used: no trusted TLS connection").then_some(())
    };
    distrustful.wait_for("a warning", || distrustful.events().iter().find_map(said)).await;
    hotels(&distrustful, "1001").await.assert_refused("budget_exhausted");
}

#[tokio::test]
async fn a_configured_share_is_used_also_where_redis_was_never_there() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let mut scene = Scene::without_replicas().await;
    let shared = format!("shared: {{ redis: 'redis://{address}', fallback_share: 0.5 }}");
    scene.replicas = together((0..2).map(|_| scene.replica(&shared))).await;
    let ((), served) = scene.busy(seconds(6)).await;
    scene.assert_within("without Redis");
    assert!(served > 25, "{served}");
    assert_eq!(scene.replicas[0].metric(UP).await, 0.0);
}

#[tokio::test]
async fn places_of_replicas_that_may_start_without_redis_stay_free() {
    let Some(redis) = Redis::start() else { return };
    let mut scene = Scene::new(&redis, 0).await;
    let shared = format!("shared: {{ redis: '{}', fallback_share: 0.5 }}", redis.url());
    scene.replicas.push(scene.replica(&shared).await);
    scene.all(1.0).await;
    let ((), served) = scene.busy(seconds(4)).await;
    assert!((15..=28).contains(&served), "one of two may have 5 a second: {served} in some 5");
    scene.replicas.push(scene.replica(&shared).await);
    scene.all(1.0).await;
    let ((), served) = scene.busy(seconds(4)).await;
    assert!(served > 33, "{served}");
    scene.assert_within("two of two");
}

#[tokio::test]
async fn a_hog_at_one_replica_does_not_hold_up_a_hotel_at_another() {
    let Some(redis) = Redis::start() else { return };
    let scene = Scene::new(&redis, 2).await;
    scene.together().await;
    let begun = Instant::now();
    let hog = async {
        assert_eq!(many(&scene.replicas[0], "1001", 60).await, 60);
        begun.elapsed()
    };
    let other = async {
        seconds(1).await;
        for _ in 0..3 {
            assert_eq!(hotels(&scene.replicas[1], "1002").await.status, 200);
        }
        begun.elapsed()
    };
    let (hog, other) = tokio::join!(hog, other);
    println!("three turns by {other:?}, and the hog's sixty by {hog:?}");
    // One window each; behind the hog's queue the first of them would have been served when that was empty.
    assert!(other < hog, "{other:?}, {hog:?}");
    scene.assert_within("a hog");
}

#[tokio::test]
async fn replicas_that_call_an_app_by_other_names_share_the_budget_of_its_client_id() {
    let Some(redis) = Redis::start() else { return };
    let mut scene = Scene::new(&redis, 0).await;
    for name in ["main", "other"] {
        let apps = format!("apps: {{ {name}: {{ client_id: {} }} }}", scene.client_id);
        scene.replicas.push(scene.builder(&redis.config()).config(&apps).start().await);
    }
    for (replica, name) in scene.replicas.iter().zip(["main", "other"]) {
        replica.wait_for_metric(&format!("shared_replicas{{app=\"{name}\"}}"), |members| members == 2.0).await;
    }
    scene.busy(seconds(3)).await;
    scene.assert_within("two names of one client id");
}

#[tokio::test]
async fn of_a_cluster_any_node_can_be_named() {
    let bus = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let node = || Redis::with_files(&["--cluster-enabled", "yes", "--cluster-port", &bus()], &[]);
    let (Some(one), Some(other)) = (node(), node()) else { return };
    one.command("CLUSTER ADDSLOTSRANGE 0 16383");
    other.command("CONFIG SET cluster-require-full-coverage no");
    let bus = one.command("CONFIG GET cluster-port");
    let bus = bus.lines().rfind(|line| line.trim().parse::<u16>().is_ok()).unwrap().trim().to_owned();
    other.command(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", one.address.port()));
    let begun = Instant::now();
    while !other.command("GET {cbap:default}:budget").starts_with("-MOVED") {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", other.command("CLUSTER INFO"));
        seconds(1).await;
    }
    let scene = Scene::new(&other, 2).await;
    scene.together().await;
    assert_eq!(many(&scene.replicas[0], "1001", 30).await, 30);
    scene.assert_within("a cluster");
    assert!(one.command("EXISTS {cbap:default}:budget").starts_with(":1"));
}

#[tokio::test]
async fn replicas_get_places_in_the_proportion_of_the_hotels_that_wait_at_each() {
    let Some(redis) = Redis::start() else { return };
    let scene = Scene::new(&redis, 2).await;
    scene.together().await;
    let begun = Instant::now();
    let hog = async |replica: usize, property: &'static str| {
        let one = || async {
            let mut served = 0;
            while begun.elapsed() < Duration::from_secs(8) {
                served += usize::from(hotels(&scene.replicas[replica], property).await.status == 200);
            }
            served
        };
        together((0..10).map(|_| one())).await.iter().sum::<usize>()
    };
    let (one, two, three) = tokio::join!(hog(0, "1001"), hog(0, "1002"), hog(1, "1001"));
    println!("{one} and {two} at one replica, {three} at the other");
    let ratio = (one + two) as f64 / three as f64;
    assert!((1.4..=2.8).contains(&ratio), "two hotels at one replica, one at the other: {ratio}");
    scene.assert_within("two hogs and one");
}

#[tokio::test]
async fn when_the_servers_clock_is_set_no_second_has_too_many() {
    let Some(redis) = Redis::start() else { return };
    let scene = Scene::new(&redis, 2).await;
    scene.together().await;
    for hour in ["+", "-"] {
        // To the script it is the same whether its clock or its memory of it moves.
        let set = format!(
            "EVAL \"local key, state = KEYS[1], cjson.decode(redis.call('HGET', KEYS[1], 'state')); \
             state.seen = state.seen {hour} 3600000; return redis.call('HSET', key, 'state', cjson.encode(state))\" 1 \
             {{cbap:default}}:budget"
        );
        let ((), _) = scene
            .busy(async {
                seconds(1).await;
                assert!(redis.command(&set).starts_with(":0"));
                scene.all(0.0).await;
                scene.all(1.0).await;
                seconds(2).await;
            })
            .await;
        scene.assert_within(hour);
    }
}

#[tokio::test]
async fn while_the_clocks_of_replicas_are_hours_apart_or_set_no_second_has_too_many() {
    let Some(mut redis) = Redis::start() else { return };
    let (Some(behind), Some(right), Some(ahead)) =
        (WallClock::off_by("-9h"), WallClock::off_by("+0"), WallClock::off_by("+13h"))
    else {
        return;
    };
    let mut scene = Scene::without_replicas().await;
    let shared = redis.config();
    let by = |scene: &Scene, clock: &WallClock| scene.builder(&shared).by(&clock.words()).start();
    for clock in [&behind, &right, &ahead] {
        scene.replicas.push(by(&scene, clock).await);
    }
    scene.together().await;
    // They are what they should be: each replica's lines have the time it takes for the right one.
    let hours = |replica: usize| hours_off(&scene.replicas[replica]);
    assert_eq!((hours(0), hours(1), hours(2)), (-9, 0, 13));
    scene.warm_up("1002").await;

    let ((), served) = scene.busy(seconds(3)).await;
    scene.assert_within("hours apart");
    assert!(served > 25, "{served} calls in some 3 seconds");

    let ((), served) = scene
        .busy(async {
            for (clock, offset) in
                [(&behind, "+11h"), (&ahead, "-8h"), (&right, "-1h"), (&right, "+3h"), (&behind, "-9h")]
            {
                clock.set(offset);
                seconds(1).await;
            }
        })
        .await;
    assert_eq!((hours(0), hours(1), hours(2)), (-9, 3, -8));
    scene.assert_within("set while they work");
    assert!(served > 40, "{served} calls in some 5 seconds");

    // Alone, each with the clock it has; and with a Redis that knows nothing any more.
    let ((), served) = scene
        .busy(async {
            redis.kill();
            scene.all(0.0).await;
            seconds(2).await;
            redis.start_again();
            scene.all(1.0).await;
            seconds(2).await;
        })
        .await;
    scene.assert_within("Redis is lost, and back empty");
    assert!(served > 30, "{served} calls in some 4 seconds");

    // A replica that comes back takes it for another day.
    scene.replicas[2].kill();
    ahead.set("+14h");
    let again = by(&scene, &ahead).await;
    scene.replicas[2] = again;
    assert_eq!(hours_off(&scene.replicas[2]), 14);
    let ((), served) = scene.busy(seconds(4)).await;
    scene.assert_within("one came back");
    assert!(served > 25, "{served} calls in some 4 seconds");
}

/// By how many hours the newest line of a replica's log is off.
fn hours_off(replica: &Proxy) -> i64 {
    let line = replica.events().pop().unwrap();
    let written = Command::new("date").args(["--date", line["timestamp"].as_str().unwrap(), "+%s"]).output().unwrap();
    let written: i64 = String::from_utf8(written.stdout).unwrap().trim().parse().unwrap();
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
    // A line is some time old.
    (written - now + 1800).div_euclid(3600)
}
