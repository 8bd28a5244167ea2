//! What is sent to Redis, and what comes back.
//!
//! In: a report, and what is known of the server's clock. Out: the script's one argument as JSON, and its answer as a
//! [`Grant`]. An answer of any other form is a failure like any other.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::budget::{COUNTS, GAP, GONE, GRACE, Grant, PATIENCE, Report, SILENT, VALID};

/// The script. Redis keeps it by its digest.
pub(super) const BUDGET: &str = include_str!("budget.lua");

/// How long a place in the queue of those who wait is held for a replica that does not come, in milliseconds.
const QUEUED: u64 = 100;

/// The script's argument.
#[derive(Serialize)]
pub(super) struct Argument<'a> {
    id: &'a str,
    run: &'a str,
    by: u64,
    bye: bool,
    counts: u64,
    valid: u64,
    grace: u64,
    silent: u64,
    gone: u64,
    gap: u64,
    patience: u64,
    #[serde(flatten)]
    report: &'a Report,
}

/// What comes back.
#[derive(Debug)]
pub(super) enum Answer {
    /// Read too late, or the first one: nothing was done.
    Late,
    Granted(Grant),
}

#[derive(Deserialize)]
struct Told {
    late: bool,
    now: u64,
    #[serde(flatten)]
    grant: Option<Grant>,
}

/// What is known of the server's clock: that at this moment of ours it showed at least this, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    shown: u64,
    at: Instant,
}

impl Clock {
    /// Until when a report sent now may be acted on, by the server's clock; 0 where that is not known.
    fn by(clock: Option<Self>, sent: Instant) -> u64 {
        let patience = millis(PATIENCE).saturating_sub(1);
        clock.map_or(0, |clock| clock.shown + millis(sent.saturating_duration_since(clock.at)) + patience)
    }
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The argument as text.
pub(super) fn argument(
    id: &str,
    run: &str,
    clock: Option<Clock>,
    sent: Instant,
    report: &Report,
    bye: bool,
) -> Result<String, serde_json::Error> {
    serde_json::to_string(&Argument {
        id,
        run,
        by: Clock::by(clock, sent),
        bye,
        // One more, since the server's clock is read in whole milliseconds.
        counts: millis(COUNTS) + 1,
        valid: millis(VALID),
        grace: millis(GRACE),
        silent: millis(SILENT),
        gone: millis(GONE),
        gap: millis(GAP),
        patience: QUEUED,
        report,
    })
}

/// The answer from its text, which arrived now, with what it tells of the server's clock.
pub(super) fn answer(text: &str, now: Instant) -> Option<(Answer, Clock)> {
    let told: Told = serde_json::from_str(text).ok()?;
    let clock = Clock { shown: told.now, at: now };
    if told.late {
        return Some((Answer::Late, clock));
    }
    Some((Answer::Granted(told.grant?), clock))
}

/// A name that no other replica has.
pub(super) fn fresh_id() -> String {
    let mut bytes = [0; 12];
    // Where the system has no randomness, the process does not get this far: TLS needs it too.
    let _ = getrandom::fill(&mut bytes);
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}
