//! A request without its body, before it is known which version it is sent in.
//!
//! It stays with whoever sends it, so that it can be sent once more without having been copied.

use http::header::{CONTENT_LENGTH, HOST};
use http::uri::{Parts, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Uri, Version};
use http_body::Body as _;

use crate::origin::Origin;
use crate::wire::body::Upload;

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

impl Head {
    /// The same for HTTP/2.
    pub(in crate::proxy) fn http2(&self, upload: &Upload, origin: &Origin) -> Request<()> {
        let Self { method, target, mut headers } = self.clone();
        // RFC 9113 8.3.1: `:authority` stands in for Host.
        headers.remove(HOST);
        // RFC 9110 8.6: where content means something, its absence is said too.
        let means = !matches!(method, Method::GET | Method::HEAD | Method::DELETE);
        if let Some(length) = upload.size_hint().exact().filter(|length| *length > 0 || means) {
            headers.entry(CONTENT_LENGTH).or_insert_with(|| length.into());
        }
        let mut parts = Parts::default();
        parts.path_and_query = Some(target);
        parts.scheme = Some(Scheme::HTTPS);
        parts.authority = Some(origin.authority().clone());
        let mut request = Request::new(());
        *request.method_mut() = method;
        // All three parts always make a URI.
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = headers;
        request
    }
}
