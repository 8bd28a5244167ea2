//! Field names: those that nearly all are, and any as a lenient server may read it.
//!
//! In: a name as it was sent, or in lower case as the http crate has it. Out: the same as a constant, or what it becomes
//! where underscores are folded to hyphens, as CGI-style servers do: `x_api_key` is `x-api-key` to them (oauth2-proxy
//! CVE-2025-64484, Traefik CVE-2026-39858).

use std::borrow::Cow;

use http::HeaderName;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING,
    CONTENT_LENGTH, CONTENT_TYPE, DATE, ETAG, HOST, SERVER, TRANSFER_ENCODING, USER_AGENT, VARY,
};

/// The property's header.
pub const X_PROPERTY_ID: HeaderName = HeaderName::from_static("x-property-id");

/// The organisation's header: Cloudbeds' newer endpoints want it, some of them without a property.
pub const X_ORGANIZATION_ID: HeaderName = HeaderName::from_static("x-organization-id");

/// Cloudbeds' name for a request.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The names of nearly all fields, in the two ways they are spelt. They need not be read letter by letter nor, as those that
/// the http crate does not know, be held on the heap.
#[must_use]
pub fn usual(name: &[u8]) -> Option<HeaderName> {
    Some(match name {
        b"Host" | b"host" => HOST,
        b"User-Agent" | b"user-agent" => USER_AGENT,
        b"Accept" | b"accept" => ACCEPT,
        b"Accept-Encoding" | b"accept-encoding" => ACCEPT_ENCODING,
        b"Accept-Language" | b"accept-language" => ACCEPT_LANGUAGE,
        b"Connection" | b"connection" => CONNECTION,
        b"X-Property-Id" | b"X-Property-ID" | b"x-property-id" => X_PROPERTY_ID,
        b"Authorization" | b"authorization" => AUTHORIZATION,
        b"Content-Type" | b"content-type" => CONTENT_TYPE,
        b"Content-Length" | b"content-length" => CONTENT_LENGTH,
        b"Content-Encoding" | b"content-encoding" => CONTENT_ENCODING,
        b"Transfer-Encoding" | b"transfer-encoding" => TRANSFER_ENCODING,
        b"X-Request-Id" | b"X-Request-ID" | b"x-request-id" => X_REQUEST_ID,
        b"Cache-Control" | b"cache-control" => CACHE_CONTROL,
        b"Date" | b"date" => DATE,
        b"ETag" | b"etag" => ETAG,
        b"Server" | b"server" => SERVER,
        b"Vary" | b"vary" => VARY,
        _ => return None,
    })
}

/// The name with its underscores folded. Nearly no name has one, so nothing is copied.
#[must_use]
pub fn folded(name: &str) -> Cow<'_, str> {
    if has_underscore(name.as_bytes()) { Cow::Owned(name.replace('_', "-")) } else { Cow::Borrowed(name) }
}

/// Whether `name` is not `plain`, but becomes it once it is folded.
#[must_use]
pub fn is_twin(name: &str, plain: &str) -> bool {
    name.len() == plain.len() && has_underscore(name.as_bytes()) && folded(name) == plain
}

/// Whether there is an underscore. Every byte is looked at, without branches: for a dozen bytes that is quicker than a
/// search that stops.
#[must_use]
pub fn has_underscore(text: &[u8]) -> bool {
    text.iter().fold(false, |found, byte| found | (*byte == b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usual_name_is_what_the_http_crate_reads() {
        for name in ["Host", "user-agent", "Accept-Encoding", "X-Property-ID", "ETag", "Vary", "Transfer-Encoding"] {
            assert_eq!(usual(name.as_bytes()), HeaderName::from_bytes(name.as_bytes()).ok(), "{name}");
        }
        for name in ["", "hOST", "Host ", "Hos", "X_Property_Id", "X-Organization-Id"] {
            assert_eq!(usual(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn underscores_are_folded_and_only_then_is_a_name_a_twin() {
        assert_eq!(folded("x-api-key"), "x-api-key");
        assert_eq!(folded("x_api-key_"), "x-api-key-");
        assert!(is_twin("x_property_id", "x-property-id") && is_twin("x-property_id", "x-property-id"));
        assert!(!is_twin("x-property-id", "x-property-id") && !is_twin("x_property_i", "x-property-id"));
    }
}
