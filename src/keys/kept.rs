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

/// The fields of a record of which all others are as they begin.
#[derive(Clone, Copy)]
pub(super) struct Small {
    property: Option<PropertyId>,
    first_seen: Time,
    last_used: Option<Moment>,
    accepted: Option<Moment>,
    judged: Time,
    ours: bool,
}

/// A [`Time`] other than 0, so that none takes no room of its own.
type Moment = std::num::NonZeroU64;

impl Kept {
    /// The record as it was.
    pub(super) fn unfold(&self) -> Record {
        match self {
            Self::Whole(record) => Record::clone(record),
            Self::Small(Small { property, first_seen, last_used, accepted, judged, ours }) => Record {
                properties: property.iter().copied().collect(),
                first_seen: *first_seen,
                last_used: last_used.map(|time| Time(time.get())),
                accepted: accepted.map(|time| Time(time.get())),
                judgement: Judgement { judged: *judged, dead: None },
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
        let moment = |time: Option<Time>| {
            time.map(|Time(seconds)| Moment::new(seconds)).map_or(Some(None), |some| some.map(Some))
        };
        let Record {
            properties,
            first_seen,
            last_used,
            accepted,
            judgement,
            property_judgements,
            gone: None,
            kept_alive: None,
            warned_days: 0,
            hotels: None,
            ours,
            more,
        } = &record
        else {
            return Self::Whole(Box::new(record));
        };
        match (properties.as_slice(), judgement, moment(*last_used), moment(*accepted)) {
            ([] | [_], Judgement { judged, dead: None }, Some(last_used), Some(accepted))
                if property_judgements.is_empty() && more.is_empty() =>
            {
                let (property, first_seen) = (properties.first().copied(), *first_seen);
                Self::Small(Small { property, first_seen, last_used, accepted, judged: *judged, ours: *ours })
            }
            _ => Self::Whole(Box::new(record)),
        }
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
            times in prop::array::uniform4(0..3u64),
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
                more: more.then(|| ("mood".to_owned(), 1.into())).into_iter().collect(),
            };
            let kept = Kept::from(record.clone());
            prop_assert_eq!(kept.is_ours(), ours);
            prop_assert_eq!(kept.unfold(), record);
        }
    }

    #[test]
    fn an_ordinary_record_takes_less_than_a_cache_line() {
        assert!(size_of::<Kept>() <= 56, "{}", size_of::<Kept>());
        let record = Record { properties: vec![property(1)], last_used: Some(Time(7)), ..Record::default() };
        assert!(matches!(Kept::from(record), Kept::Small(_)));
    }
}
