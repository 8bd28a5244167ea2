//! Which answer a request gets.
//!
//! In: a request and the connection it came by. Out: the answer, always with `X-Request-ID`. The vendor's paths need a
//! key; those under `/sandbox/` do not, since what they show must be tried without one too.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::accounts::{Accounts, AppIndex, places};
use super::body::{self, Body, typed};
use super::clock::Clock;
use super::connect::Asked;
use super::data::Data;
use super::judge::Judge;
use super::keys::{random_bytes, sent_key};
use super::page::Tickets;
use super::query::Pairs;
use super::rules::Rules;
use super::seen::{Recorder, authority};
use super::socket::{Cut, Fuse};
use super::webhooks::{Delivered, Webhooks};
use super::{Settings, answers, bulk, connect, echo, exchange, partner, trouble};
use crate::property::PropertyId;

/// Everything the connections of one sandbox share.
pub(super) struct State {
    pub(super) recorder: Recorder,
    pub(super) clock: Clock,
    pub(super) data: Mutex<Data>,
    /// Consent pages that were shown, and lists of keys.
    pub(super) asked: Tickets<Asked>,
    pub(super) listed: Tickets<AppIndex>,
    /// What acts came to, for the control page.
    pub(super) said: Tickets<String>,
    pub(super) rules: Rules,
    /// A change cuts every open connection in this way.
    pub(super) cut: watch::Sender<Cut>,
    accounts: Mutex<Accounts>,
    judge: Option<Mutex<Judge<AppIndex>>>,
    resources: AtomicBool,
    webhooks: Mutex<Webhooks>,
    delivered: Mutex<VecDeque<Delivered>>,
    runtime: Handle,
    stopped: watch::Receiver<()>,
    run: String,
    answered: AtomicU64,
}

impl State {
    /// What the sandbox does by itself runs on `runtime` until `stopped`.
    pub(super) fn new(settings: &Settings, runtime: Handle, stopped: watch::Receiver<()>) -> Self {
        let clock = Clock::new();
        let run = random_bytes()[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            recorder: Recorder::new(settings.record),
            accounts: Mutex::new(Accounts::new(settings, clock.now())),
            judge: settings.strict.map(|allowed| Mutex::new(Judge::new(allowed))),
            data: Mutex::new(Data::new(places(settings))),
            clock,
            asked: Tickets::default(),
            listed: Tickets::default(),
            said: Tickets::default(),
            rules: Rules::default(),
            cut: watch::Sender::new(Cut::Fin),
            resources: AtomicBool::new(settings.resources),
            webhooks: Mutex::default(),
            delivered: Mutex::default(),
            runtime,
            stopped,
            run,
            answered: AtomicU64::new(0),
        }
    }

    /// Who may do what. Never held while something is waited for, nor while the data are locked, nor while the rules are
    /// asked for: those look here for what a key opens.
    pub(super) fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The judge, if there is one. Never held while anything else is.
    pub(super) fn judge(&self) -> Option<MutexGuard<'_, Judge<AppIndex>>> {
        Some(self.judge.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Shows a call to the judge. It counts for the app its key was made for; a key that nobody knows counts for nobody.
    fn judged(&self, head: &http::HeaderMap) {
        if self.judge.is_none() {
            return;
        }
        let now = std::time::Instant::now();
        let app = sent_key(head).and_then(|key| self.accounts().made_for(key));
        if let Some((app, mut judge)) = app.zip(self.judge()) {
            judge.arrived(app, now);
        }
    }

    /// Whether an exchange says what its key opens; the vendor's description leaves it open.
    pub(super) fn shows_resources(&self) -> bool {
        self.resources.load(Ordering::Relaxed)
    }

    pub(super) fn show_resources(&self, on: bool) {
        self.resources.store(on, Ordering::Relaxed);
    }

    pub(super) fn webhooks(&self) -> Webhooks {
        *self.webhooks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_webhooks(&self, manner: Webhooks) {
        *self.webhooks.lock().unwrap_or_else(PoisonError::into_inner) = manner;
    }

    /// What webhooks came to, oldest first.
    pub(super) fn delivered(&self) -> MutexGuard<'_, VecDeque<Delivered>> {
        self.delivered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something on the side, until it is done or the sandbox ends.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut stopped = self.stopped.clone();
        self.runtime.spawn(async move {
            tokio::select! {
                () = task => {}
                // Nothing is ever sent: this returns when the Sandbox is stopped or dropped.
                _ = stopped.changed() => {}
            }
        });
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
    state.judged(request.headers());
    let authority = authority(&request);
    let (head, body) = state.recorder.record(connection.number, request).into_parts();
    let query = Pairs::parse(head.uri.query().unwrap_or_default().as_bytes());
    let path = head.uri.path();
    let ruled =
        if state.rules.any() { state.rules.apply(path, |id| concerns(&state, &head, &query, id)) } else { None };
    let mut answer = match (ruled.as_deref().or_else(|| path.strip_prefix("/sandbox/")), operation(path)) {
        (Some("echo"), _) => echo::answer(&query, &authority, &head, body).await,
        (Some("upload"), _) => bulk::upload(&query, body).await,
        (Some(room), _) => {
            // A body nobody wants is read all the same: HTTP/1.1 could not go on behind it.
            body::read(body, 0).await;
            // A rule brings switches of its own.
            let (room, switches) = room.split_once('?').unwrap_or((room, ""));
            let query = if ruled.is_some() { Pairs::parse(switches.as_bytes()) } else { query };
            match room {
                "download" => bulk::download(&query),
                "slow" => trouble::slow(&query).await,
                "reset" => trouble::reset(&query, connection.fuse).await,
                "fail" => trouble::fail(&query),
                "hang" => std::future::pending().await,
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
        (None, None) => {
            let page = match (path.strip_prefix("/connect/"), path.strip_prefix("/partner/")) {
                (Some(path), _) => {
                    connect::answer(&state, &head.method, path.trim_end_matches('/'), &query, body).await
                }
                (_, Some(path)) => partner::answer(&state, &head.method, path, body).await,
                (None, None) => None,
            };
            page.unwrap_or_else(not_found)
        }
    };
    if let Some(id) = state.request_id() {
        answer.headers_mut().insert("x-request-id", id);
    }
    answer
}

/// Whether a request is about a hotel, by its header, its query or its key.
fn concerns(state: &State, head: &http::request::Parts, query: &Pairs, property: PropertyId) -> bool {
    let id = property.to_string();
    let header = head.headers.get("x-property-id").is_some_and(|value| value.as_bytes() == id.as_bytes());
    let named = ["propertyID", "propertyIDs"].iter().any(|name| query.get(name) == Some(&id));
    header || named || sent_key(&head.headers).is_some_and(|key| state.accounts().concerns(key, property))
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
