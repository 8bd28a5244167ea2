//! What must be true of each request of a run.
//!
//! In: what came to the servers, what the callers asked for and got, and which keys the hotels had until when. Out: how many
//! were answered, and how many were not; or a panic that names the seed and the request.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::servers::Came;

/// What a caller saw of a request; no answer where it hung up or the answer was cut.
pub struct Fate {
    pub line: String,
    pub property: &'static str,
    pub begun: Instant,
    pub took: Duration,
    pub answer: Option<Answered>,
}

/// Whose answer it was, its status and the length of its body.
pub struct Answered {
    pub ours: bool,
    pub status: u16,
    pub length: usize,
}

/// A key that a hotel had, and since when no request may begin with it any more.
pub struct Issued {
    pub key: String,
    pub over: Option<Instant>,
}

/// The keys of each hotel, the newest last.
pub type Keys = BTreeMap<&'static str, Vec<Issued>>;

/// Holds what came to the servers against what the callers asked for and got: how many were answered, and how many not.
pub fn judge(seed: u64, log: &[Came], fates: &[Fate], keys: &Keys) -> (usize, usize) {
    let asked: HashMap<&str, &Fate> = fates.iter().map(|fate| (&*fate.line, fate)).collect();
    let mut all: HashMap<&str, Vec<&Came>> = HashMap::new();
    for came in log {
        all.entry(&came.line).or_default().push(came);
        let (line, fate) = (&came.line, asked[&*came.line]);
        assert_eq!(came.property, fate.property, "seed {seed}: {line}");
        let key = came.key.strip_prefix("Bearer ").unwrap_or_default();
        let issued = keys[fate.property].iter().find(|issued| issued.key == key);
        let issued =
            issued.unwrap_or_else(|| panic!("seed {seed}: {line} for {} came with another's key", came.property));
        if let Some(late) = issued.over.and_then(|over| fate.begun.checked_duration_since(over)) {
            panic!("seed {seed}: {line} for {} came with a key that was over {late:?} before", came.property);
        }
    }
    let (mut good, mut failed) = (0, 0);
    for fate in fates {
        let came = all.get(&*fate.line).map(Vec::as_slice).unwrap_or_default();
        let most = if fate.line.starts_with("GET") { 2 } else { 1 };
        assert!(came.len() <= most, "seed {seed}: {} was acted on {} times", fate.line, came.len());
        match fate.answer {
            Some(Answered { ours: false, status, length }) => {
                good += 1;
                let sent = came.last().map(|came| came.sent);
                assert_eq!(sent, Some(Some((status, length))), "seed {seed}: what was sent for {}", fate.line);
            }
            Some(Answered { status: 502..=504 | 403, .. }) | None => failed += 1,
            Some(Answered { status, .. }) => panic!("seed {seed}: {} got {status} of ours", fate.line),
        }
    }
    (good, failed)
}
