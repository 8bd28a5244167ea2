//! How a hotel is at the start: three room types, four rooms, each with six guests one after the other.
//!
//! In: a hotel's id and its place in the settings. Out: a [`House`], always the same one for the same place.

use std::collections::HashMap;

use super::{Booked, GUEST, Guest, House, HouseAccount, Item, Kind, Known, RESERVATION, Room, Stay};
use crate::property::PropertyId;
use crate::sandbox::calendar::Day;

/// The first night of the data set.
const OPENING: Day = Day::new(2026, 6, 1);

/// How many ids a hotel has for what it starts with.
const PER_HOTEL: usize = 100;

const FIRST: [&str; 7] = ["Ana", "Bruno", "Carla", "Diego", "Elena", "Filipe", "Greta"];
const LAST: [&str; 5] = ["Almeida", "Berg", "Costa", "Dupont", "Eriksen"];

pub(super) fn furnished(property: PropertyId, known: &Known) -> House {
    let kind = |number: usize, name, short, guests, rate| {
        let id = (50_000 + known.index * 10 + number).to_string();
        let rate_id = (60_000 + known.index * 10 + number).to_string();
        Kind { id, name, short, guests, rate, rate_id }
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
    let account = |number: usize, name: &str| HouseAccount {
        id: (200_000 + known.index * 10 + number).to_string(),
        name: name.to_owned(),
        open: true,
        private: false,
    };
    House {
        property,
        organization: known.organization.clone(),
        name: known.name.clone(),
        kinds,
        rooms,
        stays,
        prices: HashMap::new(),
        items: items(known.index),
        accounts: vec![account(1, "Bar"), account(2, "Staff")],
        payments: Vec::new(),
        jobs: Vec::new(),
    }
}

/// The categories of items: name, code, colour.
pub(in crate::sandbox) const CATEGORIES: [(&str, &str, &str); 2] =
    [("Food and drinks", "FOOD", "#3b7be7"), ("Services", "SERV", "#2e9e5b")];

fn items(index: usize) -> Vec<Item> {
    let item = |number: usize, kind, sku, name, category, price, stock| Item {
        id: (400_000 + index * 10 + number).to_string(),
        kind,
        sku,
        name,
        category,
        price,
        stock,
    };
    vec![
        item(1, "product", "WATER-05", "Water", 0, 250, Some(100)),
        item(2, "mealplan", "BRK", "Breakfast", 0, 1_500, None),
        item(3, "service", "BIKE", "Bicycle for a day", 1, 1_800, None),
    ]
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
    let nights = 1 + number % 4;
    let status = ["checked_out", "checked_in", "confirmed", "confirmed", "canceled", "not_confirmed"][turn];
    let created = format!("{}T10:{number:02}:00Z", start.plus(-30));
    let prices = vec![kinds[kind].rate; nights];
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
        status,
        start,
        end: start.plus(offset(nights)),
        modified: created.clone(),
        created,
        source: if number.is_multiple_of(2) { "Website/Booking Engine" } else { "Walk-In" },
        third_party: String::new(),
        arrival: None,
        extras: 0,
        // Who has left has paid.
        paid: if status == "checked_out" { prices.iter().sum() } else { 0 },
        rooms: vec![Booked { kind, room: Some(room), adults: kinds[kind].guests.min(2), children: 0, prices }],
    }
}
