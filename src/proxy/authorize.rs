//! What may be asked for through this port at all.
//!
//! In: [`Identified`]. Out: [`Authorized`], or a refusal. The decision is taken on the very bytes that are sent on:
//! nothing is decoded, merged or cleaned up, and a target that two servers could read differently is refused.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use http::header::{CONNECTION, EXPECT, UPGRADE};
use http::{HeaderMap, Method, Uri, Version};
use percent_encoding::percent_decode;

use super::Arrival;
use super::callers::{Callers, Known, X_PROXY_TOKEN};
use super::error::ProxyError;
use super::identify::{Identified, X_ORGANIZATION_ID, X_PROPERTY_ID};
use crate::listen::Peer;
use crate::telemetry::Sparing;
use crate::wire::site::Sites;

/// How often a path may be encoded over and over. Nobody does it twice in earnest, and each round costs the whole path.
const ROUNDS: u32 = 3;

/// What the port allows beyond the default.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Lets the paths through that hand out or destroy credentials.
    pub credential_paths: bool,
    /// Lets answers through in a coding that nobody here can read.
    pub unreadable_codings: bool,
    /// Who may ask for what; nothing serves whoever reaches the listener.
    pub callers: Option<Callers>,
    /// The pages and names that are welcome.
    pub sites: Arc<Sites>,
    /// How often requests of other pages are told.
    pub pages: Arc<Sparing>,
}

/// A request that may go to Cloudbeds.
#[derive(Debug)]
pub struct Authorized {
    pub(super) identified: Identified,
}

impl Policy {
    /// Who asks. It is the first question of all, so that a stranger learns nothing of what would be let through.
    ///
    /// # Errors
    /// When callers are named and it is none of them.
    pub fn who<'a>(
        &'a self,
        headers: &HeaderMap,
        arrival: &'a Arrival,
        peer: impl Fn() -> Option<Peer>,
    ) -> Result<Known<'a>, ProxyError> {
        if arrival.shown.as_ref().is_some_and(|shown| !shown.counts()) {
            return Err(ProxyError::CertificateRevoked);
        }
        self.page(headers, arrival, &peer)?;
        let Some(callers) = &self.callers else { return Ok(Known(None)) };
        callers.who(headers, arrival, peer).map(|known| Known(Some(known)))
    }

    /// Judges method, target and expectations, and whether `caller` may ask for it. `local` is the address the caller reached us at.
    ///
    /// # Errors
    /// The first thing that is never forwarded.
    pub fn authorize(
        &self,
        identified: Identified,
        caller: Known<'_>,
        arrival: &Arrival,
    ) -> Result<Authorized, ProxyError> {
        let request = &identified.request;
        if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
            return Err(ProxyError::Method);
        }
        let headers = request.headers();
        let wants = Wants::of(headers);
        // RFC 9110 7.8: HTTP/1.0 has no upgrades; there the field is overlooked, and does not travel.
        if request.version() != Version::HTTP_10 && wants.upgrade {
            return Err(ProxyError::Upgrade);
        }
        if wants.other_than_continue {
            return Err(ProxyError::Expectation);
        }
        let uri = request.uri();
        if uri.authority().is_some() && !is_ours(uri, arrival) {
            return Err(ProxyError::ForeignHost);
        }
        let path = uri.path();
        let decoded = unambiguous(path)?;
        if !self.credential_paths && is_credential_path(&decoded) {
            return Err(ProxyError::CredentialPath);
        }
        if let Known(Some(caller)) = caller {
            caller.may(request.method(), &decoded, headers, &identified.subject)?;
        }
        Ok(Authorized { identified })
    }
}

impl Policy {
    /// Refuses what a page of another site sends by way of somebody's browser. No page reaches a unix socket, and none
    /// knows a caller's token. Nor can one of another site name a hotel by a header: a browser asks first, with a request
    /// that has no such header, and that is refused (Fetch, 4.8, CORS-preflight fetch). So a reverse proxy may hand its
    /// browsers' `Origin` on with a header of its own. A name of its own can lead a page to this host (DNS rebinding), where
    /// it counts as one of ours; on a network names are not looked at, since applications use all sorts of them there.
    fn page(&self, headers: &HeaderMap, arrival: &Arrival, peer: &impl Fn() -> Option<Peer>) -> Result<(), ProxyError> {
        let Some(local) = arrival.local else { return Ok(()) };
        if self.callers.is_some() && headers.contains_key(X_PROXY_TOKEN) {
            return Ok(());
        }
        let by_name = self.callers.is_none() && !arrival.encrypted && local.ip().to_canonical().is_loopback();
        let named = headers.contains_key(X_PROPERTY_ID) || headers.contains_key(X_ORGANIZATION_ID);
        let why = if !named && self.sites.is_foreign(headers) {
            ProxyError::ForeignPage
        } else if by_name && self.sites.is_rebound(headers) {
            ProxyError::ForeignName
        } else {
            return Ok(());
        };
        if let Some(silent) = self.pages.turn(Instant::now()) {
            let peer = peer().map(tracing::field::display);
            tracing::warn!(peer, not_told = silent, "a request was refused: {why}");
        }
        Err(why)
    }
}

/// Whether a path is `prefix` or below it. Whole segments: `/vault` is not the start of `/vaults`.
pub(super) fn is_below(path: &[u8], prefix: &[u8]) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| prefix.ends_with(b"/") || rest.is_empty() || rest.starts_with(b"/"))
}

/// What a head asks of the connection.
#[derive(Default)]
struct Wants {
    upgrade: bool,
    other_than_continue: bool,
}

impl Wants {
    /// Looks at every field once, which is quicker than to look three of them up.
    fn of(headers: &HeaderMap) -> Self {
        let is_upgrade = |name: &[u8]| name.trim_ascii().eq_ignore_ascii_case(b"upgrade");
        let mut wants = Self::default();
        for (name, value) in headers {
            match *name {
                UPGRADE => wants.upgrade = true,
                CONNECTION => wants.upgrade |= value.as_bytes().split(|byte| *byte == b',').any(is_upgrade),
                EXPECT => wants.other_than_continue |= !value.as_bytes().eq_ignore_ascii_case(b"100-continue"),
                _ => {}
            }
        }
        wants
    }
}

/// RFC 9112 3.2.2: absolute-form must be accepted; it must name this listener, as it is spoken to.
fn is_ours(uri: &Uri, arrival: &Arrival) -> bool {
    let (scheme, port) = if arrival.encrypted { ("https", 443) } else { ("http", 80) };
    // RFC 9110 4.2.4: user information in an authority is a trick more often than not.
    if uri.scheme_str() != Some(scheme) || uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return false;
    }
    let (Some(host), Some(local)) = (uri.host(), arrival.local) else { return false };
    let port = uri.port_u16().unwrap_or(port);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let named = host.eq_ignore_ascii_case("localhost") && local.ip().is_loopback();
    port == local.port() && (named || host.parse() == Ok(local.ip()))
}

/// The path, decoded as often as it can be where anything is encoded; refused when a second reading of it could differ.
fn unambiguous(path: &str) -> Result<Cow<'_, [u8]>, ProxyError> {
    let raw = path.as_bytes();
    // Every byte is looked at, so that many are at a time; so it is in `plain`.
    if raw.first() != Some(&b'/') || !raw.iter().fold(true, |graphic, byte| graphic & byte.is_ascii_graphic()) {
        return Err(ProxyError::Path);
    }
    plain(raw)?;
    if !raw.contains(&b'%') {
        return Ok(Cow::Borrowed(raw));
    }
    if !well_encoded(raw) {
        return Err(ProxyError::Path);
    }
    // An encoded separator is a separator to some servers and a letter to others.
    let mut decoded: Vec<u8> = percent_decode(raw).collect();
    if count(&decoded, b'/') != count(raw, b'/') {
        return Err(ProxyError::Path);
    }
    decoded_plain(&decoded)?;
    // What decodes once more may be decoded once more behind us: `%252e` is a dot to whoever does it.
    for round in 0.. {
        let again: Vec<u8> = percent_decode(&decoded).collect();
        if again == decoded {
            break;
        }
        if round == ROUNDS {
            return Err(ProxyError::Path);
        }
        if count(&again, b'/') != count(&decoded, b'/') {
            return Err(ProxyError::Path);
        }
        decoded_plain(&again)?;
        decoded = again;
    }
    Ok(Cow::Owned(decoded))
}

/// The same for what was encoded. It is text: bytes that are no UTF-8 are a dot or a slash to decoders that take the
/// overlong form `%c0%ae` (RFC 3629 10).
fn decoded_plain(decoded: &[u8]) -> Result<(), ProxyError> {
    if std::str::from_utf8(decoded).is_err() {
        return Err(ProxyError::Path);
    }
    plain(decoded)
}

fn count(bytes: &[u8], wanted: u8) -> usize {
    memchr::memchr_iter(wanted, bytes).count()
}

/// Every `%` is followed by two hex digits (RFC 3986 2.1).
fn well_encoded(raw: &[u8]) -> bool {
    memchr::memchr_iter(b'%', raw)
        .all(|at| raw.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)))
}

/// No empty or dot segment, with its parameters or without, no backslash, no control byte, no `#`.
fn plain(path: &[u8]) -> Result<(), ProxyError> {
    if path.iter().fold(false, |bad, byte| bad | (*byte < b' ') | matches!(*byte, b'\\' | b'#' | 0x7f)) {
        return Err(ProxyError::Path);
    }
    // What begins with another byte is neither empty nor of dots, with parameters, spaces or without.
    let begins_oddly = |slash: usize| matches!(path.get(slash + 1), Some(b'/' | b'.' | b';' | b' '));
    if !memchr::memchr_iter(b'/', path).any(begins_oddly) {
        return Ok(());
    }
    let mut segments = path.split(|byte| *byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        // Servers that know path parameters read `..;x` as `..` (RFC 3986 3.3).
        // Systems that cut spaces off read `.. ` as `..` (CWE-46).
        let name = segment.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let last = segments.peek().is_none();
        // To both, `/;x/` and `/%20/` are the empty segment of `//`, which many merge: `/payments/;x/sdk-api/v1/keys`.
        if (name.is_empty() && !last) || matches!(name, b"." | b"..") {
            return Err(ProxyError::Path);
        }
    }
    Ok(())
}

/// Paths that hand out credentials or destroy them (API Keys guide; postAppState ends all sessions of an app).
fn is_credential_path(decoded: &[u8]) -> bool {
    // Segments as a lenient server would compare them: any case, without parameters.
    let mut segments = decoded
        .split(|byte| *byte == b'/')
        .map(|segment| segment.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii())
        .filter(|name| !name.is_empty());
    let is = |name: &[u8], known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    let mut last: [&[u8]; 4] = [b""; 4];
    while let Some(name) = segments.next() {
        last = [last[1], last[2], last[3], name];
        // What an app may know of the way to a token is public; the way itself is not for it.
        let mut behind = segments.clone();
        let mut is_metadata = || behind.next().is_some_and(|next| is(next, "metadata")) && behind.next().is_none();
        if is(name, "access_token")
            || is(name, "postAppState")
            || (is(name, "oauth") && !is_metadata())
            || last.iter().zip(["payments", "sdk-api", "v1", "keys"]).all(|(name, known)| is(name, known))
        {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_pass_as_they_are() {
        for path in [
            "/",
            "/api/v1.3/getHotels",
            "/a/",
            "/a..b/.c/d.",
            "/rooms%5B0%5D",
            "/a%20b",
            "/100%25",
            "/%C3%BC",
            "/a;b=c",
        ] {
            assert!(unambiguous(path).is_ok(), "{path}");
        }
    }

    #[test]
    fn paths_with_a_second_reading_are_refused() {
        for path in [
            "",
            "*",
            "a",
            "//",
            "/a//b",
            "/.",
            "/..",
            "/a/./b",
            "/a/../b",
            "/a/..",
            "/%2e",
            "/%2E%2e/a",
            "/.%2e/a",
            "/a/%2e./b",
            "/%252e%252e/a",
            "/%25252e/a",
            "/a%2fb",
            "/a%2Fb",
            "/a%252fb",
            "/a%5cb",
            "/a\\b",
            "/a%255cb",
            "/a%00",
            "/a%2500",
            "/a%0d%0ab",
            "/a%7f",
            "/a%23b",
            "/a%",
            "/a%2",
            "/a%zz",
            "/ü",
            "/..;/a",
            "/%c0%ae%c0%ae/a",
            "/%25c0%25ae/a",
            "/a%c0%afb",
            "/a%ffb",
            "/..%20/a",
            "/a/..;x/b",
            "/%2e%2e;x/a",
            "/;x/a",
            "/a/;/b",
            "/a/%20/b",
            "/a/%3bx/b",
            "/payments/;x/sdk-api/v1/keys",
        ] {
            assert!(matches!(unambiguous(path), Err(ProxyError::Path)), "{path}");
        }
    }

    #[test]
    fn a_path_that_is_encoded_over_and_over_is_refused_at_once() {
        assert!(unambiguous("/a%2525b").is_ok());
        let path = format!("/%{}", "25".repeat(32_000));
        assert!(matches!(unambiguous(&path), Err(ProxyError::Path)));
    }

    #[test]
    fn credentials_are_neither_handed_out_nor_destroyed() {
        let refused = |path: &str| is_credential_path(&unambiguous(path).unwrap());
        for path in [
            "/api/v1.1/access_token",
            "/api/v1.3/ACCESS_TOKEN",
            "/api/v1.3/access%5Ftoken",
            "/api/v1.3/%2561ccess_token",
            "/api/v1.3/access_token/",
            "/api/v1.3/access_token/x",
            "/api/v1.3/access_token;x",
            "/api/v1.2/oauth",
            "/api/v1.2/oauth/",
            "/oauth/metadata/x",
            "/oauth/x",
            "/api/v1.3/postAppState",
            "/payments/sdk-api/v1/keys",
            "/Payments/SDK-API/v1/keys/1",
            "/x/payments/sdk-api/v1/keys",
        ] {
            assert!(refused(path), "{path}");
        }
        for path in
            ["/api/v1.3/oauth/metadata", "/api/v1.3/getHotels", "/payments/sdk-api/v1/key", "/api/v1.3/getAppState"]
        {
            assert!(!refused(path), "{path}");
        }
    }

    #[test]
    fn absolute_form_must_name_this_listener_as_it_is_spoken_to() {
        let arrival = |local: Option<&str>, encrypted| {
            let local = local.map(|local| local.parse().unwrap());
            Arrival {
                identify: super::super::identify::Settings::default(),
                local,
                encrypted,
                known: None,
                shown: None,
            }
        };
        let plain = arrival(Some("127.0.0.1:8080"), false);
        for uri in ["http://127.0.0.1:8080/a", "http://localhost:8080/a", "http://LOCALHOST:8080/a"] {
            assert!(is_ours(&uri.parse().unwrap(), &plain), "{uri}");
        }
        for uri in [
            "http://user@127.0.0.1:8080/a",
            "http://127.0.0.1/a",
            "https://127.0.0.1:8080/a",
            "http://api.cloudbeds.com/a",
            "http://[::1]:8080/a",
        ] {
            assert!(!is_ours(&uri.parse().unwrap(), &plain), "{uri}");
        }
        assert!(is_ours(&"https://127.0.0.1/a".parse().unwrap(), &arrival(Some("127.0.0.1:443"), true)));
        assert!(!is_ours(&"http://127.0.0.1:443/a".parse().unwrap(), &arrival(Some("127.0.0.1:443"), true)));
        assert!(!is_ours(&"http://localhost:8080/a".parse().unwrap(), &arrival(None, false)));
    }
}
