//! Random members of one budget, against a real Redis: bursts, dials, permits that go back, members that come, say
//! goodbye, die or are cut off, and a Redis that freezes, forgets, breaks off or is replaced.
//!
//! The members run in this process, each with a connection of its own, so that a start's moment is exact.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloudbeds_auth_proxy::budget::{Apart, Ask, Budget, Budgets, Flow, Limits, SECOND};
use cloudbeds_auth_proxy::https::Dialer;
use cloudbeds_auth_proxy::secret::RedisPassword;
use cloudbeds_auth_proxy::shared::{self, Server};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::harness::Redis;

/// How many members there may be; each has a user of its own, so that it can be cut off.
const MEMBERS: usize = 8;

#[derive(Clone, Debug)]
enum Act {
    /// So many requests of a hotel, which need this long to dial.
    Burst {
        member: usize,
        hotel: u64,
        count: usize,
        dial: u64,
    },
    /// A permit that is taken and not used.
    Unused {
        member: usize,
    },
    Cut {
        member: usize,
    },
    Mend {
        member: usize,
    },
    Goodbye {
        member: usize,
    },
    Die {
        member: usize,
    },
    Freeze {
        millis: u64,
    },
    Forget,
    BreakOff,
    Replace,
}

fn act() -> impl Strategy<Value = Act> {
    let member = 0..MEMBERS;
    prop_oneof![
        40 => (member.clone(), 1u64..4, 1usize..12, prop_oneof![4 => Just(0u64), 3 => 0u64..900, 1 => 900u64..6000])
            .prop_map(|(member, hotel, count, dial)| Act::Burst { member, hotel, count, dial }),
        1 => member.clone().prop_map(|member| Act::Unused { member }),
        1 => member.clone().prop_map(|member| Act::Cut { member }),
        2 => member.clone().prop_map(|member| Act::Mend { member }),
        1 => member.clone().prop_map(|member| Act::Goodbye { member }),
        1 => member.prop_map(|member| Act::Die { member }),
        1 => (50u64..2500).prop_map(|millis| Act::Freeze { millis }),
        1 => Just(Act::Forget),
        1 => Just(Act::BreakOff),
        1 => Just(Act::Replace),
    ]
}

/// One member: its budget, and the tasks that serve it.
struct Member {
    budget: Arc<Budget>,
    stop: watch::Sender<bool>,
    sharing: JoinHandle<()>,
    serving: JoinHandle<()>,
    requests: Vec<JoinHandle<bool>>,
}

type Starts = Arc<Mutex<Vec<Instant>>>;

impl Member {
    fn join(redis: &Redis, user: usize, granted: usize) -> Self {
        let limits = Limits {
            max_wait: Duration::from_secs(4),
            max_waiting: 100,
            max_waiting_per_property: 100,
            weights: Arc::default(),
        };
        let budgets = Arc::new(Budgets::shared(vec![("main".to_owned(), granted)], &limits, |_| Apart::default()));
        let budget = Arc::clone(budgets.of(None).unwrap());
        let limit = Duration::from_secs(1);
        let server = Arc::new(Server {
            url: redis.url().parse().unwrap(),
            user: Some(format!("m{user}")),
            password: Some(RedisPassword::parse("password").unwrap()),
            name: format!("m{user}"),
            prefix: "model".to_owned(),
            clients: HashMap::new(),
            stand: None,
            dialer: Dialer::without_http(None, limit, limit).unwrap(),
        });
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.serve_queue().await }
        });
        let sharing = tokio::spawn(shared::serve(server, budgets, stopped));
        Self { budget, stop, sharing, serving, requests: Vec::new() }
    }

    fn request(&mut self, hotel: u64, dial: Duration, starts: &Starts) {
        let (budget, starts) = (Arc::clone(&self.budget), Arc::clone(starts));
        let ask = Ask::normal(Flow::Property(hotel.to_string().parse().unwrap()));
        self.requests.push(tokio::spawn(async move {
            let Ok(mut permit) = budget.take(ask, Instant::now()).await else { return false };
            if !dial.is_zero() {
                permit.keep();
                tokio::time::sleep(dial).await;
            }
            let now = Instant::now();
            let started = permit.start(now);
            if started {
                starts.lock().unwrap().push(now);
            }
            started
        }));
    }

    /// Ends it; whatever it was about to start does not start.
    async fn end(mut self, goodbye: bool) {
        for request in &self.requests {
            request.abort();
        }
        if goodbye {
            self.stop.send_replace(true);
            (&mut self.sharing).await.unwrap();
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.sharing.abort();
        self.serving.abort();
    }
}

async fn one_starts(member: &Member) {
    let ask = Ask::normal(Flow::Own);
    for _ in 0..100 {
        if let Ok(mut permit) = member.budget.take(ask, Instant::now()).await
            && permit.start(Instant::now())
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("nothing starts");
}

#[tokio::test]
async fn a_member_that_died_and_is_started_again_at_once_has_its_share_and_its_name_again() {
    let Some(redis) = Redis::start() else { return };
    users(&redis);
    let member = Member::join(&redis, 0, 10);
    one_starts(&member).await;
    member.end(false).await;
    let again = Member::join(&redis, 0, 10);
    one_starts(&again).await;
    // Its record, and the budget's.
    assert_eq!(redis.command("HLEN {model:main}:budget").trim(), ":2");
    // One that lives has its name for itself.
    let twin = Member::join(&redis, 0, 10);
    one_starts(&twin).await;
    assert_eq!(redis.command("HLEN {model:main}:budget").trim(), ":3");
    one_starts(&again).await;
    again.end(true).await;
    twin.end(true).await;
}

fn users(redis: &Redis) {
    for user in 0..MEMBERS {
        let answer = redis.command(&format!("ACL SETUSER m{user} on >password ~* +@all"));
        assert!(answer.starts_with("+OK"), "{answer}");
    }
}

/// The most starts in any one second, and when that began.
pub(super) fn most(starts: &mut [Instant]) -> (usize, Option<Instant>) {
    starts.sort_unstable();
    let within = |(at, from): (usize, &Instant)| {
        (starts[at..].iter().take_while(|start| **start < *from + SECOND).count(), Some(*from))
    };
    starts.iter().enumerate().map(within).max_by_key(|(count, _)| *count).unwrap_or_default()
}

async fn play(redis: &mut Redis, granted: usize, acts: &[(u64, Act)]) {
    redis.start_again();
    users(redis);
    let starts: Starts = Arc::default();
    let begun = Instant::now();
    let mut members: Vec<Member> = (0..MEMBERS).map(|user| Member::join(redis, user, granted)).collect();
    for (gap, act) in acts {
        tokio::time::sleep(Duration::from_millis(*gap)).await;
        match act {
            Act::Burst { member, hotel, count, dial } => {
                for _ in 0..*count {
                    members[*member].request(*hotel, Duration::from_millis(*dial), &starts);
                }
            }
            Act::Unused { member } => {
                let budget = Arc::clone(&members[*member].budget);
                let ask = Ask::normal(Flow::Own);
                drop(tokio::spawn(async move { drop(budget.take(ask, Instant::now()).await) }));
            }
            Act::Cut { member } => {
                redis.command(&format!("ACL SETUSER m{member} off"));
                redis.command(&format!("CLIENT KILL USER m{member}"));
            }
            Act::Mend { member } => drop(redis.command(&format!("ACL SETUSER m{member} on"))),
            Act::Goodbye { member } | Act::Die { member } => {
                members.swap_remove(*member).end(matches!(act, Act::Goodbye { .. })).await;
                members.push(Member::join(redis, *member, granted));
                members.swap(*member, MEMBERS - 1);
            }
            Act::Freeze { millis } => {
                redis.freeze();
                tokio::time::sleep(Duration::from_millis(*millis)).await;
                redis.thaw();
            }
            Act::Forget => drop(redis.command("FLUSHALL")),
            Act::BreakOff => drop(redis.command("CLIENT KILL TYPE normal SKIPME yes")),
            Act::Replace => {
                redis.start_again();
                users(redis);
            }
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut starts = starts.lock().unwrap().clone();
    let (most, when) = most(&mut starts);
    let tell = |at: Instant| at.saturating_duration_since(begun).as_millis();
    let around: Vec<_> = when
        .into_iter()
        .flat_map(|when| starts.iter().filter(move |at| **at >= when && **at < when + SECOND))
        .collect();
    assert!(most <= granted, "{most} of {granted}: {:?}", around.iter().map(|at| tell(**at)).collect::<Vec<_>>());
    println!("{} starts in {:?}, {most} of {granted} in a second", starts.len(), begun.elapsed());
}

#[test]
fn whatever_members_and_redis_do_no_second_has_more_starts_than_granted() {
    let Some(redis) = Redis::start() else { return };
    let redis = RefCell::new(redis);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Each takes some seconds, and a smaller one that fails as well would take as many.
    let config = Config { cases: 5, max_shrink_iters: 0, failure_persistence: None, ..Config::default() };
    let played = (3usize..14, prop::collection::vec((0u64..250, act()), 60..120));
    TestRunner::new(config)
        .run(&played, |(granted, acts)| {
            runtime.block_on(play(&mut redis.borrow_mut(), granted, &acts));
            Ok(())
        })
        .unwrap();
}

/// What the script answers to a report of `id`, with these numbers in place of zeros.
fn report(redis: &Redis, id: &str, numbers: &[(&str, u64)]) -> serde_json::Value {
    report_of(redis, id, numbers, false)
}

fn report_of(redis: &Redis, id: &str, numbers: &[(&str, u64)], jumped: bool) -> serde_json::Value {
    let mut argument = serde_json::json!({
        "id": id, "life": "1", "run": "1", "by": u64::from(u32::MAX) * 1000, "bye": false, "jumped": jumped, "starts": [],
        "counts": 1041, "valid": 400, "grace": 50, "silent": 450, "gone": 3_600_000, "gap": 2000, "patience": 100,
        "granted": 10, "allowed": 10, "block": 10,
        "share": 0, "promised": 0, "cap": 0, "kept": 0, "pool": 0, "want": 0, "waiting": 0, "pause": 0,
        "paused": false, "number": 0, "lifted": 0, "told": 0, "trying": 0, "trial": 5000, "fallback": 0, "parts": 0,
    });
    for (name, number) in numbers {
        argument[name] = (*number).into();
    }
    let script = include_str!("../../src/shared/budget.lua");
    let answer = redis.call(&["EVAL", script, "1", "{x}:budget", &argument.to_string()]);
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

/// Until the script grants something to members which report so.
async fn settled(redis: &Redis, ids: &[&str]) {
    while ids.iter().any(|id| report(redis, id, &[])["quiet"] != 0) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn who_has_nothing_to_do_gives_its_places_to_those_that_wait() {
    let Some(redis) = Redis::start() else { return };
    let idle = ["b", "c", "d", "e", "f", "g", "h"];
    settled(&redis, &[&["a"][..], &idle].concat()).await;
    for id in idle {
        let ahead = report(&redis, id, &[("want", 2), ("block", 2)]);
        report(&redis, id, &[("want", 2), ("block", 2), ("pool", ahead["lease"].as_u64().unwrap())]);
    }
    let held = |answer: &serde_json::Value| answer["lease"].as_u64().unwrap();
    let hog = |pool| report(&redis, "a", &[("pool", pool), ("want", 10), ("waiting", 1)]);
    let before = held(&hog(0));
    assert!(before < 8, "they have leased ahead: {before}");
    for id in idle {
        // Two of them have no more than they like to have.
        hog(before);
        assert_eq!(held(&report(&redis, id, &[("want", 2), ("block", 2), ("pool", 1)])), 0, "{id}");
        hog(before);
        report(&redis, id, &[("want", 2), ("block", 2)]);
    }
    assert_eq!(held(&hog(before)), 10);
}

#[tokio::test]
async fn when_a_member_tells_that_the_clock_has_jumped_nothing_is_granted_until_all_leases_are_over() {
    let Some(redis) = Redis::start() else { return };
    settled(&redis, &["a", "b"]).await;
    assert_eq!(report(&redis, "a", &[("want", 2), ("waiting", 1)])["lease"], 2);
    let told = report_of(&redis, "b", &[("want", 2), ("waiting", 1)], true);
    assert_eq!((&told["lease"], told["quiet"].as_u64().unwrap() > 1400), (&0.into(), true), "{told}");
    let other = report(&redis, "a", &[("want", 2), ("waiting", 1)]);
    assert_eq!((&other["lease"], other["quiet"].as_u64().unwrap() > 1000), (&0.into(), true), "{other}");
    settled(&redis, &["a", "b"]).await;
    assert_eq!(report(&redis, "b", &[("want", 2), ("waiting", 1)])["lease"], 2);
}

#[tokio::test]
async fn who_comes_back_has_no_turns_saved_up() {
    let Some(redis) = Redis::start() else { return };
    settled(&redis, &["a", "b", "c"]).await;
    let lease = |id, numbers: &[(&str, u64)]| report(&redis, id, numbers)["lease"].as_u64().unwrap();
    // It waits, and is not heard of while another has many turns.
    lease("a", &[("want", 0), ("waiting", 1)]);
    tokio::time::sleep(Duration::from_millis(120)).await;
    for _ in 0..10 {
        assert_eq!(lease("b", &[("want", 9), ("waiting", 1)]), 9);
    }
    lease("b", &[]);
    lease("c", &[("kept", 8)]);
    assert_eq!(lease("b", &[("want", 9), ("waiting", 1)]), 2);
    lease("c", &[]);
    let back = lease("a", &[("want", 9), ("waiting", 1)]);
    assert!((3..=6).contains(&back), "of eight places with one that waits for seven: {back}");
}

#[tokio::test]
async fn what_a_member_may_start_by_itself_counts_beside_what_it_is_granted() {
    let Some(redis) = Redis::start() else { return };
    // However slowly this machine goes, nobody is missed meanwhile.
    let patient = [("grace", 60_000), ("silent", 60_000)];
    let report = |redis: &Redis, id, numbers: &[_]| report(redis, id, &[&patient, numbers].concat());
    loop {
        let quiet = report(&redis, "a", &[("share", 5), ("cap", 5)])["quiet"].as_u64().unwrap();
        report(&redis, "b", &[("share", 5)]);
        if quiet == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let a = report(&redis, "a", &[("share", 5), ("cap", 5), ("want", 2), ("waiting", 1)]);
    assert_eq!(a["lease"], 2);
    let b = report(&redis, "b", &[("share", 5), ("want", 9), ("waiting", 1)]);
    assert_eq!(b["lease"], 3, "five that it may start alone, two that it was granted: {b}");
    // A report that was read too late changes nothing.
    assert_eq!(report(&redis, "b", &[("by", 1)])["late"], true);
    // Nobody else waits any more.
    report(&redis, "b", &[("share", 5), ("pool", 3), ("want", 3), ("waiting", 1)]);
    let a = report(&redis, "a", &[("share", 5), ("pool", 2), ("want", 9), ("waiting", 1)]);
    assert_eq!(a["lease"], 7, "it has told that it started nothing alone: {a}");
    // Two processes of one name: the second is told so while the first reports.
    let script = include_str!("../../src/shared/budget.lua");
    let twin = serde_json::json!({ "id": "a", "life": "2", "by": u64::from(u32::MAX) * 1000, "silent": 10_000 });
    let twin = redis.call(&["EVAL", script, "1", "{x}:budget", &twin.to_string()]);
    assert!(twin.contains("\"taken\":true"), "{twin}");
}
