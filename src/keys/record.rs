//! What is written down about one key.
//!
//! In: uses, judgements, comings and goings, each with its time; records of other replicas. Out: the key's verdict, and
//! one record that says what all of them knew. It holds ids and times, nothing of the key itself. Fields that a newer
//! version wrote are carried along as they stand.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::life::Time;
use super::verdict::{Blocked, Sign, Verdict};
use crate::property::PropertyId;

/// Seconds of a day.
pub const DAY: u64 = 24 * 60 * 60;

/// When an unused key is worth a warning.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IdleDays {
    /// Days after which it is [`Verdict::Idle`].
    pub idle_days: u64,
    /// Days after which it is [`Verdict::Expiring`].
    pub expiring_days: u64,
}

impl Default for IdleDays {
    fn default() -> Self {
        Self { idle_days: 20, expiring_days: 25 }
    }
}

/// A value that another version wrote: the very text, since reading it might take digits off a number.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Foreign(Box<RawValue>);

impl PartialEq for Foreign {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

/// All that is known of a key.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Record {
    /// The properties it was last in force for.
    pub properties: Vec<PropertyId>,
    /// When it was first in force here.
    pub first_seen: Time,
    /// When Cloudbeds last answered a call of an app, or a keep-alive call, with success.
    pub last_used: Option<Time>,
    /// When Cloudbeds last accepted it at all.
    pub accepted: Option<Time>,
    /// Whether it is dead.
    pub judgement: Judgement,
    /// The same for single properties of a key that serves several.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub property_judgements: BTreeMap<PropertyId, Judgement>,
    /// When it ceased to be in force.
    pub gone: Option<Gone>,
    /// When a replica last took it upon itself to use the key, so that the others need not.
    pub kept_alive: Option<Time>,
    /// The idle days that were warned of since the last use.
    pub warned_days: u64,
    /// For a key with `properties: auto`: what Cloudbeds says it opens.
    pub hotels: Option<Hotels>,
    /// Whether it is or was in force in this process.
    #[serde(skip)]
    pub(super) ours: bool,
    /// What other versions wrote.
    #[serde(flatten)]
    pub more: BTreeMap<String, Foreign>,
}

/// What Cloudbeds said when it was asked about a key, and when.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Judgement {
    /// When it was judged; the latest counts.
    pub judged: Time,
    /// Nothing while it is in order.
    pub dead: Option<Dead>,
}

/// A dead key's cool-down.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Dead {
    /// One of the dead ones.
    pub verdict: Verdict,
    /// Since when it is dead.
    pub since: Time,
    /// When Cloudbeds is asked again.
    pub until: Time,
    /// How often it has been asked in vain since.
    pub step: u32,
}

/// The end of a key's time in the file.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Gone {
    /// When.
    pub at: Time,
    /// Whether one of its properties has a newer key.
    pub replaced: bool,
}

/// The properties of an organisation's key.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Hotels {
    /// When Cloudbeds said so.
    pub at: Time,
    /// In its order.
    pub properties: Vec<PropertyId>,
}

/// By hand: what `flatten` reads it has read into numbers before.
impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Record;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a mapping")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Record, A::Error> {
                let mut record = Record::default();
                while let Some(name) = fields.next_key::<String>()? {
                    match name.as_str() {
                        "properties" => record.properties = fields.next_value()?,
                        "first_seen" => record.first_seen = fields.next_value()?,
                        "last_used" => record.last_used = fields.next_value()?,
                        "accepted" => record.accepted = fields.next_value()?,
                        "judgement" => record.judgement = fields.next_value()?,
                        "property_judgements" => record.property_judgements = fields.next_value()?,
                        "gone" => record.gone = fields.next_value()?,
                        "kept_alive" => record.kept_alive = fields.next_value()?,
                        "warned_days" => record.warned_days = fields.next_value()?,
                        "hotels" => record.hotels = fields.next_value()?,
                        _ => drop(record.more.insert(name, fields.next_value()?)),
                    }
                }
                Ok(record)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

impl Record {
    /// The key's standing at a moment.
    #[must_use]
    pub fn verdict(&self, now: Time, limits: IdleDays) -> Verdict {
        if self.gone.is_some_and(|gone| gone.replaced) {
            return Verdict::Replaced;
        }
        let days = self.idle_days(now);
        match self.dead() {
            Some(blocked) => blocked.verdict,
            None if days >= limits.expiring_days => Verdict::Expiring,
            None if days >= limits.idle_days => Verdict::Idle,
            None if self.accepted.is_none() => Verdict::Pending,
            None => Verdict::Active,
        }
    }

    /// The standing of one of its properties.
    #[must_use]
    pub fn verdict_for(&self, property: PropertyId, now: Time, limits: IdleDays) -> Verdict {
        let own = self.property_judgements.get(&property).and_then(|judgement| judgement.dead);
        match (self.dead(), own) {
            (None, Some(dead)) if self.gone.is_none() => dead.verdict,
            _ => self.verdict(now, limits),
        }
    }

    /// Whole days since it was used, or since it is known where it never was.
    #[must_use]
    pub fn idle_days(&self, now: Time) -> u64 {
        if self.first_seen == Time::default() && self.last_used.is_none() {
            return 0;
        }
        now.since(self.last_used.unwrap_or_default().max(self.first_seen)) / DAY
    }

    pub(super) fn dead(&self) -> Option<Blocked> {
        self.judgement.dead.map(|dead| Blocked { verdict: dead.verdict, until: dead.until })
    }

    pub(super) fn dead_properties(&self) -> impl Iterator<Item = (PropertyId, Blocked)> + '_ {
        let dead =
            |judgement: &Judgement| judgement.dead.map(|dead| Blocked { verdict: dead.verdict, until: dead.until });
        self.property_judgements.iter().filter_map(move |(property, judgement)| Some((*property, dead(judgement)?)))
    }

    /// Of the key, or of one property of a key that serves several.
    pub(super) fn judgement_mut(&mut self, property: Option<PropertyId>) -> &mut Judgement {
        match property {
            None => &mut self.judgement,
            Some(property) => self.property_judgements.entry(property).or_default(),
        }
    }

    pub(super) fn in_force(&mut self, properties: Vec<PropertyId>, now: Time) {
        if self.first_seen == Time::default() {
            self.first_seen = now;
        }
        (self.properties, self.gone, self.ours) = (properties, None, true);
    }

    /// `taken` says which properties have a key now.
    pub(super) fn not_in_force(&mut self, now: Time, taken: impl Fn(PropertyId) -> bool) {
        if self.ours {
            let gone = self.gone.get_or_insert(Gone { at: now, replaced: false });
            gone.replaced |= self.properties.iter().any(|property| taken(*property));
        }
    }

    pub(super) fn used(&mut self, now: Time) {
        self.last_used = self.last_used.max(Some(now));
        self.accepted = self.accepted.max(Some(now));
        self.warned_days = 0;
    }

    /// Takes times that have not come yet for now: they are from a clock that was wrong, and would outlast what is learnt
    /// from here on. What it warned of by that clock it will warn of again.
    pub(super) fn no_later_than(&mut self, now: Time) {
        self.set_back(0, now);
    }

    /// The same where the clock is known to have been set back by so many seconds: a time that has not come yet is set back
    /// with it, so that whoever was idle for 20 days still is. What has come meanwhile cannot be told from what was right.
    pub(super) fn set_back(&mut self, seconds: u64, now: Time) {
        let earlier = |time: Time| Time(time.0.saturating_sub(seconds).max(1));
        let back = |time: &mut Time| {
            if *time > now {
                *time = earlier(*time).min(now);
            }
        };
        back(&mut self.first_seen);
        [&mut self.last_used, &mut self.accepted, &mut self.kept_alive].into_iter().flatten().for_each(back);
        for judgement in self.property_judgements.values_mut().chain([&mut self.judgement]) {
            // The question that was asked last is what a cool-down is counted from.
            if let Some(dead) = judgement.dead.as_mut().filter(|dead| dead.since.max(judgement.judged) > now) {
                dead.until = earlier(dead.until);
                back(&mut dead.since);
            }
            back(&mut judgement.judged);
        }
        self.gone.iter_mut().for_each(|gone| back(&mut gone.at));
        self.hotels.iter_mut().for_each(|hotels| back(&mut hotels.at));
        self.warned_days = self.warned_days.min(self.idle_days(now));
    }

    /// Takes over what another replica knows better. Who is in force where is each replica's own matter.
    pub(super) fn merge(&mut self, other: &Self) {
        if other.last_used > self.last_used {
            self.warned_days = other.warned_days;
        } else if other.last_used == self.last_used {
            self.warned_days = self.warned_days.max(other.warned_days);
        }
        self.last_used = self.last_used.max(other.last_used);
        self.accepted = self.accepted.max(other.accepted);
        self.kept_alive = self.kept_alive.max(other.kept_alive);
        let known = [self.first_seen, other.first_seen].into_iter().filter(|time| *time != Time::default());
        self.first_seen = known.min().unwrap_or_default();
        self.judgement = self.judgement.later(other.judgement);
        for (property, judgement) in &other.property_judgements {
            let own = self.property_judgements.entry(*property).or_default();
            *own = own.later(*judgement);
        }
        let at = |hotels: &Option<Hotels>| hotels.as_ref().map(|hotels| (hotels.at, hotels.properties.clone()));
        if at(&other.hotels) > at(&self.hotels) {
            self.hotels.clone_from(&other.hotels);
        }
        if self.properties.is_empty() {
            self.properties.clone_from(&other.properties);
        }
        // Nobody here knows what it means. Of two values all replicas keep the same one, of two times or counts the greater.
        let greater = |one: &Foreign, other: &Foreign| {
            let [one, other] = [one, other].map(|value| (value.0.get().len(), value.0.get()));
            one > other
        };
        for (name, value) in &other.more {
            if self.more.get(name).is_none_or(|own| greater(value, own)) {
                self.more.insert(name.clone(), value.clone());
            }
        }
    }
}

impl Record {
    /// The same by a clock that shows so many seconds more.
    #[must_use]
    pub fn by_another_clock(mut self, seconds: i64) -> Self {
        let shift = |time: &mut Time| {
            // Nothing was ever in 1970: that is how no time is written.
            if *time != Time::default() {
                time.0 = time.0.saturating_add_signed(seconds).max(1);
            }
        };
        let judged = |judgement: &mut Judgement| {
            shift(&mut judgement.judged);
            if let Some(dead) = &mut judgement.dead {
                shift(&mut dead.since);
                shift(&mut dead.until);
            }
        };
        shift(&mut self.first_seen);
        [&mut self.last_used, &mut self.accepted, &mut self.kept_alive].into_iter().flatten().for_each(shift);
        judged(&mut self.judgement);
        self.property_judgements.values_mut().for_each(judged);
        self.gone.iter_mut().for_each(|gone| shift(&mut gone.at));
        self.hotels.iter_mut().for_each(|hotels| shift(&mut hotels.at));
        self
    }

    /// What other replicas should know of it, which is what [`merge`](Self::merge) brings to the same end at all of them.
    /// Uses are told by the hour: a busy key would be news all the time.
    pub(super) fn for_others(&self) -> Self {
        let hour = |time: Option<Time>| time.map(|Time(seconds)| Time(seconds - seconds % 3600));
        Self {
            properties: Vec::new(),
            last_used: hour(self.last_used),
            accepted: hour(self.accepted),
            gone: None,
            warned_days: 0,
            ours: false,
            ..self.clone()
        }
    }
}

impl Judgement {
    /// What it took to be judged so.
    pub(super) fn sign(&self) -> Option<Sign> {
        match self.dead?.verdict {
            Verdict::PropertyLeft => Some(Sign::PropertyLeft),
            Verdict::UserLeft => Some(Sign::UserLeft),
            _ => Some(Sign::Unauthorized),
        }
    }

    /// Of two of the same second the one that keeps still for longer, whoever asks: replicas must end with the same.
    fn later(self, other: Self) -> Self {
        let order = |one: &Self| (one.judged, one.dead.map(|dead| (dead.until, dead.step, dead.since)));
        if order(&other) > order(&self) { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(first_seen: u64, last_used: Option<u64>) -> Record {
        Record { first_seen: Time(first_seen), last_used: last_used.map(Time), ..Record::default() }
    }

    #[test]
    fn times_that_have_not_come_yet_are_set_back_with_the_clock() {
        let dead = |since: u64, until: u64| Dead {
            verdict: Verdict::Rejected,
            since: Time(since),
            until: Time(until),
            step: 1,
        };
        let [property, other] = ["7", "8"].map(|id| id.parse().unwrap());
        let ahead = Judgement { judged: Time(1150 * DAY), dead: Some(dead(1150 * DAY, 1150 * DAY + 60)) };
        let right = Judgement { judged: Time(1099 * DAY), dead: Some(dead(1099 * DAY, 1100 * DAY + 60)) };
        // It died by a clock that was right, and was asked about by one that was not.
        let mixed = Judgement { judged: Time(1150 * DAY), dead: Some(dead(1099 * DAY, 1150 * DAY + 60)) };
        let record = Record {
            first_seen: Time(1000 * DAY),
            last_used: Some(Time(1120 * DAY)),
            accepted: Some(Time(1090 * DAY)),
            kept_alive: Some(Time(1170 * DAY)),
            judgement: ahead,
            property_judgements: [(property, right), (other, mixed)].into(),
            gone: Some(Gone { at: Time(1150 * DAY), replaced: false }),
            hotels: Some(Hotels { at: Time(1150 * DAY), properties: Vec::new() }),
            warned_days: 25,
            ..Record::default()
        };
        let mut now = record.clone();
        now.set_back(50 * DAY, Time(1100 * DAY));
        assert_eq!(
            (now.first_seen, now.last_used, now.accepted),
            (Time(1000 * DAY), Some(Time(1070 * DAY)), record.accepted)
        );
        // 20 days ahead of the clock before, too: that one was wrong already.
        assert_eq!(now.kept_alive, Some(Time(1100 * DAY)));
        let set_back = Judgement { judged: Time(1100 * DAY), dead: Some(dead(1100 * DAY, 1100 * DAY + 60)) };
        assert_eq!((now.judgement, now.property_judgements[&property]), (set_back, right));
        let mixed = Judgement { judged: Time(1100 * DAY), dead: Some(dead(1099 * DAY, 1100 * DAY + 60)) };
        assert_eq!(now.property_judgements[&other], mixed);
        assert_eq!((now.gone.unwrap().at, now.hotels.clone().unwrap().at), (Time(1100 * DAY), Time(1100 * DAY)));
        assert_eq!(now.warned_days, 25);

        // A clock that falls to its beginning takes nothing to "never".
        let mut first = record.clone();
        first.set_back(2000 * DAY, Time(5));
        assert_eq!((first.first_seen, first.last_used), (Time(1), Some(Time(1))));

        let mut cut = record;
        cut.no_later_than(Time(1100 * DAY));
        assert_eq!((cut.last_used, cut.warned_days), (Some(Time(1100 * DAY)), 0));
    }

    #[test]
    fn of_what_another_version_wrote_the_greater_stays_whoever_hears_of_whom() {
        let of = |at: &str| serde_json::from_str::<Record>(&format!(r#"{{"at":{at},"m{at}":0}}"#)).unwrap();
        let (mut one, mut other) = (of("9"), of("10"));
        one.merge(&other);
        other.merge(&of("9"));
        assert_eq!(serde_json::to_value(&one.more).unwrap(), serde_json::json!({ "at": 10, "m9": 0, "m10": 0 }));
        assert_eq!(one, other);
    }

    #[test]
    fn by_another_clock_all_times_move_and_what_never_was_stays_so() {
        let dead = Dead { verdict: Verdict::Rejected, since: Time(100), until: Time(200), step: 1 };
        let record = Record {
            first_seen: Time(50),
            last_used: Some(Time(60)),
            judgement: Judgement { judged: Time(100), dead: Some(dead) },
            hotels: Some(Hotels { at: Time(70), properties: Vec::new() }),
            ..Record::default()
        };
        let moved = record.clone().by_another_clock(7200);
        assert_eq!((moved.first_seen, moved.last_used), (Time(7250), Some(Time(7260))));
        let moved_dead = moved.judgement.dead.unwrap();
        assert_eq!((moved.judgement.judged, moved_dead.since, moved_dead.until), (Time(7300), Time(7300), Time(7400)));
        assert_eq!(moved.by_another_clock(-7200), record);
        assert_eq!(Record::default().by_another_clock(7200), Record::default());
    }

    #[test]
    fn an_unused_key_is_idle_at_20_days_and_expiring_at_25() {
        let mut key = record(1000, None);
        for (days, verdict) in
            [(0, Verdict::Pending), (19, Verdict::Pending), (20, Verdict::Idle), (25, Verdict::Expiring)]
        {
            assert_eq!(key.verdict(Time(1000 + days * DAY), IdleDays::default()), verdict);
        }
        key.used(Time(1000 + 24 * DAY));
        for (days, verdict) in
            [(24, Verdict::Active), (43, Verdict::Active), (44, Verdict::Idle), (49, Verdict::Expiring)]
        {
            assert_eq!(key.verdict(Time(1000 + days * DAY), IdleDays::default()), verdict);
        }
    }

    #[test]
    fn two_records_become_one_that_knows_what_both_did() {
        let dead = |judged| Judgement {
            judged: Time(judged),
            dead: Some(Dead { verdict: Verdict::Rejected, since: Time(1), until: Time(2), step: 0 }),
        };
        let fine = |judged| Judgement { judged: Time(judged), dead: None };
        let mut one = Record { judgement: dead(10), ..record(5, Some(7)) };
        let two = Record { judgement: fine(11), kept_alive: Some(Time(9)), ..record(3, Some(6)) };
        one.merge(&two);
        assert_eq!((one.first_seen, one.last_used, one.kept_alive), (Time(3), Some(Time(7)), Some(Time(9))));
        assert_eq!(one.judgement, fine(11), "the latest judgement counts");
        one.merge(&Record { judgement: dead(9), ..Record::default() });
        assert_eq!((one.judgement, one.first_seen), (fine(11), Time(3)));
    }
}
