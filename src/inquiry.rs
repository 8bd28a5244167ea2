//! Asks Cloudbeds about a key, in our own name.
//!
//! In: a key, and what is in question. Out: what Cloudbeds thinks of it, or which hotels it opens. Each question is one
//! GET (a list of hotels one per page) on a connection of its own, with one deadline for all of it; nothing is
//! repeated, and of an answer only what is asked for is kept. It runs on the keeper's thread, never on a core.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HOST, USER_AGENT};
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::https::Dialer;
use crate::keys::Key;
use crate::keys::keeper::{Answered, Probe, Vendor};
use crate::keys::verdict::Sign;
use crate::origin::Origin;
use crate::property::PropertyId;

/// For one question, from the name look-up to the last byte.
const DEADLINE: Duration = Duration::from_secs(30);

/// The largest answer read, in bytes. A page of a hundred hotels has a tenth of it.
const ANSWER_MAX: usize = 1024 * 1024;

/// The most pages of hotels read.
const PAGES_MAX: usize = 1000;

/// Who asks.
const AGENT: &str = concat!("cloudbeds-auth-proxy/", env!("CARGO_PKG_VERSION"));

/// The way our own questions take.
#[derive(Clone)]
pub struct Inquiry {
    dialer: Dialer,
    base: Arc<Origin>,
}

impl Inquiry {
    /// Asks `base`, or a key's own origin.
    #[must_use]
    pub fn new(dialer: Dialer, base: Origin) -> Self {
        Self { dialer, base: Arc::new(base) }
    }

    /// The whole answer; nothing when there is none in time.
    async fn get(&self, key: &Key, target: &str, property: Option<PropertyId>) -> Option<(StatusCode, Bytes)> {
        match timeout(DEADLINE, self.exchange(key, target, property)).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                tracing::debug!(%error, "Cloudbeds did not answer a question about a key");
                None
            }
            Err(_) => {
                tracing::debug!("Cloudbeds did not answer a question about a key in time");
                None
            }
        }
    }

    async fn exchange(
        &self,
        key: &Key,
        target: &str,
        property: Option<PropertyId>,
    ) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let origin = key.base_url.as_ref().unwrap_or(&self.base);
        let connection = self.dialer.dial(origin).await?;
        let mut request = Request::get(target)
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, AGENT)
            .header(AUTHORIZATION, key.secret().bearer_for_own_call())
            .body(Empty::<Bytes>::new())?;
        if let Some(property) = property {
            request.headers_mut().insert("x-property-id", HeaderValue::from(property.get()));
        }
        let io = TokioIo::new(connection.stream);
        let response = if connection.http2 {
            *request.uri_mut() =
                Uri::builder().scheme("https").authority(origin.authority().clone()).path_and_query(target).build()?;
            let (mut sender, running) = http2::Builder::new(OnThisThread).handshake(io).await?;
            spawn_local(running);
            sender.send_request(request).await?
        } else {
            request.headers_mut().insert(HOST, origin.host_header().clone());
            let (mut sender, running) = http1::handshake(io).await?;
            spawn_local(running);
            sender.send_request(request).await?
        };
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await?;
        Ok((head.status, body.to_bytes()))
    }

    async fn probe(&self, key: &Key, property: Option<PropertyId>, sign: Option<Sign>) -> Probe {
        // `/userinfo` is the cheapest call every key may make, but says nothing about a property.
        let target = match (sign, property) {
            (Some(Sign::PropertyLeft), Some(property)) => format!("/api/v1.3/getHotelDetails?propertyID={property}"),
            _ => "/api/v1.3/userinfo".to_owned(),
        };
        let Some((status, body)) = self.get(key, &target, property).await else { return Probe::Unclear };
        match status {
            StatusCode::UNAUTHORIZED => Probe::Dead(crate::keys::Verdict::Rejected),
            StatusCode::OK => match Sign::in_body(&body).and_then(Sign::verdict) {
                Some(verdict) => Probe::Dead(verdict),
                None if is_success(&body) => Probe::Good,
                None => Probe::Unclear,
            },
            _ => Probe::Unclear,
        }
    }

    async fn hotels(&self, key: &Key) -> Option<Vec<PropertyId>> {
        let mut found: Vec<PropertyId> = Vec::new();
        for page in 1..=PAGES_MAX {
            let target = format!("/api/v1.3/getHotels?pageSize=100&pageNumber={page}");
            let (status, body) = self.get(key, &target, None).await?;
            let list = List::read(&body).filter(|_| status == StatusCode::OK)?;
            let before = found.len();
            for hotel in list.data {
                let property = hotel.property()?;
                if !found.contains(&property) {
                    found.push(property);
                }
            }
            if found.len() == before || list.total.is_some_and(|total| found.len() as u64 >= total) {
                break;
            }
        }
        Some(found)
    }
}

impl Vendor for Inquiry {
    fn probe(&self, key: Arc<Key>, property: Option<PropertyId>, sign: Option<Sign>) -> Answered<Probe> {
        let here = self.clone();
        Box::pin(async move { here.probe(&key, property, sign).await })
    }

    fn hotels(&self, key: Arc<Key>) -> Answered<Option<Vec<PropertyId>>> {
        let here = self.clone();
        Box::pin(async move { here.hotels(&key).await })
    }
}

/// A JSON object that does not say that it is a failure. `/userinfo` has no envelope at all.
fn is_success(body: &[u8]) -> bool {
    let parsed: Option<serde_json::Map<String, serde_json::Value>> = serde_json::from_slice(body).ok();
    parsed.is_some_and(|object| object.get("success").is_none_or(|success| success == true || success == "true"))
}

/// One page of `getHotels`.
#[derive(Deserialize)]
struct List {
    success: bool,
    data: Vec<Hotel>,
    total: Option<u64>,
}

#[derive(Deserialize)]
struct Hotel {
    #[serde(rename = "propertyID")]
    property: serde_json::Value,
}

impl List {
    fn read(body: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Self>(body).ok().filter(|list| list.success)
    }
}

impl Hotel {
    /// As text or as a number: Cloudbeds has changed that before.
    fn property(&self) -> Option<PropertyId> {
        match &self.property {
            serde_json::Value::String(text) => text.parse().ok(),
            number => number.as_u64().and_then(std::num::NonZeroU64::new).map(PropertyId::from),
        }
    }
}

/// Runs HTTP/2's tasks where the question is asked.
#[derive(Clone, Copy, Debug)]
struct OnThisThread;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for OnThisThread {
    fn execute(&self, task: F) {
        spawn_local(task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_hotels_is_read_in_both_spellings() {
        let list = List::read(br#"{"success":true,"data":[{"propertyID":"7"},{"propertyID":8,"x":1}],"total":2}"#).unwrap();
        let ids: Vec<_> = list.data.iter().map(|hotel| hotel.property().unwrap().get()).collect();
        assert_eq!((ids, list.total), (vec![7, 8], Some(2)));
        for bad in ["", "{}", r#"{"success":false,"data":[]}"#, r#"{"success":true,"data":{}}"#] {
            assert!(List::read(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(List::read(br#"{"success":true,"data":[{"propertyID":"x"}]}"#).unwrap().data[0].property().is_none());
    }

    #[test]
    fn a_success_is_an_object_that_does_not_deny_it() {
        for good in [r#"{"user_id":"1"}"#, r#"{"success":true}"#, r#"{"success":"true"}"#] {
            assert!(is_success(good.as_bytes()));
        }
        for bad in ["", "<html>", "[]", r#"{"success":false}"#] {
            assert!(!is_success(bad.as_bytes()));
        }
    }
}
