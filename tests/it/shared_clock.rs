//! Replicas that share a budget by the real script, on a clock that does not wait: what takes minutes, and what busy
//! machines would blur.
//!
//! Each member is the code that carries reports and leases places; the script runs in a `redis-server`, at the time of the
//! paused clock. Every start is counted, in every second.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloudbeds_auth_proxy::budget::{Apart, Ask, Budget, Budgets, Flow, Limits, Priority};
use cloudbeds_auth_proxy::https::Dialer;
use cloudbeds_auth_proxy::shared::{self, Answering, Failure, Server, Stand};
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::harness::Redis;
use super::shared_model::most;

const GRANTED: usize = 10;

/// What a report takes to the server, and an answer back.
const WAY: Duration = Duration::from_millis(1);

/// A server whose clock is the paused one.
pub(super) struct Timed {
    redis: Redis,
    script: String,
    begun: Instant,
    way: Duration,
}

impl Timed {
    pub(super) fn start() -> Option<Arc<Self>> {
        Self::away(WAY)
    }

    fn away(way: Duration) -> Option<Arc<Self>> {
        Some(Arc::new(Self { redis: Redis::start()?, script: shared::timed_script(), begun: Instant::now(), way }))
    }
}

/// One member's way there.
pub(super) struct Way {
    server: Arc<Timed>,
    /// Nothing comes back on it.
    pub(super) cut: AtomicBool,
}

impl std::fmt::Debug for Way {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Way")
    }
}

impl Stand for Way {
    fn run(&self) -> &str {
        "life"
    }

    fn answer<'a>(&'a self, key: &'a str, argument: &'a str) -> Answering<'a> {
        Box::pin(async move {
            sleep(self.server.way).await;
            if self.cut.load(Ordering::Relaxed) {
                return std::future::pending::<Result<String, Failure>>().await;
            }
            let [seconds, micros] = shared::time(self.server.begun.elapsed());
            // This thread waits for it, and so does the clock.
            let answer = self.server.redis.call(&["EVAL", &self.server.script, "1", key, argument, &seconds, &micros]);
            sleep(self.server.way).await;
            Ok(answer)
        })
    }

    fn sign<'a>(&'a self, key: &'a str) -> Answering<'a> {
        Box::pin(async move {
            sleep(self.server.way).await;
            if self.cut.load(Ordering::Relaxed) {
                return std::future::pending::<Result<String, Failure>>().await;
            }
            let answer = self.server.redis.call(&["EVAL", shared::sign_script(), "1", key]);
            sleep(self.server.way).await;
            Ok(answer)
        })
    }
}

/// One replica.
pub(super) struct Member {
    pub(super) budget: Arc<Budget>,
    pub(super) way: Arc<Way>,
    pub(super) tasks: Vec<JoinHandle<()>>,
    pub(super) starts: Arc<Mutex<Vec<Instant>>>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Member {
    pub(super) fn join(server: &Arc<Timed>, name: usize, gone: Duration) -> Self {
        let limits = Limits {
            max_wait: Duration::from_secs(30),
            max_waiting: 100,
            max_waiting_per_property: 100,
            weights: Arc::default(),
        };
        let apart = |_| Apart { gone, ..Apart::default() };
        let budgets = Arc::new(Budgets::shared(vec![("main".to_owned(), GRANTED)], &limits, apart));
        let budget = Arc::clone(budgets.of(None).unwrap());
        let way = Arc::new(Way { server: Arc::clone(server), cut: AtomicBool::new(false) });
        let second = Duration::from_secs(1);
        let server = Arc::new(Server {
            url: "redis://127.0.0.1:1".parse().unwrap(),
            user: None,
            password: None,
            name: name.to_string(),
            prefix: "clock".to_owned(),
            clients: HashMap::new(),
            dialer: Dialer::without_http(None, second, second).unwrap(),
            stand: Some(Arc::clone(&way) as Arc<dyn Stand>),
        });
        let serving = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.serve_queue().await }
        });
        let sharing = tokio::spawn(async move {
            let (_stop, stopped) = watch::channel(false);
            shared::serve(server, budgets, stopped).await;
        });
        Self { budget, way, tasks: vec![serving, sharing], starts: Arc::default() }
    }

    /// So many requests at a time, for ever.
    fn hog(&mut self, at_a_time: usize) {
        self.ask_for(&vec![Ask::normal(Flow::Own); at_a_time]);
    }

    /// One request at a time of each, for ever.
    fn ask_for(&mut self, asks: &[Ask]) {
        for ask in asks.iter().copied() {
            let (budget, starts) = (Arc::clone(&self.budget), Arc::clone(&self.starts));
            self.tasks.push(tokio::spawn(async move {
                loop {
                    let taken = budget.take(ask, Instant::now()).await;
                    let now = Instant::now();
                    if taken.is_ok_and(|mut permit| permit.start(now)) {
                        starts.lock().unwrap().push(now);
                    } else {
                        sleep(Duration::from_millis(100)).await;
                    }
                }
            }));
        }
    }

    fn started(&self, from: Instant, until: Instant) -> usize {
        self.starts.lock().unwrap().iter().filter(|at| (from..until).contains(*at)).count()
    }

    pub(super) fn is_up(&self) -> bool {
        self.budget.account().sharing.is_some_and(|sharing| sharing.up)
    }
}

fn assert_within(members: &[Member]) {
    let starts = members.iter().flat_map(|member| member.starts.lock().unwrap().clone());
    let mut starts: Vec<Instant> = starts.collect();
    assert!(starts.len() > GRANTED);
    let (most, when) = most(&mut starts);
    assert!(most <= GRANTED, "{most} in the second from {:?}", when.map(|when| when - starts[0]));
}

pub(super) async fn settled(members: &[Member]) -> Instant {
    while !members.iter().all(|member| {
        member.budget.account().sharing.is_some_and(|sharing| sharing.up && sharing.members == members.len())
    }) {
        sleep(Duration::from_millis(10)).await;
    }
    // Shares are told one after the other.
    sleep(Duration::from_secs(3)).await;
    Instant::now()
}

#[tokio::test(start_paused = true)]
async fn a_steady_overload_uses_95_percent_of_the_budget_however_many_replicas_there_are() {
    let Some(server) = Timed::start() else { return };
    for replicas in [1, 2, 8, 16] {
        server.redis.command("FLUSHALL");
        let mut members: Vec<_> = (0..replicas).map(|name| Member::join(&server, name, cut_off(60))).collect();
        let begun = settled(&members).await;
        members.iter_mut().for_each(|member| member.hog(10));
        let (from, until) = (begun + Duration::from_secs(5), begun + Duration::from_secs(65));
        sleep_until(until).await;
        let mut starts: Vec<_> = members.iter().flat_map(|member| member.starts.lock().unwrap().clone()).collect();
        starts.retain(|at| (from..until).contains(at));
        starts.sort_unstable();
        // Those of the last second have no second behind them yet.
        let time = starts[starts.len() - GRANTED] - starts[0];
        let used = (starts.len() - GRANTED) as f64 / GRANTED as f64 / time.as_secs_f64();
        println!("{replicas} replicas with work use {used:.4} of the budget");
        assert!(used >= 0.95, "{replicas}: {used}");
        assert_within(&members);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hog_beside_seven_replicas_without_work_has_all_of_the_budget_within_its_first_window() {
    let Some(server) = Timed::start() else { return };
    let mut members: Vec<_> = (0..8).map(|name| Member::join(&server, name, cut_off(60))).collect();
    for at_work_before in [false, true] {
        let mut begun = settled(&members).await;
        if at_work_before {
            // Whoever was at work lately holds places ahead.
            for member in &mut members {
                let ask = Ask::normal(Flow::Own);
                assert!(member.budget.take(ask, begun).await.unwrap().start(Instant::now()));
                member.starts.lock().unwrap().push(Instant::now());
            }
            sleep(Duration::from_secs(2)).await;
            begun = Instant::now();
        }
        members[0].hog(40);
        sleep(Duration::from_secs(11)).await;
        let within = |millis| members[0].started(begun, begun + Duration::from_millis(millis));
        println!(
            "at work before: {at_work_before}: {} in 100 ms, {} in a second, {} in 11",
            within(100),
            within(1000),
            within(11_000)
        );
        assert_eq!(within(100), GRANTED);
        assert!(within(11_000) >= 105, "{}", within(11_000));
        assert_within(&members);
        members[0].tasks.drain(2..).for_each(|task| task.abort());
        sleep(Duration::from_secs(12)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn low_priority_at_one_replica_yields_to_the_others_and_does_not_starve() {
    let Some(server) = Timed::start() else { return };
    let asks = |hotels: std::ops::Range<u64>, priority| -> Vec<Ask> {
        let flow = |id: u64| Flow::Property(id.to_string().parse().unwrap());
        hotels.map(|id| Ask { priority, ..Ask::normal(flow(id)) }).collect()
    };
    // Of one front desk, and of two hundred; the jobs' part is the tenth or the hundredth that it is within one replica.
    let mut members: Vec<_> = (0..3).map(|name| Member::join(&server, name, cut_off(60))).collect();
    settled(&members).await;
    members[0].ask_for(&asks(1000..1020, Priority::Low));
    members[2].ask_for(&asks(1020..1040, Priority::Low));
    for (desks, least, most) in [(1, 45, 62), (200, 4, 14)] {
        let begun = Instant::now() + Duration::from_secs(5);
        let desks = asks(1..1 + desks, Priority::Normal);
        // As many at a time as use the budget up.
        members[1].ask_for(&desks.repeat(12usize.div_ceil(desks.len())));
        sleep_until(begun + Duration::from_secs(60)).await;
        let started = |member: usize| members[member].started(begun, begun + Duration::from_secs(60));
        let low = started(0) + started(2);
        println!("{} desks: {} starts, {low} of low priority", desks.len(), started(1));
        assert!((least..=most).contains(&low), "{low} beside {}", started(1));
        assert!(started(1) + low >= 570, "{} and {low}", started(1));
        assert_within(&members);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_lasts_as_long_as_cloudbeds_says_however_far_away_the_server_is() {
    let Some(server) = Timed::away(Duration::from_millis(40)) else { return };
    let members: Vec<_> = (0..2).map(|name| Member::join(&server, name, cut_off(60))).collect();
    settled(&members).await;
    let ask = Ask::normal(Flow::Own);
    let mut permit = members[0].budget.take(ask, Instant::now()).await.unwrap();
    assert!(permit.start(Instant::now()));
    let wait = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static("3"))]);
    permit.heard(StatusCode::TOO_MANY_REQUESTS, &wait);
    let told = Instant::now();
    for member in &members {
        let mut trial = member.budget.take(ask, Instant::now()).await.unwrap();
        let waited = told.elapsed();
        println!("paused for {waited:?}");
        assert!(waited < Duration::from_millis(3500), "{waited:?}");
        assert!(trial.start(Instant::now()));
        trial.heard(StatusCode::OK, &HeaderMap::new());
    }
}

#[tokio::test(start_paused = true)]
async fn the_step_that_a_429_takes_off_one_replicas_rate_is_taken_off_for_all() {
    let Some(server) = Timed::start() else { return };
    let mut members: Vec<_> = (0..2).map(|name| Member::join(&server, name, cut_off(60))).collect();
    settled(&members).await;
    let ask = Ask::normal(Flow::Own);
    for wait in [Some("1"), None] {
        let mut permit = members[0].budget.take(ask, Instant::now()).await.unwrap();
        assert!(permit.start(Instant::now()));
        let wait = wait.map(|wait| (RETRY_AFTER, HeaderValue::from_static(wait)));
        let status = if wait.is_some() { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::OK };
        permit.heard(status, &HeaderMap::from_iter(wait));
    }
    members[1].hog(20);
    let from = Instant::now() + Duration::from_secs(15);
    sleep_until(from + Duration::from_secs(30)).await;
    let mut starts = members[1].starts.lock().unwrap().clone();
    starts.retain(|at| *at >= from);
    let (most, _) = most(&mut starts);
    assert_eq!(most, GRANTED - 1);
    assert!(starts.len() >= 250, "{}", starts.len());
}

pub(super) fn cut_off(minutes: u64) -> Duration {
    Duration::from_mins(minutes)
}

#[tokio::test(start_paused = true)]
async fn whoever_is_cut_off_for_as_long_as_its_share_is_kept_free_starts_nothing_and_the_others_have_it() {
    let Some(server) = Timed::start() else { return };
    let mut members: Vec<_> = (0..2).map(|name| Member::join(&server, name, cut_off(3))).collect();
    let begun = settled(&members).await;
    members.iter_mut().for_each(|member| member.hog(10));
    members[1].way.cut.store(true, Ordering::Relaxed);
    let at = |seconds| begun + Duration::from_secs(seconds);
    sleep_until(at(240)).await;
    let used = |number: usize, from, until| members[number].started(at(from), at(until));
    // Each has its share, and the one that is cut off ends before the other takes it.
    assert!((450..=481).contains(&used(0, 10, 110)) && (450..=481).contains(&used(1, 10, 110)), "{}", used(1, 10, 110));
    assert_eq!(used(1, 180, 240), 0);
    assert!(used(0, 190, 240) >= 475, "{}", used(0, 190, 240));
    assert!(members[1].budget.is_over() && !members[1].is_up());
    members[1].way.cut.store(false, Ordering::Relaxed);
    sleep_until(at(260)).await;
    assert!(members[1].is_up());
    assert!(used(1, 250, 260) >= 40, "{}", used(1, 250, 260));
    assert_within(&members);
}

#[tokio::test(start_paused = true)]
async fn however_many_replicas_there_are_each_goes_on_alone_within_200_ms_of_the_loss() {
    let Some(server) = Timed::start() else { return };
    // How many, and how often.
    for (replicas, losses) in [(8, 20), (50, 2)] {
        server.redis.command("FLUSHALL");
        let mut members: Vec<_> = (0..replicas).map(|name| Member::join(&server, name, cut_off(60))).collect();
        for at_work in [false, true] {
            settled(&members).await;
            if at_work {
                members.iter_mut().for_each(|member| member.hog(5));
                sleep(Duration::from_secs(2)).await;
            }
            for after in 0..losses {
                // Whenever it comes between two reports.
                sleep(Duration::from_millis(700 + 37 * after)).await;
                members.iter().for_each(|member| member.way.cut.store(true, Ordering::Relaxed));
                sleep(Duration::from_millis(200)).await;
                let up = members.iter().filter(|member| member.is_up()).count();
                assert_eq!(up, 0, "of {replicas}, at work: {at_work}");
                members.iter().for_each(|member| member.way.cut.store(false, Ordering::Relaxed));
                while !members.iter().all(Member::is_up) {
                    sleep(Duration::from_millis(10)).await;
                }
            }
        }
        assert_within(&members);
    }
}
