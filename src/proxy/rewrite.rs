//! The request as Cloudbeds will see it.
//!
//! In: [`Credentialed`]. Out: [`Outbound`], with the key on it. First everything goes that `Connection` nominates or
//! that belongs to one hop, then every credential the caller sent in any spelling; what we set is set last, so nothing
//! the caller sends can remove or replace it. Path, query, body and all other fields pass byte for byte; only a key that
//! says so has its property added to the query.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING,
    CONTENT_LENGTH, CONTENT_TYPE, DATE, ETAG, HOST, SERVER, USER_AGENT, VARY,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::authorize::is_below;
use super::credential::Credentialed;
use super::identify::{Properties, Subject, X_PROPERTY_ID};
use crate::budget::Permit;
use crate::keys::Key;
use crate::origin::Origin;
use crate::property::PropertyId;
use crate::wire::field::folded;
use crate::wire::incoming::Incoming;
use crate::wire::inspect::Coding;

/// Which origin serves a path.
#[derive(Debug)]
pub struct Routes {
    base: Arc<Origin>,
    /// Path prefixes with an origin of their own, longest first.
    prefixes: Vec<(Box<str>, Arc<Origin>)>,
}

impl Routes {
    /// `prefixes` in any order; the longest that fits a path wins.
    #[must_use]
    pub fn new(base: Origin, prefixes: impl IntoIterator<Item = (String, Origin)>) -> Self {
        let mut prefixes: Vec<_> =
            prefixes.into_iter().map(|(prefix, origin)| (prefix.into_boxed_str(), Arc::new(origin))).collect();
        prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        Self { base: Arc::new(base), prefixes }
    }

    /// A path's own origin comes first, since another product answers there; then the key's, then the common one.
    fn origin(&self, path: &str, key: Option<&Arc<Origin>>) -> Arc<Origin> {
        let special = self.prefixes.iter().find(|(prefix, _)| is_below(path.as_bytes(), prefix.as_bytes()));
        Arc::clone(special.map(|(_, origin)| origin).or(key).unwrap_or(&self.base))
    }
}

/// A request ready to be sent: where to, and with which credential.
#[derive(Debug)]
pub struct Outbound {
    pub(super) method: Method,
    pub(super) target: PathAndQuery,
    pub(super) headers: HeaderMap,
    pub(super) body: Incoming,
    pub(super) origin: Arc<Origin>,
    pub(super) prefix: Option<PropertyId>,
    /// The key it carries, for what the answer says about it.
    pub(super) key: Arc<Key>,
    /// The right to start, where budgets are on.
    pub(super) permit: Option<Permit>,
}

/// Rewrites the request.
#[must_use]
pub fn for_cloudbeds(credentialed: Credentialed, routes: &Routes) -> Outbound {
    let Credentialed { identified, key, permit } = credentialed;
    let (parts, body) = identified.request.into_parts();
    // Authorized requests have a path; a bare `/` stands in for the impossible.
    let mut target = rooted(parts.uri.into_parts().path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/")));
    if key.add_property_id && parts.method == Method::GET && !identified.in_query {
        target = with_property(target, &identified.subject);
    }
    let origin = routes.origin(target.path(), key.base_url.as_ref());
    let mut headers = parts.headers;
    match &identified.subject {
        Subject::Properties(properties) => {
            strip(&mut headers, |name| matches!(*name, HOST | AUTHORIZATION) || *name == X_PROPERTY_ID);
            headers.insert(X_PROPERTY_ID, property_header(properties));
        }
        Subject::Organization { .. } => strip(&mut headers, |name| matches!(*name, HOST | AUTHORIZATION)),
    }
    headers.insert(HOST, origin.host_header().clone());
    authorize(&mut headers, &key);
    Outbound { method: parts.method, target, headers, body, origin, prefix: identified.prefix, key, permit }
}

/// Sets the credential, in place of the one that is there.
pub(super) fn authorize(headers: &mut HeaderMap, key: &Key) {
    headers.insert(AUTHORIZATION, key.secret().bearer());
}

/// With the slash that stands for an empty path: in absolute form the query may follow the host at once (RFC 9112 3.2.1,
/// RFC 9113 8.3.1).
fn rooted(target: PathAndQuery) -> PathAndQuery {
    if !target.as_str().starts_with('?') {
        return target;
    }
    PathAndQuery::try_from(format!("/{}", target.as_str())).unwrap_or(target)
}

/// Adds `propertyID` to the query of a classic call about one property: an organisation's key does not say which of its
/// hotels a call is about, and the classic API heeds no header. The list of several goes by other names there.
fn with_property(target: PathAndQuery, subject: &Subject) -> PathAndQuery {
    let Subject::Properties(properties) = subject else { return target };
    if !target.path().starts_with("/api/v1.") || !properties.more().is_empty() {
        return target;
    }
    let joint = if target.query().is_some() { '&' } else { '?' };
    let longer = format!("{target}{joint}propertyID={}", properties.first());
    PathAndQuery::try_from(longer).unwrap_or(target)
}

fn property_header(properties: &Properties) -> HeaderValue {
    let first = properties.first().get();
    if properties.more().is_empty() {
        // Made to measure, where `HeaderValue::from` leaves room that it has to keep count of.
        return HeaderValue::from_str(itoa::Buffer::new().format(first)).unwrap_or_else(|_| HeaderValue::from(first));
    }
    let list: Vec<String> =
        std::iter::once(&properties.first()).chain(properties.more()).map(ToString::to_string).collect();
    // Digits and commas are always a valid value.
    HeaderValue::try_from(list.join(",")).unwrap_or_else(|_| HeaderValue::from(first))
}

/// Takes the caller's fields out that must not travel, but for those that are about to be `replaced`, all lines of them:
/// that costs half of taking them out first. What stays is not moved: a map built anew would cost more than all the
/// looking.
fn strip(headers: &mut HeaderMap, replaced: impl Fn(&HeaderName) -> bool) {
    retain(headers, |name| replaced(name) || stays(name.as_str()));
    for (name, value) in headers.iter_mut() {
        if *name == ACCEPT_ENCODING
            && let Some(fewer) = inspectable(value)
        {
            *value = fewer;
        }
    }
}

/// Removes every field that `keep` does not want or `Connection` nominates, all its lines together. `keep` is not asked
/// about those that pass both ways, which it must want.
pub(super) fn retain(headers: &mut HeaderMap, keep: impl Fn(&HeaderName) -> bool) {
    let nominated = nominated(headers);
    let stays = |name: &HeaderName| {
        (passes_both_ways(name) || keep(name))
            && !nominated.iter().any(|other| other.eq_ignore_ascii_case(name.as_str().as_bytes()))
    };
    let gone: Vec<HeaderName> = headers.keys().filter(|name| !stays(name)).cloned().collect();
    for name in gone {
        headers.remove(name);
    }
}

/// What the caller's `Connection` lines nominate (RFC 9110 7.6.1). What frames the body cannot be nominated away.
fn nominated(headers: &HeaderMap) -> Vec<Bytes> {
    let mut names = Vec::new();
    for (_, line) in headers.iter().filter(|(name, _)| **name == CONNECTION) {
        if matches!(line.as_bytes(), b"keep-alive" | b"Keep-Alive" | b"close") {
            continue;
        }
        for name in line.as_bytes().split(|byte| *byte == b',') {
            let name = name.trim_ascii();
            let keep_alive = name.eq_ignore_ascii_case(b"keep-alive") || name.eq_ignore_ascii_case(b"close");
            if !keep_alive && !name.is_empty() && !name.eq_ignore_ascii_case(b"content-length") {
                names.push(Bytes::copy_from_slice(name));
            }
        }
    }
    names
}

/// Whether it is one of the fields that most heads consist of and that pass in either direction: a look at the number that
/// the http crate has for each of them, where a name is compared with dozens.
fn passes_both_ways(name: &HeaderName) -> bool {
    matches!(
        *name,
        ACCEPT
            | ACCEPT_ENCODING
            | ACCEPT_LANGUAGE
            | CACHE_CONTROL
            | CONTENT_ENCODING
            | CONTENT_LENGTH
            | CONTENT_TYPE
            | DATE
            | ETAG
            | SERVER
            | USER_AGENT
            | VARY
    )
}

/// Whether a request field travels on.
fn stays(name: &str) -> bool {
    match folded(name) {
        Cow::Borrowed(name) => travels(name),
        // Whoever folds underscores to hyphens would read these as the plain fields, or frame the body by them.
        Cow::Owned(folded) => travels(&folded) && folded != "content-length",
    }
}

/// The same for a name without underscores.
fn travels(name: &str) -> bool {
    let set_by_us = matches!(name, "host" | "x-property-id" | "expect") || name.starts_with("x-proxy-");
    // Dummies in credential fields are normal, so they go without a word.
    let credential = matches!(
        name,
        "authorization"
            | "cookie"
            | "proxy-authorization"
            | "proxy-authenticate"
            | "x-api-key"
            | "x-access-token"
            | "x-auth-token"
    );
    // Servers that heed these would serve another path than the one that was authorized.
    let other_path = matches!(name, "x-original-url" | "x-rewrite-url");
    // A part of an answer may hold the tail of a key without the `cbat_` by which the mask knows it. Without the
    // field the whole answer comes, as RFC 9110 14.2 allows.
    let part = matches!(name, "range" | "if-range");
    !(set_by_us || credential || is_provenance(name) || other_path || part || is_hop_by_hop(name))
}

/// Who was asked by whom on the way: neither told nor believed, in either direction.
pub(super) fn is_provenance(name: &str) -> bool {
    matches!(name, "forwarded" | "x-real-ip") || name.starts_with("x-forwarded")
}

/// RFC 9110 7.6.1: fields that end at each hop, whether or not they are nominated.
pub(super) fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// What stands for an `Accept-Encoding` that names codings nobody here can inspect; nothing, and it travels byte for
/// byte, when every coding in it can be inspected on the way back; otherwise only
/// those members that can. zstd goes too: its decoder shows its output too late to inspect a stream as it passes. Where none
/// is left, `identity` stands for it: without the field, any coding would do (RFC 9110 12.5.3).
fn inspectable(value: &HeaderValue) -> Option<HeaderValue> {
    let can = |member: &&[u8]| {
        let name = member.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        name.eq_ignore_ascii_case(b"identity") || Coding::parse(name).is_some_and(|coding| coding != Coding::Zstd)
    };
    // What nearly every client says.
    if matches!(value.as_bytes(), b"gzip" | b"gzip, deflate" | b"gzip, deflate, br") {
        return None;
    }
    let members = || value.as_bytes().split(|byte| *byte == b',');
    if members().all(|member| can(&member)) {
        return None;
    }
    let kept: Vec<&[u8]> = members().filter(can).collect();
    let kept = HeaderValue::from_bytes(kept.join(&b","[..]).trim_ascii()).ok().filter(|value| !value.is_empty());
    Some(kept.unwrap_or(HeaderValue::from_static("identity")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(lines: &[(&str, &str)]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
        }
        strip(&mut headers, |_| false);
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    #[test]
    fn credentials_hop_by_hop_fields_and_their_twins_do_not_travel() {
        let gone = [
            "Authorization",
            "Range",
            "If-Range",
            "X-Original-URL",
            "x_rewrite_url",
            "x-api-key",
            "Cookie",
            "Proxy-Authorization",
            "X_Api_Key",
            "x_api-key",
            "authorization_",
            "Connection",
            "Keep-Alive",
            "Proxy-Connection",
            "TE",
            "Trailer",
            "Transfer-Encoding",
            "Upgrade",
            "HTTP2-Settings",
            "Host",
            "Expect",
            "Forwarded",
            "X-Forwarded-For",
            "X-Forwarded-Host",
            "x_forwarded_for",
            "X-Real-IP",
            "x_real_ip",
            "X-Proxy-Request-Id",
            "x_proxy_request_id",
            "content_length",
            "transfer_encoding",
            "proxy_authorization",
        ];
        for name in gone.into_iter().filter(|name| *name != "authorization_") {
            assert!(rewritten(&[(name, "x")]).is_empty(), "{name}");
        }
        let stays = [
            "Accept",
            "User-Agent",
            "Content-Type",
            "Idempotency-Key",
            "X-Organization-Id",
            "X_Custom",
            "If-None-Match",
        ];
        for name in stays {
            assert_eq!(rewritten(&[(name, "x")]).len(), 1, "{name}");
        }
    }

    #[test]
    fn what_passes_both_ways_would_stay_by_its_name() {
        let passes = |name: &&str| HeaderName::try_from(*name).is_ok_and(|name| passes_both_ways(&name));
        let names = ["accept", "accept-encoding", "accept-language", "cache-control", "content-encoding", "vary"];
        for name in names.iter().chain(&["content-length", "content-type", "date", "etag", "server", "user-agent"]) {
            assert!(passes(name) && stays(name) && super::super::sanitize::is_shown(name), "{name}");
        }
        for name in ["authorization", "connection", "cookie", "host", "set-cookie", "te", "x-property-id", "x-any"] {
            assert!(!passes(&name), "{name}");
        }
    }

    #[test]
    fn what_connection_nominates_goes_and_repeated_fields_stay_together() {
        let mut kept = rewritten(&[
            ("connection", "close, X-Secret ,content-length"),
            ("connection", "x-other"),
            ("x-secret", "1"),
            ("x-other", "2"),
            ("content-length", "3"),
            ("x-many", "a"),
            ("x-many", "b"),
        ]);
        // Lines of one name keep their order; whole fields may trade places (RFC 9110 5.3).
        kept.sort();
        assert_eq!(kept, ["content-length: 3", "x-many: a", "x-many: b"]);
    }

    #[test]
    fn a_paths_own_host_comes_first_and_then_the_keys() {
        let origin = |host: &str| format!("https://{host}.example").parse::<Origin>().unwrap();
        let prefixes = [("/vault".to_owned(), origin("vault")), ("/vault/v2/".to_owned(), origin("newer"))];
        let routes = Routes::new(origin("base"), prefixes);
        let island = Arc::new(origin("island"));
        for (path, key, expected) in [
            ("/api/v1.3/getHotels", None, "base"),
            ("/api/v1.3/getHotels", Some(&island), "island"),
            ("/vault", Some(&island), "vault"),
            ("/vault/v1/tokens", None, "vault"),
            ("/vault/v2/tokens", None, "newer"),
            ("/vaults", None, "base"),
        ] {
            assert_eq!(routes.origin(path, key).host(), format!("{expected}.example"), "{path}");
        }
    }

    #[test]
    fn only_codings_that_can_be_inspected_are_asked_for() {
        let asked = |value: &str| {
            let sent = HeaderValue::try_from(value).unwrap();
            inspectable(&sent).unwrap_or(sent).to_str().unwrap().to_owned()
        };
        for all in ["gzip", "gzip, deflate", "gzip, deflate, br", "gzip,deflate;q=0.5,  br"] {
            assert_eq!(asked(all), all);
        }
        assert_eq!(asked("gzip, zstd, br, dcb"), "gzip, br");
        for nothing in ["*", "zstd", ""] {
            assert_eq!(asked(nothing), "identity");
        }
    }
}
