//! Who calls, and when.
//!
//! In: how many hotels. Out: each hotel's part of the day, the same in every run. Six in ten hotels are in one time zone,
//! and its night, from 02:00 to 04:00, is the peak: their audits begin together while five hotels synchronise everything.

use std::time::Duration;

use crate::chance::Chance;

/// The peak, in hours of the day.
pub(crate) const PEAK: (f64, f64) = (2.0, 4.0);

/// Hotels whose synchronisation asks as fast as it can.
const HOGS: u32 = 5;

/// Hotels in a hundred that have a report made all day, at low priority.
const REPORTING: u32 = 2;

/// What a call is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// Somebody at a front desk waits for it, and gives up when it is refused.
    Desk,
    /// A night audit's: a hundred calls, two at a time.
    Audit,
    /// A hog's: twenty at a time, without end.
    Sync,
    /// A report's: one at a time, at low priority.
    Report,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Desk, Self::Audit, Self::Sync, Self::Report];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Desk => "front desk",
            Self::Audit => "night audit",
            Self::Sync => "hog",
            Self::Report => "report, low priority",
        }
    }
}

/// A number of calls that somebody wants made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) kind: Kind,
    pub(crate) begins: Duration,
    /// When it is given up.
    pub(crate) ends: Duration,
    /// As many as there is time for, if it does not say.
    pub(crate) calls: Option<u32>,
    /// How many at a time.
    pub(crate) workers: u32,
    /// The longest time between an answer and the next call, in milliseconds.
    pub(crate) pause: f64,
}

/// One hotel.
#[derive(Debug)]
pub(crate) struct Hotel {
    pub(crate) number: u32,
    /// Of its own clock, beside that of the peak.
    offset: f64,
    /// Calls of its front desk in a day.
    desk: f64,
    pub(crate) jobs: Vec<Job>,
}

/// How busy a front desk is by the hour of its own clock, with a mean of 1.
const BUSY: [f64; 24] = [
    0.3, 0.2, 0.2, 0.2, 0.2, 0.4, 0.8, 1.4, 1.8, 1.9, 1.8, 1.6, 1.2, 1.2, 1.5, 1.7, 1.7, 1.5, 1.3, 1.1, 0.8, 0.6, 0.4,
    0.2,
];

impl Hotel {
    pub(crate) fn of(number: u32, hotels: u32) -> Self {
        let mut chance = Chance::of(1, number.into());
        let zone = chance.unit();
        let offset = if number < HOGS || zone < 0.6 {
            0.0
        } else if zone < 0.85 {
            -6.0
        } else {
            8.0
        };
        // From 50 to 350 calls, most of them nearer to the lower end.
        let desk = 50.0 + 300.0 * chance.unit().powi(2);
        let hours = |hours: f64| Duration::from_secs_f64(hours * 3600.0);
        let own = |hour: f64| hours((hour - offset).rem_euclid(24.0));
        // Half of them on the stroke of two, as schedules are written; the others within half an hour.
        let late = if chance.unit() < 0.5 { 0.0 } else { chance.unit() * 0.5 };
        let begins = own(2.0 + late);
        let mut jobs = vec![Job {
            kind: Kind::Audit,
            begins,
            ends: begins + hours(6.0),
            calls: Some(100),
            workers: 2,
            pause: 200.0,
        }];
        if number < HOGS {
            let hog = |begins: f64, ends: f64| Job {
                kind: Kind::Sync,
                begins: hours(begins),
                ends: hours(ends),
                calls: None,
                workers: 20,
                pause: 0.0,
            };
            jobs.extend([hog(PEAK.0, PEAK.1), hog(10.0, 11.0)]);
        }
        if number % 100 >= 100 - REPORTING || (hotels < 100 && number + 1 == hotels) {
            let day = hours(24.0);
            jobs.push(Job {
                kind: Kind::Report,
                begins: hours(0.0),
                ends: day,
                calls: None,
                workers: 1,
                pause: 80_000.0,
            });
        }
        Self { number, offset, desk, jobs }
    }

    /// How long after this moment of the day its front desk calls again; or how long until the next hour, when it may be
    /// busier or less, and has not called by then.
    pub(crate) fn next_call(&self, now: Duration, chance: &mut Chance) -> Result<Duration, Duration> {
        let hour = (now.as_secs_f64() / 3600.0 + self.offset).rem_euclid(24.0);
        let busy = BUSY.get(hour as usize).copied().unwrap_or(1.0);
        let rest = Duration::from_secs_f64((1.0 - hour.fract()) * 3600.0 + 0.001);
        let gap = chance.gap(self.desk * busy / 86_400.0);
        if gap < rest { Ok(gap) } else { Err(rest) }
    }

    /// Whether it wants all it can get in the peak.
    pub(crate) fn is_hog(&self) -> bool {
        self.jobs.iter().any(|job| job.kind == Kind::Sync)
    }
}
