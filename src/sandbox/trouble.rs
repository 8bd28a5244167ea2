//! Trouble on demand: answers that are late, slow, cut off, or failures in Cloudbeds' own words.
//!
//! | path | switches |
//! |---|---|
//! | `/sandbox/slow` | `first_byte_ms=` before the head, `gap_ms=` before every chunk but the first, `chunks=` (3), `size=` bytes each (16) |
//! | `/sandbox/reset` | `after=N` body bytes (0), then `how=reset` (TCP RST, the default), `fin` (end of file) or `stream` (RST_STREAM; in HTTP/1.1 a close); `length=N` announces a length; `head=0` ends it before any answer; `first_byte_ms=` before that |
//! | `/sandbox/fail` | `kind=inactive` (the default: 200 with `success:false`), `revoked` (401), `limit` (429 with `Retry-After: 1`), `error` (500 and a page; `status=` another 5xx) |
//! | `/sandbox/hang` | never answers |

use std::iter;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use super::answers::{self, failure};
use super::body::{Body, Step, json, typed};
use super::query::Pairs;
use super::socket::{Cut, Fuse};

/// Long enough for hyper to flush what the body gave before, so that "after N bytes" holds on the wire.
const FLUSH: Duration = Duration::from_millis(20);

pub(super) async fn slow(query: &Pairs) -> Response<Body> {
    tokio::time::sleep(query.millis("first_byte_ms").unwrap_or_default()).await;
    let gap = query.millis("gap_ms").unwrap_or_default();
    let chunks = query.number("chunks").unwrap_or(3_u64);
    let chunk = Bytes::from(vec![b'.'; query.number::<usize>("size").unwrap_or(16).clamp(1, 1 << 20)]);
    let steps = (0..chunks).flat_map(move |index| {
        let wait = (index > 0).then_some(Step::Wait(gap));
        wait.into_iter().chain(iter::once(Step::Data(chunk.clone())))
    });
    plain(Body::script(steps))
}

pub(super) async fn reset(query: &Pairs, fuse: Arc<Fuse>) -> Response<Body> {
    tokio::time::sleep(query.millis("first_byte_ms").unwrap_or_default()).await;
    let how = match query.get("how") {
        Some("stream") => None,
        Some("fin") => Some(Cut::Fin),
        _ => Some(Cut::Reset),
    };
    if let (Some("0"), Some(how)) = (query.get("head"), how) {
        fuse.blow(how);
        // The connection's end drops this future.
        std::future::pending::<()>().await;
    }
    let after = query.number("after").unwrap_or(0_usize).min(1 << 20);
    let sent = (after > 0).then(|| Step::Data(Bytes::from(vec![b'.'; after])));
    let end = how.map_or(Step::Break, |how| Step::Cut(how, fuse));
    let body = Body::script(sent.into_iter().chain([Step::Wait(FLUSH), end]));
    plain(match query.number("length") {
        Some(length) => body.length(length),
        None => body,
    })
}

pub(super) fn fail(query: &Pairs) -> Response<Body> {
    match query.get("kind") {
        Some("revoked") => answers::revoked(),
        Some("limit") => limit(),
        Some("error") => {
            let status = query.number("status").and_then(|status: u16| StatusCode::from_u16(status).ok());
            let status = status.filter(StatusCode::is_server_error).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            typed(status, "text/html; charset=UTF-8", "<h1>Server Error</h1>")
        }
        _ => failure(answers::USER_LEFT),
    }
}

/// Too many calls. No real 429 of the vendor is published: the words are ours, `Retry-After` is what its error guide is
/// said to have.
pub(super) fn limit() -> Response<Body> {
    let words = json!({"success": false, "message": "Too many requests"});
    let mut answer = json(StatusCode::TOO_MANY_REQUESTS, &words);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

fn plain(body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    answer
}
