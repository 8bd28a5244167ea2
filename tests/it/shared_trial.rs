//! Replicas that share a budget, and a pause that Cloudbeds wants: one request of all of them tries whether it is over.
//!
//! First in this process, on a clock that does not wait, with the real script; then real replicas before the sandbox, which
//! counts the calls.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloudbeds_auth_proxy::budget::{Ask, Flow};
use cloudbeds_auth_proxy::sandbox::Rule;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, StatusCode};
use rustix::process::Signal;
use tokio::time::{Instant, sleep, sleep_until};

use super::harness::{Redis, together};
use super::shared::{Scene, hotels, seconds};
use super::shared_clock::{Member, Timed, cut_off, settled};

/// How long Cloudbeds takes for an answer.
const ANSWER: Duration = Duration::from_millis(300);

/// A Cloudbeds that wants to be left alone, and who called it when.
#[derive(Default)]
struct Vendor {
    refuses: AtomicBool,
    calls: Mutex<Vec<(Instant, usize)>>,
}

impl Vendor {
    fn refuses(&self, now: bool) {
        self.refuses.store(now, Ordering::Relaxed);
    }

    /// The members that called it in this time.
    fn callers(&self, from: Instant, until: Instant) -> Vec<usize> {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|(at, _)| (from..until).contains(at)).map(|(_, member)| *member).collect()
    }

    fn answer(&self, at: Instant, member: usize) -> (StatusCode, HeaderMap) {
        self.calls.lock().unwrap().push((at, member));
        if self.refuses.load(Ordering::Relaxed) {
            let wait = (RETRY_AFTER, HeaderValue::from_static("2"));
            (StatusCode::TOO_MANY_REQUESTS, HeaderMap::from_iter([wait]))
        } else {
            (StatusCode::OK, HeaderMap::new())
        }
    }
}

/// Calls one after the other, so many at a time, each answered after `takes`.
fn call(member: &mut Member, name: usize, at_a_time: usize, vendor: &Arc<Vendor>, takes: Duration) {
    let ask = Ask::normal(Flow::Property((name as u64 + 1).to_string().parse().unwrap()));
    for _ in 0..at_a_time {
        let (budget, starts, vendor) = (Arc::clone(&member.budget), Arc::clone(&member.starts), Arc::clone(vendor));
        member.tasks.push(tokio::spawn(async move {
            loop {
                let taken = budget.take(ask, Instant::now()).await;
                let now = Instant::now();
                let Ok(mut permit) = taken else {
                    sleep(Duration::from_millis(100)).await;
                    continue;
                };
                if !permit.start(now) {
                    continue;
                }
                starts.lock().unwrap().push(now);
                let (status, headers) = vendor.answer(now, name);
                sleep(takes).await;
                permit.heard(status, &headers);
            }
        }));
    }
}

/// So many members that have been told to wait for two seconds, a moment after that.
async fn paused(server: &Arc<Timed>, members: usize) -> (Vec<Member>, Arc<Vendor>, Instant) {
    let mut members: Vec<_> = (0..members).map(|name| Member::join(server, name, cut_off(60))).collect();
    settled(&members).await;
    let vendor = Arc::<Vendor>::default();
    vendor.refuses(true);
    let begun = Instant::now();
    let ask = Ask::normal(Flow::Own);
    let mut first = members[0].budget.take(ask, begun).await.unwrap();
    assert!(first.start(Instant::now()));
    let (status, headers) = vendor.answer(begun, 0);
    first.heard(status, &headers);
    sleep(Duration::from_millis(100)).await;
    assert!(members.iter().all(|member| !member.budget.account().paused.is_zero()));
    members.iter_mut().for_each(|member| member.starts.lock().unwrap().clear());
    (members, vendor, begun)
}

#[tokio::test(start_paused = true)]
async fn one_request_of_all_replicas_tries_and_its_answer_is_that_of_all() {
    let Some(server) = Timed::start() else { return };
    let (mut members, vendor, begun) = paused(&server, 5).await;
    members.iter_mut().enumerate().for_each(|(name, member)| call(member, name, 3, &vendor, ANSWER));
    let at = |millis| begun + Duration::from_millis(millis);
    // Three that try, each told to wait for two seconds more, by when its answer comes.
    sleep_until(at(8000)).await;
    assert!(vendor.callers(at(100), at(1990)).is_empty());
    for number in 0..3 {
        let (from, until) = (at(1990 + number * 2300), at(1990 + (number + 1) * 2300));
        let tried = vendor.callers(from, until);
        assert_eq!(tried.len(), 1, "{tried:?}");
        // What a replica needs to find out that it may.
        assert_eq!(vendor.callers(from, from + Duration::from_millis(200)).len(), 1);
    }
    vendor.refuses(false);
    sleep_until(at(12_000)).await;
    // The fourth is welcome, and with it everybody.
    assert_eq!(vendor.callers(at(8890), at(9190)).len(), 1);
    for name in 0..5 {
        assert!(vendor.callers(at(9190), at(10_400)).contains(&name), "{name} goes on");
    }
    assert!(members.iter().all(|member| member.budget.account().paused.is_zero()));
}

#[tokio::test(start_paused = true)]
async fn who_has_no_request_when_a_pause_ends_hands_the_next_one_on() {
    let Some(server) = Timed::start() else { return };
    let (mut members, vendor, _) = paused(&server, 3).await;
    vendor.refuses(false);
    // The one that tries goes away before it has started; a second one, before it has an answer.
    let ask = Ask::normal(Flow::Own);
    for started in [false, true] {
        let mut gone = members[1].budget.take(ask, Instant::now()).await.unwrap();
        if started {
            assert!(gone.start(Instant::now()));
        }
        let others = Arc::clone(&members[2].budget);
        let waiting = tokio::spawn(async move { drop(others.take(ask, Instant::now()).await) });
        sleep(Duration::from_secs(1)).await;
        assert!(!waiting.is_finished(), "it is handed to one alone");
        drop(gone);
        sleep(Duration::from_millis(100)).await;
        assert!(waiting.is_finished(), "once that one is gone it is another one's turn");
    }
    call(&mut members[0], 0, 1, &vendor, ANSWER);
    sleep(Duration::from_secs(1)).await;
    assert!(members.iter().all(|member| member.budget.account().paused.is_zero()));
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_requests_come_to_nothing_does_not_keep_the_others_from_trying() {
    let Some(server) = Timed::start() else { return };
    let (mut members, vendor, _) = paused(&server, 3).await;
    vendor.refuses(false);
    // Ever so many, of whom each has no connection half a second after it was let go.
    let ask = Ask::normal(Flow::Own);
    for _ in 0..20 {
        let broken = Arc::clone(&members[1].budget);
        tokio::spawn(async move {
            while let Ok(permit) = broken.take(ask, Instant::now()).await {
                sleep(Duration::from_millis(500)).await;
                drop(permit);
            }
        });
    }
    sleep(Duration::from_millis(100)).await;
    call(&mut members[2], 2, 1, &vendor, ANSWER);
    sleep(Duration::from_secs(4)).await;
    assert!(members.iter().all(|member| member.budget.account().paused.is_zero()));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_dies_with_the_one_that_tries_holds_the_others_up_for_five_seconds() {
    let Some(server) = Timed::start() else { return };
    let (mut members, vendor, begun) = paused(&server, 3).await;
    vendor.refuses(false);
    call(&mut members[0], 0, 1, &vendor, Duration::from_secs(60));
    let at = |millis| begun + Duration::from_millis(millis);
    sleep_until(at(2500)).await;
    for name in [1, 2] {
        call(&mut members[name], name, 2, &vendor, ANSWER);
    }
    sleep_until(at(4000)).await;
    drop(members.remove(0));
    sleep_until(at(10_000)).await;
    let tried = vendor.callers(at(100), at(7000));
    assert_eq!(tried, [0]);
    assert_eq!(vendor.callers(at(7000), at(7300)).len(), 1, "one of the others, and not both");
    assert!(vendor.callers(at(7300), at(10_000)).len() > 5);
}

#[tokio::test(start_paused = true)]
async fn when_redis_goes_while_one_tries_each_of_the_others_lets_one_through() {
    let Some(server) = Timed::start() else { return };
    let (mut members, vendor, begun) = paused(&server, 4).await;
    let slow = Duration::from_secs(4);
    for (name, member) in members.iter_mut().enumerate() {
        call(member, name, 3, &vendor, slow);
    }
    let at = |millis| begun + Duration::from_millis(millis);
    sleep_until(at(2500)).await;
    let first = vendor.callers(at(100), at(2500));
    assert_eq!(first.len(), 1);
    members.iter().for_each(|member| member.way.cut.store(true, Ordering::Relaxed));
    sleep_until(at(6000)).await;
    let mut tried = vendor.callers(at(100), at(6000));
    tried.sort_unstable();
    assert_eq!(tried, [0, 1, 2, 3], "one of each");
    // Back again, with all that it knew, it hands the next one to one of them.
    members.iter().for_each(|member| member.way.cut.store(false, Ordering::Relaxed));
    vendor.refuses(false);
    sleep_until(at(15_000)).await;
    assert!(members.iter().all(|member| member.is_up() && member.budget.account().paused.is_zero()));
    let counts: HashMap<usize, usize> =
        vendor.callers(at(10_000), at(15_000)).into_iter().fold(HashMap::new(), |mut counts, name| {
            *counts.entry(name).or_default() += 1;
            counts
        });
    assert_eq!(counts.len(), 4, "{counts:?}");
}

/// A scene whose replicas share, and whose first one has just been told to wait for a second.
async fn told_to_wait(redis: &Redis, replicas: usize) -> (Scene, u64) {
    let scene = Scene::new(redis, replicas).await;
    scene.together().await;
    scene.warm_up("1002").await;
    add(&scene, 1, "fail?kind=limit");
    assert_eq!(hotels(&scene.replicas[0], "1001").await.status.as_u16(), 429);
    let paused = scene
        .replicas
        .iter()
        .map(|replica| replica.wait_for_metric("budget_paused_seconds{app=\"default\"}", |paused| paused > 0.0));
    together(paused).await;
    let calls = scene.verdict().calls;
    (scene, calls)
}

fn add(scene: &Scene, times: u32, room: &str) {
    scene.cloudbeds.add_rule(Rule { property: None, path: String::new(), times, room: room.to_owned() });
}

#[tokio::test]
async fn of_real_replicas_one_call_tries_whether_a_pause_is_over() {
    let Some(redis) = Redis::start() else { return };
    let (scene, before) = told_to_wait(&redis, 4).await;
    // Whoever tries has its answer some seconds later.
    add(&scene, 1, "slow?first_byte_ms=2500&chunks=1");
    let ((), _) = scene
        .busy(async {
            sleep(Duration::from_millis(2200)).await;
            assert_eq!(scene.verdict().calls - before, 1, "one of all of them");
            seconds(2).await;
        })
        .await;
    let after = scene.verdict().calls - before;
    assert!(after > 10, "{after}");
    scene.assert_within("a pause that ends");
}

#[tokio::test]
async fn a_real_replica_that_is_killed_with_the_call_that_tries_does_not_stop_the_others_for_long() {
    let Some(redis) = Redis::start() else { return };
    let (mut scene, before) = told_to_wait(&redis, 3).await;
    add(&scene, 1, "hang");
    let holder = scene.replicas.remove(0);
    // Its caller waits until then, or it would hand it on.
    let killed = async {
        while scene.verdict().calls == before {
            sleep(Duration::from_millis(5)).await;
        }
        holder.signal(Signal::KILL);
        Instant::now()
    };
    let killed = tokio::select! {
        biased;
        killed = killed => killed,
        _ = hotels(&holder, "1001") => panic!("it has no answer"),
    };
    let (went_on, _) = scene
        .busy(async {
            sleep_until(killed + Duration::from_millis(4800)).await;
            assert_eq!(scene.verdict().calls - before, 1, "it may have an answer yet");
            sleep_until(killed + Duration::from_millis(7500)).await;
            scene.verdict().calls - before
        })
        .await;
    assert!(went_on > 5, "{went_on}");
    scene.assert_within("the one that tried is dead");
}

#[tokio::test]
async fn when_a_real_redis_dies_while_a_call_tries_each_of_the_other_replicas_lets_one_through() {
    let Some(mut redis) = Redis::start() else { return };
    let (scene, before) = told_to_wait(&redis, 3).await;
    add(&scene, 3, "slow?first_byte_ms=6000&chunks=1");
    let ((), _) = scene
        .busy(async {
            sleep(Duration::from_millis(1500)).await;
            assert_eq!(scene.verdict().calls - before, 1);
            redis.kill();
            scene.all(0.0).await;
            // Whoever had leased nothing has its share by then.
            sleep(Duration::from_millis(2300)).await;
            assert_eq!(scene.verdict().calls - before, 3, "one of each");
            redis.start_again();
            scene.all(1.0).await;
            seconds(5).await;
        })
        .await;
    let after = scene.verdict().calls - before;
    assert!(after > 10, "{after}");
    scene.assert_within("Redis went while one tried");
}
