//! Durations and sizes as people write them.
//!
//! In: `500ms`, `5s`, `2m`, `1h`; `65536`, `64KiB`, `1MiB`. Out: a [`Time`] or a [`Size`]. A number without a unit is
//! no duration: nobody can tell seconds from milliseconds by looking at it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration, in whole milliseconds, seconds, minutes or hours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Time(pub(super) Duration);

/// A number of bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Size(pub(super) usize);

/// The text has no meaning as a duration or size. What was expected is said by whoever reads it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a number and a unit")]
pub(super) struct NotAUnit;

/// Splits digits from what follows. No sign, no fraction, no space.
fn number(text: &str) -> Result<(u64, &str), NotAUnit> {
    let unit = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    Ok((text[..unit].parse().map_err(|_| NotAUnit)?, &text[unit..]))
}

impl FromStr for Time {
    type Err = NotAUnit;

    fn from_str(text: &str) -> Result<Self, NotAUnit> {
        let (number, unit) = number(text)?;
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60 * 1000,
            "h" => 60 * 60 * 1000,
            _ => return Err(NotAUnit),
        };
        number.checked_mul(milliseconds).map(|time| Self(Duration::from_millis(time))).ok_or(NotAUnit)
    }
}

impl FromStr for Size {
    type Err = NotAUnit;

    fn from_str(text: &str) -> Result<Self, NotAUnit> {
        let (number, unit) = number(text)?;
        let bytes = match unit {
            "" => 1,
            "KiB" => 1024,
            "MiB" => 1024 * 1024,
            _ => return Err(NotAUnit),
        };
        number.checked_mul(bytes).and_then(|size| usize::try_from(size).ok()).map(Self).ok_or(NotAUnit)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_millis() {
            time if time % 1000 != 0 => write!(out, "{time}ms"),
            time if time % 60_000 != 0 || time == 0 => write!(out, "{}s", time / 1000),
            time if time % 3_600_000 != 0 => write!(out, "{}m", time / 60_000),
            time => write!(out, "{}h", time / 3_600_000),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            size if size % 1024 != 0 || size == 0 => write!(out, "{size}"),
            size if size % (1024 * 1024) != 0 => write!(out, "{}KiB", size / 1024),
            size => write!(out, "{}MiB", size / (1024 * 1024)),
        }
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

struct TimeVisitor;

impl Visitor<'_> for TimeVisitor {
    type Value = Time;

    // What stands behind the dash becomes the fault's hint.
    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a duration such as 5s — write a number and a unit: ms, s, m or h")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Time, E> {
        text.parse().map_err(|_| E::invalid_value(Unexpected::Other("text"), &self))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TimeVisitor)
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = Size;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a size such as 64KiB — write a number of bytes, or a number and KiB or MiB")
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<Size, E> {
        usize::try_from(bytes).map(Size).map_err(|_| E::invalid_value(Unexpected::Other("number"), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
        text.parse().map_err(|_| E::invalid_value(Unexpected::Other("text"), &self))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_and_a_unit() {
        for (text, milliseconds) in [("0s", 0), ("500ms", 500), ("5s", 5000), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(text.parse(), Ok(Time(Duration::from_millis(milliseconds))));
            assert_eq!(Time(Duration::from_millis(milliseconds)).to_string(), text);
        }
        for bad in ["", "5", "s", "-5s", "+5s", "1.5s", "5 s", "5S", "5d", "99999999999999999h"] {
            assert_eq!(bad.parse::<Time>(), Err(NotAUnit), "{bad}");
        }
    }

    #[test]
    fn a_size_is_bytes_or_carries_a_binary_unit() {
        for (text, bytes) in [("0", 0), ("100", 100), ("64KiB", 65_536), ("1MiB", 1_048_576)] {
            assert_eq!(text.parse(), Ok(Size(bytes)));
            assert_eq!(Size(bytes).to_string(), text);
        }
        for bad in ["", "KiB", "64KB", "64k", "-1", "1.5MiB", "99999999999999MiB"] {
            assert_eq!(bad.parse::<Size>(), Err(NotAUnit), "{bad}");
        }
    }
}
