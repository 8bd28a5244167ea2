//! Budgets that replicas share through a real Redis: what Cloudbeds sees of all of them together.
//!
//! Each replica is a process of its own. The sandbox's judge counts every call by its arrival, in every second.

use std::time::{Duration, Instant};

use cloudbeds_auth_proxy::sandbox::{self, Hotel, Protocols, Sandbox, Settings, Verdict};

use super::harness::{Answer, Proxy, Redis, together};

/// What all replicas together are granted, and the judge allows.
const GRANTED: usize = 10;

const UP: &str = "shared_up{app=\"default\"}";

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

    async fn replica(&self, shared: &str) -> Proxy {
        let limits = "limits: { max_wait: 60s }\nworkers: 1";
        Proxy::to(&self.cloudbeds, &self.hotels).config(limits).config(shared).log("info").start().await
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
