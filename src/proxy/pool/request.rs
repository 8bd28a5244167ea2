//! A request without its body, before it is known which version it is sent in.
//!
//! It stays with whoever sends it, so that it can be sent once more without having been copied.

use http::uri::PathAndQuery;
use http::{HeaderMap, Method};

/// Method, target and fields, `Host` among them.
#[derive(Clone, Debug)]
pub struct Head {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub target: PathAndQuery,
    /// The fields; what says how the body is framed is up to the connection, but for `Content-Length`.
    pub headers: HeaderMap,
}

/// Whether a request with this method says so when it has no content: where content means something, its absence does too
/// (RFC 9110 8.6).
pub(super) fn says_that_none_follows(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}
