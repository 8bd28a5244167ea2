//! Trouble for any path: the next so many requests of a hotel or a path are sent to one of the rooms under `/sandbox/`.
//!
//! In: [`Rule`]s, and requests. Out: the room a request is sent to, if any. The first rule that fits counts; one that has
//! run out is gone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::property::PropertyId;

/// What happens to requests to come.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    /// Those of this hotel, which the query, the header `X-Property-Id` or the key names; `None` for any.
    pub property: Option<PropertyId>,
    /// Those whose path ends so, such as `getRooms`; empty for any.
    pub path: String,
    /// How many.
    pub times: u32,
    /// The room and its switches, such as `fail?kind=limit`, `slow?first_byte_ms=500`, `reset?head=0`, `hang`, `missing`.
    pub room: String,
}

/// The rules in force.
#[derive(Default)]
pub(super) struct Rules {
    any: AtomicBool,
    all: Mutex<Vec<Rule>>,
}

impl Rules {
    /// Whether it is worth asking; most of the time nobody has made a rule.
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    pub(super) fn add(&self, rule: Rule) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend((rule.times > 0).then_some(rule));
        self.any.store(!all.is_empty(), Ordering::Release);
    }

    pub(super) fn clear(&self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.any.store(false, Ordering::Release);
    }

    pub(super) fn all(&self) -> Vec<Rule> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The room for a request, which then counts.
    pub(super) fn apply(&self, path: &str, concerns: impl Fn(PropertyId) -> bool) -> Option<String> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |rule: &Rule| path.ends_with(&rule.path) && rule.property.is_none_or(&concerns);
        let at = all.iter().position(fits)?;
        all[at].times -= 1;
        let room = all[at].room.clone();
        all.retain(|rule| rule.times > 0);
        self.any.store(!all.is_empty(), Ordering::Release);
        Some(room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_counts_its_own_requests_and_is_gone_when_it_has_run_out() {
        let rules = Rules::default();
        let rule = |property: Option<&str>, path: &str, times, room: &str| Rule {
            property: property.map(|id| id.parse().unwrap()),
            path: path.to_owned(),
            times,
            room: room.to_owned(),
        };
        rules.add(rule(Some("7"), "getRooms", 2, "hang"));
        rules.add(rule(None, "", 1, "missing"));
        rules.add(rule(None, "", 0, "never"));
        let apply = |path: &str, id: &str| rules.apply(path, |property| property.to_string() == id);
        assert_eq!(apply("/api/v1.3/getRooms", "7").as_deref(), Some("hang"));
        assert_eq!(apply("/api/v1.3/getRooms", "8").as_deref(), Some("missing"));
        assert_eq!(apply("/api/v1.3/getHotels", "7"), None);
        assert!(rules.any());
        assert_eq!(apply("/api/v1.1/getRooms", "7").as_deref(), Some("hang"));
        assert!(!rules.any());
    }
}
