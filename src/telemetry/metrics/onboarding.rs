//! The counters of the onboarding listener.
//!
//! In: how attempts to connect a hotel ended, and what became of webhooks. Out: numbers for the scrape. Labels are fixed
//! words.

use std::sync::atomic::{AtomicU64, Ordering};

/// How an attempt to connect a hotel ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Connect {
    /// The key is in force and works.
    Connected,
    /// The key is on disk and not checked yet.
    Saved,
    /// The user said no.
    Denied,
    /// Cloudbeds says that the code is invalid or has expired.
    CodeRefused,
    /// The key opens another hotel than the one asked for.
    WrongProperty,
    /// The link or the redirect is of no app of ours.
    UnknownApp,
    /// Cloudbeds does not accept the app's id, secret or redirect URI.
    SetUp,
    /// Cloudbeds could not be reached, and nothing was sent.
    Unreachable,
    /// A code was sent, and no usable answer came.
    Unclear,
    /// The key could not be written to disk.
    NotSaved,
    /// Cloudbeds gave a key and rejects it.
    Rejected,
    /// Too many at once.
    Busy,
    /// A redirect without a state of ours, or without what it must carry.
    StateUnknown,
    /// A state that was issued to another browser.
    OtherBrowser,
}

impl Connect {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 14] = [
        Self::Connected,
        Self::Saved,
        Self::Denied,
        Self::CodeRefused,
        Self::WrongProperty,
        Self::UnknownApp,
        Self::SetUp,
        Self::Unreachable,
        Self::Unclear,
        Self::NotSaved,
        Self::Rejected,
        Self::Busy,
        Self::StateUnknown,
        Self::OtherBrowser,
    ];

    /// The label `outcome`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Saved => "saved",
            Self::Denied => "denied",
            Self::CodeRefused => "code_refused",
            Self::WrongProperty => "wrong_property",
            Self::UnknownApp => "unknown_app",
            Self::SetUp => "set_up",
            Self::Unreachable => "unreachable",
            Self::Unclear => "unclear",
            Self::NotSaved => "not_saved",
            Self::Rejected => "rejected",
            Self::Busy => "busy",
            Self::StateUnknown => "state_unknown",
            Self::OtherBrowser => "other_browser",
        }
    }
}

/// What became of a webhook.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Webhook {
    /// It led to a look at a key.
    Probed,
    /// It is about another app, a property without a key, or another event.
    Ignored,
    /// The same was heard before, or the property was looked at a moment ago.
    Repeated,
    /// It is too large, too slow or no such message.
    Refused,
}

impl Webhook {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Probed, Self::Ignored, Self::Repeated, Self::Refused];

    /// The label `result`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Probed => "probed",
            Self::Ignored => "ignored",
            Self::Repeated => "repeated",
            Self::Refused => "refused",
        }
    }
}

/// What is counted about onboarding.
#[derive(Debug, Default)]
pub struct Onboarding {
    connects: [AtomicU64; Connect::ALL.len()],
    webhooks: [AtomicU64; Webhook::ALL.len()],
    begun: AtomicU64,
    waiting: AtomicU64,
}

impl Onboarding {
    /// A browser was sent to Cloudbeds with a state.
    pub fn begun(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// An attempt ended.
    pub fn connect(&self, how: Connect) {
        self.connects[how as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A webhook was answered.
    pub fn webhook(&self, what: Webhook) {
        self.webhooks[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// So many keys are on disk and in no key file yet.
    pub fn set_waiting(&self, keys: usize) {
        self.waiting.store(keys as u64, Ordering::Relaxed);
    }

    pub(super) fn connects(&self) -> [(&'static str, u64); Connect::ALL.len()] {
        Connect::ALL.map(|how| (how.as_str(), self.connects[how as usize].load(Ordering::Relaxed)))
    }

    pub(super) fn webhooks(&self) -> [(&'static str, u64); Webhook::ALL.len()] {
        Webhook::ALL.map(|what| (what.as_str(), self.webhooks[what as usize].load(Ordering::Relaxed)))
    }

    pub(super) fn begun_count(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    pub(super) fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }
}
