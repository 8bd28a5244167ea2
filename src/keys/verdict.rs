//! What is known of a key, as one stable word, and the signs in Cloudbeds' answers that lead to it.
//!
//! In: answers on real traffic. Out: a [`Sign`] that something may be wrong with a key, or nothing. A sign is no
//! verdict: 401 has other causes, and a message may be about one call only, so [`super::keeper`] asks Cloudbeds once
//! more before a [`Verdict`] is passed. Nothing here keeps or shows what an answer said.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::life::Time;

/// A key's standing. The words are the same in the API, the metrics, the state file and the commands.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Verdict {
    /// Cloudbeds has accepted it lately.
    Active = 1,
    /// Not used for 20 days (`keys.idle_days`); Cloudbeds deletes a key after 30.
    Idle = 2,
    /// Not used for 25 days (`keys.expiring_days`).
    Expiring = 3,
    /// Cloudbeds refuses it: revoked, disconnected, expired or never valid.
    Rejected = 4,
    /// The property has a newer key.
    Replaced = 5,
    /// The property is no longer at Cloudbeds.
    PropertyLeft = 6,
    /// The user who approved the connection is no longer active.
    UserLeft = 7,
    /// In the key file, and no answer of Cloudbeds has shown yet whether it works.
    Pending = 8,
}

/// The text is none of the words.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a verdict")]
pub struct NotAVerdict;

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 8] = [
        Self::Active,
        Self::Idle,
        Self::Expiring,
        Self::Rejected,
        Self::Replaced,
        Self::PropertyLeft,
        Self::UserLeft,
        Self::Pending,
    ];

    /// The word itself.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Idle => "idle",
            Self::Expiring => "expiring",
            Self::Rejected => "rejected",
            Self::Replaced => "replaced",
            Self::PropertyLeft => "property_left",
            Self::UserLeft => "user_left",
            Self::Pending => "pending",
        }
    }

    /// Whether calls with the key are useless until the hotel connects again.
    #[must_use]
    pub const fn is_dead(self) -> bool {
        matches!(self, Self::Rejected | Self::PropertyLeft | Self::UserLeft)
    }

    /// What it means and what to do, for a person; one sentence without a full stop.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Active => "in order",
            Self::Idle => "not used for weeks; use it, or turn keys.keep_alive on",
            Self::Expiring => "about to be deleted by Cloudbeds for want of use; use it now",
            Self::Rejected => "Cloudbeds refuses the key; the hotel must connect again",
            Self::Replaced => "the property has a newer key",
            Self::PropertyLeft => "the property is no longer active at Cloudbeds; remove its row, or ask the hotel",
            Self::UserLeft => "the user who approved the connection has left; a present user must connect again",
            Self::Pending => "not tried yet",
        }
    }

    pub(super) const fn from_number(number: u8) -> Option<Self> {
        match number {
            1..=8 => Some(Self::ALL[number as usize - 1]),
            _ => None,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl FromStr for Verdict {
    type Err = NotAVerdict;

    fn from_str(text: &str) -> Result<Self, NotAVerdict> {
        Self::ALL.into_iter().find(|verdict| verdict.as_str() == text).ok_or(NotAVerdict)
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Verdict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A dead key's refusal: until when, and why.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Blocked {
    /// One of the dead ones.
    pub verdict: Verdict,
    /// When Cloudbeds is asked again.
    pub until: Time,
}

/// A sign that something may be wrong with a key.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Sign {
    /// 401, whatever the body: its shapes differ by gateway, and none means that the key is in order.
    Unauthorized,
    /// "User who approved this connection is not active anymore" (Cloudbeds, Common API errors).
    UserLeft,
    /// "… invalid status … canceled …" (the same page).
    PropertyLeft,
    /// "None of the included property id's match …": the key is not this property's.
    Foreign,
    /// A webhook says that something has changed. It is not signed, so it is no more than a reason to ask.
    Hinted,
}

impl Sign {
    /// What a body says: Cloudbeds answers much of what is wrong with 200, `success:false` and a message.
    #[must_use]
    pub fn in_body(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Failure<'a> {
            success: serde_json::Value,
            #[serde(borrow)]
            message: std::borrow::Cow<'a, str>,
        }
        let failure: Failure<'_> = serde_json::from_slice(body).ok()?;
        // `/oauth/metadata` has it as text.
        let failed = failure.success == false || failure.success == "false";
        failed.then(|| Self::in_message(&failure.message)).flatten()
    }

    /// From the beginning only, where the words are known: what follows may repeat what a guest wrote.
    fn in_message(message: &str) -> Option<Self> {
        let message = message.trim().to_ascii_lowercase();
        if message.starts_with("user who approved this connection is not active") {
            Some(Self::UserLeft)
        } else if message.starts_with("none of the included property id") {
            Some(Self::Foreign)
        } else if message.len() < 300 && message.contains("invalid status") && message.contains("cancel") {
            Some(Self::PropertyLeft)
        } else {
            None
        }
    }

    /// The verdict it would be.
    #[must_use]
    pub const fn verdict(self) -> Option<Verdict> {
        match self {
            Self::Unauthorized => Some(Verdict::Rejected),
            Self::UserLeft => Some(Verdict::UserLeft),
            Self::PropertyLeft => Some(Verdict::PropertyLeft),
            Self::Foreign | Self::Hinted => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_its_word() {
        for verdict in Verdict::ALL {
            assert_eq!(verdict.as_str().parse(), Ok(verdict));
            assert_eq!(serde_json::to_string(&verdict).unwrap(), format!("\"{verdict}\""));
            assert_eq!(Verdict::from_number(verdict as u8), Some(verdict));
        }
        assert_eq!((Verdict::from_number(0), Verdict::from_number(9)), (None, None));
    }

    #[test]
    fn the_known_messages_are_signs_and_nothing_else_is() {
        let sign = |body: &str| Sign::in_body(body.as_bytes());
        let left = "User who approved this connection is not active anymore";
        assert_eq!(sign(&format!(r#"{{"success":false,"message":"{left}"}}"#)), Some(Sign::UserLeft));
        assert_eq!(
            sign(&format!(r#" {{ "message": "{left}.", "data": [1], "success": "false" }} "#)),
            Some(Sign::UserLeft)
        );
        assert_eq!(
            sign(r#"{"success":false,"message":"Property has an invalid status (canceled: 3)"}"#),
            Some(Sign::PropertyLeft)
        );
        assert_eq!(
            sign(
                r#"{"success":false,"message":"None of the included property id's match the access_token user's property id"}"#
            ),
            Some(Sign::Foreign)
        );
        for other in [
            String::new(),
            format!(r#"{{"success":true,"message":"{left}"}}"#),
            format!(r#"{{"success":false,"message":"Guest not found: {left}"}}"#),
            format!(r#"{{"success":false,"message":"{left}""#),
            r#"{"success":false,"message":"Please specify \"propertyID\" parameter for this call"}"#.to_owned(),
            r#"{"success":false,"message":"The status is invalid"}"#.to_owned(),
            r#"{"success":false}"#.to_owned(),
            r#"[{"success":false}]"#.to_owned(),
        ] {
            assert_eq!(sign(&other), None, "{other}");
        }
    }
}
