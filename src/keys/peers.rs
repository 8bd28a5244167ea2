//! The keepers of other replicas, as a keeper sees them.
//!
//! In: what is new of keys here. Out: what is new of them elsewhere; and who does a thing that one of all is to do. How
//! they hear of each other is not known here. What they tell each other names keys by fingerprint and holds none.

use super::keeper::Answered;
use super::life::Time;
use super::record::Record;
use crate::secret::Fingerprint;

/// Other replicas. Every call has its deadline.
pub trait Peers {
    /// Tells what is new of keys here, at `now`, and hears what is new elsewhere. Nothing when nobody can be heard.
    fn exchange(&self, own: Vec<(Fingerprint, Record)>, now: Time) -> Answered<Option<News>>;

    /// Whether this replica is the one to do something about a key, and no other within so many seconds. It is where
    /// nobody can be asked.
    fn claim(&self, name: Fingerprint, task: Task, seconds: u64) -> Answered<bool>;
}

/// What one replica does for all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Task {
    /// Asks Cloudbeds whether the key works.
    Probe,
    /// Uses the key.
    KeepAlive,
}

impl Task {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::KeepAlive => "keep-alive",
        }
    }
}

/// What was heard.
#[derive(Debug, Default)]
pub struct News {
    /// Records as others know them, in the time of this host's clock.
    pub records: Vec<(Fingerprint, Record)>,
    /// Those of ours that were taken. Others have changed the rest meanwhile, or will be told the next time.
    pub taken: Vec<Fingerprint>,
    /// Whoever carries the news has lost what it was told before.
    pub forgotten: bool,
    /// There is more to hear at once.
    pub more: bool,
}
