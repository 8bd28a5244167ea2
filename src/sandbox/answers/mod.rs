//! The vendor's operations: who may call them, on which property, and which file answers.
//!
//! In: a request for an [`Operation`]. Out: its answer, or a failure in the vendor's words: a 401 without a valid key, a
//! 200 with `success:false` for all that comes after. Answers carry only fields that the vendor's description names.

use std::sync::PoisonError;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Response, StatusCode, request};
use serde_json::{Value, json};

use super::accounts::{Grant, NoGrant};
use super::body::{self, Body, json as answer_json};
use super::data::{Data, House};
use super::keys::sent_key;
use super::query::Pairs;
use super::routes::State;
use crate::property::{NotAPropertyId, PropertyId};

mod booking;
mod hotels;
mod reservations;
mod upload;

/// The largest form that is read; the vendor's own forms are far smaller.
const FORM_MAX: usize = 1 << 20;

const FOREIGN: &str = "None of the included property id's match the access_token user's property id";
pub(super) const USER_LEFT: &str = "User who approved this connection is not active anymore";
const UNSPECIFIED: &str = "Please specify \"propertyID\" parameter for this call";

/// What can be asked of the API.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Operation {
    Hotels,
    HotelDetails,
    Rooms,
    Reservations,
    Reservation,
    Userinfo,
    PostReservation,
    PostFile,
}

impl Operation {
    pub(super) fn find(method: &Method, name: &str) -> Option<Self> {
        let operation = match name {
            "getHotels" => Self::Hotels,
            "getHotelDetails" => Self::HotelDetails,
            "getRooms" => Self::Rooms,
            "getReservations" => Self::Reservations,
            "getReservation" => Self::Reservation,
            "userinfo" => Self::Userinfo,
            "postReservation" => Self::PostReservation,
            "postFile" => Self::PostFile,
            _ => return None,
        };
        let posts = matches!(operation, Self::PostReservation | Self::PostFile);
        let right = if posts { method == Method::POST } else { matches!(*method, Method::GET | Method::HEAD) };
        right.then_some(operation)
    }
}

/// Why an operation does not succeed: the vendor's `message`.
type Failure = String;

pub(super) async fn answer<B>(
    state: &State,
    operation: Operation,
    head: &request::Parts,
    query: Pairs,
    body: B,
) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let now = state.clock.now();
    let key = sent_key(&head.headers).ok_or(NoGrant::Missing);
    let grant = match key.and_then(|key| state.accounts().open(key, now)) {
        Ok(grant) => grant,
        Err(why) => {
            body::read(body, 0).await;
            return refusal(why);
        }
    };
    if grant.properties.is_empty() {
        body::read(body, 0).await;
        return failure(&canceled(&grant.left));
    }
    let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if operation == Operation::PostFile {
        return upload::answer(state, &grant, content_type, body).await;
    }
    // Read for every operation: clients that send a body with a GET exist, and HTTP/1.1 could not go on behind it.
    let (form, _) = body::read(body, FORM_MAX).await;
    let mut data = state.data.lock().unwrap_or_else(PoisonError::into_inner);
    data.furnish(&grant.properties);
    let answered = match operation {
        Operation::Hotels => hotels::list(&data, &grant, &query),
        Operation::HotelDetails => grant.one(&data, query.get("propertyID")).map(hotels::details),
        Operation::Rooms => hotels::rooms(&data, &grant, &query),
        Operation::Reservations => reservations::list(&data, &grant, &query),
        Operation::Reservation => reservations::one(&data, &grant, &query),
        Operation::Userinfo => Ok(hotels::userinfo(&query)),
        Operation::PostReservation => booking::answer(&mut data, &grant, &Pairs::parse(&form), now),
        // Answered above, since its body is not kept.
        Operation::PostFile => Err(String::new()),
    };
    answered.map_or_else(|message| failure(&message), |value| answer_json(StatusCode::OK, &value))
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

fn refusal(why: NoGrant) -> Response<Body> {
    let hint = match why {
        NoGrant::Missing => "Missing \"Authorization\" header",
        NoGrant::Invalid => "Access token is invalid",
        NoGrant::Revoked => return revoked(),
        NoGrant::UserLeft => return failure(USER_LEFT),
    };
    let words = "The resource owner or authorization server denied the request.";
    let body = json!({"error": "access_denied", "error_description": words, "message": words, "hint": hint});
    answer_json(StatusCode::UNAUTHORIZED, &body)
}

/// For hotels that left the vendor.
fn canceled(left: &[PropertyId]) -> String {
    let ids: Vec<String> = left.iter().map(ToString::to_string).collect();
    format!(
        "Your request could not be fully completed. The property(ies) you are accessing have an invalid status. See \
         details:\ncanceled: {}",
        ids.join(", ")
    )
}

impl Grant {
    /// The one hotel a call is about: the named one, or the key's only one.
    fn one<'a>(&self, data: &'a Data, named: Option<&str>) -> Result<&'a House, Failure> {
        match self.several(data, named)?.as_slice() {
            [house] => Ok(house),
            _ => Err(UNSPECIFIED.to_owned()),
        }
    }

    /// The hotels a call is about: those named that the key opens, or all it opens.
    fn several<'a>(&self, data: &'a Data, named: Option<&str>) -> Result<Vec<&'a House>, Failure> {
        let wanted = match named {
            None => self.properties.clone(),
            Some(list) => {
                let ids: Result<Vec<PropertyId>, NotAPropertyId> =
                    list.split(',').map(|id| id.trim().parse()).collect();
                let ids = ids.unwrap_or_default();
                let left: Vec<PropertyId> = ids.iter().copied().filter(|id| self.left.contains(id)).collect();
                if !left.is_empty() {
                    return Err(canceled(&left));
                }
                ids.into_iter().filter(|id| self.properties.contains(id)).collect()
            }
        };
        if wanted.is_empty() {
            return Err(FOREIGN.to_owned());
        }
        Ok(wanted.into_iter().filter_map(|id| data.house(id)).collect())
    }
}

/// One page of a list, in the envelope all lists share.
fn page(all: &[Value], query: &Pairs, default_size: usize) -> Value {
    let size = query.number("pageSize").unwrap_or(default_size).clamp(1, 100);
    let number = query.number("pageNumber").unwrap_or(1_usize).max(1);
    let from = (number - 1).saturating_mul(size).min(all.len());
    let data = &all[from..(from + size).min(all.len())];
    json!({"success": true, "data": data, "count": data.len(), "total": all.len()})
}

/// Cents as the decimal number the vendor sends.
fn amount(cents: i64) -> f64 {
    // Exact: no amount here comes near 2^53.
    #[allow(clippy::cast_precision_loss)]
    let cents = cents as f64;
    cents / 100.0
}
