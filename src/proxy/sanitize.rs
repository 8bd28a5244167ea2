//! The answer without anything that must not be seen.
//!
//! In: [`Answer`]. Out: [`Sanitized`], whose head and body can be shown to the caller; or the refusal of an answer that
//! nobody can inspect. Fields that carry credentials or belong to one hop go; keys in any other field and in the body
//! are covered by asterisks of the same length; a coded body is inspected in a decoded copy before it is let go. No
//! length changes.

use std::borrow::Cow;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, LOCATION, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::time::timeout;

use super::broken::Broken;
use super::error::ProxyError;
use super::pool::Lease;
use super::rewrite::{is_hop_by_hop, is_provenance, retain};
use super::upstream::Answer;
use crate::keys::Key;
use crate::origin::Origin;
use crate::property::PropertyId;
use crate::wire::field::folded;
use crate::wire::inspect::{Coding, Inspector, Refusal, Step};
use crate::wire::mask::{self, Mask};
use crate::wire::peek::{Peek, Seen};

/// An answer that may be shown.
pub struct Sanitized {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// In a box: it is moved often, and holds a connection.
    pub(super) body: Box<Clean>,
    /// The key it was answered with.
    pub(super) key: Arc<Key>,
    /// Keys covered in header fields.
    pub(super) leaks: u32,
}

/// Cleans the head and prepares the body. `origin` is where the answer comes from; `unreadable` lets bodies through in a
/// coding that nobody here can read; `idle` bounds the wait for the first bytes of a coded body, which are inspected
/// before the head is shown, so that a key in them still has an answer.
///
/// # Errors
/// When the body has a coding that cannot be inspected and may not pass all the same, or its first bytes do not pass.
pub async fn answer(
    answer: Answer,
    origin: &Origin,
    unreadable: bool,
    idle: Duration,
) -> Result<Sanitized, ProxyError> {
    let Answer { status, mut headers, lease, prefix, method, key } = answer;
    let coded = Coded::of(&headers);
    if coded.for_transfer {
        check_framing(&headers)?;
    }
    if status.as_u16() > 599 {
        return Err(ProxyError::UpstreamStatus);
    }
    if status == StatusCode::NO_CONTENT {
        // RFC 9110 8.6: whoever reads 204 without knowing it would wait for so many bytes.
        headers.remove(CONTENT_LENGTH);
    }
    let leaks = clean_headers(&mut headers, origin, prefix);
    let empty =
        method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) || lease.is_end();
    let (filter, legible) = if empty || !coded.content {
        (Filter::Plain(Mask::default()), !empty)
    } else {
        filter(status, &headers, unreadable)?
    };
    let left = if empty { Some(0) } else { lease.left() };
    // Cloudbeds' failures come with 200; of anything else nobody wants to know more than the status.
    let peek = if legible && status == StatusCode::OK { Peek::default() } else { Peek::off() };
    let mut body = Box::new(Clean { lease: Some(lease), filter, peek, left, first: None });
    if matches!(body.filter, Filter::Coded(..)) {
        // In a box: nearly every request goes without.
        Box::pin(body.inspect_first(idle)).await?;
    }
    Ok(Sanitized { status, headers, body, key, leaks })
}

/// Which codings a head speaks of, from one look at each field: nearly all speak of none.
#[derive(Default)]
struct Coded {
    for_transfer: bool,
    content: bool,
}

impl Coded {
    fn of(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self::default(), |coded, name| Self {
            for_transfer: coded.for_transfer | (*name == TRANSFER_ENCODING),
            content: coded.content | (*name == CONTENT_ENCODING),
        })
    }
}

/// An answer whose fields contradict each other about its length, or that hides its content behind a transfer coding
/// nobody here undoes (RFC 9112 6.1 and 6.3): `wire/answer.rs` looks at the last coding alone.
fn check_framing(headers: &HeaderMap) -> Result<(), ProxyError> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    let plain = coding.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
    if plain && !headers.contains_key(CONTENT_LENGTH) { Ok(()) } else { Err(ProxyError::UpstreamFraming) }
}

/// What a body passes through, and whether its content can be read there.
fn filter(status: StatusCode, headers: &HeaderMap, unreadable: bool) -> Result<(Filter, bool), ProxyError> {
    let mut codings = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case(b"identity"));
    let Some(first) = codings.next() else { return Ok((Filter::Plain(Mask::default()), true)) };
    let (coding, second) = (Coding::parse(first), codings.next());
    let is_unknown = |name| Coding::parse(name).is_none();
    if unreadable && (coding.is_none() || second.into_iter().chain(codings).any(is_unknown)) {
        // A server that says what is not so has its plain keys covered all the same.
        return Ok((Filter::Plain(Mask::default()), false));
    }
    let coding = coding.ok_or(ProxyError::UpstreamCoding)?;
    // A second coding hides the first one's content, and a part of a coded body does not decode on its own.
    if second.is_some() || status == StatusCode::PARTIAL_CONTENT {
        return Err(ProxyError::UpstreamCoding);
    }
    Ok((Filter::Coded(Box::new(Inspector::new(coding)), Mode::Feeding), true))
}

/// Leaves the fields that may be seen, keys in them covered; how many were.
fn clean_headers(headers: &mut HeaderMap, origin: &Origin, prefix: Option<PropertyId>) -> u32 {
    retain(headers, |name| is_shown(name.as_str()));
    let (mut leaks, mut located) = (0, false);
    for (name, value) in headers.iter_mut() {
        // The first one; others are no location of anybody's.
        if *name == LOCATION
            && !std::mem::replace(&mut located, true)
            && let Some(ours) = our_location(value, origin, prefix)
        {
            *value = ours;
        }
        if let Some(covered) = mask::value(value.as_bytes()) {
            leaks += 1;
            // Letters became asterisks, so it is as good a value as before.
            *value = HeaderValue::from_bytes(&covered).unwrap_or(HeaderValue::from_static(""));
        }
    }
    one_length(headers);
    leaks
}

/// Leaves at most one `Content-Length`, the first that is one. Where no body follows (HEAD, 304) nobody has
/// looked at the length, and it may be anything.
fn one_length(headers: &mut HeaderMap) {
    let a_length = |value: &&HeaderValue| !value.is_empty() && value.as_bytes().iter().all(u8::is_ascii_digit);
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return };
    if lengths.next().is_none() && a_length(&first) {
        return;
    }
    match headers.get_all(CONTENT_LENGTH).iter().find(a_length).cloned() {
        Some(length) => drop(headers.insert(CONTENT_LENGTH, length)),
        None => drop(headers.remove(CONTENT_LENGTH)),
    }
}

/// Whether a field of an answer may be seen at all.
pub(super) fn is_shown(name: &str) -> bool {
    let folded = folded(name);
    let credential = matches!(
        &*folded,
        "set-cookie" | "set-cookie2" | "cookie" | "authorization" | "x-api-key" | "authentication-info"
    ) || folded.starts_with("proxy-auth");
    let ours = folded.starts_with("x-proxy-") || folded == "proxy-status";
    let of_this_hop = is_hop_by_hop(&folded) || folded == "alt-svc" || is_provenance(&folded);
    // A key for a name could not be covered without changing what field it is.
    let key_in_name = matches!(folded, Cow::Owned(_)) && mask::value(name.as_bytes()).is_some();
    !(credential || ours || of_this_hop || key_in_name)
}

/// A redirect within Cloudbeds, as a path on this listener (RFC 9110 10.2.2 allows a relative reference).
fn our_location(value: &HeaderValue, origin: &Origin, prefix: Option<PropertyId>) -> Option<HeaderValue> {
    let text = value.to_str().ok()?;
    let path = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => {
            let (authority, path) = rest.find(['/', '?', '#']).map_or((rest, "/"), |at| rest.split_at(at));
            let plain = authority.strip_suffix(":443").unwrap_or(authority);
            if !plain.eq_ignore_ascii_case(origin.authority().as_str()) {
                return None;
            }
            if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
        }
        Some(_) => return None,
        None if text.starts_with('/') && !text.starts_with("//") => text.to_owned(),
        None => return None,
    };
    let ours = prefix.map_or(path.clone(), |property| format!("/p/{property}{path}"));
    HeaderValue::try_from(ours).ok()
}

/// The body on its way down, cleaned.
pub struct Clean {
    /// The connection it comes on; `None` once that has been handed on.
    lease: Option<Lease>,
    filter: Filter,
    /// What a plain body begins with; of a coded one the inspector keeps it.
    peek: Peek,
    /// Bytes that have not been handed out yet, where the length is known. Nobody asks once
    /// all have been written, so the end has to be seen here.
    left: Option<u64>,
    /// What was inspected before the head was shown.
    first: Option<Bytes>,
}

enum Filter {
    Plain(Mask),
    Coded(Box<Inspector>, Mode),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mode {
    /// Waits for the next chunk.
    Feeding,
    /// A chunk is under inspection.
    Inspecting,
    /// The end was seen; what was held is under inspection.
    Finishing,
    /// What was held has been let go.
    Finished,
}

/// Why a body ends before its end.
#[derive(Debug, thiserror::Error)]
pub enum Cut {
    /// The upstream connection broke, or the body breaks HTTP.
    #[error("the answer's body ended early")]
    Broken(#[source] Broken),
    /// A coded body holds a key, or does not decode.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nothing arrived for too long.
    #[error("the answer's body stalled")]
    Stalled,
}

impl Clean {
    /// The length that is left, where it is known.
    #[must_use]
    pub fn size_hint(&self) -> http_body::SizeHint {
        self.left.map_or_else(http_body::SizeHint::default, http_body::SizeHint::with_exact)
    }

    /// Whether the last byte has been handed out.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.left == Some(0)
            || (self.lease.as_ref().is_none_or(Lease::is_end) && matches!(self.filter, Filter::Plain(_)))
    }

    /// The connection, once all bytes have been handed out.
    pub fn take_lease(&mut self) -> Option<Lease> {
        self.lease.take()
    }

    /// Keys covered in the body so far.
    #[must_use]
    pub fn masked(&self) -> u32 {
        match &self.filter {
            Filter::Plain(mask) => mask.found(),
            Filter::Coded(..) => 0,
        }
    }

    /// What the body so far is.
    #[must_use]
    pub fn seen(&self) -> Seen<'_> {
        match &self.filter {
            Filter::Plain(_) => self.peek.seen(),
            Filter::Coded(inspector, _) => inspector.seen(),
        }
    }

    async fn inspect_first(&mut self, idle: Duration) -> Result<(), ProxyError> {
        let first = timeout(idle, std::future::poll_fn(|cx| self.poll_clean(cx)));
        match first.await.unwrap_or(Some(Err(Cut::Stalled))).transpose() {
            Ok(first) => self.first = first,
            Err(Cut::Broken(error)) => return Err(ProxyError::UpstreamReset(error)),
            Err(Cut::Refused(refusal)) => return Err(ProxyError::UpstreamRefused(refusal)),
            Err(Cut::Stalled) => return Err(ProxyError::FirstByteTimeout(idle)),
        }
        Ok(())
    }

    /// The next clean bytes; never an empty chunk.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        let polled = match self.first.take() {
            Some(first) => Some(Ok(first)),
            None => ready!(self.poll_clean(cx)),
        };
        if let (Some(Ok(chunk)), Some(left)) = (&polled, &mut self.left) {
            *left = left.saturating_sub(chunk.len() as u64);
        }
        Poll::Ready(polled)
    }

    fn poll_clean(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        loop {
            if let Filter::Coded(inspector, mode) = &mut self.filter {
                match mode {
                    Mode::Inspecting => match inspector.step() {
                        Err(refusal) => return Poll::Ready(Some(Err(refusal.into()))),
                        Ok(Step::Pause) => {
                            // Other connections of this core first.
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        Ok(Step::Release(chunk)) => {
                            *mode = Mode::Feeding;
                            if !chunk.is_empty() {
                                return Poll::Ready(Some(Ok(chunk)));
                            }
                        }
                    },
                    Mode::Finishing => match inspector.finish() {
                        Err(refusal) => return Poll::Ready(Some(Err(refusal.into()))),
                        Ok(Step::Pause) => {
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        Ok(Step::Release(held)) => {
                            *mode = Mode::Finished;
                            return Poll::Ready((!held.is_empty()).then_some(Ok(held)));
                        }
                    },
                    Mode::Finished => return Poll::Ready(None),
                    Mode::Feeding => {}
                }
            }
            let Some(lease) = &mut self.lease else { return Poll::Ready(None) };
            let chunk = match ready!(lease.poll_data(cx)) {
                Some(Ok(chunk)) => chunk,
                Some(Err(error)) => return Poll::Ready(Some(Err(Cut::Broken(error)))),
                None => match &mut self.filter {
                    Filter::Plain(_) => return Poll::Ready(None),
                    Filter::Coded(_, mode) => {
                        *mode = Mode::Finishing;
                        continue;
                    }
                },
            };
            match &mut self.filter {
                Filter::Plain(mask) => {
                    self.peek.pass(&chunk);
                    return Poll::Ready(Some(Ok(mask.chunk(chunk))));
                }
                Filter::Coded(inspector, mode) => {
                    inspector.push(chunk);
                    *mode = Mode::Inspecting;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn shown(lines: &[(&str, &str)]) -> (Vec<String>, u32) {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
        }
        let leaks = clean_headers(&mut headers, &"https://api.cloudbeds.com".parse().unwrap(), None);
        (headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect(), leaks)
    }

    #[test]
    fn fields_that_carry_credentials_or_belong_to_one_hop_are_not_shown() {
        for name in [
            "Set-Cookie",
            "Set_Cookie",
            "Authorization",
            "X-Api-Key",
            "x_api_key",
            "Proxy-Authenticate",
            "Proxy-Authorization",
            "Proxy-Authentication-Info",
            "Authentication-Info",
            "Connection",
            "Keep-Alive",
            "Transfer-Encoding",
            "Upgrade",
            "Trailer",
            "Alt-Svc",
            "X-Proxy-Request-Id",
            "Proxy-Status",
            "X-cbat_abc",
            "X-Forwarded-For",
        ] {
            assert!(shown(&[(name, "x")]).0.is_empty(), "{name}");
        }
        for name in ["X-Request-Id", "WWW-Authenticate", "Retry-After", "Content-Type", "ETag", "Date"] {
            assert_eq!(shown(&[(name, "x")]).0.len(), 1, "{name}");
        }
    }

    #[test]
    fn an_answer_that_contradicts_itself_about_its_length_is_unusable() {
        let framing = |lines: &[(&'static str, &'static str)]| {
            let pairs =
                lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(name, value);
            }
            check_framing(&headers).is_ok()
        };
        assert!(framing(&[]) && framing(&[("content-length", "3")]) && framing(&[("transfer-encoding", "Chunked")]));
        assert!(!framing(&[("transfer-encoding", "gzip, chunked")]));
        assert!(!framing(&[("transfer-encoding", "gzip")]));
        assert!(!framing(&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")]));
        assert!(!framing(&[("transfer-encoding", "chunked"), ("content-length", "3")]));
    }

    #[test]
    fn a_key_in_any_field_is_covered_and_counted() {
        let (lines, leaks) = shown(&[("x-echo", "Bearer cbat_abc, cbat_d"), ("etag", "plain")]);
        assert_eq!(lines, ["x-echo: Bearer cbat_***, cbat_*", "etag: plain"]);
        assert_eq!(leaks, 1);
    }

    #[test]
    fn a_redirect_within_cloudbeds_comes_back_to_us() {
        let origin: Origin = "https://api.cloudbeds.com".parse().unwrap();
        let ours = |location: &str, prefix: Option<u64>| {
            let prefix = prefix.and_then(|id| id.to_string().parse().ok());
            our_location(&HeaderValue::try_from(location).unwrap(), &origin, prefix)
                .map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(ours("https://api.cloudbeds.com/a?b#c", None).as_deref(), Some("/a?b#c"));
        assert_eq!(ours("HTTPS://API.cloudbeds.com:443", None).as_deref(), Some("/"));
        assert_eq!(ours("https://api.cloudbeds.com?x", None).as_deref(), Some("/?x"));
        assert_eq!(ours("/a", Some(7)).as_deref(), Some("/p/7/a"));
        assert_eq!(ours("/a", None).as_deref(), Some("/a"));
        for foreign in ["https://evil.example/a", "http://api.cloudbeds.com/a", "//evil.example/a", "a"] {
            assert_eq!(ours(foreign, None), None, "{foreign}");
        }
    }
}
