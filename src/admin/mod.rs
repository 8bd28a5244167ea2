//! The listener for operators, the kubelet and Prometheus:
//!
//! - `GET /livez` the process turns
//! - `GET /readyz` it is configured and listening
//! - `GET /startupz` it has been ready once
//! - `GET /metrics` Prometheus text
//! - `GET /api/keys` each property's key: verdict, age, idle days
//! - `POST /api/keys/{property}` a key that arrived by e-mail; with a token, from this host
//!
//! In: GET and HEAD without a body, and pasted keys. Out: text that no cache keeps and no browser takes for anything
//! else. It shows no key and never asks Cloudbeds by itself: readiness that did would take every replica out at once.

mod health;
mod keys;
mod paste;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use tokio::net::TcpListener;

pub use self::paste::{KeyDesk, NotPasted, Paste, Pasted, Pasting};
use crate::keys::Verdict;
use crate::keys::report::{self, Row};
use crate::phase::PhaseCell;
use crate::property::PropertyId;
use crate::telemetry::metrics::{Budget, CONTENT_TYPE as METRICS_TYPE, Gauges, Metrics};
use crate::wire::server::{self, Bounds};
use crate::wire::site::Sites;

/// A kubelet, a Prometheus and a person need a handful of connections.
const BOUNDS: Bounds = Bounds { name: "admin", connections: 64, last_answers: Duration::from_secs(1) };

const PLAIN: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// What this listener may know of the keys: how many, and for whom.
pub trait KeyView: Send + Sync + 'static {
    /// Whether the property has a key now.
    fn contains(&self, property: PropertyId) -> bool;

    /// The number of keys, and of the properties they serve.
    fn counts(&self) -> (usize, usize);

    /// What is known of each property's key.
    fn rows(&self) -> Vec<Row>;

    /// Each app's budget.
    fn budgets(&self) -> Vec<Budget>;
}

/// All this listener shows.
pub struct AdminState {
    /// How far the process is.
    pub phase: Arc<PhaseCell>,
    /// The counters.
    pub metrics: Metrics,
    /// The keys' numbers.
    pub keys: Arc<dyn KeyView>,
    /// What it takes to paste keys; nothing where that is off.
    pub paste: Option<Paste>,
    /// The pages and names that are welcome.
    pub sites: Sites,
    /// Whether this listener stands on loopback, where a page's own name could lead to it.
    pub loopback: bool,
}

/// Serves the admin routes until `shutdown` resolves, and then for as long as the answers in flight take, one second
/// at most.
pub async fn serve(listener: TcpListener, state: Arc<AdminState>, shutdown: impl Future<Output = ()>) {
    let handler = move |request: http::Request<hyper::body::Incoming>| {
        let state = Arc::clone(&state);
        async move { state.serve(request).await.map(|text| Full::new(Bytes::from(text))) }
    };
    server::serve(listener, BOUNDS, handler, shutdown).await;
}

impl AdminState {
    async fn serve(&self, request: http::Request<hyper::body::Incoming>) -> Response<String> {
        match request.uri().path().strip_prefix("/api/keys/") {
            Some(property) if request.method() == Method::POST => {
                let property = property.to_owned();
                paste::serve(self.paste.as_ref(), &property, request).await
            }
            Some(_) => {
                let mut refusal = answer(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only POST\n".to_owned());
                refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
                refusal
            }
            None if self.is_of_a_page(request.headers()) => answer(StatusCode::FORBIDDEN, PLAIN, PAGE.to_owned()),
            None => self.answer(request.method(), request.uri().path()),
        }
    }

    /// Whether a page of another site asks, and could read the answer. Following a link to here is no such thing.
    fn is_of_a_page(&self, headers: &HeaderMap) -> bool {
        let navigates = headers.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate");
        !navigates && self.sites.is_foreign(headers) || self.loopback && self.sites.is_rebound(headers)
    }

    /// The answer to a request; for HEAD the server leaves the body out.
    fn answer(&self, method: &Method, path: &str) -> Response<String> {
        let route = match path {
            "/livez" | "/readyz" | "/startupz" | "/metrics" | "/api/keys" => path,
            _ => return answer(StatusCode::NOT_FOUND, PLAIN, NOT_HERE.to_owned()),
        };
        if method != Method::GET && method != Method::HEAD {
            let mut refusal = answer(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET and HEAD\n".to_owned());
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        let health = match route {
            "/livez" => health::live(),
            "/readyz" => health::ready(self.phase.get()),
            "/startupz" => health::started(self.phase.get()),
            "/api/keys" => return answer(StatusCode::OK, JSON, keys::list(&self.keys.rows())),
            _ => return answer(StatusCode::OK, METRICS_TYPE, self.page()),
        };
        answer(health.status, PLAIN, health.sentence.to_owned())
    }

    fn page(&self) -> String {
        let (keys_loaded, properties_loaded) = self.keys.counts();
        let rows = self.keys.rows();
        let verdicts = report::counts(&rows).into_iter().map(|(verdict, count)| (verdict.as_str(), count)).collect();
        let in_order = |row: &&Row| matches!(row.verdict, Verdict::Active | Verdict::Pending);
        let troubled = rows.iter().filter(|row| !in_order(row));
        let troubled = troubled.map(|row| (row.property, row.verdict.as_str(), row.idle_days)).collect();
        let gauges = Gauges { keys_loaded, properties_loaded, verdicts, troubled, budgets: self.keys.budgets() };
        self.metrics.encode(&gauges, &|property| self.keys.contains(property))
    }
}

const PAGE: &str =
    "not for pages of other sites; call it by localhost or 127.0.0.1, or see policy.hosts and policy.origins\n";
const NOT_HERE: &str = "not here; there are /livez, /readyz, /startupz, /metrics and /api/keys\n";

fn answer(status: StatusCode, media_type: &'static str, body: String) -> Response<String> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

#[cfg(test)]
mod tests;
