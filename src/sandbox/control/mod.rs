//! The control listener: everything one can do to the sandbox from outside, and what arrived.
//!
//! In: plain HTTP on loopback, from curl, from `sandbox do`, or from the page it serves. Out: JSON, or that page. It is no
//! part of what stands in for the vendor, which is why it has a listener of its own. A page of another site can neither
//! read it nor press a button: the host must be a loopback one, and what a browser says about the origin must agree.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | the page |
//! | `GET /state` | clock, apps, hotels with their keys' state, rules, budget, notices by e-mail |
//! | `GET /requests?last=N` | the last requests (50), keys covered |
//! | `GET /webhooks` | what was delivered, and how it went |
//! | `POST /do` | one act, as a query, a form or a JSON object: `do=clock&by=31d`; see [`Act`] |

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, HOST, LOCATION, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::accounts::is_loopback;
use super::body::{self, Body, json as answer_json};
use super::page::style;
use super::query::Pairs;
use super::routes::State;

mod act;
mod fields;
mod page;
mod view;

use act::Act;
use fields::Fields;

/// The largest act that is read.
const BODY_MAX: usize = 64 * 1024;

/// After an error of `accept`, as in the main listener.
const PAUSE: Duration = Duration::from_millis(50);

/// A caller that has connected but does not send a head is let go.
const HEAD: Duration = Duration::from_secs(10);

/// Serves until the task is dropped.
pub(super) async fn serve(listener: TcpListener, state: Arc<State>, sandbox: SocketAddr) {
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            Some(_) = open.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((tcp, _)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let state = Arc::clone(&state);
        open.spawn(async move {
            let service = service_fn(|request| {
                let state = Arc::clone(&state);
                async move { Ok::<_, Infallible>(answer(&state, sandbox, request).await) }
            });
            // How a connection ended is for its caller to judge.
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD);
            let _ = http.serve_connection(TokioIo::new(tcp), service).await;
        });
    }
}

async fn answer(state: &Arc<State>, sandbox: SocketAddr, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let (bytes, _) = body::read(body, BODY_MAX).await;
    if !is_ours(&head.headers) {
        let words = "only for this machine: call it by a loopback address, and from no other site's page";
        return refused(StatusCode::FORBIDDEN, words);
    }
    let query = Pairs::parse(head.uri.query().unwrap_or_default().as_bytes());
    let wants_page = head.headers.get(ACCEPT).is_some_and(|value| value.as_bytes().starts_with(b"text/html"));
    match (&head.method, head.uri.path()) {
        (&Method::GET, "/") => page::page(state, sandbox, query.get("said")),
        (&Method::GET, "/connect/style.css") => style(),
        (&Method::GET, "/state") => answer_json(StatusCode::OK, &view::state(state)),
        (&Method::GET, "/requests") => {
            answer_json(StatusCode::OK, &view::requests(state, query.number("last").unwrap_or(50)))
        }
        (&Method::GET, "/webhooks") => answer_json(StatusCode::OK, &view::webhooks(state)),
        (&Method::POST, "/do") => {
            let media = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
            let fields = Fields::read(head.uri.query().unwrap_or_default(), media, &bytes);
            let done = fields.and_then(Act::parse).and_then(|act| act.perform(state));
            if wants_page {
                let said = match &done {
                    Ok(said) => said.to_string(),
                    Err(why) => why.clone(),
                };
                return back(&state.said.issue(said));
            }
            match done {
                Ok(said) => answer_json(StatusCode::OK, &said),
                Err(why) => refused(StatusCode::BAD_REQUEST, &why),
            }
        }
        _ => refused(StatusCode::NOT_FOUND, "GET /, /state, /requests, /webhooks; POST /do"),
    }
}

/// Whether a request comes from this machine by itself, and not from another site by way of somebody's browser: a name
/// that was made to resolve to loopback shows in `Host`, a foreign page in `Origin`.
fn is_ours(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or_default());
    let Some(host) = text(HOST) else { return false };
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let local = is_loopback(name.map_or(host, |(name, _)| name));
    local && text(ORIGIN).is_none_or(|origin| origin.strip_prefix("http://") == Some(host))
}

fn refused(status: StatusCode, why: &str) -> Response<Body> {
    let body: Value = json!({"error": why});
    answer_json(status, &body)
}

/// Back to the page, which then says what was done.
fn back(said: &str) -> Response<Body> {
    let mut answer = Response::new(Body::full(bytes::Bytes::new()));
    *answer.status_mut() = StatusCode::SEE_OTHER;
    if let Ok(location) = HeaderValue::try_from(format!("/?said={said}")) {
        answer.headers_mut().insert(LOCATION, location);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_page_and_a_foreign_name_are_not_ours() {
        let ours = |pairs: &[(http::HeaderName, &str)]| {
            is_ours(&pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect())
        };
        for host in ["127.0.0.1:8444", "localhost", "[::1]:8444", "127.1.2.3"] {
            assert!(ours(&[(HOST, host)]), "{host}");
            assert!(ours(&[(HOST, host), (ORIGIN, &format!("http://{host}"))]), "{host}");
        }
        for pairs in [
            &[][..],
            &[(HOST, "evil.example:8444")],
            &[(HOST, "127.0.0.1.evil.example")],
            &[(HOST, "127.0.0.1:8444"), (ORIGIN, "http://evil.example")],
            &[(HOST, "127.0.0.1:8444"), (ORIGIN, "http://127.0.0.1:9999")],
            &[(HOST, "127.0.0.1:8444"), (ORIGIN, "null")],
        ] {
            assert!(!ours(pairs), "{pairs:?}");
        }
    }
}
