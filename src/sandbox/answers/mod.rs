//! The vendor's operations: who may call them, on which property, and which file answers.
//!
//! In: a request for an [`Operation`]. Out: its answer, or a failure in the vendor's words: a 401 without a valid key, a
//! 200 with `success:false` for all that comes after. Answers carry only fields that the vendor's description names.

use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode, request};
use serde_json::{Value, json};

use super::accounts::{Grant, NoGrant, Spent};
use super::body::{self, Body, json as answer_json};
use super::calendar::Day;
use super::keys::sent_key;
use super::query::Pairs;
use super::routes::State;
use super::trouble;
use crate::property::PropertyId;

mod booking;
mod desk;
mod folio;
mod guests;
mod hotels;
mod integration;
mod operation;
mod rates;
mod reservations;
mod scope;
mod upload;

pub(super) use operation::Operation;
use scope::canceled;

/// The largest form that is read; the vendor's own forms are far smaller.
const FORM_MAX: usize = 1 << 20;

pub(super) const USER_LEFT: &str = "User who approved this connection is not active anymore";
/// Where the numbers of rate jobs start.
const JOB: u64 = 4_000_000_000;

/// Why an operation does not succeed: the vendor's `message`.
type Failure = String;

pub(super) async fn answer<B>(
    state: &Arc<State>,
    operation: Operation,
    head: &request::Parts,
    query: Pairs,
    body: B,
) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let now = state.clock.now();
    let key = sent_key(&head.headers).ok_or(Refusal::NoGrant(NoGrant::Missing));
    let grant = match key.and_then(|key| admit(state, key, now)) {
        Ok(grant) => grant,
        Err(why) => {
            body::read(body, 0).await;
            return refusal(&why);
        }
    };
    let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if operation == Operation::PostFile {
        return upload::answer(state, &grant, content_type, body).await;
    }
    // Read for every operation: clients that send a body with a GET exist, and HTTP/1.1 could not go on behind it.
    let (form, _) = body::read(body, FORM_MAX).await;
    let answered = match operation {
        Operation::AppState => integration::state(state, &grant, &query),
        Operation::PostAppState => integration::set_state(state, &grant, &Pairs::parse(&form)),
        Operation::PostWebhook => integration::subscribe(state, &grant, &Pairs::parse(&form)),
        Operation::DeleteWebhook => integration::unsubscribe(state, &grant, &query),
        Operation::Webhooks => integration::list(state, &grant, &query),
        _ => from_data(state, operation, &grant, &query, &form, now),
    };
    answered.map_or_else(|message| failure(&message), |value| answer_json(StatusCode::OK, &value))
}

/// Why a call comes to nothing before it is looked at.
enum Refusal {
    NoGrant(NoGrant),
    /// All hotels of the key have left the vendor.
    Left(Vec<PropertyId>),
    /// Too many calls.
    Excess,
}

/// What the key opens.
fn admit(state: &State, key: &str, now: SystemTime) -> Result<Arc<Grant>, Refusal> {
    let mut accounts = state.accounts();
    let grant = accounts.open(key, now).map_err(Refusal::NoGrant)?;
    match accounts.spend(grant.app, now) {
        Spent::Served if grant.properties.is_empty() => Err(Refusal::Left(grant.left.clone())),
        Spent::Served => Ok(grant),
        Spent::Excess | Spent::Last => Err(Refusal::Excess),
        // Nothing is published about how a suspended app is answered.
        Spent::Suspended => Err(Refusal::NoGrant(NoGrant::Invalid)),
    }
}

/// The operations that are about the hotels' data.
fn from_data(
    state: &State,
    operation: Operation,
    grant: &Grant,
    query: &Pairs,
    form: &[u8],
    now: SystemTime,
) -> Result<Value, Failure> {
    let mut data = state.data.lock().unwrap_or_else(PoisonError::into_inner);
    data.furnish(&grant.properties);
    let form = Pairs::parse(form);
    match operation {
        Operation::Hotels => hotels::list(&data, grant, query),
        Operation::HotelDetails => grant.one(&data, query.get("propertyID")).map(hotels::details),
        Operation::Rooms => hotels::rooms(&data, grant, query),
        Operation::RoomTypes => rates::types(&data, grant, query),
        Operation::AvailableRoomTypes => rates::available(&data, grant, query),
        Operation::RatePlans => rates::plans(&data, grant, query),
        Operation::Rate => rates::rate(&data, grant, query),
        Operation::PutRate | Operation::PatchRate => rates::change(&mut data, grant, &form, now),
        Operation::RateJobs => rates::jobs(&data, grant, query),
        Operation::Reservations => reservations::list(&data, grant, query),
        Operation::Reservation => reservations::one(&data, grant, query),
        Operation::PostReservation => booking::answer(&mut data, grant, &form, now),
        Operation::PutReservation => desk::put(&mut data, grant, &form, now),
        Operation::RoomAssign => desk::assign(&mut data, grant, &form, now),
        Operation::RoomCheckIn => desk::check_in(&mut data, grant, &form, now),
        Operation::RoomCheckOut => desk::check_out(&mut data, grant, &form, now),
        Operation::Guest => guests::one(&data, grant, query),
        Operation::GuestList => guests::list(&data, grant, query),
        Operation::PutGuest => guests::put(&mut data, grant, &form, now),
        Operation::Dashboard => desk::dashboard(&data, grant, query, now),
        Operation::Sources => desk::sources(&data, grant, query),
        Operation::PaymentMethods => folio::methods(&data, grant, query),
        Operation::PostPayment => folio::pay(&mut data, grant, &form),
        Operation::VoidPayment => folio::void(&mut data, grant, &form),
        Operation::Items => folio::items(&data, grant, query),
        Operation::Item => folio::item(&data, grant, query),
        Operation::ItemCategories => folio::categories(&data, grant, query),
        Operation::PostItem => folio::sell(&mut data, grant, &form),
        Operation::PostCustomItem => folio::sell_custom(&mut data, grant, &form),
        Operation::HouseAccounts => folio::accounts(&data, grant, query),
        Operation::PostHouseAccount => folio::open_account(&mut data, grant, &form),
        Operation::PutHouseAccountStatus => folio::turn_account(&mut data, grant, &form),
        Operation::Userinfo => Ok(hotels::userinfo(query)),
        Operation::PostFile
        | Operation::AppState
        | Operation::PostAppState
        | Operation::PostWebhook
        | Operation::DeleteWebhook
        | Operation::Webhooks => Err("Answered before it comes here".to_owned()),
    }
}

/// HTTP 200 and `success:false`, which is how Cloudbeds answers whatever is not about the key itself.
pub(super) fn failure(message: &str) -> Response<Body> {
    answer_json(StatusCode::OK, &json!({"success": false, "message": message}))
}

/// The 401 of a key that was deleted or whose app was disconnected.
pub(super) fn revoked() -> Response<Body> {
    let words = json!({"type": "unauthorized", "title": "Unauthorized", "status": 401, "detail": "401 UNAUTHORIZED"});
    answer_json(StatusCode::UNAUTHORIZED, &words)
}

fn refusal(why: &Refusal) -> Response<Body> {
    let hint = match why {
        Refusal::NoGrant(NoGrant::Missing) => "Missing \"Authorization\" header",
        Refusal::NoGrant(NoGrant::Invalid) => "Access token is invalid",
        Refusal::NoGrant(NoGrant::Revoked) => return revoked(),
        Refusal::NoGrant(NoGrant::UserLeft) => return failure(USER_LEFT),
        Refusal::Left(left) => return failure(&canceled(left)),
        Refusal::Excess => return trouble::limit(),
    };
    let words = "The resource owner or authorization server denied the request.";
    let body = json!({"error": "access_denied", "error_description": words, "message": words, "hint": hint});
    answer_json(StatusCode::UNAUTHORIZED, &body)
}

/// A parameter that must be there.
fn need<'a>(pairs: &'a Pairs, name: &str) -> Result<&'a str, Failure> {
    pairs.get(name).ok_or_else(|| format!("Parameter {name} is required"))
}

/// A day that must be there.
fn day(pairs: &Pairs, name: &str) -> Result<Day, Failure> {
    Day::parse(need(pairs, name)?).ok_or_else(|| format!("Parameter {name} must be a date"))
}

/// The part of a list that is on the page a query asks for.
fn window<'a, T>(all: &'a [T], query: &Pairs, default_size: usize) -> &'a [T] {
    let size = query.number("pageSize").unwrap_or(default_size).clamp(1, 100);
    let number = query.number("pageNumber").unwrap_or(1_usize).max(1);
    let from = (number - 1).saturating_mul(size).min(all.len());
    &all[from..(from + size).min(all.len())]
}

/// One page of a list, in the envelope all lists share.
fn page(all: &[Value], query: &Pairs, default_size: usize) -> Value {
    let data = window(all, query, default_size);
    json!({"success": true, "data": data, "count": data.len(), "total": all.len()})
}

/// The cents of a decimal number, which is not negative, has two places at most, and is no fortune.
fn cents(text: &str) -> Option<i64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 9 || part.len() > 2 || !digits(whole) || !digits(part) {
        return None;
    }
    Some(whole.parse::<i64>().ok()? * 100 + format!("{part:0<2}").parse::<i64>().ok()?)
}

/// Cents as the decimal number the vendor sends.
fn amount(cents: i64) -> f64 {
    // Exact: no amount here comes near 2^53.
    #[allow(clippy::cast_precision_loss)]
    let cents = cents as f64;
    cents / 100.0
}
