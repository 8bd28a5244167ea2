//! A line of the log that strangers can cause, told so many times and no more.
//!
//! In: a moment at which there is something to tell. Out: whether to tell it, and how often it was not told since the
//! last time. A flood of refusals must neither fill a disk nor push other lines out of the log's queue.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Lines told in each [`SPAN`].
const LINES: u32 = 10;

/// How long a count lasts.
const SPAN: Duration = Duration::from_secs(10);

/// The count; all cores share it.
#[derive(Debug, Default)]
pub struct Sparing(Mutex<Count>);

#[derive(Debug, Default)]
struct Count {
    since: Option<Instant>,
    told: u32,
    silent: u64,
}

impl Sparing {
    /// How often nothing was said since the last line, if one may be told now.
    #[must_use]
    pub fn turn(&self, now: Instant) -> Option<u64> {
        // A panic elsewhere leaves a count that is right enough.
        let mut count = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if count.since.is_none_or(|since| now.saturating_duration_since(since) >= SPAN) {
            (count.since, count.told) = (Some(now), 0);
        }
        if count.told == LINES {
            count.silent += 1;
            return None;
        }
        count.told += 1;
        Some(std::mem::take(&mut count.silent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_ten_lines_and_a_number() {
        let (sparing, start) = (Sparing::default(), Instant::now());
        let told = (0..1000).filter(|_| sparing.turn(start).is_some()).count();
        assert_eq!(told, 10);
        assert_eq!(sparing.turn(start + SPAN / 2), None);
        assert_eq!(sparing.turn(start + SPAN), Some(991));
        assert_eq!(sparing.turn(start + SPAN), Some(0));
    }
}
