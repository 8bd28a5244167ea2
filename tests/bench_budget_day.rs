//! What `cargo bench --bench budget_day` plays and how it counts: a short night of few hotels, in each setting.

#![allow(clippy::unwrap_used, reason = "a test may end itself")]
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "they tell what was measured")]
#![allow(missing_docs, reason = "the tests' names are their documentation")]
#![allow(dead_code, reason = "the bench's own files, of which parts are tested")]

#[path = "../benches/kit/mod.rs"]
mod kit;

#[path = "../benches/budget_day/books.rs"]
mod books;
#[path = "../benches/budget_day/chance.rs"]
mod chance;
#[path = "../benches/budget_day/cost.rs"]
mod cost;
#[path = "../benches/budget_day/crowd.rs"]
mod crowd;
#[path = "../benches/budget_day/day.rs"]
mod day;
#[path = "../benches/budget_day/figures.rs"]
mod figures;
#[path = "../benches/budget_day/options.rs"]
mod options;
#[path = "../benches/budget_day/redis.rs"]
mod redis;
#[path = "../benches/budget_day/replicas.rs"]
mod replicas;
#[path = "../benches/budget_day/script.rs"]
mod script;
#[path = "../benches/budget_day/traffic.rs"]
mod traffic;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use books::{Books, fair_share, jain, most_in_a_second};
use chance::Chance;
use clap::Parser as _;
use cloudbeds_auth_proxy::budget::{Ask, Flow, Priority};
use cloudbeds_auth_proxy::shared::{Answering, Stand};
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, StatusCode};
use options::{Options, Setting};
use redis::Redis;
use replicas::Replicas;
use script::Script;
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};
use traffic::Kind;

fn play(setting: Setting, words: &str) -> Books {
    day::play(setting, &Options::parse_from(words.split(' '))).unwrap()
}

/// A night of sixty hotels, five of them hogs, with one start a second, through one replica.
fn night(setting: Setting) -> Books {
    play(setting, "budget_day --hotels 60 --replicas 1 --per-second 1 --hours 4")
}

#[test]
fn a_night_is_within_the_grant_and_uses_it_whatever_the_setting() {
    for setting in [Setting::AsShipped, Setting::Patient, Setting::Polite, Setting::FirstCome] {
        let mut books = night(setting);
        assert_eq!(books.most_in_a_second(), 1, "{setting:?}");
        let share = books.use_in_overload().unwrap();
        assert!((0.95..=1.0).contains(&share), "{setting:?}: {share}");
        for kind in [Kind::Desk, Kind::Audit, Kind::Sync] {
            let tally = books.tally(kind);
            let longest = u64::try_from(setting.limits().max_wait.as_millis()).unwrap();
            // By the histogram's three digits.
            assert!(tally.started > 0 && tally.waits.max() <= longest + longest / 500, "{setting:?}: {tally:?}");
        }
    }
}

#[test]
fn replicas_that_share_by_the_script_are_within_the_grant_and_use_it_and_share_it_fairly() {
    for (setting, by) in [(Setting::Patient, "one"), (Setting::Polite, "any")] {
        let words = "budget_day --hotels 100 --replicas 5 --per-second 5 --from 2 --hours 0.07 --by";
        let mut books = play(setting, &format!("{words} {by}"));
        let (share, fairness) = (books.use_in_overload().unwrap(), books.fairness());
        println!("{setting:?}: {} starts, use {share:.3}, fairness {fairness:.3}", books.starts());
        println!("{} reports took {:?}", books.reports.0, books.reports.1);
        assert!(books.most_in_a_second() <= 5, "{setting:?}");
        assert!((0.94..=1.0).contains(&share), "{setting:?}: {share}");
        // Where any replica has its calls, a hog has a turn at each.
        assert!(fairness > if by == "one" { 0.9 } else { 0.7 }, "{setting:?}: {fairness}");
        assert!(books.reports.0 > 10_000 && books.losses == 0, "{:?}", books.reports);
        for kind in [Kind::Desk, Kind::Audit, Kind::Sync] {
            let tally = books.tally(kind);
            assert!(tally.started > 0 && tally.waits.max() <= 120_240, "{setting:?}: {tally:?}");
        }
    }
}

/// Who asks a real Redis and this process the same.
#[derive(Debug)]
struct Both {
    redis: Redis,
    script: Script,
    begun: Instant,
    asked: AtomicU64,
    differ: Mutex<Vec<String>>,
}

impl Stand for Both {
    fn run(&self) -> &str {
        "simulation"
    }

    fn answer<'a>(&'a self, key: &'a str, argument: &'a str) -> Answering<'a> {
        Box::pin(async move {
            sleep(Duration::from_millis(1)).await;
            let since = self.begun.elapsed();
            let theirs = self.redis.ask(key, argument, since)?;
            let ours = self.script.ask(key, argument, since)?;
            let value = |text| serde_json::from_str::<serde_json::Value>(text).unwrap();
            self.asked.fetch_add(1, Ordering::Relaxed);
            if value(&theirs) != value(&ours) {
                self.differ.lock().unwrap().push(format!("{argument}: {theirs} and {ours}"));
            }
            sleep(Duration::from_millis(1)).await;
            Ok(theirs)
        })
    }

    fn sign<'a>(&'a self, key: &'a str) -> Answering<'a> {
        Box::pin(async move {
            let (theirs, ours) = (self.redis.look(key)?, self.script.look(key)?);
            assert_eq!(theirs, ours);
            Ok(theirs)
        })
    }
}

/// Some hotels' calls by this replica, some of them of low priority, with dials, and with a 429 now and then.
fn calls(replicas: &Replicas, replica: usize, chance: u64) {
    for hotel in 1..6_u64 {
        let (budget, mut chance) = (Arc::clone(replicas.budget(replica)), Chance::of(chance, hotel));
        let priority = if hotel % 2 == 0 { Priority::Low } else { Priority::Normal };
        let ask = Ask { priority, ..Ask::normal(Flow::Property(hotel.to_string().parse().unwrap())) };
        spawn_local(async move {
            loop {
                sleep(chance.millis(0.0, 2_000.0)).await;
                let Ok(mut permit) = budget.take(ask, Instant::now()).await else { continue };
                if chance.below(3) == 0 {
                    permit.keep();
                    sleep(chance.millis(0.0, 1_500.0)).await;
                }
                if !permit.start(Instant::now()) {
                    continue;
                }
                let wait = (chance.below(200) == 0).then_some((RETRY_AFTER, HeaderValue::from_static("1")));
                let status = if wait.is_some() { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::OK };
                permit.heard(status, &HeaderMap::from_iter(wait));
            }
        });
    }
}

#[test]
fn the_script_answers_in_this_process_as_it_does_in_redis() {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build_local(LocalOptions::default());
    runtime.unwrap().block_on(async {
        let redis = match Redis::start(Duration::ZERO) {
            Ok(redis) => redis,
            Err(why) => {
                assert!(!std::env::var("CI").is_ok_and(|ci| ci == "true"), "{why}");
                return eprintln!("SKIPPED: {why}");
            }
        };
        let script = Script::new(Duration::ZERO).unwrap();
        let (asked, differ) = (AtomicU64::new(0), Mutex::default());
        let both = Arc::new(Both { redis, script, begun: Instant::now(), asked, differ });
        let stand = Arc::clone(&both) as Arc<dyn Stand>;
        let join = |count| Replicas::sharing(count, 7, &Setting::Patient.limits(), &stand).unwrap();
        // Started again at once under their old names, after a silence, and after a goodbye; fewer of them, and more.
        for (round, count, silence) in [(0, 5, 0), (1, 3, 0), (2, 6, 3_000), (3, 4, 10)] {
            sleep(Duration::from_millis(silence)).await;
            let replicas = join(count);
            (0..count as usize).for_each(|replica| calls(&replicas, replica, 10 * round + replica as u64));
            sleep(Duration::from_secs(15)).await;
            if round == 2 {
                replicas.goodbye();
                sleep(Duration::from_millis(20)).await;
            }
        }
        println!("{} answers", both.asked.load(Ordering::Relaxed));
        let differ = both.differ.lock().unwrap();
        assert!(differ.is_empty(), "{} differ, the first: {}", differ.len(), differ[0]);
        assert!(both.asked.load(Ordering::Relaxed) > 2_000);
    });
}

#[test]
fn turns_are_fairer_than_one_line_and_a_polite_job_lets_a_front_desk_pass() {
    let (patient, one_line, polite) = (night(Setting::Patient), night(Setting::FirstCome), night(Setting::Polite));
    assert!(patient.fairness() > 0.9 && one_line.fairness() < 0.8, "{} {}", patient.fairness(), one_line.fairness());
    let longest = |books: &Books| books.tally(Kind::Desk).waits.max();
    assert!(longest(&polite) < longest(&patient) / 4, "{} {}", longest(&polite), longest(&patient));
    assert_eq!(polite.tally(Kind::Desk).given_up, 0);
    assert!(polite.tally(Kind::Audit).started > 1_000, "low priority goes on");
}

#[test]
fn a_second_is_counted_by_arrival_and_excess_is_seen() {
    assert_eq!(most_in_a_second(&mut [2_300_000, 0, 999_999, 1_000_000, 1_300_001]), 3);
    assert_eq!(most_in_a_second(&mut [0, 1_000_000, 2_000_000]), 1);
    assert_eq!(most_in_a_second(&mut []), 0);
}

#[test]
fn fairness_is_measured_against_what_each_could_have() {
    assert!((jain(&[1.0; 7]) - 1.0).abs() < 1e-9);
    assert!((jain(&[1.0, 0.0, 0.0, 0.0]) - 0.25).abs() < 1e-9);
    assert!((fair_share(&[1.0, 2.0, f64::INFINITY, f64::INFINITY], 9.0) - 3.0).abs() < 1e-9);
    assert!(fair_share(&[1.0, 2.0], 9.0).is_infinite(), "there is enough for all");
}

#[test]
fn the_figures_of_a_night_are_whole() {
    let mut summary = figures::summary();
    let mut books = night(Setting::Patient);
    assert_eq!(figures::sum_up(Setting::Patient, &mut books, &mut summary), 1);
    let waits = figures::waits(Setting::Patient, &books);
    for section in [&summary, &waits] {
        assert!(section.rows.iter().all(|row| row.len() == section.titles.len()));
        let page = kit::page::section(section);
        assert!(page.contains(&section.title) && !page.contains("NaN"));
    }
    assert!(waits.series.iter().all(|series| !series.points.is_empty()));
}

#[test]
fn ten_thousand_can_wait_and_each_decision_is_timed() {
    let (section, ratios) = cost::measure(true).unwrap();
    assert_eq!(section.rows.len(), ratios.len());
    assert!(ratios.iter().all(|ratio| ratio.is_finite() && *ratio > 0.0));
}
