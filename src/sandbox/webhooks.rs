//! Telling apps what happened, as the vendor's webhooks do.
//!
//! In: changes of state, and who subscribed. Out: a POST to each endpoint, tried up to five times one minute apart (on
//! the sandbox's clock) until it is answered with a 2xx within two seconds (the vendor's page on webhooks). There is no
//! signature, since the vendor publishes none. On request, everything arrives twice, in the wrong order, or not at all.
//!
//! It dials `https` endpoints with verified certificates, plain `http` ones on loopback only, and nothing else.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::accounts::{Accounts, AppState, Change, is_loopback};
use super::routes::State;
use crate::https::{self, Dialer};
use crate::origin::Origin;

/// How long an endpoint has, how often it is tried, and how far apart (the vendor's page on webhooks).
const PATIENCE: Duration = Duration::from_secs(2);
const TRIES: u32 = 5;
const APART: Duration = Duration::from_secs(60);

/// How many deliveries are remembered.
const KEPT: usize = 1000;

/// How webhooks are delivered from now on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Webhooks {
    /// How often each one is sent: 1, or more for duplicates; 0 loses them all. At most 100.
    pub copies: u32,
    /// The last of several changes first.
    pub reversed: bool,
}

impl Default for Webhooks {
    fn default() -> Self {
        Self { copies: 1, reversed: false }
    }
}

/// One try to deliver one webhook.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// Where to.
    pub endpoint: String,
    /// The body, as it was sent.
    pub body: Value,
    /// Counted from 1.
    pub attempt: u32,
    /// When it was over, on the sandbox's clock.
    pub at: SystemTime,
    /// The status of the answer, or why there was none.
    pub outcome: Result<u16, String>,
}

impl Delivered {
    fn is_done(&self) -> bool {
        self.outcome.as_ref().is_ok_and(|status| (200..300).contains(status))
    }
}

/// Whether the sandbox would send to an endpoint.
pub(super) fn can_reach(endpoint: &str) -> bool {
    let uri: Option<Uri> = endpoint.parse().ok();
    uri.is_some_and(|uri| match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(_)) => true,
        (Some("http"), Some(host)) => is_loopback(host),
        _ => false,
    })
}

impl State {
    /// Tells those who subscribed what has changed since the last time. Returns before they are told.
    pub(super) fn announce(self: &Arc<Self>) {
        let manner = self.webhooks();
        let mut accounts = self.accounts();
        let mut changes = accounts.take_changes();
        let now = self.clock.now();
        if manner.reversed {
            changes.reverse();
        }
        let mut posts: Vec<(String, Value)> = Vec::new();
        for change in &changes {
            let body = body(&accounts, change, now);
            for endpoint in endpoints(&accounts, change) {
                posts.extend((0..manner.copies.min(100)).map(|_| (endpoint.clone(), body.clone())));
            }
        }
        for gone in changes.iter().filter(|change| change.new == AppState::Disabled) {
            accounts.subscriptions.forget(gone.app, gone.property);
        }
        drop(accounts);
        if !posts.is_empty() {
            let state = Arc::clone(self);
            self.spawn(async move {
                for (endpoint, body) in posts {
                    // One after the other, so that the order is the one that was asked for.
                    if !attempt(&state, &endpoint, &body, 1).await {
                        let again = Arc::clone(&state);
                        state.spawn(async move { retry(&again, &endpoint, &body).await });
                    }
                }
            });
        }
    }
}

/// The payload; field names as on the vendor's page, the time in seconds with a fraction.
fn body(accounts: &Accounts, change: &Change, now: SystemTime) -> Value {
    json!({
        "version": "1.0",
        "event": "integration/appstate_changed",
        "timestamp": now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
        "propertyID": change.property.get(),
        "propertyID_str": change.property.to_string(),
        "clientID": accounts.app(change.app).client_id,
        "oldState": change.old.as_str(),
        "newState": change.new.as_str(),
    })
}

fn endpoints(accounts: &Accounts, change: &Change) -> Vec<String> {
    let subscribed = accounts.subscriptions.of(change.app, std::slice::from_ref(&change.property));
    let subscribed = subscribed.filter(|one| one.entity == "integration" && one.action == "appstate_changed");
    let own = accounts.app(change.app).webhook.iter().cloned();
    own.chain(subscribed.map(|one| one.endpoint.clone())).collect()
}

async fn retry(state: &State, endpoint: &str, body: &Value) {
    for number in 2..=TRIES {
        state.clock.reaches(state.clock.now() + APART).await;
        if attempt(state, endpoint, body, number).await {
            return;
        }
    }
}

async fn attempt(state: &State, endpoint: &str, body: &Value, attempt: u32) -> bool {
    let outcome = match timeout(PATIENCE, post(endpoint, body)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("no answer within {} seconds", PATIENCE.as_secs())),
    };
    let delivered =
        Delivered { endpoint: endpoint.to_owned(), body: body.clone(), attempt, at: state.clock.now(), outcome };
    let done = delivered.is_done();
    let mut history = state.delivered();
    if history.len() == KEPT {
        history.pop_front();
    }
    history.push_back(delivered);
    done
}

async fn post(endpoint: &str, body: &Value) -> Result<u16, String> {
    let uri: Uri = endpoint.parse().map_err(|_| "not a URL".to_owned())?;
    let authority = uri.authority().ok_or("not a URL")?.clone();
    if !can_reach(endpoint) {
        return Err("only https is sent to, and http on loopback".to_owned());
    }
    let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let request = Request::post(target)
        .header(HOST, authority.as_str())
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .body(Full::new(Bytes::from(body.to_string())))
        .map_err(|error| error.to_string())?;
    if uri.scheme_str() == Some("https") {
        let origin: Origin =
            format!("https://{authority}").parse().map_err(|error: crate::origin::NotAnOrigin| error.to_string())?;
        let stream = dialer()?.dial_https(&origin).await.map_err(|error| error.to_string())?;
        send(stream, request).await
    } else {
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let host = if host == "localhost" { "127.0.0.1" } else { host };
        let address = host.parse().map_err(|_| "not an address".to_owned())?;
        let address = std::net::SocketAddr::new(address, authority.port_u16().unwrap_or(80));
        send(https::dial_local(address).await.map_err(|error| error.to_string())?, request).await
    }
}

/// Made when it is first needed: reading the system's roots takes a while.
fn dialer() -> Result<&'static Dialer, String> {
    static DIALER: OnceLock<Result<Dialer, String>> = OnceLock::new();
    let made = DIALER.get_or_init(|| {
        let made = Dialer::new(None, false, PATIENCE, PATIENCE);
        made.map(|(dialer, _)| dialer).map_err(|error| error.to_string())
    });
    made.as_ref().map_err(Clone::clone)
}

async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> Result<u16, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let failed = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // Ends with this function, whatever the endpoint does.
    let mut driving = JoinSet::new();
    driving.spawn(connection);
    let answer = sender.send_request(request).await.map_err(failed)?;
    let status = answer.status().as_u16();
    // The rest is read as far as it comes; only the status counts.
    let mut body = answer.into_body();
    while let Some(Ok(_)) = body.frame().await {}
    Ok(status)
}
