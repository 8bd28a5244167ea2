//! How an attempt to connect a hotel ended.
//!
//! In: what Cloudbeds, the disk and the browser did. Out: an [`Outcome`] that holds no secret, so it can be kept, told
//! twice, counted and shown. Its words for people are `page`'s business, its name in metrics stands in
//! `telemetry::metrics`.

use crate::property::PropertyId;
use crate::telemetry::metrics::Connect;

/// The end of one attempt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// The key is in force and Cloudbeds accepts it.
    Connected {
        property: PropertyId,
        /// The hotel's name, as Cloudbeds gives it.
        hotel: Option<String>,
        /// All properties that this key now serves, where it is an organisation's.
        with: Vec<PropertyId>,
    },
    /// The key is safe on disk, and the rest happens without the user.
    Saved { property: Option<PropertyId> },
    /// The user did not allow it.
    Denied { asked: Option<PropertyId> },
    /// Cloudbeds says that the code is invalid or has expired.
    CodeRefused { asked: Option<PropertyId> },
    /// The key opens other hotels than the one that was asked for. It is not used.
    WrongProperty { asked: PropertyId, opens: Vec<PropertyId> },
    /// Cloudbeds does not know the app, or not as it is set up here.
    SetUp { asked: Option<PropertyId> },
    /// Nothing was sent: the same page may simply be loaded again.
    Unreachable { asked: Option<PropertyId> },
    /// Something was sent and the answer is unknown: only a new connection helps.
    Unclear { asked: Option<PropertyId> },
    /// Nothing was sent, since the key could not have been written to disk.
    NotReady { asked: Option<PropertyId> },
    /// Cloudbeds gave a key, and it could not be written to disk. It is lost.
    NotSaved { asked: Option<PropertyId> },
    /// Cloudbeds gave a key and already rejects it, as when it was replaced in the meantime.
    Rejected { asked: Option<PropertyId> },
    /// Too many at once; nothing was sent.
    Busy { asked: Option<PropertyId> },
}

impl Outcome {
    /// Whether the same state and code may be tried again, since Cloudbeds was not asked.
    pub(super) fn may_retry(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::NotReady { .. } | Self::Busy { .. })
    }

    /// The property it is about, where one is known.
    pub(super) fn property(&self) -> Option<PropertyId> {
        match self {
            Self::Connected { property, .. } => Some(*property),
            Self::WrongProperty { asked, .. } => Some(*asked),
            Self::Saved { property: asked }
            | Self::Denied { asked }
            | Self::CodeRefused { asked }
            | Self::SetUp { asked }
            | Self::Unreachable { asked }
            | Self::Unclear { asked }
            | Self::NotReady { asked }
            | Self::NotSaved { asked }
            | Self::Rejected { asked }
            | Self::Busy { asked } => *asked,
        }
    }

    /// What it counts as.
    pub(super) fn counted(&self) -> Connect {
        match self {
            Self::Connected { .. } => Connect::Connected,
            Self::Saved { .. } => Connect::Saved,
            Self::Denied { .. } => Connect::Denied,
            Self::CodeRefused { .. } => Connect::CodeRefused,
            Self::WrongProperty { .. } => Connect::WrongProperty,
            Self::SetUp { .. } => Connect::SetUp,
            Self::Unreachable { .. } => Connect::Unreachable,
            Self::Unclear { .. } => Connect::Unclear,
            Self::NotReady { .. } | Self::NotSaved { .. } => Connect::NotSaved,
            Self::Rejected { .. } => Connect::Rejected,
            Self::Busy { .. } => Connect::Busy,
        }
    }
}
