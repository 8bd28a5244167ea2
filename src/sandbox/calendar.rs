//! Days and time stamps as Cloudbeds writes them, without a time library.
//!
//! In: `YYYY-MM-DD` from a form, or a time. Out: the same spelling, or RFC 3339 in UTC. Only real days parse.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// A calendar day, counted from 1970-01-01.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Day(i64);

impl Day {
    /// The day of a date; its parts are taken as given.
    pub(super) const fn new(year: i64, month: i64, day: i64) -> Self {
        // Howard Hinnant's days_from_civil: March is the first month, so that the leap day is the year's last.
        let year = if month <= 2 { year - 1 } else { year };
        let era = year.div_euclid(400);
        let of_era = year.rem_euclid(400);
        let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        Self(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
    }

    /// The day a time falls on, in UTC.
    pub(super) fn of(time: SystemTime) -> Self {
        Self(i64::try_from(seconds(time) / 86_400).unwrap_or_default())
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
            return None;
        }
        let part = |text: Option<&str>| text?.parse::<u16>().ok().map(i64::from);
        let day = Self::new(part(text.get(..4))?, part(text.get(5..7))?, part(text.get(8..))?);
        // 31 June would be 1 July; what does not come back as it was written is not a day.
        (day.to_string() == text).then_some(day)
    }

    pub(super) const fn plus(self, days: i64) -> Self {
        Self(self.0 + days)
    }

    /// The days from this one up to, and without, `end`: the nights of a stay.
    pub(super) fn until(self, end: Self) -> impl Iterator<Item = Self> {
        (self.0..end.0).map(Self)
    }

    /// Year, month and day.
    pub(super) fn civil(self) -> (i32, u8, u8) {
        let day = self.0 + 719_468;
        let era = day.div_euclid(146_097);
        let of_era = day.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let small = |part: i64| u8::try_from(part).unwrap_or_default();
        (i32::try_from(year).unwrap_or_default(), small(month), small(of_year - (153 * shifted + 2) / 5 + 1))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        write!(out, "{year:04}-{month:02}-{day:02}")
    }
}

/// A time, to the second.
pub(super) fn stamp(time: SystemTime) -> String {
    let of_day = seconds(time) % 86_400;
    format!("{}T{:02}:{:02}:{:02}Z", Day::of(time), of_day / 3600, of_day / 60 % 60, of_day % 60)
}

fn seconds(time: SystemTime) -> u64 {
    // A clock before 1970 is not worth an error here.
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_reads_as_it_is_written() {
        let mut day = Day::new(1899, 12, 25);
        for _ in 0..100_000 {
            assert_eq!(Day::parse(&day.to_string()), Some(day));
            day = day.plus(1);
        }
        assert_eq!(Day::new(1970, 1, 1), Day(0));
        assert_eq!(Day(20_000).to_string(), "2024-10-04");
    }

    #[test]
    fn what_is_not_a_day_is_refused() {
        for bad in
            ["", "2026-2-01", "2026-06-31", "2025-02-29", "2026-13-01", "2026-00-10", "+026-01-01", "2026-01-01 "]
        {
            assert_eq!(Day::parse(bad), None, "{bad:?}");
        }
    }
}
