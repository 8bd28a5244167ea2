//! `getHotels`, `getHotelDetails`, `getRooms` and `userinfo`.
//!
//! In: the data and what the key opens. Out: the vendor's JSON.

use serde_json::{Value, json};

use super::{Failure, page};
use crate::sandbox::accounts::Grant;
use crate::sandbox::data::{Data, House, Room};
use crate::sandbox::query::Pairs;

pub(super) fn list(data: &Data, grant: &Grant, query: &Pairs) -> Result<Value, Failure> {
    let wanted = query.get("propertyName").map(str::to_lowercase);
    let named = |house: &&House| wanted.as_ref().is_none_or(|part| house.name.to_lowercase().contains(part));
    let entry = |house: &House| {
        json!({
            "propertyID": house.property.to_string(),
            "organizationID": house.organization,
            "propertyName": house.name,
            "propertyImage": "https://example.com/images/hotel.jpg",
            "propertyDescription": "A hotel that exists only here.",
            "propertyTimezone": "Europe/Lisbon",
            "propertyCurrency": [{"currencyCode": "EUR", "currencySymbol": "€", "currencyPosition": "before"}],
        })
    };
    let houses = grant.several(data, query.get("propertyIDs"))?;
    let all: Vec<Value> = houses.into_iter().filter(named).map(entry).collect();
    Ok(page(&all, query, 20))
}

pub(super) fn details(house: &House) -> Value {
    let photo = |name: &str| {
        json!({
            "thumb": format!("https://example.com/images/{name}-small.jpg"),
            "image": format!("https://example.com/images/{name}.jpg"),
        })
    };
    json!({"success": true, "data": {
        "propertyID": house.property.to_string(),
        "organizationID": house.organization,
        "propertyName": house.name,
        "propertyType": "hotel",
        "propertyImage": [photo("hotel")],
        "propertyDescription": "A hotel that exists only here.",
        "propertyCurrency": {
            "currencyCode": "EUR",
            "currencySymbol": "€",
            "currencyPosition": "before",
            "currencyDecimalSeparator": ".",
            "currencyThousandsSeparator": ",",
        },
        "propertyPrimaryLanguage": "en",
        "propertyAdditionalPhotos": [photo("lobby"), photo("garden")],
        "propertyPhone": "+351 900 000 000",
        "propertyEmail": "desk@example.com",
        "propertyAddress": {
            "propertyAddress1": "Rua do Exemplo 1",
            "propertyAddress2": "",
            "propertyCity": "Faro",
            "propertyState": "Algarve",
            "propertyZip": "8000-123",
            "propertyCountry": "PT",
            "propertyLatitude": "37.0194",
            "propertyLongitude": "-7.9304",
        },
        "propertyPolicy": {
            "propertyCheckInTime": "15:00",
            "propertyCheckOutTime": "11:00",
            "propertyLateCheckOutAllowed": true,
            "propertyLateCheckOutType": "value",
            "propertyLateCheckOutValue": "20.00",
            "propertyTermsAndConditions": "Nothing here can be booked in earnest.",
            "propertyFullPaymentBeforeCheckin": false,
        },
        "propertyAmenities": ["Wi-Fi", "Breakfast"],
        "taxID": "PT500000000",
        "taxID2": "",
        "companyLegalName": format!("{} Lda.", house.name),
    }})
}

pub(super) fn rooms(data: &Data, grant: &Grant, query: &Pairs) -> Result<Value, Failure> {
    let kinds: Option<Vec<&str>> = query.get("roomTypeID").map(|list| list.split(',').collect());
    let houses = grant.several(data, query.get("propertyIDs"))?;
    let of_house = |house: &House| {
        let wanted = |room: &&Room| kinds.as_ref().is_none_or(|kinds| kinds.contains(&&*house.kinds[room.kind].id));
        let rooms: Vec<Value> = house.rooms.iter().filter(wanted).map(|one| room(house, one)).collect();
        json!({"propertyID": house.property.to_string(), "rooms": rooms})
    };
    let all: Vec<Value> = houses.into_iter().map(of_house).collect();
    Ok(page(&all, query, 20))
}

fn room(house: &House, room: &Room) -> Value {
    let kind = &house.kinds[room.kind];
    json!({
        "roomID": room.id,
        "roomName": room.name,
        "roomDescription": kind.description(),
        "maxGuests": kind.guests,
        "isPrivate": true,
        "isVirtual": false,
        "roomBlocked": false,
        "roomTypeID": kind.id,
        "roomTypeName": kind.name,
        "roomTypeNameShort": kind.short,
        "doorlockID": "",
    })
}

/// The one answer without the envelope.
pub(super) fn userinfo(query: &Pairs) -> Value {
    let mut user = json!({
        "user_id": "4001",
        "first_name": "Demo",
        "last_name": "Manager",
        "email": "manager@example.com",
    });
    if query.flag("role_details") {
        user["acl"] = json!(["dashboard", "reservations"]);
        user["roles"] = json!([{"id": "1", "name": "Manager", "description": "May do everything"}]);
    }
    user
}
