//! `getGuest`, `getGuestList` and `putGuest`.
//!
//! In: the data, what the key opens, and a query or a form. Out: the vendor's JSON. Each reservation has one guest.

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::{Failure, need, window};
use crate::sandbox::accounts::Grant;
use crate::sandbox::calendar::{Day, stamp};
use crate::sandbox::data::{Data, Guest, Stay};
use crate::sandbox::query::Pairs;

pub(super) fn one(data: &Data, grant: &Grant, query: &Pairs) -> Result<Value, Failure> {
    let (guest_id, reservation) = (query.get("guestID"), query.get("reservationID"));
    if guest_id.is_none() && reservation.is_none() {
        return Err("Parameter guestID or reservationID is required".to_owned());
    }
    let houses = grant.several(data, query.get("propertyID"))?;
    let mut stays = houses.into_iter().flat_map(|house| &house.stays);
    let fits =
        |stay: &&Stay| guest_id.is_none_or(|id| stay.guest.id == id) && reservation.is_none_or(|id| stay.id == id);
    let guest = &stays.find(fits).ok_or("Guest not found")?.guest;
    let mut about = Map::new();
    for (name, value) in [
        ("firstName", &guest.first),
        ("lastName", &guest.last),
        ("gender", &guest.gender),
        ("email", &guest.email),
        ("phone", &guest.phone),
        ("country", &guest.country),
        ("zip", &guest.zip),
    ] {
        about.insert(name.to_owned(), json!(value));
    }
    for unknown in ["cellPhone", "address", "address2", "city", "state", "specialRequests"] {
        about.insert(unknown.to_owned(), json!(""));
    }
    about.insert("customFields".to_owned(), json!([]));
    about.insert("isAnonymized".to_owned(), json!(false));
    about.insert("guestOptIn".to_owned(), json!(false));
    about.insert("isMerged".to_owned(), json!(false));
    Ok(json!({"success": true, "data": about}))
}

pub(super) fn list(data: &Data, grant: &Grant, query: &Pairs) -> Result<Value, Failure> {
    let houses = grant.several(data, query.get("propertyIDs"))?;
    let found: Vec<&Stay> =
        houses.into_iter().flat_map(|house| &house.stays).filter(|stay| wanted(stay, query)).collect();
    let shown = window(&found, query, 100);
    let about: Map<String, Value> = shown.iter().map(|stay| (stay.guest.id.clone(), entry(stay, query))).collect();
    Ok(json!({"success": true, "count": about.len(), "total": found.len(), "data": about}))
}

fn wanted(stay: &Stay, query: &Pairs) -> bool {
    let same = |name: &str, value: &str| query.get(name).is_none_or(|wanted| wanted.eq_ignore_ascii_case(value));
    let from = |name: &str, day: Day| query.get(name).and_then(Day::parse).is_none_or(|from| day >= from);
    let to = |name: &str, day: Day| query.get(name).and_then(Day::parse).is_none_or(|to| day <= to);
    same("guestFirstName", &stay.guest.first)
        && same("guestLastName", &stay.guest.last)
        && same("guestEmail", &stay.guest.email)
        && same("guestPhone", &stay.guest.phone)
        && same("status", stay.status)
        && from("checkInFrom", stay.start)
        && to("checkInTo", stay.start)
        && from("checkOutFrom", stay.end)
        && to("checkOutTo", stay.end)
}

fn entry(stay: &Stay, query: &Pairs) -> Value {
    let guest = &stay.guest;
    let mut entry = json!({
        "reservationID": stay.id,
        "guestName": super::reservations::name(guest),
        "guestEmail": guest.email,
        "guestID": guest.id,
        "dateCreated": stay.created,
        "dateModified": stay.modified,
        "isMainGuest": true,
        "isAnonymized": false,
        "isMerged": false,
    });
    if query.flag("includeGuestInfo") {
        entry["guestFirstName"] = json!(guest.first);
        entry["guestLastName"] = json!(guest.last);
        entry["guestGender"] = json!(guest.gender);
        entry["guestPhone"] = json!(guest.phone);
        entry["guestCountry"] = json!(guest.country);
        entry["guestZip"] = json!(guest.zip);
        entry["status"] = json!(stay.status);
    }
    entry
}

pub(super) fn put(data: &mut Data, grant: &Grant, form: &Pairs, now: SystemTime) -> Result<Value, Failure> {
    let property = grant.id(form.get("propertyID"))?;
    let id = need(form, "guestID")?;
    let house = data.house_mut(property).ok_or("Guest not found")?;
    let stay = house.stays.iter_mut().find(|stay| stay.guest.id == id).ok_or("Guest not found")?;
    let mut changed = false;
    let Guest { first, last, email, country, zip, phone, gender, .. } = &mut stay.guest;
    for (name, field) in [
        ("guestFirstName", first),
        ("guestLastName", last),
        ("guestEmail", email),
        ("guestCountry", country),
        ("guestZip", zip),
        ("guestPhone", phone),
        ("guestGender", gender),
    ] {
        if let Some(value) = form.get(name) {
            if name == "guestGender" && !matches!(value, "M" | "F" | "N/A") {
                return Err("Parameter guestGender must be M, F or N/A".to_owned());
            }
            value.clone_into(field);
            changed = true;
        }
    }
    if !changed {
        return Err("At least one information field is required".to_owned());
    }
    stay.modified = stamp(now);
    Ok(json!({"success": true}))
}
