//! What is sent to Redis, and what comes back.
//!
//! In: a report, and what is known of the server's clock. Out: the script's one argument as JSON, and its answer as a
//! [`Grant`]. An answer of any other form is a failure like any other.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::budget::{COUNTS, GAP, GRACE, Grant, PATIENCE, Report, SILENT, TRIAL, VALID};

/// The script. Redis keeps it by its digest.
pub(super) const BUDGET: &str = include_str!("budget.lua");

/// What is asked between two reports.
pub(super) const SIGN: &str = include_str!("sign.lua");

/// How long a place in the queue of those who wait is held for a replica that does not come, in milliseconds.
const QUEUED: u64 = 100;

/// The script's argument.
#[derive(Serialize)]
pub(super) struct Argument<'a> {
    id: &'a str,
    life: &'a str,
    run: &'a str,
    by: u64,
    jumped: bool,
    bye: bool,
    counts: u64,
    valid: u64,
    grace: u64,
    silent: u64,
    gap: u64,
    patience: u64,
    trial: u64,
    #[serde(flatten)]
    report: &'a Report,
}

/// What comes back.
#[derive(Debug)]
pub(super) enum Answer {
    /// Read too late, the first one, or by a clock that has jumped: there is nothing to do with it.
    Late,
    /// Another process goes by the same name.
    Taken,
    Granted(Grant),
}

#[derive(Deserialize)]
struct Told {
    late: bool,
    #[serde(default)]
    taken: bool,
    now: u64,
    #[serde(flatten)]
    grant: Option<Grant>,
}

/// What is known of the server's clock: that at this moment of ours it showed at least this, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) shown: u64,
    at: Instant,
}

impl Clock {
    /// Until when a report sent now may be acted on, by the server's clock; 0 where that is not known.
    fn by(clock: Option<Self>, sent: Instant) -> u64 {
        let patience = millis(PATIENCE).saturating_sub(1);
        clock.map_or(0, |clock| {
            // Whatever it says, it is only text that came from outside.
            clock.shown.saturating_add(millis(sent.saturating_duration_since(clock.at))).saturating_add(patience)
        })
    }
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The argument as text.
pub(super) fn argument(
    (id, life): (&str, &str),
    run: &str,
    (clock, jumped): (Option<Clock>, bool),
    sent: Instant,
    report: &Report,
    bye: bool,
) -> Result<String, serde_json::Error> {
    serde_json::to_string(&Argument {
        id,
        life,
        run,
        by: Clock::by(clock, sent),
        jumped,
        bye,
        // The script rounds its own clock up.
        counts: millis(COUNTS),
        valid: millis(VALID),
        grace: millis(GRACE),
        silent: millis(SILENT),
        gap: millis(GAP),
        patience: QUEUED,
        trial: millis(TRIAL),
        report,
    })
}

/// The answer from its text, which arrived now, with what it tells of the server's clock. Nobody has more than all that
/// is granted to the app.
pub(super) fn answer(text: &str, granted: usize, now: Instant) -> Option<(Answer, Clock)> {
    let told: Told = serde_json::from_str(text).ok()?;
    let clock = Clock { shown: told.now, at: now };
    if told.late {
        return Some((Answer::Late, clock));
    }
    if told.taken {
        return Some((Answer::Taken, clock));
    }
    let grant = told.grant.filter(|grant| grant.lease <= granted && grant.share <= granted)?;
    Some((Answer::Granted(grant), clock))
}

/// What stands for a replica's name: the same each time it is started, and it tells nothing of the host.
pub(super) fn id_of(name: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(&digest.as_ref()[..12])
}

/// A name that no other replica has.
pub(super) fn fresh_id() -> String {
    let mut bytes = [0; 12];
    // Where the system has no randomness, the process does not get this far: TLS needs it too.
    let _ = getrandom::fill(&mut bytes);
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn report() -> Report {
        Report {
            granted: 10,
            allowed: 9,
            block: 2,
            share: 5,
            promised: 10,
            cap: 0,
            kept: 1,
            pool: 2,
            want: 3,
            idle: false,
            waiting: 1,
            low: false,
            pause: 0,
            paused: false,
            number: 0,
            lifted: 0,
            told: 0,
            trying: 0,
            starts: vec![900, 1, 20, 2],
            fallback: 0,
            parts: 0,
            gone: 3_600_000,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_report_tells_ages_and_the_servers_own_time_and_nothing_of_this_hosts_clock() {
        let at = |sent, clock| argument(("id", "life"), "run", (clock, false), sent, &report(), false).unwrap();
        let now = Instant::now();
        // Before the server's time is known, nothing is to be done.
        assert!(at(now, None).contains("\"by\":0,"));
        assert_eq!(at(now, None), at(now + Duration::from_secs(86_400), None));
        let clock = Some(Clock { shown: 5_000_000, at: now });
        assert!(at(now, clock).contains("\"by\":5000119,"));
        assert!(at(now + Duration::from_millis(250), clock).contains("\"by\":5000369,"));
        assert!(at(now, clock).contains("\"starts\":[900,1,20,2]"));
        let mad = Some(Clock { shown: u64::MAX - 1, at: now });
        assert!(at(now + Duration::from_secs(1), mad).contains(&format!("\"by\":{},", u64::MAX)));
    }

    #[tokio::test]
    async fn what_is_no_answer_is_none() {
        let now = Instant::now();
        let whole = "{\"late\":false,\"taken\":false,\"now\":7,\"quiet\":0,\"lease\":2,\"share\":5,\"promised\":10,\
                     \"members\":2,\"allowed\":10,\"rate\":5,\"pause\":0,\"paused\":false,\
                     \"number\":0,\"trial\":0,\"soon\":3}";
        let (granted, clock) = answer(whole, 10, now).unwrap();
        assert!(matches!(granted, Answer::Granted(Grant { lease: 2, share: 5, .. })));
        assert_eq!(clock.shown, 7);
        assert!(matches!(answer("{\"late\":true,\"now\":7}", 10, now), Some((Answer::Late, _))));
        let torn = &whole[..whole.len() - 9];
        let (lease, share) =
            (whole.replace("\"lease\":2", "\"lease\":11"), whole.replace("\"share\":5", "\"share\":11"));
        let negative = whole.replace(":2,", ":-2,");
        for bad in ["", "OK", "{}", "[]", "{\"late\":false,\"now\":7}", &negative, torn, &lease, &share] {
            assert!(answer(bad, 10, now).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_name_has_one_id_and_a_fresh_one_is_another_each_time() {
        assert_eq!(id_of("a"), id_of("a"));
        assert!(id_of("a") != id_of("b") && fresh_id() != fresh_id());
    }
}
