//! What `cargo bench --bench budget_day` plays and how it counts: a short night of few hotels, in each setting.

#![allow(clippy::unwrap_used, reason = "a test may end itself")]
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
#[path = "../benches/budget_day/replicas.rs"]
mod replicas;
#[path = "../benches/budget_day/traffic.rs"]
mod traffic;

use books::{Books, fair_share, jain, most_in_a_second};
use clap::Parser as _;
use options::{Options, Setting};
use traffic::Kind;

/// A night of sixty hotels, five of them hogs, with one start a second.
fn night(setting: Setting) -> Books {
    let words = ["budget_day", "--hotels", "60", "--replicas", "3", "--per-second", "1", "--hours", "4"];
    day::play(setting, &Options::parse_from(words)).unwrap()
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
