//! A record as a life holds it: small while there is little to say.
//!
//! In and out: a [`Record`]. A process holds one for each of up to 100,000 keys, and nearly all of them are in order and
//! have one property, which six numbers tell. Only a key of which more is known holds a whole record.

use super::life::Time;
use super::record::{Judgement, Record};
use crate::property::PropertyId;

/// What is written down about a key, folded.
pub(super) enum Kept {
    /// A key in order.
    Small(Small),
    /// Everything else.
    Whole(Box<Record>),
}

/// The fields of a record of which all others are as they begin. Times are seconds since 1970 that fit 32 bits, as they
/// do until 2106.
#[derive(Clone, Copy)]
pub(super) struct Small {
    property: Option<PropertyId>,
    first_seen: u32,
    /// 0 for never.
    last_used: u32,
    /// 0 for never.
    accepted: u32,
    judged: u32,
    ours: bool,
}

impl Kept {
    /// The record as it was.
    pub(super) fn unfold(&self) -> Record {
        match self {
            Self::Whole(record) => Record::clone(record),
            Self::Small(Small { property, first_seen, last_used, accepted, judged, ours }) => Record {
                properties: property.iter().copied().collect(),
                first_seen: Time((*first_seen).into()),
                last_used: (*last_used > 0).then_some(Time((*last_used).into())),
                accepted: (*accepted > 0).then_some(Time((*accepted).into())),
                judgement: Judgement { judged: Time((*judged).into()), dead: None },
                ours: *ours,
                ..Record::default()
            },
        }
    }

    /// Whether the key is or was in force in this process.
    pub(super) fn is_ours(&self) -> bool {
        match self {
            Self::Small(small) => small.ours,
            Self::Whole(record) => record.ours,
        }
    }
}

impl From<Record> for Kept {
    fn from(record: Record) -> Self {
        match Small::of(&record) {
            Some(small) => Self::Small(small),
            None => Self::Whole(Box::new(record)),
        }
    }
}

impl Small {
    fn of(record: &Record) -> Option<Self> {
        let Record {
            properties,
            first_seen,
            last_used,
            accepted,
            judgement: Judgement { judged, dead: None },
            property_judgements,
            gone: None,
            kept_alive: None,
            warned_days: 0,
            hotels: None,
            ours,
            more,
        } = record
        else {
            return None;
        };
        if properties.len() > 1 || !property_judgements.is_empty() || !more.is_empty() {
            return None;
        }
        let seconds = |time: &Time| u32::try_from(time.0).ok();
        // A use at the very time 0 would be taken for none.
        let moment = |time: &Option<Time>| time.as_ref().map_or(Some(0), |time| seconds(time).filter(|time| *time > 0));
        Some(Self {
            property: properties.first().copied(),
            first_seen: seconds(first_seen)?,
            last_used: moment(last_used)?,
            accepted: moment(accepted)?,
            judged: seconds(judged)?,
            ours: *ours,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::record::{Dead, Gone, Hotels};
    use super::super::verdict::Verdict;
    use super::*;

    fn property(id: u64) -> PropertyId {
        id.to_string().parse().unwrap()
    }

    proptest! {
        #[test]
        fn a_record_comes_out_as_it_went_in(
            properties in 0..3u64,
            times in prop::array::uniform4(prop_oneof![0..3u64, (1u64 << 32) - 1..=1 << 32]),
            used in any::<[bool; 2]>(),
            rare in prop::array::uniform7(prop::bool::weighted(0.2)),
            ours: bool,
        ) {
            let [judged, gone, kept_alive, warned, hotels, more, single] = rare;
            let record = Record {
                properties: (1..=properties).map(property).collect(),
                first_seen: Time(times[0]),
                last_used: used[0].then_some(Time(times[1])),
                accepted: used[1].then_some(Time(times[2])),
                judgement: Judgement {
                    judged: Time(times[3]),
                    dead: judged.then_some(Dead { verdict: Verdict::Rejected, since: Time(1), until: Time(2), step: 3 }),
                },
                property_judgements: single.then(|| (property(9), Judgement::default())).into_iter().collect(),
                gone: gone.then_some(Gone { at: Time(5), replaced: false }),
                kept_alive: kept_alive.then_some(Time(0)),
                warned_days: u64::from(warned),
                hotels: hotels.then(Hotels::default),
                ours,
                more: more.then(|| ("mood".to_owned(), serde_json::from_str("1").unwrap())).into_iter().collect(),
            };
            let kept = Kept::from(record.clone());
            prop_assert_eq!(kept.is_ours(), ours);
            prop_assert_eq!(kept.unfold(), record);
        }
    }

    #[test]
    fn an_ordinary_record_takes_half_a_cache_line() {
        assert!(size_of::<Kept>() <= 32, "{}", size_of::<Kept>());
        let record = Record { properties: vec![property(1)], last_used: Some(Time(7)), ..Record::default() };
        assert!(matches!(Kept::from(record), Kept::Small(_)));
    }
}
