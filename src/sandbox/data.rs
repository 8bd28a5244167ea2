//! The hotels' made-up data: rooms, guests and reservations that agree with each other.
//!
//! In: the hotels of the settings, later what is booked. Out: the same start for the same hotels, so that a test may name
//! a reservation; no room is taken twice on one night, and balances follow from rates and nights. Amounts are cents.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::SystemTime;

use super::accounts::Place;
use super::calendar::{Day, stamp};
use crate::property::PropertyId;

/// Posted reservations beyond this many push the oldest ones out: a bench that books all night stays in memory.
const STAYS_MAX: usize = 10_000;

/// A room type.
pub(super) struct Kind {
    pub(super) id: String,
    pub(super) name: &'static str,
    pub(super) short: &'static str,
    pub(super) guests: u32,
    /// Per night.
    pub(super) rate: i64,
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
}

/// One hotel.
pub(super) struct House {
    pub(super) property: PropertyId,
    pub(super) organization: String,
    pub(super) name: String,
    pub(super) kinds: Vec<Kind>,
    pub(super) rooms: Vec<Room>,
    pub(super) stays: Vec<Stay>,
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

impl House {
    pub(super) fn total(&self, stay: &Stay) -> i64 {
        stay.rooms.iter().map(|booked| self.room_total(stay, booked)).sum()
    }

    pub(super) fn room_total(&self, stay: &Stay, booked: &Booked) -> i64 {
        self.kinds[booked.kind].rate * i64::try_from(stay.start.until(stay.end).count()).unwrap_or(0)
    }

    /// What is still owed.
    pub(super) fn balance(&self, stay: &Stay) -> i64 {
        if matches!(stay.status, "checked_out" | "canceled") { 0 } else { self.total(stay) }
    }

    pub(super) fn kind(&self, id: &str) -> Option<usize> {
        self.kinds.iter().position(|kind| kind.id == id)
    }
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

    /// Adds a reservation and gives it back with its ids filled in.
    pub(super) fn book(&mut self, property: PropertyId, mut stay: Stay, now: SystemTime) -> Option<(&House, &Stay)> {
        (stay.id, stay.guest.id, stay.created) = (self.id(RESERVATION), self.id(GUEST), stamp(now));
        let house = self.houses.get_mut(&property)?;
        if house.stays.len() == STAYS_MAX {
            house.stays.remove(0);
        }
        house.stays.push(stay);
        let house = &*house;
        house.stays.last().map(|stay| (house, stay))
    }

    /// The id of a file just uploaded.
    pub(super) fn file(&mut self) -> String {
        self.id(FILE)
    }

    fn id(&mut self, base: u64) -> String {
        self.posted += 1;
        (base + POSTED + self.posted).to_string()
    }
}

/// Where ids start, so that one can tell from an id what it is of.
const RESERVATION: u64 = 5_000_000_000_000;
const GUEST: u64 = 700_000_000;
const FILE: u64 = 300_000;

/// Ids up to here are the first ones', a hundred per hotel.
const PER_HOTEL: usize = 100;
const POSTED: u64 = 50_000_000;

/// The first night of the data set.
const OPENING: Day = Day::new(2026, 6, 1);

const FIRST: [&str; 7] = ["Ana", "Bruno", "Carla", "Diego", "Elena", "Filipe", "Greta"];
const LAST: [&str; 5] = ["Almeida", "Berg", "Costa", "Dupont", "Eriksen"];

fn furnished(property: PropertyId, known: &Known) -> House {
    let kind = |number: usize, name, short, guests, rate| {
        let id = (50_000 + known.index * 10 + number).to_string();
        Kind { id, name, short, guests, rate }
    };
    let kinds = vec![
        kind(1, "Double Room", "DBL", 2, 12_000),
        kind(2, "Family Room", "FAM", 4, 18_550),
        kind(3, "Single Room", "SGL", 1, 8_000),
    ];
    // Ids and names of rooms count within their type: `50001-0` is `DBL1`.
    let numbered = [(0, 0), (0, 1), (1, 0), (2, 0)];
    let room = |(kind, number): (usize, u32)| Room {
        id: format!("{}-{number}", kinds[kind].id),
        name: format!("{}{}", kinds[kind].short, number + 1),
        kind,
    };
    let rooms: Vec<Room> = numbered.into_iter().map(room).collect();
    let stays = (0..rooms.len() * TURNS).map(|number| first_stay(known.index, &kinds, &rooms, number)).collect();
    House { property, organization: known.organization.clone(), name: known.name.clone(), kinds, rooms, stays }
}

/// Each room is taken by six guests, one after the other.
const TURNS: usize = 6;

fn first_stay(index: usize, kinds: &[Kind], rooms: &[Room], number: usize) -> Stay {
    let (room, turn) = (number / TURNS, number % TURNS);
    let kind = rooms[room].kind;
    let (first, last) = (FIRST[number % FIRST.len()], LAST[number * 3 % LAST.len()]);
    let offset = |number: usize| i64::try_from(number).unwrap_or(0);
    let id = |base: u64| (base + (index * PER_HOTEL + number) as u64).to_string();
    // Five days apart and at most four nights long, so that a room is never taken twice.
    let start = OPENING.plus(offset(turn * 5 + room % 2));
    Stay {
        id: id(RESERVATION),
        guest: Guest {
            id: id(GUEST),
            first: first.to_owned(),
            last: last.to_owned(),
            email: format!("{}.{}@example.com", first.to_lowercase(), last.to_lowercase()),
            country: "PT".to_owned(),
            zip: "8000-123".to_owned(),
            phone: format!("+351 900 000 {number:03}"),
            gender: "N/A".to_owned(),
        },
        status: ["checked_out", "checked_in", "confirmed", "confirmed", "canceled", "not_confirmed"][turn],
        start,
        end: start.plus(offset(1 + number % 4)),
        created: format!("{}T10:{number:02}:00Z", start.plus(-30)),
        source: if number.is_multiple_of(2) { "Website/Booking Engine" } else { "Walk-In" },
        third_party: String::new(),
        rooms: vec![Booked { kind, room: Some(room), adults: kinds[kind].guests.min(2), children: 0 }],
    }
}

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
