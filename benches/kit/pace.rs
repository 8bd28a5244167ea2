//! Calls at a fixed rate or as fast as answers come, each timed.
//!
//! In: how to connect, a pace, and what to send. Out: a histogram of how long each call took, and what the answers were.
//! At a fixed rate a call that waits for a late answer before it counts from when it was due, not from when it was sent:
//! otherwise a stall would hide all the calls it held up. A thread that merely woke up late is not the proxy's doing.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::Sentence;
use super::client::{Caller, Client};

/// The longest time that is told apart, in microseconds; anything longer counts as this.
const LONGEST: u64 = 600_000_000;

/// How fast calls are made.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// So many a second, whatever the answers do.
    Rate(f64),
    /// The next as soon as the last is answered, on each connection.
    Answers,
}

/// A run of calls.
pub(crate) struct Plan<'a> {
    pub(crate) connect: &'a (dyn Fn() -> io::Result<Box<dyn Caller>> + Sync),
    pub(crate) pace: Pace,
    pub(crate) connections: usize,
    pub(crate) duration: Duration,
    /// What to send as the call of this number.
    pub(crate) request: &'a (dyn Fn(u64) -> Vec<u8> + Sync),
}

/// A connection to a proxy at this address, for [`Plan::connect`]. `limit` is for connecting and for each read and write.
pub(crate) fn plain(address: SocketAddr, limit: Duration) -> io::Result<Box<dyn Caller>> {
    Ok(Box::new(Client::connect(address, limit)?))
}

/// What a run shows while it goes on.
pub(crate) struct Progress {
    pub(crate) answered: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) stop: AtomicBool,
}

impl Progress {
    pub(crate) const fn new() -> Self {
        Self { answered: AtomicU64::new(0), failed: AtomicU64::new(0), stop: AtomicBool::new(false) }
    }
}

/// What came of it.
pub(crate) struct Outcome {
    /// Microseconds of every call that was answered.
    pub(crate) times: Histogram<u64>,
    /// How often each status came, and each failure: `200`, `403 property_unknown`, `no answer: …`.
    pub(crate) ends: BTreeMap<String, u64>,
    pub(crate) bytes: u64,
}

impl Outcome {
    pub(crate) fn new() -> Result<Self, Sentence> {
        let times = Histogram::new_with_bounds(1, LONGEST, 3).map_err(|error| error.to_string())?;
        Ok(Self { times, ends: BTreeMap::new(), bytes: 0 })
    }

    pub(crate) fn add(&mut self, other: &Self) {
        // Both have the same bounds, so nothing can fall outside.
        let _ = self.times.add(&other.times);
        for (end, count) in &other.ends {
            *self.ends.entry(end.clone()).or_default() += count;
        }
        self.bytes += other.bytes;
    }

    /// Milliseconds within which this share of the calls was answered, if any was.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        (!self.times.is_empty()).then(|| self.times.value_at_quantile(share) as f64 / 1000.0)
    }

    /// Answers without an error of anybody's.
    pub(crate) fn good(&self) -> u64 {
        self.ends.iter().filter(|(end, _)| end.starts_with('2')).map(|(_, count)| count).sum()
    }

    pub(crate) fn all(&self) -> u64 {
        self.ends.values().sum()
    }
}

/// Makes the calls; returns when the time is over and the last one is answered.
pub(crate) fn run(plan: &Plan<'_>, progress: &Progress) -> Result<Outcome, Sentence> {
    let start = Instant::now();
    let numbers = AtomicU64::new(0);
    let caller = |place: usize| one(plan, progress, &numbers, place, start);
    let parts = thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.connections).map(|place| scope.spawn(move || caller(place))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a caller panicked".to_owned())?).collect()
    });
    let parts: Result<Vec<Outcome>, Sentence> = parts;
    let mut sum = Outcome::new()?;
    parts?.iter().for_each(|part| sum.add(part));
    Ok(sum)
}

fn one(
    plan: &Plan<'_>,
    progress: &Progress,
    numbers: &AtomicU64,
    place: usize,
    start: Instant,
) -> Result<Outcome, Sentence> {
    let mut outcome = Outcome::new()?;
    let mut client: Option<Box<dyn Caller>> = None;
    for turn in 0_u32.. {
        let mut due = Instant::now();
        if let Pace::Rate(rate) = plan.pace {
            // Connections take turns, so that calls are evenly apart.
            let number = f64::from(turn) * plan.connections as f64 + place as f64;
            due = start + Duration::from_secs_f64(number / rate);
            let wait = due.saturating_duration_since(Instant::now());
            if due < start + plan.duration && !wait.is_zero() {
                thread::sleep(wait);
                due = Instant::now();
            }
        }
        if due >= start + plan.duration || progress.stop.load(Ordering::Relaxed) {
            return Ok(outcome);
        }
        let request = (plan.request)(numbers.fetch_add(1, Ordering::Relaxed));
        let end = match call(&mut client, plan, &request) {
            Ok((end, bytes)) => {
                let micros = u64::try_from(due.elapsed().as_micros()).unwrap_or(LONGEST);
                outcome.times.saturating_record(micros.max(1));
                outcome.bytes += bytes;
                end
            }
            Err(error) => {
                client = None;
                if matches!(plan.pace, Pace::Answers) {
                    // A proxy that is gone would be asked a million times over.
                    thread::sleep(Duration::from_millis(10));
                }
                format!("no answer: {}", error.kind())
            }
        };
        let counter = if end.starts_with('2') { &progress.answered } else { &progress.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        *outcome.ends.entry(end).or_default() += 1;
    }
    Ok(outcome)
}

fn call(slot: &mut Option<Box<dyn Caller>>, plan: &Plan<'_>, request: &[u8]) -> io::Result<(String, u64)> {
    let client = match slot {
        Some(client) => client,
        None => slot.insert((plan.connect)()?),
    };
    let answer = client.call(request)?;
    let code = (answer.status >= 400).then(|| code(client.body())).flatten();
    let end = code.map_or_else(|| answer.status.to_string(), |code| format!("{} {code}", answer.status));
    if !answer.kept {
        *slot = None;
    }
    Ok((end, answer.bytes))
}

/// The proxy's own word for an error, from its problem document.
fn code(body: &[u8]) -> Option<String> {
    let problem: serde_json::Value = serde_json::from_slice(body).ok()?;
    Some(problem["code"].as_str()?.to_owned())
}
