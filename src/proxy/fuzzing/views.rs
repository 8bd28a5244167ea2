//! Whether others read what the gate lets through as it does.
//!
//! In: the bytes of a connection. Asserted of every request that reaches the proxy: two more parsers, httparse (which is
//! hyper's) and `strict.rs`, accept its head and agree with the gate on method, target, version and every field, and
//! `strict.rs` on how much body belongs to it, so also on where the next request begins. A request with a second reading
//! is refused before. All of it is the same however the bytes are cut.
#![allow(clippy::expect_used, clippy::panic, reason = "a broken promise is to end the process")]

use std::cell::RefCell;
use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Response, Version};
use http_body_util::{BodyExt as _, Full};

use super::line::{Cut, LIMITS, serve};
use super::strict::{Body, Reading, Request, read};
use crate::wire::incoming::Incoming;

/// A request as the gate gives it to the proxy.
#[derive(Debug, Eq, PartialEq)]
struct Seen {
    method: String,
    /// As `http::Uri` takes it apart: what stands before the path, and the rest.
    before_path: String,
    path: String,
    minor: u8,
    fields: BTreeMap<String, Vec<Vec<u8>>>,
    /// Nothing where it did not come whole.
    body: Option<Bytes>,
}

/// Compares readings of any bytes.
pub fn views(data: &[u8]) {
    let (whole, answers) = seen(data, Cut::Whole);
    let (pieces, answers_to_pieces) = seen(data, Cut::Pieces);
    assert_eq!(whole, pieces, "the requests depend on where bytes are cut");
    assert_eq!(answers, answers_to_pieces, "the answers depend on where bytes are cut");

    let mut rest = data;
    for seen in &whole {
        let request = match read(rest) {
            Reading::Request(request) => request,
            other => panic!("{seen:?} is this to a strict parser: {other:?}"),
        };
        compare(seen, &request);
        let plain = rest.iter().position(|byte| !b"\r\n".contains(byte)).unwrap_or_default();
        compare_with_httparse(seen, &rest[plain..], &request);
        rest = request.rest;
    }
}

/// All requests that the gate makes of them.
fn seen(data: &[u8], cut: Cut) -> (Vec<Seen>, Vec<u8>) {
    let all = RefCell::new(Vec::new());
    let served = serve(data, cut, |request| {
        let all = &all;
        async move {
            let seen = one(request).await;
            // Whoever breaks off in a body has nothing more to say. Not 200, by which CONNECT would end HTTP.
            let end = seen.body.is_none();
            all.borrow_mut().push(seen);
            let response = Response::builder().status(400).header("date", "today");
            let response = if end { response.header("connection", "close") } else { response };
            response.body(Full::default()).expect("it is made of constants")
        }
    });
    (all.into_inner(), served.answers)
}

async fn one(request: http::Request<Incoming>) -> Seen {
    let (parts, body) = request.into_parts();
    let mut fields: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for (name, value) in &parts.headers {
        fields.entry(name.as_str().to_owned()).or_default().push(value.as_bytes().to_vec());
    }
    let uri = &parts.uri;
    let path = uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let scheme = uri.scheme_str().map(|scheme| format!("{scheme}://")).unwrap_or_default();
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    Seen {
        method: parts.method.to_string(),
        before_path: scheme + &authority,
        path,
        minor: u8::from(parts.version == Version::HTTP_11),
        fields,
        body: body.collect().await.ok().map(http_body_util::Collected::to_bytes),
    }
}

fn compare(seen: &Seen, request: &Request<'_>) {
    assert_eq!((seen.method.as_str(), seen.minor), (request.method, request.minor), "{request:?}");
    let target = seen.before_path.clone() + &seen.path;
    let given = String::from_utf8_lossy(request.target).into_owned();
    // RFC 9110 4.2.3: an empty path of an absolute target is `/`. Scheme and host have one form in lower case.
    let short = seen.before_path.clone() + seen.path.strip_prefix('/').unwrap_or("//");
    let equal = given == target || (!seen.before_path.is_empty() && given.eq_ignore_ascii_case(&short));
    let equal = equal || given.eq_ignore_ascii_case(&target) && given.ends_with(&seen.path);
    assert!(equal, "the target {given:?} is {target:?} to the gate");
    let fields = grouped(request.fields.iter().map(|(name, value)| (*name, *value)));
    assert_eq!(seen.fields, fields, "{request:?}");
    match (&seen.body, &request.body) {
        (Some(body), Body::Whole(other)) => assert_eq!(&body[..], &other[..], "the body of {request:?}"),
        (Some(_), other) => panic!("the body is whole to the gate and {other:?} to a strict parser"),
        // Ours may be the stricter one.
        (None, _) => {}
    }
}

fn compare_with_httparse(seen: &Seen, bytes: &[u8], request: &Request<'_>) {
    let mut fields = [httparse::EMPTY_HEADER; LIMITS.max_headers];
    let mut other = httparse::Request::new(&mut fields);
    let parsed = other.parse(bytes);
    assert!(parsed.is_ok_and(|status| status.is_complete()), "httparse says {parsed:?} of {request:?}");
    assert_eq!(other.method, Some(request.method));
    assert_eq!(other.path.map(str::as_bytes), Some(request.target));
    assert_eq!(other.version, Some(request.minor));
    let fields = grouped(other.headers.iter().map(|field| (field.name, field.value)));
    assert_eq!(seen.fields, fields, "httparse reads other fields in {request:?}");
}

fn grouped<'a>(fields: impl Iterator<Item = (&'a str, &'a [u8])>) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut all: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for (name, value) in fields {
        all.entry(name.to_ascii_lowercase()).or_default().push(value.to_vec());
    }
    all
}
