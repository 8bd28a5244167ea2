//! `postReservation`: a form becomes a reservation that the other operations then show.
//!
//! In: the decoded form, with PHP's `rooms[0][roomTypeID]` names. Out: the booked reservation, or the first thing that is
//! wrong with the form. Rooms are left unassigned, and availability is not looked at: this is a stand-in, not a hotel.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::reservations::{daily_rates, sub_id};
use super::{Failure, amount, day, need};
use crate::sandbox::accounts::Grant;
use crate::sandbox::calendar::Day;
use crate::sandbox::data::{Booked, Data, Guest, House, Stay};
use crate::sandbox::query::Pairs;

/// More rooms than a real form asks for, and few enough that no form is worth fearing.
const ROOMS_MAX: u32 = 100;

/// The longest stay, likewise.
const NIGHTS_MAX: usize = 366;

pub(super) fn answer(data: &mut Data, grant: &Grant, form: &Pairs, now: SystemTime) -> Result<Value, Failure> {
    let house = grant.one(data, form.get("propertyID"))?;
    let property = house.property;
    let stay = read(house, form)?;
    let (house, stay) = data.book(property, stay, now).ok_or("The property is gone")?;
    let room = |(index, booked): (usize, &Booked)| {
        let kind = &house.kinds[booked.kind];
        json!({
            "subReservationID": sub_id(stay, index),
            "roomTypeName": kind.name,
            "roomTypeID": kind.id,
            "adults": booked.adults,
            "children": booked.children,
            "dailyRates": daily_rates(stay, booked),
            "roomTotal": amount(booked.prices.iter().sum()),
        })
    };
    Ok(json!({
        "success": true,
        "reservationID": stay.id,
        "status": stay.status,
        "guestID": stay.guest.id,
        "guestFirstName": stay.guest.first,
        "guestLastName": stay.guest.last,
        "guestGender": stay.guest.gender,
        "guestEmail": stay.guest.email,
        "startDate": stay.start.to_string(),
        "endDate": stay.end.to_string(),
        "dateCreated": stay.created,
        "grandTotal": amount(stay.total()),
        "unassigned": stay.rooms.iter().enumerate().map(room).collect::<Vec<_>>(),
    }))
}

fn read(house: &House, form: &Pairs) -> Result<Stay, Failure> {
    let text = |name: &str| need(form, name);
    let (start, end) = (day(form, "startDate")?, day(form, "endDate")?);
    if end <= start || start.until(end).take(NIGHTS_MAX + 1).count() > NIGHTS_MAX {
        return Err("Parameter endDate must be after startDate, by a year at most".to_owned());
    }
    let gender = form.get("guestGender").unwrap_or("N/A");
    if !matches!(gender, "M" | "F" | "N/A") {
        return Err("Parameter guestGender must be M, F or N/A".to_owned());
    }
    let guest = Guest {
        id: String::new(),
        first: text("guestFirstName")?.to_owned(),
        last: text("guestLastName")?.to_owned(),
        email: text("guestEmail")?.to_owned(),
        country: text("guestCountry")?.to_owned(),
        zip: text("guestZip")?.to_owned(),
        phone: form.get("guestPhone").unwrap_or_default().to_owned(),
        gender: gender.to_owned(),
    };
    text("paymentMethod")?;
    Ok(Stay {
        id: String::new(),
        guest,
        status: "confirmed",
        start,
        end,
        created: String::new(),
        source: "Website/Booking Engine",
        third_party: form.get("thirdPartyIdentifier").unwrap_or_default().to_owned(),
        rooms: rooms(house, form, start, end)?,
        modified: String::new(),
        arrival: form.get("estimatedArrivalTime").map(str::to_owned),
        extras: 0,
        paid: 0,
    })
}

fn rooms(house: &House, form: &Pairs, start: Day, end: Day) -> Result<Vec<Booked>, Failure> {
    let kinds = |array| form.column(array, "roomTypeID").zip(form.column(array, "quantity"));
    // Adults and children are given per room type, and shared out over its rooms.
    let people = |array, id: &str| -> Result<u32, Failure> {
        let (_, quantity) =
            kinds(array).find(|(kind, _)| *kind == id).ok_or(format!("Parameter {array} is required"))?;
        quantity.parse().map_err(|_| format!("Parameter {array} must name a quantity"))
    };
    let mut booked: Vec<Booked> = Vec::new();
    for (id, quantity) in kinds("rooms") {
        let kind = house.kind(id).ok_or("Invalid roomTypeID")?;
        let quantity = quantity.parse().ok().filter(|rooms| (1..=ROOMS_MAX).contains(rooms));
        let quantity: u32 = quantity.ok_or("Parameter rooms must name a quantity")?;
        let (adults, children) = (people("adults", id)?, people("children", id)?);
        let share = |people: u32, room: u32| people / quantity + u32::from(room < people % quantity);
        booked.extend((0..quantity).map(|room| Booked {
            kind,
            room: None,
            adults: share(adults, room),
            children: share(children, room),
            prices: house.rates(kind, start, end),
        }));
        if booked.len() > ROOMS_MAX as usize {
            return Err("Too many rooms".to_owned());
        }
    }
    if booked.is_empty() { Err("Parameter rooms is required".to_owned()) } else { Ok(booked) }
}
