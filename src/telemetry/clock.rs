//! The time of day as a log line starts with it: RFC 3339, UTC, milliseconds.
//!
//! In: a [`SystemTime`]. Out: always 24 characters, `2026-11-24T15:03:00.042Z`. Leap seconds are as POSIX time has
//! them: not there.

use std::fmt;
use std::time::{Duration, SystemTime};

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// Lets the ordinary events start like the access lines do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, out: &mut Writer<'_>) -> fmt::Result {
        out.write_str(std::str::from_utf8(&rfc3339(SystemTime::now())).unwrap_or_default())
    }
}

/// A moment's text, of which only the milliseconds are written anew while the second stays the same.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stamp {
    /// Seconds since 1970, and one: a fresh stamp has none.
    second: u64,
    text: [u8; 24],
}

impl Stamp {
    pub(super) fn at(&mut self, time: SystemTime) -> &[u8; 24] {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let second = since.as_secs() + 1;
        if self.second != second {
            *self = Self { second, text: rfc3339(time) };
        }
        put(&mut self.text[20..23], u64::from(since.subsec_millis()));
        &self.text
    }
}

/// The moment in 24 ASCII characters. Times before 1970 count as 1970; years above 9999 lose their front digits.
pub(super) fn rfc3339(time: SystemTime) -> [u8; 24] {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (year, month, day) = civil_date(since.as_secs() / 86_400);
    let second = since.as_secs() % 86_400;
    let mut text = *b"0000-00-00T00:00:00.000Z";
    put(&mut text[0..4], year);
    put(&mut text[5..7], month);
    put(&mut text[8..10], day);
    put(&mut text[11..13], second / 3600);
    put(&mut text[14..16], second / 60 % 60);
    put(&mut text[17..19], second % 60);
    put(&mut text[20..23], u64::from(since.subsec_millis()));
    text
}

fn put(out: &mut [u8], mut number: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Year, month and day of the n-th day since 1970-01-01: Howard Hinnant's `civil_from_days`, for days that are not
/// negative. Years are counted from March, so that the leap day is the last of its year.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since 0000-03-01
    let era = days / 146_097; // 400 years
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(seconds: u64, millis: u64, expected: &str) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(millis);
        assert_eq!(std::str::from_utf8(&rfc3339(time)).unwrap(), expected);
    }

    #[test]
    fn a_moment_has_its_rfc_3339_spelling() {
        // Expectations from `date -u -d @…`.
        check(0, 0, "1970-01-01T00:00:00.000Z");
        check(951_782_399, 999, "2000-02-28T23:59:59.999Z");
        check(951_782_400, 0, "2000-02-29T00:00:00.000Z");
        check(1_709_251_199, 7, "2024-02-29T23:59:59.007Z");
        check(1_795_532_580, 42, "2026-11-24T15:03:00.042Z");
        check(4_107_542_400, 0, "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn days_follow_each_other_for_four_centuries() {
        let mut before = civil_date(0);
        for day in 1..=146_097 {
            let now = civil_date(day);
            let next_day = (before.0, before.1, before.2 + 1) == now;
            let next_month = (before.0, before.1 + 1, 1) == now && before.2 >= 28;
            let next_year = (before.0 + 1, 1, 1) == now && (before.1, before.2) == (12, 31);
            assert!(next_day || next_month || next_year, "{before:?} then {now:?}");
            before = now;
        }
        assert_eq!(before, (2370, 1, 1));
    }

    #[test]
    fn a_clock_before_1970_does_not_break_the_line() {
        assert_eq!(&rfc3339(SystemTime::UNIX_EPOCH - Duration::from_secs(5))[..4], b"1970");
    }
}
