//! The front desk: `getDashboard`, `putReservation`, `postRoomAssign`, `postRoomCheckIn`, `postRoomCheckOut`, `getSources`.
//!
//! In: the data, what the key opens, and a query or a form. Out: the vendor's JSON.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::reservations::full;
use super::{Failure, day, need};
use crate::sandbox::accounts::Grant;
use crate::sandbox::calendar::{Day, stamp};
use crate::sandbox::data::{Data, House, Stay};
use crate::sandbox::query::Pairs;

/// What a reservation can be.
const STATUSES: [&str; 6] = ["confirmed", "not_confirmed", "canceled", "checked_in", "checked_out", "no_show"];

pub(super) fn dashboard(data: &Data, grant: &Grant, query: &Pairs, now: SystemTime) -> Result<Value, Failure> {
    let house = grant.one(data, query.get("propertyID"))?;
    let date = if query.get("date").is_some() { day(query, "date")? } else { Day::of(now) };
    let count = house.count(date);
    Ok(json!({"success": true, "data": {
        "roomsOccupied": count.occupied,
        "percentageOccupied": count.occupied * 100 / house.rooms.len().max(1),
        "arrivals": count.arrivals,
        "departures": count.departures,
        "inHouse": count.staying,
    }}))
}

/// The hotel and the place of the reservation that a form names.
fn stay(data: &mut Data, grant: &Grant, form: &Pairs) -> Result<(crate::property::PropertyId, usize), Failure> {
    let id = need(form, "reservationID")?;
    let houses = grant.several(data, form.get("propertyID"))?;
    let found =
        houses.into_iter().find_map(|house| Some((house.property, house.stays.iter().position(|stay| stay.id == id)?)));
    found.ok_or_else(|| "Reservation not found".to_owned())
}

pub(super) fn put(data: &mut Data, grant: &Grant, form: &Pairs, now: SystemTime) -> Result<Value, Failure> {
    let (property, at) = stay(data, grant, form)?;
    let house = data.house_mut(property).ok_or("Reservation not found")?;
    let status = match form.get("status") {
        Some(wanted) => Some(*STATUSES.iter().find(|status| **status == wanted).ok_or("Parameter status is invalid")?),
        None => None,
    };
    if form.get("checkoutDate").is_some() {
        let (start, end) = (house.stays[at].start, day(form, "checkoutDate")?);
        if end <= start || start.until(end).take(367).count() > 366 {
            return Err("Parameter checkoutDate must be after the check-in, by a year at most".to_owned());
        }
        // Nights that stay keep the price they were booked at.
        let more: Vec<Vec<i64>> =
            house.stays[at].rooms.iter().map(|booked| house.rates(booked.kind, start, end)).collect();
        let stay = &mut house.stays[at];
        stay.end = end;
        for (booked, fresh) in stay.rooms.iter_mut().zip(more) {
            let kept = booked.prices.len().min(fresh.len());
            booked.prices.truncate(kept);
            booked.prices.extend_from_slice(&fresh[kept..]);
        }
    }
    let stay = &mut house.stays[at];
    stay.status = status.unwrap_or(stay.status);
    if let Some(time) = form.get("estimatedArrivalTime") {
        stay.arrival = Some(time.to_owned());
    }
    stay.modified = stamp(now);
    Ok(json!({"success": true, "data": full(house, &house.stays[at])}))
}

pub(super) fn assign(data: &mut Data, grant: &Grant, form: &Pairs, now: SystemTime) -> Result<Value, Failure> {
    let (property, at) = stay(data, grant, form)?;
    let wanted = need(form, "newRoomID")?;
    let house = data.house_mut(property).ok_or("Reservation not found")?;
    let room = house.rooms.iter().position(|room| room.id == wanted).ok_or("Invalid newRoomID")?;
    let kind = house.rooms[room].kind;
    let twice = house.stays[at].rooms.iter().any(|booked| booked.room == Some(room));
    if twice || house.is_taken(room, &house.stays[at]) {
        return Err("The room is not available".to_owned());
    }
    let sub = form.get("subReservationID").map(str::to_owned);
    let stay = &mut house.stays[at];
    let index = match sub {
        Some(sub) => (0..stay.rooms.len()).find(|index| super::reservations::sub_id(stay, *index) == sub),
        None => stay.rooms.iter().position(|booked| booked.room.is_none() && booked.kind == kind).or(Some(0)),
    };
    let booked = index.and_then(|index| stay.rooms.get_mut(index)).ok_or("Invalid subReservationID")?;
    (booked.kind, booked.room) = (kind, Some(room));
    stay.modified = stamp(now);
    Ok(json!({"success": true}))
}

pub(super) fn check_in(data: &mut Data, grant: &Grant, form: &Pairs, now: SystemTime) -> Result<Value, Failure> {
    turn(data, grant, form, now, "checked_in", |stay| {
        let assigned = stay.rooms.iter().all(|booked| booked.room.is_some());
        assigned && matches!(stay.status, "confirmed" | "not_confirmed")
    })
}

pub(super) fn check_out(data: &mut Data, grant: &Grant, form: &Pairs, now: SystemTime) -> Result<Value, Failure> {
    turn(data, grant, form, now, "checked_out", |stay| stay.status == "checked_in")
}

fn turn(
    data: &mut Data,
    grant: &Grant,
    form: &Pairs,
    now: SystemTime,
    to: &'static str,
    allowed: impl Fn(&Stay) -> bool,
) -> Result<Value, Failure> {
    let (property, at) = stay(data, grant, form)?;
    let house = data.house_mut(property).ok_or("Reservation not found")?;
    let stay = &mut house.stays[at];
    if !allowed(stay) {
        return Err(format!("The reservation cannot be {} now", to.replace('_', " ")));
    }
    stay.status = to;
    stay.modified = stamp(now);
    Ok(json!({"success": true}))
}

pub(super) fn sources(data: &Data, grant: &Grant, query: &Pairs) -> Result<Value, Failure> {
    let houses = grant.several(data, query.get("propertyIDs"))?;
    let of_house = |house: &House| {
        [("s-1", "Walk-In"), ("s-2", "Website/Booking Engine")].map(|(id, name)| {
            json!({
                "propertyID": house.property.to_string(),
                "sourceID": id,
                "sourceName": name,
                "isThirdParty": false,
                "status": true,
                "commission": 0,
                "paymentCollect": "hotel",
                "taxes": [],
                "fees": [],
            })
        })
    };
    Ok(json!({"success": true, "data": houses.into_iter().flat_map(of_house).collect::<Vec<_>>()}))
}
