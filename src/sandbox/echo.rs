//! `/sandbox/echo`: everything it was sent comes back, credentials included.
//!
//! In: any request, with or without a key. Out: method, target, version, every header line and the start of the body, as
//! JSON; every header once more as `X-Echo-…`; and the key itself in each header a careless server has been seen to put
//! one. Nothing a proxy must stop is missing, so a test that finds no key behind the proxy has looked at the worst case.
//!
//! | switch | effect |
//! |---|---|
//! | `status=N` | 200 to 599; 204 and 304 come without a body |
//! | `coding=` | `gzip` `deflate` `raw-deflate` `br` `zstd` `identity` |
//! | `chunk=N` | N bytes a frame, and no `Content-Length`; `gap_ms=` between them |
//! | `pad=N` | N bytes of filler before the rest, up to 64 MiB |
//! | `trailer=1` | a trailer with the key (HTTP/1.1 sends it only to a request with `TE: trailers`) |
//! | `location=1` | `Location` on the sandbox's own host, the key in its query; `location=URL` sends that |
//! | `hop=1` | HTTP/1.1 only: `Connection: X-Hop`, with the key in `X-Hop` |

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALT_SVC, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, LOCATION, SET_COOKIE, TRAILER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version, request};
use serde_json::json;

use super::body::{self, Body, Step, typed};
use super::coding;
use super::keys::sent_key;
use super::query::Pairs;

/// How much of the request's body is repeated.
const BODY_KEPT: usize = 1 << 20;

const PAD_MOST: usize = 64 << 20;

pub(super) async fn answer<B>(query: &Pairs, authority: &str, head: &request::Parts, body: B) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let (kept, count) = body::read(body, BODY_KEPT).await;
    let key = sent_key(&head.headers).unwrap_or_default();
    let Some(status) = wanted_status(query) else {
        return typed(StatusCode::BAD_REQUEST, "text/plain", "status must be 200 to 599\n");
    };
    let text = text(query, authority, head, &kept, count);
    let Some((coding, coded)) = coding::encode(query.get("coding").unwrap_or("identity"), text.as_bytes()) else {
        return typed(StatusCode::BAD_REQUEST, "text/plain", "unknown coding\n");
    };
    let trailer = query.flag("trailer").then(|| {
        let bearer = HeaderValue::from_str(&format!("Bearer {key}")).ok()?;
        Some(HeaderMap::from_iter([(HeaderName::from_static("x-echo-trailer"), bearer)]))
    });
    let body = match status {
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => Body::full(Bytes::new()),
        _ => paced(query, coded.into(), trailer.flatten()),
    };
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    *answer.headers_mut() = headers(query, authority, head, key);
    if query.get("coding").is_some() {
        answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
    }
    answer
}

fn wanted_status(query: &Pairs) -> Option<StatusCode> {
    let wanted = query.get("status").map_or(Ok(StatusCode::OK), |status| StatusCode::from_bytes(status.as_bytes()));
    wanted.ok().filter(|status| (200..600).contains(&status.as_u16()))
}

fn text(query: &Pairs, authority: &str, head: &request::Parts, kept: &[u8], count: u64) -> String {
    let lines =
        head.headers.iter().map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]));
    let pad = "x".repeat(query.number("pad").unwrap_or(0).min(PAD_MOST));
    // "a_pad" so that the filler comes first: serde_json sorts by name.
    json!({
        "a_pad": pad,
        "authority": authority,
        "body": String::from_utf8_lossy(kept),
        "body_bytes": count,
        "headers": lines.collect::<Vec<_>>(),
        "method": head.method.as_str(),
        "target": head.uri.path_and_query().map(http::uri::PathAndQuery::as_str),
        "version": format!("{:?}", head.version),
    })
    .to_string()
}

fn paced(query: &Pairs, bytes: Bytes, trailer: Option<HeaderMap>) -> Body {
    let gap: Option<Duration> = query.millis("gap_ms");
    let chunk = query.number::<usize>("chunk").filter(|size| *size > 0);
    if chunk.is_none() && trailer.is_none() {
        return Body::full(bytes);
    }
    let (size, total) = (chunk.unwrap_or(bytes.len()), bytes.len());
    let frames = (0..total).step_by(size.max(1)).flat_map(move |at| {
        let data = Step::Data(bytes.slice(at..total.min(at + size)));
        gap.map(Step::Wait).into_iter().chain([data])
    });
    Body::script(frames.chain(trailer.map(Step::Trailers)))
}

fn headers(query: &Pairs, authority: &str, head: &request::Parts, key: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &head.headers {
        if let Ok(name) = HeaderName::try_from(format!("x-echo-{name}")) {
            headers.append(name, value.clone());
        }
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ALT_SVC, HeaderValue::from_static("h3=\":443\"; ma=86400"));
    let mut leak = |name: HeaderName, text: String| {
        // A key that cannot stand in a header could not have come in one.
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.append(name, value);
        }
    };
    leak(SET_COOKIE, format!("session={key}; Path=/; HttpOnly"));
    leak(SET_COOKIE, "language=en".to_owned());
    leak(AUTHORIZATION, format!("Bearer {key}"));
    leak(HeaderName::from_static("x-api-key"), key.to_owned());
    leak(HeaderName::from_static("authentication-info"), format!("nextnonce=\"{key}\""));
    leak(HeaderName::from_static("proxy-authentication-info"), format!("nextnonce=\"{key}\""));
    match query.get("location") {
        Some("1") => leak(LOCATION, format!("https://{authority}/api/v1.3/getHotels?key={key}")),
        Some(url) => leak(LOCATION, url.to_owned()),
        None => {}
    }
    if query.flag("trailer") {
        leak(TRAILER, "x-echo-trailer".to_owned());
    }
    if query.flag("hop") && head.version <= Version::HTTP_11 {
        leak(CONNECTION, "x-hop".to_owned());
        leak(HeaderName::from_static("x-hop"), key.to_owned());
        leak(HeaderName::from_static("keep-alive"), "timeout=60".to_owned());
    }
    headers
}
