//! A request head of HTTP/2, held to the rules of HTTP/1.1.
//!
//! In: a head as h2 has decoded it. Out: the same in origin form with its authority as `Host`, as everything behind
//! it expects, or the refusal. h2 has refused before what RFC 9113 8.2 and 8.3 forbid: names in capitals,
//! pseudo-fields that are missing (all but a `:path` beside `Host` alone), doubled, unknown or late,
//! connection-specific fields, `te` other than `trailers`, and a body of another length than the announced one. A `#`
//! in `:path` it cuts off together with what follows before anybody sees it: what is decided on and sent is what is
//! left, so nobody reads it in two ways. Only a second decoder of HPACK under h2 could refuse it. The same goes for a
//! `:scheme` beside `Host` alone, and for pseudo-fields among trailers.

use http::header::{CONTENT_LENGTH, HOST};
use http::request::Parts;
use http::{HeaderValue, Method, Uri};

use super::{
    METHOD_MAX, Seen, TOKEN, TOO_MANY_LINES, all, check_target, is_framing_twin, is_host, length, malformed, too_large,
};
use crate::wire::problem::{Code, Problem};

/// What a field costs beside its name and value in HTTP/1.1: colon, space and line end. Limits mean the same in both.
const LINE: usize = 4;

/// Checks a head and puts it into the form that HTTP/1.1's have.
///
/// # Errors
/// The refusal. The connection stays usable, whatever the problem says of it.
pub fn admit(parts: &mut Parts, max_head_size: usize, max_headers: usize) -> Result<(), Problem> {
    if parts.method.as_str().len() > METHOD_MAX {
        return Err(malformed("The method is not a valid HTTP method; use GET, POST, PUT, PATCH, DELETE or HEAD."));
    }
    fields(parts, max_head_size, max_headers)?;
    let authority = host(parts)?;
    if parts.method == Method::CONNECT {
        // It has no path; what asks for one refuses the method.
        return Ok(());
    }
    // Beside `Host` alone h2 makes an empty path of one that is missing, and as a target that reads `/`.
    let missing = parts.uri.path().is_empty();
    let Some(target) = parts.uri.path_and_query().filter(|_| !missing).cloned() else {
        let words = "The request has no :path; send one that starts with `/`.";
        return Err(Problem { code: Code::PathInvalid, ..malformed(words) });
    };
    if !target.as_str().starts_with('/') && target != "*" {
        return Err(malformed("The :path of the request does not start with `/`; send one that does."));
    }
    check_target(parts.method.as_str().as_bytes(), target.as_str().as_bytes())?;
    if let Some(authority) = authority {
        parts.headers.insert(HOST, authority);
    }
    parts.uri = Uri::from(target);
    Ok(())
}

/// The header fields, and what all of them take.
fn fields(parts: &Parts, max_head_size: usize, max_headers: usize) -> Result<(), Problem> {
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let authority = parts.uri.authority().map_or(0, |authority| authority.as_str().len());
    let mut size = parts.method.as_str().len() + target + authority + 2 * LINE;
    let mut lines = 0;
    let mut seen = Seen::default();
    for (name, value) in &parts.headers {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        (lines, size) = (lines + 1, size + name.len() + value.len() + LINE);
        if lines > max_headers {
            return Err(TOO_MANY_LINES);
        }
        // RFC 9113 8.2.1. The http crate takes `"` for a part of a name, which no parser of HTTP/1.1 does.
        if !all(name, TOKEN) {
            return Err(malformed("A header name contains a character that names cannot have."));
        }
        // The same; whoever passes it on in HTTP/1.1 would lose it, and another field could come of it.
        if value.trim_ascii().len() != value.len() {
            return Err(malformed("A header value begins or ends with white space; remove it."));
        }
        if name == CONTENT_LENGTH.as_str().as_bytes() {
            length(value, &mut seen)?;
        } else if is_framing_twin(name) {
            return Err(malformed(
                "A header name is a framing header's, or an underscore twin of one; HTTP/2 needs none of them.",
            ));
        }
    }
    if size > max_head_size {
        return Err(too_large("The request's headers are too large; send less, or raise client.max_head_size."));
    }
    Ok(())
}

/// The authority, if `Host` does not say it already. RFC 9113 8.3.1: the two must agree, and one must be there.
fn host(parts: &Parts) -> Result<Option<HeaderValue>, Problem> {
    let mut lines = parts.headers.get_all(HOST).iter();
    let (host, more) = (lines.next(), lines.next());
    if more.is_some() {
        return Err(malformed("The request has more than one Host header; send exactly one."));
    }
    let bad =
        "The Host header or :authority is not a host name with an optional port; send one such as localhost:8080.";
    if host.is_some_and(|host| !is_host(host.as_bytes())) {
        return Err(malformed(bad));
    }
    let Some(authority) = parts.uri.authority() else {
        return match host {
            Some(_) => Ok(None),
            None => Err(malformed("The request has neither :authority nor Host; send one of them.")),
        };
    };
    let authority = authority.as_str();
    if !is_host(authority.as_bytes()) || authority.is_empty() {
        return Err(malformed(bad));
    }
    if host.is_some_and(|host| !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes())) {
        return Err(malformed("Host and :authority name two different hosts; send the same, or :authority alone."));
    }
    // With CONNECT there is no scheme.
    if parts.uri.scheme_str().is_some_and(|scheme| !scheme.eq_ignore_ascii_case("https")) {
        return Err(malformed("The :scheme of the request is not https, which this listener speaks."));
    }
    Ok(HeaderValue::from_str(authority).ok())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn admitted(uri: &str, headers: &[(&str, &str)]) -> Result<(String, String), &'static str> {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        admit(&mut parts, 1000, 5).map_err(|problem| problem.code.as_str())?;
        let host = parts.headers.get(HOST).unwrap().to_str().unwrap().to_owned();
        Ok((parts.uri.to_string(), host))
    }

    #[test]
    fn a_head_takes_the_form_of_http1() {
        let form = |uri: &str, host: &str| Ok((uri.to_owned(), host.to_owned()));
        assert_eq!(admitted("https://a:1/b?c", &[]), form("/b?c", "a:1"));
        assert_eq!(admitted("https://a", &[("host", "A")]), form("/", "a"));
        assert_eq!(admitted("HTTPS://a/b", &[]), form("/b", "a"));
        assert_eq!(admitted("/b", &[("host", "a")]), form("/b", "a"));
        assert_eq!(admitted("*", &[("host", "a")]), form("*", "a"));
    }

    #[test]
    fn a_path_that_is_missing_is_not_taken_for_that_of_the_root() {
        // What h2 makes of a head without `:path` and `:authority`.
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.uri = Uri::from_parts(http::uri::Parts::default()).unwrap();
        parts.headers.insert(HOST, HeaderValue::from_static("a"));
        assert_eq!(admit(&mut parts, 1000, 5).unwrap_err().code.as_str(), "path_invalid");
    }

    #[test]
    fn what_http1_refuses_http2_refuses() {
        for (uri, headers) in [
            ("/b", &[][..]),
            ("https://a/", &[("host", "b")]),
            ("https://a/", &[("host", "a"), ("host", "a")]),
            ("https://u@a/", &[]),
            ("http://a/", &[]),
            ("/b", &[("host", "a b")]),
            ("https://a/", &[("content-length", "1"), ("content-length", "1")]),
            ("https://a/", &[("content-length", "01")]),
            ("https://a/", &[("content_length", "1")]),
            ("https://a/", &[("transfer-encoding", "chunked")]),
            ("https://a/", &[("transfer_encoding", "chunked")]),
            ("https://a/", &[("x", " a")]),
            ("https://a/", &[("x", "a\t")]),
        ] {
            assert_eq!(admitted(uri, headers), Err("request_invalid"), "{uri} {headers:?}");
        }
        let long = "a".repeat(1000);
        for headers in [&[("x", "1"); 6][..], &[("x", &*long)]] {
            assert_eq!(admitted("https://a/", headers), Err("headers_too_large"));
        }
        assert_eq!(admitted(&format!("https://a/{long}"), &[]), Err("headers_too_large"));
    }
}
