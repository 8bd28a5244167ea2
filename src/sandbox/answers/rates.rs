//! Room types, what is free, and what it costs: `getRoomTypes`, `getAvailableRoomTypes`, `getRatePlans`, `getRate`,
//! `putRate`, `patchRate` and `getRateJobs`.
//!
//! In: the data, what the key opens, and a query or a form. Out: the vendor's JSON. Each room type has one rate, of no
//! plan. A change of rates is in force at once, and its job is done when it is asked for.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::{Failure, amount, cents, day, need, page, window};
use crate::sandbox::accounts::Grant;
use crate::sandbox::calendar::Day;
use crate::sandbox::data::{Data, House, Job, Price, Update, push};
use crate::sandbox::query::Pairs;

/// The longest time that is looked at, and the most intervals of a change.
const NIGHTS_MAX: usize = 366;
const ROWS_MAX: usize = 100;

/// The nights from `startDate` to `endDate`.
fn nights(query: &Pairs) -> Result<(Day, Day), Failure> {
    let (start, end) = (day(query, "startDate")?, day(query, "endDate")?);
    if end <= start || start.until(end).take(NIGHTS_MAX + 1).count() > NIGHTS_MAX {
        return Err("Parameter endDate must be after startDate, by a year at most".to_owned());
    }
    Ok((start, end))
}

/// Whether a comma-separated list of a query names this, or there is none.
fn listed(query: &Pairs, name: &str, id: &str) -> bool {
    query.get(name).is_none_or(|list| list.split(',').any(|one| one.trim() == id))
}

pub(super) fn types(data: &Data, grant: &Grant, query: &Pairs) -> Result<Value, Failure> {
    let guests = query.number("maxGuests").unwrap_or(0);
    let mut all = Vec::new();
    for house in grant.several(data, query.get("propertyIDs"))? {
        let wanted = house.kinds.iter().filter(|kind| listed(query, "roomTypeIDs", &kind.id) && kind.guests >= guests);
        all.extend(wanted.map(|kind| {
            json!({
                "roomTypeID": kind.id,
                "propertyID": house.property.to_string(),
                "roomTypeName": kind.name,
                "roomTypeNameShort": kind.short,
                "roomTypeDescription": kind.description(),
                "isPrivate": true,
                "maxGuests": kind.guests,
                "adultsIncluded": kind.guests.min(2),
                "childrenIncluded": 0,
            })
        }));
    }
    // The description has no room for a count here.
    Ok(json!({"success": true, "data": window(&all, query, 20)}))
}

pub(super) fn available(data: &Data, grant: &Grant, query: &Pairs) -> Result<Value, Failure> {
    let (start, end) = nights(query)?;
    let number = |name: &str| query.number(name).unwrap_or(if name == "children" { 0 } else { 1_u32 });
    let (rooms, guests) = (number("rooms").max(1), number("adults") + number("children"));
    let mut count = 0;
    let of_house = |house: &House| {
        let fits = |kind: &usize| {
            let free = house.free(*kind, start, end);
            free >= rooms as usize && house.kinds[*kind].guests.saturating_mul(rooms) >= guests
        };
        let found: Vec<Value> =
            (0..house.kinds.len()).filter(fits).map(|kind| offer(house, kind, start, end, query)).collect();
        count += found.len();
        json!({
            "propertyID": house.property.to_string(),
            "propertyCurrency": [{"currencyCode": "EUR", "currencySymbol": "€", "currencyPosition": "before"}],
            "propertyRooms": found,
        })
    };
    let all: Vec<Value> = grant.several(data, query.get("propertyIDs"))?.into_iter().map(of_house).collect();
    let mut answer = page(&all, query, 20);
    answer["roomCount"] = json!(count);
    Ok(answer)
}

fn offer(house: &House, index: usize, start: Day, end: Day, query: &Pairs) -> Value {
    let kind = &house.kinds[index];
    let rates = house.rates(index, start, end);
    let detailed = || -> Vec<Value> {
        let nights = start.until(end).zip(&rates);
        nights.map(|(day, rate)| json!({"date": day.to_string(), "rate": amount(*rate)})).collect()
    };
    json!({
        "roomTypeID": kind.id,
        "roomTypeName": kind.name,
        "roomTypeNameShort": kind.short,
        "roomTypeDescription": kind.description(),
        "maxGuests": kind.guests,
        "adultsIncluded": kind.guests.min(2),
        "childrenIncluded": 0,
        "roomTypePhotos": [],
        "roomTypeFeatures": ["Wi-Fi"],
        "roomRate": amount(rates.iter().sum()),
        "roomRateID": kind.rate_id,
        "ratePlanNamePublic": "",
        "ratePlanNamePrivate": "",
        "roomsAvailable": house.free(index, start, end),
        "roomRateDetailed": query.flag("detailedRates").then(detailed),
    })
}

pub(super) fn plans(data: &Data, grant: &Grant, query: &Pairs) -> Result<Value, Failure> {
    let (start, end) = nights(query)?;
    let mut all = Vec::new();
    for house in grant.several(data, query.get("propertyIDs"))? {
        let wanted = |index: &usize| {
            let kind = &house.kinds[*index];
            listed(query, "roomTypeID", &kind.id) && listed(query, "rateIDs", &kind.rate_id)
        };
        for index in (0..house.kinds.len()).filter(wanted) {
            let mut plan = rate_of(house, index, start, end, query, "rateBase");
            plan["roomTypeID"] = json!(house.kinds[index].id);
            plan["propertyID"] = json!(house.property.to_string());
            plan["addOns"] = json!([]);
            all.push(plan);
        }
    }
    Ok(json!({"success": true, "data": all}))
}

pub(super) fn rate(data: &Data, grant: &Grant, query: &Pairs) -> Result<Value, Failure> {
    let id = need(query, "roomTypeID")?;
    let (start, end) = nights(query)?;
    let found = grant.several(data, None)?.into_iter().find_map(|house| Some((house, house.kind(id)?)));
    let (house, kind) = found.ok_or("Invalid roomTypeID")?;
    Ok(json!({"success": true, "data": rate_of(house, kind, start, end, query, "rate")}))
}

/// A rate over some nights. `each` is how the operation spells a day's rate.
fn rate_of(house: &House, kind: usize, start: Day, end: Day, query: &Pairs, each: &str) -> Value {
    let detail = |day: Day| {
        json!({
            "date": day.to_string(),
            each: amount(house.rate(kind, day)),
            "totalRate": amount(house.rate(kind, day)),
            "roomsAvailable": house.free_on(kind, day),
            "closedToArrival": false,
            "closedToDeparture": false,
            "blocked": house.blocked(kind, day),
            "minLos": 0,
            "maxLos": 0,
        })
    };
    let sum = amount(house.rates(kind, start, end).iter().sum());
    let mut rate = json!({
        "rateID": house.kinds[kind].rate_id,
        "isDerived": false,
        "parentRateID": null,
        "parentRatePlanID": null,
        "parentRatePlanNamePublic": null,
        "parentRatePlanNamePrivate": null,
        "roomRate": sum,
        "totalRate": sum,
        "roomsAvailable": house.free(kind, start, end),
    });
    if query.flag("detailedRates") {
        rate["roomRateDetailed"] = start.until(end).map(detail).collect();
    }
    rate
}

/// `putRate` and `patchRate`, which differ in what else they can set.
pub(super) fn change(data: &mut Data, grant: &Grant, form: &Pairs, now: SystemTime) -> Result<Value, Failure> {
    let updates = intervals(form)?;
    let rate_id = updates.first().map(|(update, _)| update.rate_id.clone()).unwrap_or_default();
    let owns = |rate_id: &str| -> Option<crate::property::PropertyId> {
        let houses = grant.several(data, None).ok()?;
        houses.into_iter().find(|house| house.rated(rate_id).is_some()).map(|house| house.property)
    };
    let property = owns(&rate_id).ok_or("Invalid rateID")?;
    let id = format!("{:016x}", data.id(super::JOB).parse::<u64>().unwrap_or_default());
    let house = data.house_mut(property).ok_or("Invalid rateID")?;
    // All or nothing, so everything is looked up before anything is changed.
    let kinds: Option<Vec<usize>> = updates.iter().map(|(update, _)| house.rated(&update.rate_id)).collect();
    for (kind, (update, blocked)) in kinds.ok_or("Invalid rateID")?.into_iter().zip(&updates) {
        for day in update.start.until(update.end.plus(1)) {
            house.prices.insert((kind, day), Price { rate: update.rate, blocked: *blocked });
        }
    }
    let updates = updates.into_iter().map(|(update, _)| update).collect();
    push(&mut house.jobs, Job { id: id.clone(), created: Day::of(now), updates });
    Ok(json!({"success": true, "jobReferenceID": id}))
}

/// The intervals of a form, each with whether it blocks. `interval` is a list in one description and an object in the
/// other; a form may have either.
fn intervals(form: &Pairs) -> Result<Vec<(Update, bool)>, Failure> {
    let mut found = Vec::new();
    for row in 0..ROWS_MAX {
        let Some(rate_id) = form.get(&format!("rates[{row}][rateID]")) else { break };
        let listed = (0..ROWS_MAX).map(|number| format!("rates[{row}][interval][{number}]"));
        let listed = listed.take_while(|at| form.get(&format!("{at}[startDate]")).is_some());
        let alone = format!("rates[{row}][interval]");
        let alone = form.get(&format!("{alone}[startDate]")).map(|_| alone);
        for at in listed.chain(alone) {
            let text = |name: &str| form.get(&format!("{at}[{name}]"));
            let date = |name: &str| text(name).and_then(Day::parse).ok_or(format!("Parameter {name} must be a date"));
            let (start, end) = (date("startDate")?, date("endDate")?);
            if end < start || start.until(end).take(NIGHTS_MAX + 1).count() > NIGHTS_MAX || found.len() == ROWS_MAX {
                return Err("Parameter interval is too long, or ends before it starts".to_owned());
            }
            let rate = text("rate").and_then(cents).ok_or("Parameter rate must be a number")?;
            let blocked = matches!(text("blocked"), Some("1" | "true"));
            found.push((Update { rate_id: rate_id.to_owned(), start, end, rate }, blocked));
        }
    }
    if found.is_empty() { Err("Parameter rates is required".to_owned()) } else { Ok(found) }
}

pub(super) fn jobs(data: &Data, grant: &Grant, query: &Pairs) -> Result<Value, Failure> {
    let update = |update: &Update| {
        json!({
            "rateID": update.rate_id,
            "action": "update",
            "startDate": update.start.to_string(),
            "endDate": update.end.to_string(),
            "rate": amount(update.rate),
        })
    };
    let job = |job: &Job| {
        json!({
            "jobReferenceID": job.id,
            "dateCreated": job.created.to_string(),
            "status": "completed",
            "updates": job.updates.iter().map(update).collect::<Vec<_>>(),
        })
    };
    let houses = grant.several(data, None)?;
    let done = query.get("status").is_none_or(|status| status == "completed");
    let all = houses.into_iter().flat_map(|house| &house.jobs);
    let all = all.filter(|job| done && listed(query, "jobReferenceID", &job.id));
    Ok(json!({"success": true, "hasNextPage": false, "nextPage": null, "data": all.map(job).collect::<Vec<_>>()}))
}
