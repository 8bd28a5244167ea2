//! What replicas tell each other of a budget, by way of somebody between them.
//!
//! In and out: a [`Report`] of everything that one replica did in the last window, and the [`Grant`] it gets for it. The
//! times that both sides must keep stand here too, with the reasons why together they are enough.
//!
//! No wall clock is compared: a report tells ages, and a lease ends by the clock of the replica, counted from when it sent
//! its report. Whoever grants counts from when it read it, which is later.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::window::COUNTS;

/// How long a lease can be used after the report was sent that it answers.
pub const VALID: Duration = Duration::from_millis(400);

/// How long a replica waits for an answer. A report that is read later than this is not acted on.
pub const PATIENCE: Duration = Duration::from_millis(120);

/// How long after that a replica starts nothing on its own: until then its places run out by the clock.
pub const GRACE: Duration = Duration::from_millis(30);

/// How seldom a replica reports at most, when it has nothing to ask for and there are many.
pub const BEAT: Duration = Duration::from_millis(150);

/// How often it looks whether its server is still there, by a report or, where those are more seldom, by a sign of life: whoever
/// has lost it goes on alone within this, an answer's time and the grace. A sign says nothing of the replica and the
/// script does not count it, so the times below hold with it and without it. No report is sent while a sign has no answer:
/// the replica goes on alone `PATIENCE` and `GRACE` after whichever has none, and nothing that the script may still
/// read is younger.
pub const SIGN: Duration = Duration::from_millis(50);

/// The beat of one of so many replicas: the more report, the more seldom each.
#[must_use]
pub fn beat(members: usize) -> Duration {
    let members = u32::try_from(members).unwrap_or(u32::MAX).min(100);
    (Duration::from_micros(6250) * members).clamp(SIGN, BEAT)
}

/// After so long without a report, a replica's whole share is kept free: a beat, a sign's answer, a report's, and some more.
pub const SILENT: Duration = Duration::from_millis(450);

/// Since its last report, until a replica that is alone may use its whole share: by then its silence was noticed, and
/// what others had leased before has been used and has run out.
pub(super) const ALL_FROM: Duration = PATIENCE
    .saturating_add(SILENT)
    .saturating_add(VALID)
    .saturating_add(COUNTS)
    .saturating_add(Duration::from_millis(50));

/// How long one that tries whether a pause is over has for its answer before another one may try as well: it may be a
/// report that takes a minute, or its replica may be dead.
pub const TRIAL: Duration = Duration::from_secs(5);

/// A replica that has not been heard of for so long, and did not say goodbye, is gone, unless the configuration says
/// otherwise.
pub const GONE: Duration = Duration::from_secs(60 * 60);

/// How long a replica whose share is kept free for so long goes on alone after the last report that was answered. It ends
/// earlier by twice what clocks may drift apart, and by what its last starts count.
pub(super) fn lasts(gone: Duration) -> Duration {
    gone.saturating_sub(gone / 50).saturating_sub(COUNTS).saturating_sub(VALID)
}

/// When nobody has reported for so long, what replicas hold is not known any more.
pub const GAP: Duration = Duration::from_secs(2);

/// What one replica has done, holds and wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Starts a second, as configured, and as Cloudbeds lets this replica have now.
    pub granted: usize,
    /// See there.
    pub allowed: usize,
    /// The most that may be leased at a time.
    pub block: usize,
    /// Its share for when it is alone, and the sum of all shares as it knows it.
    pub share: usize,
    /// See there.
    pub promised: usize,
    /// What it may use by itself until it has an answer.
    pub cap: usize,
    /// Places of requests that are about to start.
    pub kept: usize,
    /// Leased and not used.
    pub pool: usize,
    /// How many it could use: requests that wait, or what it likes to have ahead.
    pub want: usize,
    /// Whether it has had nothing to do for a while, and wants a place only in case it is left alone.
    pub idle: bool,
    /// Properties of which requests wait, without those of low priority where others wait.
    pub waiting: usize,
    /// Whether all who wait are of low priority.
    pub low: bool,
    /// Milliseconds for which Cloudbeds wants to hear nothing, and whether there is a pause, which ends when one that tries
    /// comes through.
    pub pause: u64,
    /// See there.
    pub paused: bool,
    /// The number of that pause, or 0 where it has none yet, and of the last one that a request of this replica ended.
    pub number: u64,
    /// See there.
    pub lifted: u64,
    /// How many pauses, or longer ones, Cloudbeds told this replica.
    pub told: u64,
    /// Milliseconds for which one that tries still has time.
    pub trying: u64,
    /// Starts that count: age in milliseconds and how many, in turn.
    pub starts: Vec<u64>,
    /// A share that the configuration names, or 0, and how many such shares there are.
    pub fallback: usize,
    /// See there.
    pub parts: usize,
    /// Milliseconds without a report after which it has no share any more, and starts nothing.
    pub gone: u64,
}

/// What a replica may have until its next report.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Grant {
    /// Milliseconds until anything is granted at all.
    pub quiet: u64,
    /// Leased: it may have so many unused ones, with those it had when it reported.
    pub lease: usize,
    /// Its share for when it is alone.
    pub share: usize,
    /// The sum of all shares.
    pub promised: usize,
    /// How many replicas there are.
    pub members: usize,
    /// Starts a window that it can hope for while others wait too.
    pub rate: usize,
    /// Milliseconds for which Cloudbeds wants to hear nothing of any replica, and whether there is a pause.
    pub pause: u64,
    /// See there.
    pub paused: bool,
    /// The number of the last pause.
    pub number: u64,
    /// Milliseconds in which one request of this replica may try, and no other replica's.
    pub trial: u64,
    /// Milliseconds until it is worth asking for more.
    pub soon: u64,
}

/// What all replicas know of a pause.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct CommonPause {
    pub(super) paused: bool,
    /// Before one may try.
    pub(super) left: Duration,
    pub(super) number: u64,
    /// In which one of ours may, if it is not nothing.
    pub(super) trial: Duration,
}

impl Grant {
    pub(super) fn common_pause(&self) -> CommonPause {
        CommonPause {
            paused: self.paused,
            left: Duration::from_millis(self.pause),
            number: self.number,
            trial: Duration::from_millis(self.trial).min(TRIAL),
        }
    }
}

/// How a budget is shared, for metrics.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Sharing {
    /// Whether somebody grants.
    pub up: bool,
    /// What this replica has when nobody does.
    pub share: usize,
    /// How many share, as last heard.
    pub members: usize,
    /// How often it was left alone.
    pub losses: u64,
}

/// What the configuration says of replicas that are left alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Apart {
    /// The share of each, if it is named.
    pub fallback: Option<Fallback>,
    /// For so long a share is kept free for a replica that is not heard of; then it has none.
    pub gone: Duration,
}

impl Default for Apart {
    fn default() -> Self {
        Self { fallback: None, gone: GONE }
    }
}

/// What the configuration says of shares.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fallback {
    /// Starts a second.
    pub share: usize,
    /// How many such shares there are.
    pub parts: usize,
}
