//! What fuzzing asserts of what comes from Redis: an answer about a budget, and a record of a key.
//!
//! In: a text. Out: nothing, or a panic where it could make a replica start more than its app is granted, or where it is
//! read as something that cannot be carried on with.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::course::Course;
use super::script::{self, Answer};
use crate::budget::{Apart, Ask, Budget, Flow, Limits};
use crate::keys::Time;
use crate::keys::record::{IdleDays, Record};

const GRANTED: usize = 10;

/// The target.
pub fn redis(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // Who waits for a turn sets a timer.
    if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() {
        runtime.block_on(async { budget(text) });
    }
    record(text);
}

fn budget(text: &str) {
    let now = Instant::now();
    let Some((answer, clock)) = script::answer(text, GRANTED, now) else { return };
    let mut course = Course::new(clock.shown, now, now);
    for shown in [clock.shown, 0, u64::MAX, clock.shown.wrapping_add(1)] {
        course.goes_on(shown, now, now + Duration::from_millis(1));
    }
    let limits = Limits {
        max_wait: Duration::from_secs(5),
        max_waiting: 100,
        max_waiting_per_property: 100,
        weights: Arc::default(),
    };
    let budget = Arc::new(Budget::shared("app", GRANTED, limits, Apart::default()));
    let report = budget.report(false, now);
    assert!(script::argument(("id", "life"), "run", (Some(clock), true), now, &report, false).is_ok());
    let Answer::Granted(grant) = answer else { return };
    budget.granted(&grant, now);
    let ask = Ask::normal(Flow::Own);
    let mut started = 0;
    for _ in 0..3 * GRANTED {
        let mut taking = Box::pin(budget.take(ask, now));
        if let Poll::Ready(Ok(mut permit)) = taking.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            && permit.start(now)
        {
            started += 1;
        }
    }
    assert!(started <= GRANTED, "{started} starts for {text:?}");
    // And the next report is one that can be sent.
    let report = budget.report(false, now);
    assert!(script::argument(("id", "life"), "run", (None, false), now, &report, false).is_ok());
}

fn record(text: &str) {
    let Ok(record) = serde_json::from_str::<Record>(text) else { return };
    for seconds in [0, 3600, -3600, i64::MAX, -i64::MAX] {
        let moved = record.clone().by_another_clock(seconds);
        for now in [Time(0), Time(1_800_000_000), Time(u64::MAX)] {
            let _ = moved.verdict(now, IdleDays::default());
        }
        let written = serde_json::to_string(&moved).unwrap_or_default();
        assert_eq!(serde_json::from_str::<Record>(&written).ok(), Some(moved), "{written}");
    }
}
