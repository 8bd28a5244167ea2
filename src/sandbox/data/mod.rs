//! The hotels' made-up data: rooms, guests, reservations, rates and money that agree with each other.
//!
//! In: the hotels of the settings, later what is posted. Out: the same start for the same hotels, so that a test may name
//! a reservation. What is booked is missing from what is available; what is paid is missing from what is owed. Amounts
//! are cents.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::SystemTime;

use super::accounts::Place;
use super::calendar::{Day, stamp};
use crate::property::PropertyId;

mod furnish;
mod house;

pub(super) use furnish::CATEGORIES;
use furnish::furnished;

/// Posted things beyond this many push the oldest ones out: a bench that books all night stays in memory.
const KEPT: usize = 10_000;

/// A room type.
pub(super) struct Kind {
    pub(super) id: String,
    pub(super) name: &'static str,
    pub(super) short: &'static str,
    pub(super) guests: u32,
    /// Per night, unless a day has a rate of its own.
    pub(super) rate: i64,
    /// The id of its one rate.
    pub(super) rate_id: String,
}

/// A day's own rate, as `putRate` sets it.
#[derive(Clone, Copy)]
pub(super) struct Price {
    pub(super) rate: i64,
    pub(super) blocked: bool,
}

/// A room that one can sleep in.
pub(super) struct Room {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) kind: usize,
}

/// A guest as booked.
#[derive(Clone, Default)]
pub(super) struct Guest {
    pub(super) id: String,
    pub(super) first: String,
    pub(super) last: String,
    pub(super) email: String,
    pub(super) country: String,
    pub(super) zip: String,
    pub(super) phone: String,
    pub(super) gender: String,
}

/// One room of a reservation, assigned to a number on the door or not.
pub(super) struct Booked {
    pub(super) kind: usize,
    pub(super) room: Option<usize>,
    pub(super) adults: u32,
    pub(super) children: u32,
    /// What each of its nights costs, as it was when it was booked.
    pub(super) prices: Vec<i64>,
}

/// A reservation.
pub(super) struct Stay {
    pub(super) id: String,
    pub(super) guest: Guest,
    pub(super) status: &'static str,
    pub(super) start: Day,
    pub(super) end: Day,
    pub(super) created: String,
    pub(super) source: &'static str,
    pub(super) third_party: String,
    pub(super) rooms: Vec<Booked>,
    /// When it was last changed.
    pub(super) modified: String,
    /// `HH:MM`, when the guest said so.
    pub(super) arrival: Option<String>,
    /// What was bought on top of the nights.
    pub(super) extras: i64,
    pub(super) paid: i64,
}

/// What a payment is for.
#[derive(Clone, Eq, PartialEq)]
pub(super) enum Folio {
    Reservation(String),
    HouseAccount(String),
}

/// A payment that was posted.
pub(super) struct Payment {
    pub(super) id: String,
    pub(super) folio: Folio,
    pub(super) amount: i64,
    pub(super) voided: bool,
}

/// An account of the house, for what no reservation is charged with.
pub(super) struct HouseAccount {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) open: bool,
    pub(super) private: bool,
}

/// Something that is sold beside nights.
pub(super) struct Item {
    pub(super) id: String,
    pub(super) kind: &'static str,
    pub(super) sku: &'static str,
    pub(super) name: &'static str,
    pub(super) category: usize,
    pub(super) price: i64,
    /// How many there are, where that is counted.
    pub(super) stock: Option<i64>,
}

/// A change of rates that was accepted.
pub(super) struct Job {
    pub(super) id: String,
    pub(super) created: Day,
    pub(super) updates: Vec<Update>,
}

/// One interval of it; its last day included.
pub(super) struct Update {
    pub(super) rate_id: String,
    pub(super) start: Day,
    pub(super) end: Day,
    pub(super) rate: i64,
}

/// One hotel.
pub(super) struct House {
    pub(super) property: PropertyId,
    pub(super) organization: String,
    pub(super) name: String,
    pub(super) kinds: Vec<Kind>,
    pub(super) rooms: Vec<Room>,
    pub(super) stays: Vec<Stay>,
    pub(super) prices: HashMap<(usize, Day), Price>,
    pub(super) items: Vec<Item>,
    pub(super) accounts: Vec<HouseAccount>,
    pub(super) payments: Vec<Payment>,
    pub(super) jobs: Vec<Job>,
}

/// Everything. A hotel is furnished when it is first asked for: there may be a hundred thousand.
pub(super) struct Data {
    known: HashMap<PropertyId, Known>,
    houses: HashMap<PropertyId, House>,
    posted: u64,
}

/// A hotel not yet furnished.
struct Known {
    index: usize,
    name: String,
    organization: String,
}

impl Data {
    pub(super) fn new(places: Vec<Place>) -> Self {
        let known = places.into_iter().enumerate().map(|(index, place)| {
            (place.property, Known { index, name: place.name, organization: place.organization })
        });
        Self { known: known.collect(), houses: HashMap::new(), posted: 0 }
    }

    /// Sees to it that these hotels can be looked at.
    pub(super) fn furnish(&mut self, properties: &[PropertyId]) {
        for property in properties {
            if let (Some(known), Entry::Vacant(empty)) = (self.known.get(property), self.houses.entry(*property)) {
                empty.insert(furnished(*property, known));
            }
        }
    }

    /// A hotel that is furnished.
    pub(super) fn house(&self, property: PropertyId) -> Option<&House> {
        self.houses.get(&property)
    }

    /// The same, to change it.
    pub(super) fn house_mut(&mut self, property: PropertyId) -> Option<&mut House> {
        self.houses.get_mut(&property)
    }

    /// Adds a reservation and gives it back with its ids filled in.
    pub(super) fn book(&mut self, property: PropertyId, mut stay: Stay, now: SystemTime) -> Option<(&House, &Stay)> {
        (stay.id, stay.guest.id, stay.created) = (self.id(RESERVATION), self.id(GUEST), stamp(now));
        stay.modified.clone_from(&stay.created);
        let house = self.houses.get_mut(&property)?;
        push(&mut house.stays, stay);
        let house = &*house;
        house.stays.last().map(|stay| (house, stay))
    }

    /// An id that nothing has yet.
    pub(super) fn id(&mut self, base: u64) -> String {
        self.posted += 1;
        (base + POSTED + self.posted).to_string()
    }
}

/// Adds to a list that stays in memory.
pub(super) fn push<T>(list: &mut Vec<T>, one: T) {
    if list.len() == KEPT {
        list.remove(0);
    }
    list.push(one);
}

/// Where ids start, so that one can tell from an id what it is of.
const RESERVATION: u64 = 5_000_000_000_000;
const GUEST: u64 = 700_000_000;
pub(super) const FILE: u64 = 300_000;
pub(super) const HOUSE_ACCOUNT: u64 = 200_000;
pub(super) const PAYMENT: u64 = 1_000_000_000;
pub(super) const TRANSACTION: u64 = 2_000_000_000;
pub(super) const SOLD: u64 = 3_000_000_000;

/// Ids that were posted start this much further on, behind the first ones' hundred per hotel.
const POSTED: u64 = 50_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Settings;
    use crate::sandbox::accounts::places;

    #[test]
    fn no_room_is_taken_twice_on_one_night() {
        let settings = Settings::demo();
        let hotels = &settings.hotels;
        let mut data = Data::new(places(&settings));
        data.furnish(&[hotels[0].property, hotels[1].property]);
        let mut ids = std::collections::HashSet::new();
        for house in data.houses.values() {
            let mut taken = std::collections::HashSet::new();
            for stay in &house.stays {
                assert!(ids.insert(&stay.id));
                for day in stay.start.until(stay.end) {
                    assert!(taken.insert((stay.rooms[0].room, day.to_string())));
                }
            }
            assert_eq!(house.stays.len(), 24);
        }
    }
}
