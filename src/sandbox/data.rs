//! The hotels' made-up data: rooms, guests and reservations that agree with each other.
//!
//! In: the hotels of the settings, later what is booked. Out: the same start for the same hotels, so that a test may name
//! a reservation; no room is taken twice on one night, and balances follow from rates and nights. Amounts are cents.

use super::Hotel;
use super::calendar::{Day, now};
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

/// Everything.
pub(super) struct Data {
    pub(super) houses: Vec<House>,
    next: u64,
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
    pub(super) fn new(hotels: &[Hotel]) -> Self {
        let mut data = Self { houses: Vec::new(), next: 1 };
        for (index, hotel) in hotels.iter().enumerate() {
            // Hotels with one key are one organisation, named after the first of them.
            let first = hotels.iter().find(|other| other.key == hotel.key).unwrap_or(hotel);
            let mut house = house(hotel, format!("9{}", first.property), index);
            for room in 0..house.rooms.len() {
                for turn in 0..6 {
                    let stay = data.first_stay(&house, room, turn);
                    house.stays.push(stay);
                }
            }
            data.houses.push(house);
        }
        data
    }

    pub(super) fn house(&self, property: PropertyId) -> Option<&House> {
        self.houses.iter().find(|house| house.property == property)
    }

    /// Adds a reservation and gives it back with its ids filled in.
    pub(super) fn book(&mut self, property: PropertyId, mut stay: Stay) -> Option<(&House, &Stay)> {
        (stay.id, stay.guest.id, stay.created) = (self.id(RESERVATION), self.id(GUEST), now());
        let house = self.houses.iter_mut().find(|house| house.property == property)?;
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
        self.next += 1;
        (base + self.next).to_string()
    }

    fn first_stay(&mut self, house: &House, room: usize, turn: usize) -> Stay {
        let (number, kind) = (room * 6 + turn, house.rooms[room].kind);
        let (first, last) = (FIRST[number % FIRST.len()], LAST[number * 3 % LAST.len()]);
        let offset = |number: usize| i64::try_from(number).unwrap_or(0);
        // Five days apart and at most four nights long, so that a room is never taken twice.
        let start = OPENING.plus(offset(turn * 5 + room % 2));
        let nights = offset(1 + number % 4);
        Stay {
            id: self.id(RESERVATION),
            guest: Guest {
                id: self.id(GUEST),
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
            end: start.plus(nights),
            created: format!("{}T10:{number:02}:00Z", start.plus(-30)),
            source: if number.is_multiple_of(2) { "Website/Booking Engine" } else { "Walk-In" },
            third_party: String::new(),
            rooms: vec![Booked { kind, room: Some(room), adults: house.kinds[kind].guests.min(2), children: 0 }],
        }
    }
}

/// Where the counted ids start, so that one can tell from an id what it is of.
const RESERVATION: u64 = 5_000_000_000_000;
const GUEST: u64 = 70_000_000;
const FILE: u64 = 300_000;

/// The first night of the data set.
const OPENING: Day = Day::new(2026, 6, 1);

const FIRST: [&str; 7] = ["Ana", "Bruno", "Carla", "Diego", "Elena", "Filipe", "Greta"];
const LAST: [&str; 5] = ["Almeida", "Berg", "Costa", "Dupont", "Eriksen"];

fn house(hotel: &Hotel, organization: String, index: usize) -> House {
    let kind = |number: usize, name, short, guests, rate| {
        let id = (50_000 + index * 10 + number).to_string();
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
    let rooms = numbered.into_iter().map(room).collect();
    House { property: hotel.property, organization, name: hotel.name.clone(), kinds, rooms, stays: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Settings;

    #[test]
    fn no_room_is_taken_twice_on_one_night() {
        let data = Data::new(&Settings::demo().hotels);
        for house in &data.houses {
            let mut taken = std::collections::HashSet::new();
            for stay in &house.stays {
                for day in stay.start.until(stay.end) {
                    assert!(taken.insert((stay.rooms[0].room, day.to_string())));
                }
            }
            assert_eq!(house.stays.len(), 24);
        }
        assert_ne!(data.houses[0].stays[0].id, data.houses[1].stays[0].id);
    }
}
