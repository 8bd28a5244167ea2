//! Budgets that replicas share through a real Redis: what Cloudbeds sees of all of them together.
//!
//! Each replica is a process of its own. The sandbox's judge counts every call by its arrival, in every second.

use std::cell::Cell;
use std::time::{Duration, Instant};

use cloudbeds_auth_proxy::sandbox::{self, Hotel, Protocols, Sandbox, Settings, Verdict};

use rustix::process::Signal;

use super::harness::proxy::write_private;
use super::harness::{Answer, Builder, Proxy, Redis, together};

/// What all replicas together are granted, and the judge allows.
const GRANTED: usize = 10;

const UP: &str = "shared_up{app=\"default\"}";

/// What docs/budgets.md says an ACL user needs, and no more.
const PERMITTED: &str = "~{cbap:* -@all +info +evalsha +script|load +time +hgetall +hset +hdel +pexpire";

/// A sandbox with a judge, and replicas before it.
struct Scene {
    cloudbeds: Sandbox,
    client_id: String,
    hotels: Vec<Hotel>,
    replicas: Vec<Proxy>,
}

impl Scene {
    async fn new(redis: &Redis, replicas: usize) -> Self {
        let settings = Settings { protocols: Protocols::Both, strict: Some(GRANTED), ..Settings::demo() };
        let (hotels, client_id) = (settings.hotels.clone(), settings.apps[0].client_id.clone());
        let cloudbeds = sandbox::start(settings).await.unwrap();
        let mut scene = Self { cloudbeds, client_id, hotels, replicas: Vec::new() };
        let shared = redis.config();
        let started = together((0..replicas).map(|_| scene.replica(&shared))).await;
        scene.replicas = started;
        scene
    }

    fn builder(&self, shared: &str) -> Builder {
        let limits = "limits: { max_wait: 60s }\nworkers: 1";
        Proxy::to(&self.cloudbeds, &self.hotels).config(limits).config(shared).log("info")
    }

    async fn replica(&self, shared: &str) -> Proxy {
        self.builder(shared).start().await
    }

    /// Waits until each replica shares, and knows of all of them.
    async fn together(&self) {
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
    }

    /// Every replica has more requests than it may send, all the time, until `event` is over. Out: what came of it, and
    /// how many calls were answered.
    async fn busy<T>(&self, event: impl Future<Output = T>) -> (T, usize) {
        let before = self.verdict().calls;
        let over = Cell::new(false);
        let hogs = self.replicas.iter().flat_map(|replica| std::iter::repeat_n(replica, 6));
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

    async fn all(&self, up: f64) {
        for replica in &self.replicas {
            replica.wait_for_metric(UP, |now| now == up).await;
        }
    }

    fn verdict(&self) -> Verdict {
        self.cloudbeds.verdict(&self.client_id)
    }

    fn assert_within(&self, what: &str) {
        let verdict = self.verdict();
        assert_eq!(verdict.excess, None, "{what}: {verdict:?}");
    }
}

async fn hotels(proxy: &Proxy, property: &str) -> Answer {
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
        let begun = Instant::now();
        let each = 80 / replicas;
        let served = together(scene.replicas.iter().map(|replica| many(replica, "1001", each))).await;
        let took = begun.elapsed();
        assert_eq!(served.iter().sum::<usize>(), 80);
        scene.assert_within(&format!("{replicas} replicas"));
        let used = (80 - GRANTED) as f64 / took.as_secs_f64() / GRANTED as f64;
        println!("{replicas} replicas used {used:.3} of the budget");
        // What is lost of it is the margin, and the time that a place needs to change hands.
        assert!(used > 0.85, "{replicas} replicas used {used} of the budget");
    }
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test]
async fn while_redis_is_gone_frozen_full_read_only_slow_or_mad_each_replica_has_its_share() {
    let Some(mut redis) = Redis::start() else { return };
    let scene = Scene::new(&redis, 3).await;
    scene.together().await;
    scene.busy(seconds(1)).await;
    type Act = fn(&mut Redis);
    let troubles: [(&str, Act, Act); 7] = [
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
        ("frozen again", |redis| redis.freeze(), |redis| redis.thaw()),
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
                seconds(4).await;
            })
            .await;
        scene.assert_within(trouble);
        println!("{trouble}: {served} calls in some 4 seconds");
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
        let lost = |event: &&serde_json::Value| event["message"].as_str().unwrap_or("").starts_with("Redis is lost");
        // Told once in a minute at most.
        assert!((1..=2).contains(&replica.events().iter().filter(lost).count()), "{}", replica.log());
        assert!(replica.metric("shared_losses_total{app=\"default\"}").await >= 7.0);
    }
}

#[tokio::test]
async fn a_replica_that_is_cut_off_and_those_that_are_not_stay_within_one_budget() {
    let Some(redis) = Redis::start() else { return };
    let mut scene = Scene::new(&redis, 1).await;
    for user in ["one", "two"] {
        let password = format!("secret-of-{user}");
        redis.command(&format!("ACL SETUSER {user} on >{password} {PERMITTED}"));
        let shared = format!("shared: {{ redis: 'redis://{user}@{}', password_file: redis.pw }}", redis.address);
        let builder = scene.builder(&shared).log("trace,mio=info,polling=info");
        let file = password.clone();
        let mut replica = builder.before(move |at| write_private(&at.join("redis.pw"), &file)).start().await;
        // It is looked for in everything the process emits.
        replica.secrets.push(password);
        scene.replicas.push(replica);
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
async fn a_replica_that_says_goodbye_leaves_its_share_and_one_that_is_killed_keeps_it() {
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
    scene.replicas.pop().unwrap().kill();
    seconds(3).await;
    let (_, served) = scene.busy(seconds(4)).await;
    assert!((18..=28).contains(&served), "{served} calls in 4 seconds, of 5 a second");
    assert_eq!(scene.replicas[0].metric("shared_replicas{app=\"default\"}").await, 2.0);
    scene.assert_within("goodbye");
}
