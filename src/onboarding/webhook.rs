//! The vendor's webhook: a hint that something about a connection has changed.
//!
//! In: `integration/appstate_changed` with a client id of ours and a property that has a key. Out: an answer at once, and
//! a look at that key. Webhooks are not signed, come up to five times, in any order, and from whoever knows the address:
//! so nothing in one is believed, the same one is not acted on twice, and a property is looked at once a minute at most.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body;
use serde_json::Value;
use tokio::time::{Instant, timeout};
use tracing::info;

use super::{Onboarding, page};
use crate::keys::life;
use crate::keys::verdict::Sign;
use crate::property::PropertyId;
use crate::telemetry::metrics::Webhook;
use crate::wire::server::Answer;

/// The largest body read, in bytes. The vendor's have some 300.
const BODY_MAX: usize = 64 * 1024;

/// For the body; the vendor wants its answer within two seconds.
const BODY_TIME: Duration = Duration::from_millis(1500);

/// How much of a body that is too large is read and thrown away, so that its sender gets to read the answer.
const DRAIN_MAX: usize = 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// How long a message is remembered: five tries, one minute apart, and some more.
const MEMORY: Duration = Duration::from_secs(600);
const REMEMBERED: usize = 10_000;

/// Between two looks at one property.
const AGAIN: Duration = Duration::from_secs(60);

const EVENT: &str = "integration/appstate_changed";

/// What was heard, and when properties were looked at.
pub(super) struct Heard {
    hashes: RandomState,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    messages: VecDeque<(u64, Instant)>,
    /// Only properties that have a key get in here, so it stays as small as the key file.
    looked: HashMap<PropertyId, Instant>,
}

impl Heard {
    pub(super) fn new() -> Self {
        Self { hashes: RandomState::new(), inner: Mutex::default() }
    }

    /// Whether a message about this property leads to a look at its key now.
    fn leads(&self, message: &[u8], property: PropertyId) -> bool {
        let hash = self.hashes.hash_one(message);
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        while inner.messages.front().is_some_and(|(_, at)| now.duration_since(*at) >= MEMORY) {
            inner.messages.pop_front();
        }
        if inner.messages.iter().any(|(known, _)| *known == hash) {
            return false;
        }
        if inner.messages.len() == REMEMBERED {
            inner.messages.pop_front();
        }
        inner.messages.push_back((hash, now));
        let due = inner.looked.get(&property).is_none_or(|at| now.duration_since(*at) >= AGAIN);
        if due {
            inner.looked.insert(property, now);
        }
        due
    }
}

/// Answers a webhook.
pub(super) async fn answer<B>(onboarding: &Arc<Onboarding>, method: &Method, headers: &HeaderMap, body: B) -> Answer
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
{
    let counted = |what: Webhook| onboarding.metrics.onboarding().webhook(what);
    if method != Method::POST {
        return page::json(StatusCode::METHOD_NOT_ALLOWED, "{\"success\":false,\"message\":\"send it with POST\"}\n");
    }
    let text = match read(headers, body).await {
        Ok(text) => text,
        Err(refusal) => {
            counted(Webhook::Refused);
            return refusal;
        }
    };
    let Ok(message) = serde_json::from_slice::<Value>(&text) else {
        counted(Webhook::Refused);
        return page::json(StatusCode::BAD_REQUEST, "{\"success\":false,\"message\":\"not JSON\"}\n");
    };
    counted(match property(onboarding, &message) {
        None => Webhook::Ignored,
        Some(property) if onboarding.heard.leads(&text, property) => {
            // Who looks after the keys asks at most one question about each at a time, and acts on the answer alone.
            if let Some(key) = onboarding.keys.current().get(property) {
                life::tell(key, Some(property), Sign::Hinted);
            }
            info!(
                property = property.get(),
                "a webhook says that something has changed; Cloudbeds is asked about the key"
            );
            Webhook::Probed
        }
        Some(_) => Webhook::Repeated,
    });
    page::json(StatusCode::OK, "{\"success\":true}\n")
}

/// The property a message is about, when it concerns us.
pub(super) fn property(onboarding: &Onboarding, message: &Value) -> Option<PropertyId> {
    let field = |names: &[&str]| names.iter().find_map(|name| message.get(*name).filter(|value| !value.is_null()));
    // The vendor's own spellings differ in case from event to event.
    let about = field(&["event", "Event"]).and_then(Value::as_str)?;
    let client = field(&["clientID", "clientId", "client_id"]).and_then(Value::as_str)?;
    // Ids that no longer fit into a number's 53 bits come as text beside it.
    let id = match field(&["propertyID_str", "propertyId_str", "propertyID", "propertyId"])? {
        Value::String(id) => id.parse().ok()?,
        Value::Number(id) => id.to_string().parse().ok()?,
        _ => return None,
    };
    let ours = onboarding.settings.apps.iter().any(|app| app.client_id == client);
    (about == EVENT && ours && onboarding.keys.current().contains(id)).then_some(id)
}

/// The whole body, if it is small and comes in time.
async fn read<B>(headers: &HeaderMap, body: B) -> Result<Bytes, Answer>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
{
    let too_large = |body: Option<B>| {
        if let Some(body) = body {
            tokio::spawn(drain(body));
        }
        page::json(StatusCode::PAYLOAD_TOO_LARGE, "{\"success\":false,\"message\":\"larger than 64 KiB\"}\n")
    };
    let announced = headers.get(http::header::CONTENT_LENGTH).is_some() && body.size_hint().lower() > BODY_MAX as u64;
    if announced {
        return Err(too_large(Some(body)));
    }
    match timeout(BODY_TIME, Limited::new(body, BODY_MAX).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(None)),
        Ok(Err(_)) => Err(page::json(StatusCode::BAD_REQUEST, "{\"success\":false,\"message\":\"cut short\"}\n")),
        Err(_) => Err(page::json(StatusCode::REQUEST_TIMEOUT, "{\"success\":false,\"message\":\"too slow\"}\n")),
    }
}

/// Reads a little of what nobody wants: a connection closed on unread bytes is reset, and its sender would see that
/// instead of the answer.
async fn drain<B: Body<Data = Bytes> + Unpin>(mut body: B) {
    let some = async {
        let mut left = DRAIN_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
            left = rest;
        }
    };
    let _ = timeout(DRAIN_TIME, some).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_message_leads_to_one_look_and_a_property_to_one_a_minute() {
        let heard = Heard::new();
        let (one, two) = ("1001".parse().unwrap(), "1002".parse().unwrap());
        assert!(heard.leads(b"a", one));
        assert!(!heard.leads(b"a", one), "the same message");
        assert!(!heard.leads(b"b", one), "another one, a moment later");
        assert!(heard.leads(b"c", two), "another property");
        tokio::time::advance(AGAIN).await;
        assert!(!heard.leads(b"a", one), "the same message once more");
        assert!(heard.leads(b"d", one));
        tokio::time::advance(MEMORY).await;
        assert!(heard.leads(b"a", one), "forgotten");
    }
}
