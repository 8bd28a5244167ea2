//! Money: payments, items and house accounts.
//!
//! In: the data, what the key opens, and a query or a form. Out: the vendor's JSON. What is paid or bought for a
//! reservation shows in its balance; the description has no balance for a house account, so that is not kept.

use serde_json::{Value, json};

use super::{Failure, amount, cents, need};
use crate::sandbox::accounts::Grant;
use crate::sandbox::data::{
    CATEGORIES, Data, Folio, HOUSE_ACCOUNT, House, HouseAccount, Item, PAYMENT, Payment, SOLD, TRANSACTION, push,
};
use crate::sandbox::query::Pairs;

/// The ways to pay: method, code, name.
const METHODS: [(&str, &str, &str); 3] =
    [("cash", "cash", "Cash"), ("credit", "credit", "Credit Card"), ("ebanking", "ebanking", "Bank Transfer")];

/// The most of one item, and of different ones in a form.
const QUANTITY_MAX: i64 = 1_000;
const ITEMS_MAX: usize = 100;

pub(super) fn methods(data: &Data, grant: &Grant, query: &Pairs) -> Result<Value, Failure> {
    let house = grant.one(data, query.get("propertyID"))?;
    let cards = json!([{"cardCode": "visa", "cardName": "Visa"}, {"cardCode": "master", "cardName": "Mastercard"}]);
    let method = |(method, code, name): (&str, &str, &str)| {
        let cards = if method == "credit" { cards.clone() } else { Value::Null };
        json!({"method": method, "code": code, "name": name, "cardTypes": cards})
    };
    Ok(json!({"success": true, "data": {
        "propertyID": house.property.to_string(),
        "methods": METHODS.map(method),
        "gateway": {"name": "Sandbox", "currency": "EUR"},
    }}))
}

/// Who pays: a reservation before a house account, as the description says.
fn folio(house: &House, form: &Pairs) -> Result<Folio, Failure> {
    if let Some(id) = form.get("reservationID") {
        let known = house.stays.iter().any(|stay| stay.id == id);
        return if known { Ok(Folio::Reservation(id.to_owned())) } else { Err("Reservation not found".to_owned()) };
    }
    let id = form.get("houseAccountID").ok_or("Parameter reservationID or houseAccountID is required")?;
    match house.accounts.iter().find(|account| account.id == id) {
        Some(account) if account.open => Ok(Folio::HouseAccount(id.to_owned())),
        Some(_) => Err("The house account is closed".to_owned()),
        None => Err("House account not found".to_owned()),
    }
}

/// Adds to what a reservation has paid, and to what it has bought.
fn charge(house: &mut House, folio: &Folio, paid: i64, bought: i64) {
    let Folio::Reservation(id) = folio else { return };
    if let Some(stay) = house.stays.iter_mut().find(|stay| stay.id == *id) {
        stay.paid += paid;
        stay.extras += bought;
    }
}

pub(super) fn pay(data: &mut Data, grant: &Grant, form: &Pairs) -> Result<Value, Failure> {
    let house = grant.one(data, form.get("propertyID"))?;
    let (property, folio) = (house.property, folio(house, form)?);
    let way = need(form, "type")?;
    if !METHODS.iter().any(|(_, code, _)| *code == way) {
        return Err("Parameter type is invalid".to_owned());
    }
    let amount = cents(need(form, "amount")?).filter(|cents| *cents > 0).ok_or("Parameter amount is invalid")?;
    let (id, transaction) = (data.id(PAYMENT), data.id(TRANSACTION));
    let house = data.house_mut(property).ok_or("Reservation not found")?;
    charge(house, &folio, amount, 0);
    push(&mut house.payments, Payment { id: id.clone(), folio, amount, voided: false });
    Ok(json!({"success": true, "paymentID": id, "transactionID": transaction}))
}

pub(super) fn void(data: &mut Data, grant: &Grant, form: &Pairs) -> Result<Value, Failure> {
    let house = grant.one(data, form.get("propertyID"))?;
    let (property, folio) = (house.property, folio(house, form)?);
    let id = need(form, "paymentID")?;
    let house = data.house_mut(property).ok_or("Payment not found")?;
    let payment = house.payments.iter_mut().find(|one| one.id == id && one.folio == folio && !one.voided);
    let payment = payment.ok_or("Payment not found")?;
    payment.voided = true;
    let amount = payment.amount;
    charge(house, &folio, -amount, 0);
    Ok(json!({"success": true}))
}

pub(super) fn items(data: &Data, grant: &Grant, query: &Pairs) -> Result<Value, Failure> {
    let house = grant.one(data, query.get("propertyID"))?;
    let wanted = query.get("itemCategoryID");
    let all = house.items.iter().filter(|item| wanted.is_none_or(|id| category_id(item.category) == id));
    Ok(json!({"success": true, "data": all.map(about).collect::<Vec<_>>()}))
}

pub(super) fn item(data: &Data, grant: &Grant, query: &Pairs) -> Result<Value, Failure> {
    let house = grant.one(data, query.get("propertyID"))?;
    let id = need(query, "itemID")?;
    let item = house.items.iter().find(|item| item.id == id).ok_or("Item not found")?;
    Ok(json!({"success": true, "data": about(item)}))
}

fn about(item: &Item) -> Value {
    let mut about = json!({
        "itemID": item.id,
        "itemType": item.kind,
        "sku": item.sku,
        "itemCode": item.sku,
        "name": item.name,
        "categoryID": category_id(item.category),
        "categoryName": CATEGORIES[item.category].0,
        "description": item.name,
        "price": amount(item.price),
        "stockInventory": item.stock.is_some(),
        "priceWithoutFeesAndTaxes": amount(item.price),
        "grandTotal": amount(item.price),
    });
    if let Some(stock) = item.stock {
        about["itemQuantity"] = json!(stock);
        about["reorderNeeded"] = json!(stock < 10);
        about["stopSellMet"] = json!(stock == 0);
    }
    about
}

fn category_id(index: usize) -> String {
    (500 + index).to_string()
}

pub(super) fn categories(data: &Data, grant: &Grant, query: &Pairs) -> Result<Value, Failure> {
    grant.one(data, query.get("propertyID"))?;
    let all = CATEGORIES.iter().enumerate().map(|(index, (name, code, color))| {
        json!({
            "categoryID": category_id(index),
            "categoryName": name,
            "categoryCode": code,
            "categoryColor": color,
        })
    });
    Ok(json!({"success": true, "data": all.collect::<Vec<_>>()}))
}

pub(super) fn sell(data: &mut Data, grant: &Grant, form: &Pairs) -> Result<Value, Failure> {
    let house = grant.one(data, form.get("propertyID"))?;
    let (property, folio) = (house.property, folio(house, form)?);
    let id = need(form, "itemID")?;
    let at = house.items.iter().position(|item| item.id == id).ok_or("Item not found")?;
    let quantity = quantity(need(form, "itemQuantity")?)?;
    if house.items[at].stock.is_some_and(|stock| stock < quantity) {
        return Err("The item is out of stock".to_owned());
    }
    let price = match form.get("itemPrice") {
        Some(price) => cents(price).ok_or("Parameter itemPrice is invalid")?,
        None => house.items[at].price,
    };
    let (sold, transaction) = (data.id(SOLD), data.id(TRANSACTION));
    let house = data.house_mut(property).ok_or("Item not found")?;
    let total = price.saturating_mul(quantity);
    charge(house, &folio, if form.flag("itemPaid") { total } else { 0 }, total);
    let item = &mut house.items[at];
    item.stock = item.stock.map(|stock| stock - quantity);
    let mut sale = json!({"soldProductID": sold, "transactionID": transaction});
    if let Some(stock) = item.stock {
        sale["remainingItemQuantity"] = json!(stock);
        sale["reorderNeeded"] = json!(stock < 10);
        sale["stopSellMet"] = json!(stock == 0);
    }
    Ok(json!({"success": true, "data": sale}))
}

pub(super) fn sell_custom(data: &mut Data, grant: &Grant, form: &Pairs) -> Result<Value, Failure> {
    let house = grant.one(data, form.get("propertyID"))?;
    let (property, folio) = (house.property, folio(house, form)?);
    let mut total = 0_i64;
    let rows = form.column("items", "itemName").take(ITEMS_MAX).count();
    for row in 0..rows {
        let text = |name: &str| form.get(&format!("items[{row}][{name}]"));
        let price = text("itemPrice").and_then(cents).ok_or("Parameter itemPrice is invalid")?;
        let quantity = quantity(text("itemQuantity").ok_or("Parameter itemQuantity is required")?)?;
        total = total.saturating_add(price.saturating_mul(quantity));
    }
    if rows == 0 {
        return Err("Parameter items is required".to_owned());
    }
    let (sold, transaction) = (data.id(SOLD), data.id(TRANSACTION));
    let house = data.house_mut(property).ok_or("Reservation not found")?;
    charge(house, &folio, if form.flag("itemPaid") { total } else { 0 }, total);
    Ok(json!({"success": true, "data": {"soldProductID": sold, "transactionID": transaction, "notice": ""}}))
}

fn quantity(text: &str) -> Result<i64, Failure> {
    let quantity = text.parse().ok().filter(|quantity| (1..=QUANTITY_MAX).contains(quantity));
    quantity.ok_or_else(|| "Parameter itemQuantity is invalid".to_owned())
}

pub(super) fn accounts(data: &Data, grant: &Grant, query: &Pairs) -> Result<Value, Failure> {
    let house = grant.one(data, query.get("propertyID"))?;
    let entry = |account: &HouseAccount| {
        json!({
            "accountID": account.id,
            "propertyID": house.property.to_string(),
            "accountName": account.name,
            "accountStatus": if account.open { "open" } else { "closed" },
            "isPrivate": account.private,
            "userName": "Demo Manager",
        })
    };
    // "Pulls list of active house accounts."
    let all: Vec<Value> = house.accounts.iter().filter(|account| account.open).map(entry).collect();
    Ok(json!({"success": true, "data": all}))
}

pub(super) fn open_account(data: &mut Data, grant: &Grant, form: &Pairs) -> Result<Value, Failure> {
    let property = grant.id(form.get("propertyID"))?;
    let (name, private) = (need(form, "accountName")?.to_owned(), form.flag("isPrivate"));
    let id = data.id(HOUSE_ACCOUNT);
    let house = data.house_mut(property).ok_or("The property is gone")?;
    push(&mut house.accounts, HouseAccount { id: id.clone(), name, open: true, private });
    Ok(json!({"success": true, "data": {"houseAccountID": id}}))
}

pub(super) fn turn_account(data: &mut Data, grant: &Grant, form: &Pairs) -> Result<Value, Failure> {
    let property = grant.id(form.get("propertyID"))?;
    let (id, status) = (need(form, "houseAccountID")?, need(form, "status")?);
    let house = data.house_mut(property).ok_or("The property is gone")?;
    let account = house.accounts.iter_mut().find(|account| account.id == id).ok_or("House account not found")?;
    account.open = match status {
        "open" => true,
        "closed" => false,
        _ => return Err("Parameter status is invalid".to_owned()),
    };
    Ok(json!({"success": true}))
}
