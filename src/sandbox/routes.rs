//! Which answer a request gets.
//!
//! In: a request and the connection it came by. Out: the answer, always with `X-Request-ID`. The vendor's paths need a
//! key; those under `/sandbox/` do not, since what they show must be tried without one too.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use tokio::sync::watch;

use super::accounts::{Accounts, places};
use super::body::{self, Body, typed};
use super::clock::Clock;
use super::connect::Asked;
use super::data::Data;
use super::keys::random_bytes;
use super::page::Tickets;
use super::query::Pairs;
use super::seen::{Recorder, authority};
use super::socket::{Cut, Fuse};
use super::{Settings, answers, bulk, connect, echo, exchange, trouble};

/// Everything the connections of one sandbox share.
pub(super) struct State {
    pub(super) recorder: Recorder,
    pub(super) clock: Clock,
    pub(super) data: Mutex<Data>,
    /// Consent pages that were shown.
    pub(super) asked: Tickets<Asked>,
    /// A change cuts every open connection in this way.
    pub(super) cut: watch::Sender<Cut>,
    accounts: Mutex<Accounts>,
    resources: AtomicBool,
    run: String,
    answered: AtomicU64,
}

impl State {
    pub(super) fn new(settings: &Settings) -> Self {
        let clock = Clock::new();
        let run = random_bytes()[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            recorder: Recorder::new(settings.record),
            accounts: Mutex::new(Accounts::new(settings, clock.now())),
            data: Mutex::new(Data::new(places(settings))),
            clock,
            asked: Tickets::default(),
            cut: watch::Sender::new(Cut::Fin),
            resources: AtomicBool::new(settings.resources),
            run,
            answered: AtomicU64::new(0),
        }
    }

    /// Who may do what. Never held while something is waited for, nor while the data are locked.
    pub(super) fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an exchange says what its key opens; the vendor's description leaves it open.
    pub(super) fn shows_resources(&self) -> bool {
        self.resources.load(Ordering::Relaxed)
    }

    /// Tells those who subscribed what has changed since the last time.
    pub(super) fn announce(&self) {
        let _ = self.accounts().take_changes();
    }

    fn request_id(&self) -> Option<HeaderValue> {
        let number = self.answered.fetch_add(1, Ordering::Relaxed);
        HeaderValue::try_from(format!("{}-{number:08x}", self.run)).ok()
    }
}

/// The connection a request came by.
pub(super) struct Connection {
    pub(super) number: u64,
    pub(super) fuse: Arc<Fuse>,
}

pub(super) async fn answer<B>(state: Arc<State>, connection: Connection, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let authority = authority(&request);
    let (head, body) = state.recorder.record(connection.number, request).into_parts();
    let query = Pairs::parse(head.uri.query().unwrap_or_default().as_bytes());
    let path = head.uri.path();
    let mut answer = match (path.strip_prefix("/sandbox/"), operation(path)) {
        (Some("echo"), _) => echo::answer(&query, &authority, &head, body).await,
        (Some("upload"), _) => bulk::upload(&query, body).await,
        (Some(room), _) => {
            // A body nobody wants is read all the same: HTTP/1.1 could not go on behind it.
            body::read(body, 0).await;
            match room {
                "download" => bulk::download(&query),
                "slow" => trouble::slow(&query).await,
                "reset" => trouble::reset(&query, connection.fuse).await,
                "fail" => trouble::fail(&query),
                _ => not_found(),
            }
        }
        (None, Some("access_token")) if head.method == Method::POST => {
            let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
            exchange::answer(&state, content_type.unwrap_or_default(), body).await
        }
        (None, Some(operation)) => match answers::Operation::find(&head.method, operation) {
            Some(operation) => answers::answer(&state, operation, &head, query, body).await,
            None => not_found(),
        },
        (None, None) => match path.strip_prefix("/connect/") {
            Some(path) => {
                let answer = connect::answer(&state, &head.method, path.trim_end_matches('/'), &query, body).await;
                answer.unwrap_or_else(not_found)
            }
            None => not_found(),
        },
    };
    if let Some(id) = state.request_id() {
        answer.headers_mut().insert("x-request-id", id);
    }
    answer
}

/// The operation's name, on any of the three versions of the classic API.
fn operation(path: &str) -> Option<&str> {
    let (minor, operation) = path.strip_prefix("/api/v1.")?.split_once('/')?;
    matches!(minor, "1" | "2" | "3").then_some(operation)
}

/// Cloudbeds answers a wrong path with its marketing page, not with JSON.
fn not_found() -> Response<Body> {
    const PAGE: &str = "<!DOCTYPE html>\n<html lang=\"en\"><head><title>Page not found</title></head>\
                        <body><h1>404</h1><p>Page not found</p></body></html>\n";
    typed(StatusCode::NOT_FOUND, "text/html; charset=UTF-8", PAGE)
}
