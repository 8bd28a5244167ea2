//! A hotel property's id, the way Cloudbeds counts them.
//!
//! In: text from a header, a query or a key file. Out: a [`PropertyId`], which has exactly one spelling.

use std::fmt;
use std::hash::Hasher;
use std::num::NonZeroU64;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A Cloudbeds property id: 1 to 18446744073709551615, digits only, no sign, no leading zero.
///
/// Ids of 14 and 15 digits exist in the field, so 32 bits would not do. One spelling only, since otherwise `+7` and
/// `007` would be second names for the key of property 7.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PropertyId(NonZeroU64);

/// The text is not a property id. The error does not quote it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a property id: digits only, without a leading zero, at most 18446744073709551615")]
pub struct NotAPropertyId;

impl PropertyId {
    /// The id from its digits. White space is not trimmed here: who accepts it decides that.
    ///
    /// # Errors
    /// When the bytes are empty, not all digits, start with a zero, or exceed 64 bits.
    pub fn from_bytes(text: &[u8]) -> Result<Self, NotAPropertyId> {
        let first = text.first().ok_or(NotAPropertyId)?;
        if *first == b'0' {
            return Err(NotAPropertyId);
        }
        let mut id: u64 = 0;
        for byte in text {
            if !byte.is_ascii_digit() {
                return Err(NotAPropertyId);
            }
            let digit = u64::from(byte - b'0');
            id = id.checked_mul(10).and_then(|id| id.checked_add(digit)).ok_or(NotAPropertyId)?;
        }
        NonZeroU64::new(id).map(Self).ok_or(NotAPropertyId)
    }

    /// The number itself, for metrics and sorting.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

/// Hashes a [`PropertyId`] with one multiplication. Only for maps filled from the key file: there, nobody can choose ids
/// that collide.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write_u64(&mut self, id: u64) {
        // 2^64 divided by the golden ratio; the upper half is folded in since hashbrown looks at both ends.
        let product = u128::from(self.0 ^ id) * 0x9E37_79B9_7F4A_7C15;
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl FromStr for PropertyId {
    type Err = NotAPropertyId;

    fn from_str(text: &str) -> Result<Self, NotAPropertyId> {
        Self::from_bytes(text.as_bytes())
    }
}

impl From<NonZeroU64> for PropertyId {
    fn from(id: NonZeroU64) -> Self {
        Self(id)
    }
}

impl fmt::Display for PropertyId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// As text: JSON's numbers lose digits in many readers.
impl Serialize for PropertyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PropertyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        for good in ["1", "1001", "18446744073709551615"] {
            assert_eq!(good.parse::<PropertyId>().map(|id| id.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "0", "007", "+7", "-7", "7 ", " 7", "7a", "18446744073709551616", "١", "1,2"] {
            assert_eq!(bad.parse::<PropertyId>(), Err(NotAPropertyId), "{bad:?}");
        }
    }
}
