//! The frame of the sandbox's pages: how a template becomes an answer, and the two files that pages refer to.
//!
//! In: a template. Out: HTML that no other site may frame, cache or learn the address of, and that runs no script but the
//! one served here. Forms carry a [`Tickets`] ticket, so that no other page can press a button here.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use askama::Template;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response, StatusCode};

use super::body::{Body, typed};
use super::keys::random_token;

const HTML: &str = "text/html; charset=UTF-8";

/// `form-action` is left out: browsers apply it to where a form's answer redirects, which is the app's own host here.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; script-src 'self'; base-uri 'none'; frame-ancestors 'none'",
);

/// A page.
pub(super) fn page(status: StatusCode, template: &impl Template) -> Response<Body> {
    // The templates write to a String and call nothing that fails.
    let text = template.render().unwrap_or_default();
    let mut answer = typed(status, HTML, text);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

#[derive(Template)]
#[template(path = "sandbox/message.html")]
struct Message<'a> {
    title: &'a str,
    text: &'a str,
}

/// A page with a title and a sentence.
pub(super) fn message(status: StatusCode, title: &str, text: &str) -> Response<Body> {
    page(status, &Message { title, text })
}

pub(super) fn style() -> Response<Body> {
    typed(StatusCode::OK, "text/css; charset=UTF-8", include_str!("../../templates/sandbox/style.css"))
}

pub(super) fn script() -> Response<Body> {
    typed(StatusCode::OK, "text/javascript; charset=UTF-8", include_str!("../../templates/sandbox/connect.js"))
}

/// How many forms may be open at once; the oldest give way.
const OPEN: usize = 1000;

/// Forms that were handed out, each good for one answer.
pub(super) struct Tickets<T>(Mutex<VecDeque<(String, T)>>);

impl<T> Default for Tickets<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Tickets<T> {
    pub(super) fn issue(&self, what: T) -> String {
        let ticket = random_token(24);
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() == OPEN {
            open.pop_front();
        }
        open.push_back((ticket.clone(), what));
        ticket
    }

    /// What a ticket was issued for, once.
    pub(super) fn redeem(&self, ticket: &str) -> Option<T> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = open.iter().position(|(text, _)| text == ticket)?;
        open.remove(at).map(|(_, what)| what)
    }
}
