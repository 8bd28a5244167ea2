//! Calls to Cloudbeds in our own name: whose is this key, does it work, what time is it there.
//!
//! In: a key and an origin, or a form with a code. Out: the answer, or why there is none, in words for the operator. Each
//! question is one request (a list of hotels one per page) on a connection of its own, under one deadline, with a bound on
//! the answer; nothing is repeated and no redirect followed. The requests of apps never come this way.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HOST, USER_AGENT};
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::client::TlsStream;

use crate::budget::{Ask, Budget, Exhausted, Flow, Permit, Priority};
use crate::https::{DialError, Dialer};
use crate::origin::Origin;
use crate::property::PropertyId;
use crate::secret::ApiKey;
use crate::web::Endpoint;
use crate::wire::mask;

/// For one question, from the first byte to the last of the answer. The connection has its own deadlines.
const DEADLINE: Duration = Duration::from_secs(30);

/// The largest answer read, in bytes: a page of a hundred hotels has some 100 KiB.
const ANSWER_MAX: usize = 1024 * 1024;

/// Hotels per page, the most that Cloudbeds gives, and the most pages read: 10,000 hotels of one organisation.
const PAGE: usize = 100;
const PAGES: usize = 100;

/// How much of a message of Cloudbeds' is repeated, in characters.
const MESSAGE_MAX: usize = 200;

/// The way to Cloudbeds.
#[derive(Clone)]
pub struct Cloudbeds {
    dialer: Dialer,
    budget: Option<Arc<Budget>>,
    priority: Priority,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its `Date`, where it has one.
    pub date: Option<SystemTime>,
    /// Its body, [`ANSWER_MAX`] bytes at most.
    pub body: Bytes,
}

/// A hotel, as `getHotels` lists it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hotel {
    /// Its id.
    pub property: PropertyId,
    /// Its name, without control characters; empty where Cloudbeds gives none.
    pub name: String,
    /// The organisation it belongs to.
    pub organization: Option<String>,
}

/// Why a question about a key has no good answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// HTTP 401.
    #[error("Cloudbeds rejects the key")]
    Rejected,
    /// HTTP 200 with the message that says so.
    #[error("the user who approved this connection is no longer active at Cloudbeds")]
    UserLeft,
    /// HTTP 200 with the message that says so.
    #[error("the property is no longer active at Cloudbeds")]
    PropertyLeft,
    /// Another refusal in Cloudbeds' words, or another status.
    #[error("Cloudbeds answers: {0}")]
    Refused(String),
    /// No connection; nothing was sent.
    #[error("{}", with_source(.0))]
    Unreachable(#[from] DialError),
    /// The app's budget has no room for it now; nothing was sent.
    #[error("the app's requests per second are used up")]
    NoTurn(#[from] Exhausted),
    /// The answer took too long or broke off.
    #[error("no whole answer from Cloudbeds: {0}")]
    Broken(String),
}

impl fmt::Display for Hotel {
    /// The id, and the name where there is one.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            write!(out, "{}", self.property)
        } else {
            write!(out, "{} ({})", self.property, self.name)
        }
    }
}

/// Whether a key opens all of these properties.
///
/// # Errors
/// A sentence that says what it opens instead.
pub fn opens(hotels: &[Hotel], properties: &[PropertyId]) -> Result<(), String> {
    let foreign = properties.iter().filter(|id| !hotels.iter().any(|hotel| hotel.property == **id));
    let foreign: Vec<_> = foreign.map(ToString::to_string).collect();
    if foreign.is_empty() {
        return Ok(());
    }
    let shown: Vec<_> = hotels.iter().take(5).map(ToString::to_string).collect();
    let more = if hotels.len() > 5 { format!(" and {} more", hotels.len() - 5) } else { String::new() };
    let theirs = if hotels.is_empty() { "no property at all".to_owned() } else { shown.join(", ") + &more };
    Err(format!("the key does not belong to property {}: it opens {theirs}", foreign.join(", ")))
}

impl Unanswered {
    /// Whether Cloudbeds has said that the key is of no use, as opposed to saying nothing about it.
    #[must_use]
    pub fn is_about_the_key(&self) -> bool {
        matches!(self, Self::Rejected | Self::UserLeft | Self::PropertyLeft)
    }
}

fn with_source(error: &DialError) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}

impl Cloudbeds {
    /// Calls by way of this dialer.
    #[must_use]
    pub fn new(dialer: Dialer) -> Self {
        Self { dialer, budget: None, priority: Priority::Low }
    }

    /// The same within the budget of an app: each call waits for its turn, and lets others go first.
    #[must_use]
    pub fn within(&self, budget: Option<Arc<Budget>>) -> Self {
        Self { budget, ..self.clone() }
    }

    /// The same for a person who waits for the answer: its calls take their turn among those of the apps.
    #[must_use]
    pub fn promptly(&self) -> Self {
        Self { priority: Priority::Normal, ..self.clone() }
    }

    /// The hotels that a key opens, all pages, in Cloudbeds' order. The key needs the scope `read:hotel`.
    ///
    /// # Errors
    /// When Cloudbeds refuses, or does not answer.
    pub async fn whose(&self, key: &ApiKey, origin: &Origin) -> Result<Vec<Hotel>, Unanswered> {
        let (mut found, mut known) = (Vec::new(), HashSet::new());
        for page in 1..=PAGES {
            let path = format!("/api/v1.3/getHotels?pageSize={PAGE}&pageNumber={page}");
            let (listed, total) = hotels(&self.ask(key, origin, &path).await?)?;
            let before = found.len();
            found.extend(listed.into_iter().filter(|hotel| known.insert(hotel.property)));
            // A page without news is the end, whatever the total says.
            if found.len() == before || found.len() as u64 >= total {
                break;
            }
        }
        Ok(found)
    }

    /// Whether Cloudbeds accepts a key, by the one call that every key may make. It counts as use of the key.
    ///
    /// # Errors
    /// When Cloudbeds refuses, or does not answer.
    pub async fn accepts(&self, key: &ApiKey, origin: &Origin) -> Result<(), Unanswered> {
        self.ask(key, origin, "/api/v1.3/userinfo").await.map(drop)
    }

    /// Whether a key opens a property, and the property still is at Cloudbeds. The key needs the scope `read:hotel`.
    ///
    /// # Errors
    /// When Cloudbeds refuses, or does not answer.
    pub async fn opens(&self, key: &ApiKey, origin: &Origin, property: PropertyId) -> Result<(), Unanswered> {
        self.ask(key, origin, &format!("/api/v1.3/getHotelDetails?propertyID={property}")).await.map(drop)
    }

    /// A GET without a key, which Cloudbeds answers 401; for its clock.
    ///
    /// # Errors
    /// When there is no answer at all.
    pub async fn knock(&self, origin: &Origin) -> Result<Answer, Unanswered> {
        self.get(None, origin, "/api/v1.3/userinfo").await
    }

    async fn ask(&self, key: &ApiKey, origin: &Origin, path: &str) -> Result<Value, Unanswered> {
        let answer = self.get(Some(key), origin, path).await?;
        good(answer.status, &answer.body)
    }

    /// A GET of `path`, with a key or without.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub async fn get(&self, key: Option<&ApiKey>, origin: &Origin, path: &str) -> Result<Answer, Unanswered> {
        let mut request = Request::get(path).body(Full::default()).map_err(broken)?;
        if let Some(key) = key {
            request.headers_mut().insert(AUTHORIZATION, key.bearer_for_own_call());
        }
        self.call(origin, request).await
    }

    /// Sends a form, once.
    ///
    /// # Errors
    /// When there is no whole answer. After [`Unanswered::Unreachable`] and [`Unanswered::NoTurn`] nothing has left this process; after any other
    /// error some of it may have.
    pub async fn post(&self, to: &Endpoint, content_type: &str, form: Bytes) -> Result<Answer, Unanswered> {
        let request = Request::post(to.path()).header(CONTENT_TYPE, content_type).body(Full::new(form));
        self.call(to.origin(), request.map_err(broken)?).await
    }

    async fn call(&self, origin: &Origin, request: Request<Full<Bytes>>) -> Result<Answer, Unanswered> {
        let ask = Ask { priority: self.priority, ..Ask::normal(Flow::Own) };
        let mut permit = match &self.budget {
            Some(budget) => Some(budget.take(ask, Instant::now()).await?),
            None => None,
        };
        permit.iter_mut().for_each(Permit::keep);
        let stream = self.dialer.dial_https(origin).await?;
        if permit.as_mut().is_some_and(|permit| !permit.start(Instant::now())) {
            return Err(Unanswered::Broken("its turn has passed".to_owned()));
        }
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let exchange = async {
            let response = send(stream, prepared(origin, request, http2)?).await?;
            if let Some(permit) = &mut permit {
                permit.heard(response.status(), response.headers());
            }
            let status = response.status();
            let date =
                response.headers().get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
            let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await?.to_bytes();
            Ok::<_, BoxError>(Answer { status, date, body })
        };
        match timeout(DEADLINE, exchange).await {
            Ok(answer) => answer.map_err(broken),
            Err(_) => Err(Unanswered::Broken(format!("nothing within {DEADLINE:?}"))),
        }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn broken(error: impl std::fmt::Display) -> Unanswered {
    Unanswered::Broken(error.to_string())
}

/// The request with what every one has.
fn prepared(origin: &Origin, mut request: Request<Full<Bytes>>, http2: bool) -> Result<Request<Full<Bytes>>, BoxError> {
    const AGENT: &str = concat!("cloudbeds-auth-proxy/", env!("CARGO_PKG_VERSION"));
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    if http2 {
        let (authority, path) = (origin.authority().clone(), request.uri().to_string());
        *request.uri_mut() = Uri::builder().scheme("https").authority(authority).path_and_query(path).build()?;
        *request.version_mut() = Version::HTTP_2;
    } else {
        headers.insert(HOST, origin.host_header().clone());
    }
    Ok(request)
}

async fn send(stream: TlsStream<TcpStream>, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, BoxError> {
    let stream = TokioIo::new(stream);
    if request.version() == Version::HTTP_2 {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        tokio::spawn(connection);
        Ok(sender.send_request(request).await?)
    } else {
        let (mut sender, connection) = http1::handshake(stream).await?;
        tokio::spawn(connection);
        Ok(sender.send_request(request).await?)
    }
}

/// What an answer to a question about a key says, if it is a good one.
fn good(status: StatusCode, body: &[u8]) -> Result<Value, Unanswered> {
    if status == StatusCode::UNAUTHORIZED {
        return Err(Unanswered::Rejected);
    }
    let body = serde_json::from_slice::<Value>(body).unwrap_or_default();
    if !status.is_success() {
        let status = status.as_u16();
        return Err(Unanswered::Refused(
            message(&body).map_or(format!("status {status}"), |said| format!("status {status}, {said}")),
        ));
    }
    if !body.is_object() {
        return Err(Unanswered::Broken("it is not JSON".to_owned()));
    }
    // `userinfo` has no envelope; elsewhere the word has been seen as text.
    if body["success"] == false || body["success"] == "false" {
        return Err(refusal(&body));
    }
    Ok(body)
}

/// The hotels of a page, and how many there are on all of them.
fn hotels(body: &Value) -> Result<(Vec<Hotel>, u64), Unanswered> {
    let Some(listed) = body["data"].as_array() else {
        return Err(Unanswered::Broken("it lists no hotels".to_owned()));
    };
    Ok((listed.iter().filter_map(hotel).collect(), body["total"].as_u64().unwrap_or_default()))
}

/// What a page of hotels is read as.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn read_hotels(status: StatusCode, body: &[u8]) -> Result<Vec<Hotel>, Unanswered> {
    hotels(&good(status, body)?).map(|(hotels, _)| hotels)
}

/// What a `success: false` means (Common API errors, developers.cloudbeds.com).
fn refusal(body: &Value) -> Unanswered {
    let said = message(body).unwrap_or_default();
    if said.contains("not active anymore") {
        Unanswered::UserLeft
    } else if said.contains("invalid status") {
        Unanswered::PropertyLeft
    } else {
        Unanswered::Refused(if said.is_empty() { "success: false".to_owned() } else { said })
    }
}

/// Cloudbeds' own words, fit to be printed.
fn message(body: &Value) -> Option<String> {
    let said = ["message", "error_description", "detail"].iter().find_map(|name| body[*name].as_str())?;
    Some(printable(said, MESSAGE_MAX))
}

/// Text from outside without control characters and keys, cut to a length.
fn printable(text: &str, most: usize) -> String {
    let plain: String = text.chars().filter(|letter| !letter.is_control()).collect();
    mask::text(&plain).chars().take(most).collect()
}

fn hotel(entry: &Value) -> Option<Hotel> {
    // Ids have been seen as text and as numbers.
    let text = |name: &str| match &entry[name] {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let property = text("propertyID")?.parse().ok()?;
    let name = text("propertyName").map(|name| printable(&name, 100)).unwrap_or_default();
    // An id stands for somebody as it is, or not at all.
    let organization = text("organizationID").filter(|id| printable(id, 100) == *id);
    Some(Hotel { property, name, organization })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_hotel_is_read_in_either_spelling_and_printed_safely() {
        let entry = json!({"propertyID": 7, "propertyName": "Sea\u{1b}[31m cbat_blue", "organizationID": "3"});
        let hotel = hotel(&entry).unwrap();
        assert_eq!((hotel.property.get(), hotel.organization.as_deref()), (7, Some("3")));
        assert!(!hotel.name.contains('\u{1b}') && !hotel.name.contains("blue"), "{}", hotel.name);
        for bad in ["3\u{1}1", "cbat_blue", &"3".repeat(101)] {
            let entry = json!({"propertyID": 7, "organizationID": bad});
            assert_eq!(super::hotel(&entry).unwrap().organization, None, "{bad:?}");
        }
        for bad in ["x", "1\u{1}001", "007"] {
            assert!(super::hotel(&json!({"propertyID": bad})).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn the_known_refusals_have_their_meaning() {
        let said = |message: &str| refusal(&json!({"success": false, "message": message}));
        assert!(matches!(said("User who approved this connection is not active anymore"), Unanswered::UserLeft));
        assert!(matches!(said("Property has an invalid status: canceled: 1"), Unanswered::PropertyLeft));
        assert!(matches!(said("Missing scope"), Unanswered::Refused(said) if said == "Missing scope"));
        assert!(matches!(refusal(&json!({})), Unanswered::Refused(said) if said == "success: false"));
    }
}
