//! What happened in a day, and what Cloudbeds saw of it.
//!
//! In: calls that were wanted, refused, started, and when they arrived. Out: waits by kind, fairness between hotels, use
//! of the budget, and the most arrivals in any one second, counted from the arrivals alone.

use std::ops::Range;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::traffic::{Hotel, Kind, PEAK};

/// Of one kind of calls.
#[derive(Debug)]
pub(crate) struct Tally {
    /// How often the budget was asked, and refused.
    pub(crate) asked: u64,
    pub(crate) refused: u64,
    pub(crate) started: u64,
    /// Calls that nobody made any more after a refusal.
    pub(crate) given_up: u64,
    /// How long calls that started had stood in the queue, in milliseconds.
    pub(crate) waits: Histogram<u64>,
    /// The same, of those in the peak.
    pub(crate) peak: Histogram<u64>,
}

/// One hotel's part of the peak.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    wanted: f64,
    started: f64,
}

/// A day.
#[derive(Debug, Default)]
pub(crate) struct Books {
    per_second: usize,
    tallies: Vec<Tally>,
    parts: Vec<Part>,
    /// When each start arrived at Cloudbeds, in microseconds.
    arrivals: Vec<u64>,
    /// Since the last full minute.
    minute_starts: u64,
    desk: Vec<u64>,
    /// Minutes of the peak at whose end somebody waited, and starts in them.
    busy: (u64, u64),
    /// When the last audit that falls into the peak was done.
    pub(crate) audits_over: Duration,
    /// What replicas that share sent to the script, what that took it, and how often one of them was left alone.
    pub(crate) reports: (u64, Duration),
    pub(crate) losses: u64,
    /// By the minute, in hours: starts a second; reports a second; who waits.
    pub(crate) pace: Vec<(f64, f64)>,
    pub(crate) report_pace: Vec<(f64, f64)>,
    pub(crate) waiting: Vec<(f64, f64)>,
    /// By ten minutes: the longest wait of a front desk, in seconds.
    pub(crate) desk_waits: Vec<(f64, f64)>,
}

fn waits() -> Histogram<u64> {
    // Up to a day, by three digits.
    Histogram::new_with_bounds(1, 86_400_000, 3).unwrap()
}

fn is_peak(at: Duration) -> bool {
    let hours = at.as_secs_f64() / 3600.0;
    (PEAK.0..PEAK.1).contains(&hours)
}

/// Jain, Chiu and Hawe's index: 1 when all are equal, 1/n when one has everything.
pub(crate) fn jain(values: &[f64]) -> f64 {
    let (sum, squares) = values.iter().fold((0.0, 0.0), |(sum, squares), value| (sum + value, squares + value * value));
    if squares > 0.0 { sum * sum / (values.len() as f64 * squares) } else { 1.0 }
}

/// The max-min fair share: what each may have at most, so that all who want less have what they want, and the rest is
/// divided equally.
pub(crate) fn fair_share(wanted: &[f64], capacity: f64) -> f64 {
    let mut sorted = wanted.to_vec();
    sorted.sort_by(f64::total_cmp);
    let mut left = capacity;
    for (index, want) in sorted.iter().enumerate() {
        let share = left / (sorted.len() - index) as f64;
        if *want >= share {
            return share;
        }
        left -= want;
    }
    f64::INFINITY
}

/// The most of these moments (in microseconds) within any one second.
pub(crate) fn most_in_a_second(arrivals: &mut [u64]) -> usize {
    arrivals.sort_unstable();
    let mut first = 0;
    let mut most = 0;
    for (index, at) in arrivals.iter().enumerate() {
        while arrivals[first] + 1_000_000 <= *at {
            first += 1;
        }
        most = most.max(index + 1 - first);
    }
    most
}

impl Books {
    pub(crate) fn new(hotels: usize, per_second: usize) -> Self {
        let tally = |_| Tally { asked: 0, refused: 0, started: 0, given_up: 0, waits: waits(), peak: waits() };
        let tallies = Kind::ALL.iter().map(tally).collect();
        Self { per_second, tallies, parts: vec![Part::default(); hotels], ..Self::default() }
    }

    pub(crate) fn tally(&self, kind: Kind) -> &Tally {
        &self.tallies[kind as usize]
    }

    fn tally_mut(&mut self, kind: Kind) -> &mut Tally {
        &mut self.tallies[kind as usize]
    }

    /// What a hotel wants of the peak, as far as that is known before.
    pub(crate) fn knows(&mut self, hotel: &Hotel, played: Range<Duration>) {
        let endless = if hotel.is_hog() { f64::INFINITY } else { 0.0 };
        let audits = hotel.jobs.iter().filter(|job| job.kind == Kind::Audit && is_peak(job.begins));
        let audits = audits.filter(|job| played.contains(&job.begins));
        let calls: u32 = audits.filter_map(|job| job.calls).sum();
        self.parts[hotel.number as usize].wanted += f64::from(calls) + endless;
    }

    /// Somebody at a front desk wants something.
    pub(crate) fn wanted(&mut self, hotel: u32, at: Duration) {
        if is_peak(at) {
            self.parts[hotel as usize].wanted += 1.0;
        }
    }

    /// The budget was asked, and said so.
    pub(crate) fn asked(&mut self, kind: Kind, refused: bool) {
        let tally = self.tally_mut(kind);
        tally.asked += 1;
        tally.refused += u64::from(refused);
    }

    /// A call started, and arrives.
    pub(crate) fn started(&mut self, hotel: u32, kind: Kind, waited: Duration, at: Duration, arrives: Duration) {
        let millis = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        let peak = is_peak(at);
        let tally = self.tally_mut(kind);
        tally.started += 1;
        tally.waits.saturating_record(millis);
        if peak {
            tally.peak.saturating_record(millis);
        }
        self.arrivals.push(u64::try_from(arrives.as_micros()).unwrap_or(u64::MAX));
        self.minute_starts += 1;
        if kind == Kind::Desk {
            self.desk.push(millis);
        }
        if peak {
            // Reports would take whatever is left, and want no fair share of it.
            self.parts[hotel as usize].started += f64::from(u8::from(kind != Kind::Report));
        }
    }

    /// Nobody makes this call any more.
    pub(crate) fn gave_up(&mut self, kind: Kind) {
        self.tally_mut(kind).given_up += 1;
    }

    /// A job has ended.
    pub(crate) fn job_over(&mut self, kind: Kind, begun: Duration, over: Duration) {
        if kind == Kind::Audit && is_peak(begun) {
            self.audits_over = self.audits_over.max(over);
        }
    }

    /// A minute is over, so many wait, and there were so many reports in it.
    pub(crate) fn minute(&mut self, at: Duration, waiting: usize, reports: u64) {
        let hours = at.as_secs_f64() / 3600.0;
        let starts = std::mem::take(&mut self.minute_starts);
        self.pace.push((hours, starts as f64 / 60.0));
        self.report_pace.push((hours, reports as f64 / 60.0));
        let waited_before = self.waiting.last().is_some_and(|(_, before)| *before > 0.0);
        if is_peak(at) && waiting > 0 && waited_before {
            self.busy = (self.busy.0 + 1, self.busy.1 + starts);
        }
        self.waiting.push((hours, waiting as f64));
        if self.pace.len().is_multiple_of(10) {
            let longest = self.desk.drain(..).max().unwrap_or_default();
            self.desk_waits.push((hours, longest as f64 / 1000.0));
        }
    }

    /// All starts.
    pub(crate) fn starts(&self) -> usize {
        self.arrivals.len()
    }

    /// The most calls that arrived at Cloudbeds in any one second.
    pub(crate) fn most_in_a_second(&mut self) -> usize {
        most_in_a_second(&mut self.arrivals)
    }

    /// Starts beside what is granted, in the minutes of the peak in which somebody always waited; none without such.
    pub(crate) fn use_in_overload(&self) -> Option<f64> {
        let (minutes, starts) = self.busy;
        (minutes > 0).then(|| starts as f64 / (minutes * 60 * self.per_second as u64) as f64)
    }

    /// How fairly the peak was divided: what each hotel had, beside its max-min fair share of all that was given.
    pub(crate) fn fairness(&self) -> f64 {
        let parts: Vec<Part> = self.parts.iter().copied().filter(|part| part.wanted > 0.0).collect();
        let wanted: Vec<f64> = parts.iter().map(|part| part.wanted).collect();
        let share = fair_share(&wanted, parts.iter().map(|part| part.started).sum());
        let had: Vec<f64> = parts.iter().map(|part| part.started / part.wanted.min(share)).collect();
        jain(&had)
    }
}
