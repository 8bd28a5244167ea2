//! A page as it is sent: the words in their frame, and headers that keep everything where it is.
//!
//! In: [`Words`] and the request's name. Out: an answer that no cache keeps, no frame shows, no script can enter and
//! whose address no other site learns: the address of a redirect holds a code.

use askama::Template;
use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, LOCATION, REFERRER_POLICY, RETRY_AFTER,
    SET_COOKIE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;

use super::token::Token;
use super::words::{Tone, Words};
use crate::telemetry::RequestId;
use crate::wire::server::Answer;

/// After a 429 or 503, for programs; people read the page. Seconds.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("30");

#[derive(Template)]
#[template(path = "onboarding/page.html")]
struct Page<'a> {
    words: &'a Words,
    nonce: &'a str,
    reference: &'a str,
}

/// The page that says `words`.
pub(super) fn page(words: &Words, reference: RequestId) -> Answer {
    // The nonce lets our style in and nothing else. Without one, the page is plain and as safe.
    let nonce = Token::random().map(|nonce| nonce.text()).unwrap_or_default();
    let page = Page { words, nonce: &nonce, reference: reference.as_str() };
    // Writing to a String cannot fail, and there is nothing else in the template that could.
    let html = page.render().unwrap_or_default();
    let mut answer = guarded(words.status, Bytes::from(html));
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    match words.status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            headers.insert(RETRY_AFTER, RETRY_SECONDS);
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        _ => {}
    }
    answer
}

/// Sends the browser on with a GET, whatever it came with. Nothing when the target or the cookie cannot be a header.
pub(super) fn redirect(target: &str, cookie: Option<&str>) -> Option<Answer> {
    let mut answer = guarded(StatusCode::SEE_OTHER, Bytes::new());
    answer.headers_mut().insert(LOCATION, HeaderValue::from_str(target).ok()?);
    if let Some(cookie) = cookie {
        let mut cookie = HeaderValue::from_str(cookie).ok()?;
        cookie.set_sensitive(true);
        answer.headers_mut().insert(SET_COOKIE, cookie);
    }
    Some(answer)
}

/// An answer for programs: a word of JSON.
pub(super) fn json(status: StatusCode, body: &'static str) -> Answer {
    let mut answer = guarded(status, Bytes::from_static(body.as_bytes()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// With the headers that every answer here has.
fn guarded(status: StatusCode, body: Bytes) -> Answer {
    const ALWAYS: [(HeaderName, HeaderValue); 5] = [
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        // For browsers that do not know frame-ancestors.
        (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    ];
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().extend(ALWAYS);
    answer
}
