//! The calls that onboarding makes at Cloudbeds, each on a connection of its own.
//!
//! In: a form with a code, or a key that has just arrived. Out: the answer, or how far the call got: an exchange that may
//! have been sent is never sent again, so whether it left this process is told apart. Redirects are not followed. All
//! calls have a deadline, and no answer is read beyond a bound.

use std::collections::HashSet;
use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Request, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::time::timeout;

use super::exchange::Form;
use crate::https::{DialError, Dialer};
use crate::origin::Origin;
use crate::property::PropertyId;
use crate::secret::ApiKey;
use crate::web::Endpoint;

/// From the connection to the end of the answer. The user waits meanwhile.
const DEADLINE: Duration = Duration::from_secs(20);

/// The largest answer read, in bytes: a page of hotels has some 20 KiB.
const ANSWER_MAX: usize = 1024 * 1024;

/// Hotels on a page, the most that Cloudbeds gives, and pages at most: 10,000 hotels of one organisation.
const PAGE: usize = 100;
const PAGES: usize = 100;

type BoxError = Box<dyn Error + Send + Sync>;

/// The way to Cloudbeds.
pub(super) struct Vendor {
    dialer: Dialer,
    base_url: Origin,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsent {
    /// Nothing left this process.
    #[error(transparent)]
    NotSent(DialError),
    /// Some of it may have arrived.
    #[error(transparent)]
    MaybeSent(BoxError),
}

/// Why a question about a key has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    /// Cloudbeds rejects the key.
    #[error("Cloudbeds rejects the key")]
    Rejected,
    /// Anything that may be different in a while.
    #[error(transparent)]
    NotNow(BoxError),
}

/// A hotel, as `getHotels` lists it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Hotel {
    pub(super) property: PropertyId,
    pub(super) name: Option<String>,
    pub(super) organization: Option<String>,
}

impl Vendor {
    pub(super) fn new(dialer: Dialer, base_url: Origin) -> Self {
        Self { dialer, base_url }
    }

    /// Sends a form to an app's `exchange_url`, once.
    pub(super) async fn exchange(&self, to: &Endpoint, form: Form) -> Result<(StatusCode, Bytes), Unsent> {
        let request = Request::post(to.path()).header(CONTENT_TYPE, form.content_type).body(form.body.into());
        self.call(to.origin(), request.map_err(|error| Unsent::MaybeSent(error.into()))?).await
    }

    /// The hotels that a key opens, all pages.
    pub(super) async fn hotels(&self, key: &ApiKey) -> Result<Vec<Hotel>, Unanswered> {
        let (mut found, mut known) = (Vec::new(), HashSet::new());
        for page in 1..=PAGES {
            let path = format!("/api/v1.3/getHotels?pageSize={PAGE}&pageNumber={page}");
            let answer = self.ask(key, &path).await?;
            let listed = answer["data"].as_array().map(Vec::as_slice).unwrap_or_default();
            let before = found.len();
            found.extend(listed.iter().filter_map(hotel).filter(|hotel| known.insert(hotel.property)));
            let total = answer["total"].as_u64().unwrap_or_default();
            // A page without news is the end, whatever the total says.
            if found.len() == before || found.len() as u64 >= total {
                return Ok(found);
            }
        }
        Ok(found)
    }

    /// Whether Cloudbeds accepts a key; counts as its use.
    pub(super) async fn is_alive(&self, key: &ApiKey) -> Result<(), Unanswered> {
        self.ask(key, "/api/v1.3/userinfo").await.map(drop)
    }

    /// A GET with a key.
    async fn ask(&self, key: &ApiKey, path: &str) -> Result<Value, Unanswered> {
        let request = Request::get(path).header(AUTHORIZATION, key.bearer_for_own_call()).body(Bytes::new());
        let request = request.map_err(|error| Unanswered::NotNow(error.into()))?;
        let (status, body) =
            self.call(&self.base_url, request).await.map_err(|error| Unanswered::NotNow(error.into()))?;
        match status {
            StatusCode::UNAUTHORIZED => return Err(Unanswered::Rejected),
            status if !status.is_success() => {
                return Err(Unanswered::NotNow(format!("{path} was answered {}", status.as_u16()).into()));
            }
            _ => {}
        }
        let answer: Value = serde_json::from_slice(&body)
            .map_err(|_| Unanswered::NotNow(format!("{path} was answered with something else than JSON").into()))?;
        // `userinfo` has no envelope.
        if answer["success"] == false {
            return Err(Unanswered::NotNow(format!("{path} was answered with success: false").into()));
        }
        Ok(answer)
    }

    async fn call(&self, origin: &Origin, request: Request<Bytes>) -> Result<(StatusCode, Bytes), Unsent> {
        let stream = self.dialer.dial_https(origin).await.map_err(Unsent::NotSent)?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let exchange = async {
            let response = send(stream, http2, prepared(origin, request, http2)?).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await?.to_bytes();
            Ok::<_, BoxError>((status, body))
        };
        match timeout(DEADLINE, exchange).await {
            Ok(answer) => answer.map_err(Unsent::MaybeSent),
            Err(_) => Err(Unsent::MaybeSent(format!("no answer within {DEADLINE:?}").into())),
        }
    }
}

/// The request with what every one has.
fn prepared(origin: &Origin, request: Request<Bytes>, http2: bool) -> Result<Request<Full<Bytes>>, BoxError> {
    const AGENT: &str = concat!("cloudbeds-auth-proxy/", env!("CARGO_PKG_VERSION"));
    let mut request = request.map(Full::new);
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    if http2 {
        let target = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        *request.uri_mut() =
            Uri::builder().scheme("https").authority(origin.authority().clone()).path_and_query(target).build()?;
        *request.version_mut() = Version::HTTP_2;
    } else {
        headers.insert(HOST, origin.host_header().clone());
    }
    Ok(request)
}

async fn send(
    stream: tokio_rustls::client::TlsStream<tokio::net::TcpStream>,
    http2: bool,
    request: Request<Full<Bytes>>,
) -> Result<http::Response<Incoming>, BoxError> {
    let stream = TokioIo::new(stream);
    if http2 {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        tokio::spawn(connection);
        Ok(sender.send_request(request).await?)
    } else {
        let (mut sender, connection) = http1::handshake(stream).await?;
        tokio::spawn(connection);
        Ok(sender.send_request(request).await?)
    }
}

fn hotel(entry: &Value) -> Option<Hotel> {
    let text = |name: &str| match &entry[name] {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let property = text("propertyID")?.parse().ok()?;
    Some(Hotel { property, name: text("propertyName"), organization: text("organizationID") })
}
