//! `getReservations` and `getReservation`.
//!
//! In: the data, what the key opens, and filters. Out: the vendor's JSON. The list and the single answer spell the same
//! things differently (`balance` is a number in both, `roomTotal` a string in one): so does the description.

use serde_json::{Map, Value, json};

use super::{Failure, amount, page};
use crate::sandbox::accounts::Grant;
use crate::sandbox::calendar::Day;
use crate::sandbox::data::{Booked, Data, Guest, House, Stay};
use crate::sandbox::query::Pairs;

pub(super) fn list(data: &Data, grant: &Grant, query: &Pairs) -> Result<Value, Failure> {
    let houses = grant.several(data, query.get("propertyID"))?;
    let mut all = Vec::new();
    for house in houses {
        let wanted = house.stays.iter().filter(|stay| wanted(house, stay, query));
        all.extend(wanted.map(|stay| entry(house, stay, query)));
    }
    Ok(page(&all, query, 100))
}

fn wanted(house: &House, stay: &Stay, query: &Pairs) -> bool {
    let same = |name: &str, value: &str| query.get(name).is_none_or(|wanted| wanted.eq_ignore_ascii_case(value));
    let from = |name: &str, day: Day| query.get(name).and_then(Day::parse).is_none_or(|from| day >= from);
    let to = |name: &str, day: Day| query.get(name).and_then(Day::parse).is_none_or(|to| day <= to);
    let kind = |booked: &Booked| same("roomTypeID", &house.kinds[booked.kind].id);
    same("status", stay.status)
        && same("firstName", &stay.guest.first)
        && same("lastName", &stay.guest.last)
        && same("guestID", &stay.guest.id)
        && from("checkInFrom", stay.start)
        && to("checkInTo", stay.start)
        && from("checkOutFrom", stay.end)
        && to("checkOutTo", stay.end)
        && stay.rooms.iter().any(kind)
}

fn entry(house: &House, stay: &Stay, query: &Pairs) -> Value {
    let mut entry = json!({
        "propertyID": house.property.to_string(),
        "reservationID": stay.id,
        "dateCreated": stay.created,
        "dateModified": stay.modified,
        "status": stay.status,
        "guestID": stay.guest.id,
        "profileID": stay.guest.id,
        "guestName": name(&stay.guest),
        "startDate": stay.start.to_string(),
        "endDate": stay.end.to_string(),
        "allotmentBlockCode": null,
        "groupCode": null,
        "adults": stay.rooms.iter().map(|booked| booked.adults).sum::<u32>().to_string(),
        "children": stay.rooms.iter().map(|booked| booked.children).sum::<u32>().to_string(),
        "balance": amount(stay.balance()),
        "sourceName": stay.source,
        "sourceID": source_id(stay),
        "thirdPartyIdentifier": stay.third_party,
        "origin": "Sandbox",
        "mealPlans": "",
    });
    if query.flag("includeAllRooms") {
        let rooms = stay.rooms.iter().enumerate();
        entry["rooms"] = rooms.map(|(index, booked)| listed_room(house, stay, index, booked)).collect();
    }
    if query.flag("includeGuestsDetails") {
        let mut guest = guest(stay);
        guest.insert("guestName".to_owned(), json!(name(&stay.guest)));
        guest.remove("guestStatus");
        entry["guestList"] = json!({&stay.guest.id: guest});
    }
    if query.flag("includeCustomFields") {
        entry["customFields"] = json!([]);
    }
    entry
}

fn listed_room(house: &House, stay: &Stay, index: usize, booked: &Booked) -> Value {
    let kind = &house.kinds[booked.kind];
    let status = match stay.status {
        "canceled" => "cancelled",
        "checked_in" => "in_house",
        "checked_out" => "checked_out",
        _ => "not_checked_in",
    };
    let mut room = json!({
        "roomTypeID": kind.id,
        "roomTypeName": kind.name,
        "roomTypeIsVirtual": false,
        "subReservationID": sub_id(stay, index),
        "isRoomLocked": false,
        "guestID": stay.guest.id,
        "guestName": name(&stay.guest),
        "adults": booked.adults.to_string(),
        "children": booked.children.to_string(),
        "reservationRoomID": room_id(stay, index),
        "roomCheckIn": stay.start.to_string(),
        "roomCheckOut": stay.end.to_string(),
        "roomStatus": status,
        "marketName": "",
        "marketCode": "",
    });
    if let Some(assigned) = booked.room {
        room["roomID"] = json!(house.rooms[assigned].id);
        room["roomName"] = json!(house.rooms[assigned].name);
    }
    room
}

pub(super) fn one(data: &Data, grant: &Grant, query: &Pairs) -> Result<Value, Failure> {
    let id = query.get("reservationID").ok_or("Parameter reservationID is required")?;
    let houses = grant.several(data, query.get("propertyID"))?;
    let found = houses.into_iter().find_map(|house| Some((house, house.stays.iter().find(|stay| stay.id == id)?)));
    let (house, stay) = found.ok_or("Reservation not found")?;
    Ok(json!({"success": true, "data": full(house, stay)}))
}

/// A reservation with everything that is known about it.
pub(super) fn full(house: &House, stay: &Stay) -> Value {
    let rooms = |assigned: bool| -> Vec<Value> {
        let rooms = stay.rooms.iter().enumerate().filter(|(_, booked)| booked.room.is_some() == assigned);
        rooms.map(|(index, booked)| full_room(house, stay, index, booked)).collect()
    };
    let total = stay.total();
    json!({
        "propertyID": house.property.to_string(),
        "guestName": name(&stay.guest),
        "guestEmail": stay.guest.email,
        "isAnonymized": false,
        "guestList": {&stay.guest.id: guest(stay)},
        "reservationID": stay.id,
        "dateCreated": stay.created,
        "dateModified": stay.modified,
        "estimatedArrivalTime": stay.arrival,
        "source": stay.source,
        "sourceID": source_id(stay),
        "thirdPartyIdentifier": stay.third_party,
        "status": stay.status,
        "total": amount(total + stay.extras),
        "balance": amount(stay.balance()),
        "balanceDetailed": {
            "suggestedDeposit": format!("{:.2}", amount(total / 5)),
            "subTotal": amount(total),
            "additionalItems": amount(stay.extras),
            "taxesFees": 0,
            "grandTotal": amount(total + stay.extras),
            "paid": amount(stay.paid),
        },
        "assigned": rooms(true),
        "unassigned": rooms(false),
        "cardsOnFile": [],
        "customFields": [],
        "startDate": stay.start.to_string(),
        "endDate": stay.end.to_string(),
        "allotmentBlockCode": null,
        "groupInventory": null,
        "origin": "Sandbox",
        "mealPlans": "",
    })
}

fn full_room(house: &House, stay: &Stay, index: usize, booked: &Booked) -> Value {
    let kind = &house.kinds[booked.kind];
    let mut room = json!({
        "reservationRoomID": room_id(stay, index),
        "roomTypeName": kind.name,
        "roomTypeIsVirtual": false,
        "roomTypeID": kind.id,
        "subReservationID": sub_id(stay, index),
        "isRoomLocked": false,
        "startDate": stay.start.to_string(),
        "endDate": stay.end.to_string(),
        "adults": booked.adults.to_string(),
        "children": booked.children.to_string(),
        "dailyRates": daily_rates(stay, booked),
        "roomTotal": format!("{:.2}", amount(booked.prices.iter().sum())),
    });
    if let Some(assigned) = booked.room {
        room["roomTypeNameShort"] = json!(kind.short);
        room["roomID"] = json!(house.rooms[assigned].id);
        room["roomName"] = json!(house.rooms[assigned].name);
        room["marketName"] = json!("");
        room["marketCode"] = json!("");
    }
    room
}

pub(super) fn daily_rates(stay: &Stay, booked: &Booked) -> Vec<Value> {
    let nights = stay.start.until(stay.end).zip(&booked.prices);
    nights.map(|(day, price)| json!({"date": day.to_string(), "rate": amount(*price)})).collect()
}

fn guest(stay: &Stay) -> Map<String, Value> {
    let guest = &stay.guest;
    let fields = [
        ("guestID", json!(guest.id)),
        ("guestFirstName", json!(guest.first)),
        ("guestLastName", json!(guest.last)),
        ("guestGender", json!(guest.gender)),
        ("guestEmail", json!(guest.email)),
        ("guestPhone", json!(guest.phone)),
        ("guestCountry", json!(guest.country)),
        ("guestZip", json!(guest.zip)),
        ("guestStatus", json!(stay.status)),
        ("isMainGuest", json!(true)),
        ("isAnonymized", json!(false)),
        ("assignedRoom", json!(stay.rooms.iter().any(|booked| booked.room.is_some()))),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

pub(super) fn name(guest: &Guest) -> String {
    format!("{} {}", guest.first, guest.last)
}

/// `s-2` for the hotel's own site, `s-1` for the front desk: the vendor's form for primary sources.
fn source_id(stay: &Stay) -> &'static str {
    if stay.source == "Walk-In" { "s-1" } else { "s-2" }
}

/// The first room of a reservation bears its number, the others add theirs.
pub(super) fn sub_id(stay: &Stay, index: usize) -> String {
    if index == 0 { stay.id.clone() } else { format!("{}-{index}", stay.id) }
}

fn room_id(stay: &Stay, index: usize) -> String {
    format!("{}{:02}", stay.guest.id, index + 1)
}
