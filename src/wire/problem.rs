//! The error codes scripts rely on, and the answer that carries one.
//!
//! In: a [`Code`] and a fixed sentence. Out: a response that both an HTTP client and a Cloudbeds client recognise as a
//! failure: a non-2xx status, `application/problem+json` (RFC 9457) with Cloudbeds' own `success:false,message`, and
//! `Proxy-Status` (RFC 9209). Nothing a caller or an upstream sent is ever quoted; property ids are numbers by type.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};

/// RFC 9209's field name.
pub const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// What went wrong, as one stable word. Each has one status.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum Code {
    /// No `X-Property-Id`, and no fallback that is switched on found one.
    PropertyMissing,
    /// `X-Property-Id` is there but is not exactly one id, or a list of ids one key serves.
    PropertyInvalid,
    /// The header names one property and the query or path another.
    PropertyConflict,
    /// The request target is ambiguous: dot segments, encoded separators, control bytes, a foreign authority.
    PathInvalid,
    /// The message breaks RFC 9112, or its body did not arrive as announced.
    RequestInvalid,
    /// The request shows no token that a caller here has.
    CallerUnknown,
    /// The caller may not ask for this property, method or path.
    CallerRefused,
    /// No key for this property.
    PropertyUnknown,
    /// A path that hands out or destroys credentials.
    PathRefused,
    /// CONNECT or TRACE.
    MethodRefused,
    /// Cloudbeds is known to refuse the property's key.
    KeyRejected,
    /// The app's requests per second are used up for longer than a request may wait.
    BudgetExhausted,
    /// The request head is larger than the limit.
    HeadersTooLarge,
    /// The request wants another protocol on this connection.
    UpgradeUnsupported,
    /// The upstream's name does not resolve, or no connection could be made in time.
    UpstreamUnreachable,
    /// The TLS handshake failed or took too long; no key was sent.
    UpstreamTls,
    /// The connection ended before the answer was complete.
    UpstreamReset,
    /// The answer breaks HTTP, or cannot be inspected for keys.
    UpstreamInvalid,
    /// The process is ending and takes no new requests.
    Draining,
    /// As many connections are open as allowed.
    Overloaded,
    /// Connected, but no answer (or no progress) in time.
    UpstreamTimeout,
}

impl Code {
    /// Every code, in the order of the declaration, so that `ALL[code as usize] == code`.
    pub const ALL: [Self; 21] = [
        Self::PropertyMissing,
        Self::PropertyInvalid,
        Self::PropertyConflict,
        Self::PathInvalid,
        Self::RequestInvalid,
        Self::CallerUnknown,
        Self::CallerRefused,
        Self::PropertyUnknown,
        Self::PathRefused,
        Self::MethodRefused,
        Self::KeyRejected,
        Self::BudgetExhausted,
        Self::HeadersTooLarge,
        Self::UpgradeUnsupported,
        Self::UpstreamUnreachable,
        Self::UpstreamTls,
        Self::UpstreamReset,
        Self::UpstreamInvalid,
        Self::Draining,
        Self::Overloaded,
        Self::UpstreamTimeout,
    ];

    /// The word itself, as it stands in bodies, logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PropertyMissing => "property_missing",
            Self::PropertyInvalid => "property_invalid",
            Self::PropertyConflict => "property_conflict",
            Self::PathInvalid => "path_invalid",
            Self::RequestInvalid => "request_invalid",
            Self::CallerUnknown => "caller_unknown",
            Self::CallerRefused => "caller_refused",
            Self::PropertyUnknown => "property_unknown",
            Self::PathRefused => "path_refused",
            Self::MethodRefused => "method_refused",
            Self::KeyRejected => "key_rejected",
            Self::BudgetExhausted => "budget_exhausted",
            Self::HeadersTooLarge => "headers_too_large",
            Self::UpgradeUnsupported => "upgrade_unsupported",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamTls => "upstream_tls",
            Self::UpstreamReset => "upstream_reset",
            Self::UpstreamInvalid => "upstream_invalid",
            Self::Draining => "draining",
            Self::Overloaded => "overloaded",
            Self::UpstreamTimeout => "upstream_timeout",
        }
    }

    /// The status it is answered with.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::PropertyMissing
            | Self::PropertyInvalid
            | Self::PropertyConflict
            | Self::PathInvalid
            | Self::RequestInvalid => StatusCode::BAD_REQUEST,
            Self::CallerUnknown => StatusCode::UNAUTHORIZED,
            Self::CallerRefused | Self::PropertyUnknown | Self::PathRefused => StatusCode::FORBIDDEN,
            Self::MethodRefused => StatusCode::METHOD_NOT_ALLOWED,
            Self::KeyRejected => StatusCode::FAILED_DEPENDENCY,
            Self::BudgetExhausted => StatusCode::TOO_MANY_REQUESTS,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UpgradeUnsupported => StatusCode::NOT_IMPLEMENTED,
            Self::UpstreamUnreachable | Self::UpstreamTls | Self::UpstreamReset | Self::UpstreamInvalid => {
                StatusCode::BAD_GATEWAY
            }
            Self::Draining | Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// A short summary, the same for every occurrence (RFC 9457 3.1.3).
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::PropertyMissing => "No property named",
            Self::PropertyInvalid => "Not a property id",
            Self::PropertyConflict => "Two different properties named",
            Self::PathInvalid => "Ambiguous request target",
            Self::RequestInvalid => "Malformed request",
            Self::CallerUnknown => "Caller not known",
            Self::CallerRefused => "Not for this caller",
            Self::PropertyUnknown => "Property not connected",
            Self::PathRefused => "Path not available through the proxy",
            Self::MethodRefused => "Method not available through the proxy",
            Self::KeyRejected => "Hotel must be connected again",
            Self::BudgetExhausted => "Requests per second used up",
            Self::HeadersTooLarge => "Request head too large",
            Self::UpgradeUnsupported => "Upgrade not supported",
            Self::UpstreamUnreachable => "Cloudbeds could not be reached",
            Self::UpstreamTls => "No trustworthy TLS connection to Cloudbeds",
            Self::UpstreamReset => "Cloudbeds closed the connection",
            Self::UpstreamInvalid => "Unusable answer from Cloudbeds",
            Self::Draining => "Proxy is shutting down",
            Self::Overloaded => "Proxy is overloaded",
            Self::UpstreamTimeout => "Cloudbeds did not answer in time",
        }
    }
}

/// One failure as the caller sees it.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The stable word.
    pub code: Code,
    /// What happened and what to do about it; fixed words, and property ids at most.
    pub detail: Cow<'static, str>,
    /// RFC 9209 2.3's error type, as narrow as is known.
    pub proxy_error: &'static str,
    /// Whether the connection cannot be used any further.
    pub close: bool,
    /// What there is to say about the hotel's key.
    pub about: Option<Box<About>>,
    /// Seconds until another try makes sense: `Retry-After`.
    pub retry_after: Option<u64>,
}

/// A dead key, in members of its own (RFC 9457 3.2).
#[derive(Clone, Debug)]
pub struct About {
    /// Why it is dead, as a stable word: the member `verdict`.
    pub verdict: &'static str,
    /// Where the hotel connects again: the member `connect_url`. It comes from the configuration.
    pub link: Option<String>,
    /// Seconds until a new call can have another answer: `Retry-After`.
    pub retry_after: u64,
}

impl Problem {
    /// A failure in fixed words, on a connection that stays usable.
    #[must_use]
    pub const fn new(code: Code, proxy_error: &'static str, detail: &'static str) -> Self {
        Self { code, detail: Cow::Borrowed(detail), proxy_error, close: false, about: None, retry_after: None }
    }

    /// The same, ending the connection: after a framing error nobody knows where the next message starts.
    #[must_use]
    pub const fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// The same with the time until another try makes sense, in seconds.
    #[must_use]
    pub const fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The same with what is known of the key.
    #[must_use]
    pub fn about(mut self, about: About) -> Self {
        self.about = Some(Box::new(about));
        self
    }

    /// The answer. Its body is complete and its length known.
    #[must_use]
    pub fn response(&self) -> Response<Bytes> {
        let body = self.body();
        let mut answer = Response::new(Bytes::new());
        *answer.status_mut() = self.code.status();
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(self.proxy_status())) {
            headers.insert(PROXY_STATUS, value);
        }
        if self.code == Code::CallerUnknown {
            // RFC 9110 15.5.2: a 401 must say how. No registered scheme takes a token in a field of its own.
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("X-Proxy-Token"));
        }
        if self.code == Code::MethodRefused {
            // RFC 9110 15.5.6: a 405 must say what is allowed.
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
        }
        let about = self.about.as_ref().map(|about| about.retry_after);
        if let Some(seconds) = about.or(self.retry_after) {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        *answer.body_mut() = body;
        answer
    }

    fn proxy_status(&self) -> String {
        let code = self.code.as_str();
        ["cloudbeds-auth-proxy; error=", self.proxy_error, "; details=\"", code, "\""].concat()
    }

    fn body(&self) -> Bytes {
        let (status, code, detail) = (self.code.status(), self.code.as_str(), escaped(&self.detail));
        let mut json = String::with_capacity(320 + 2 * detail.len());
        json.push_str("{\"type\":\"urn:cloudbeds-auth-proxy:problem:");
        json.push_str(code);
        json.push_str("\",\"title\":\"");
        json.push_str(self.code.title());
        json.push_str("\",\"status\":");
        json.push_str(status.as_str());
        json.push_str(",\"detail\":\"");
        json.push_str(&detail);
        json.push_str("\",\"code\":\"");
        json.push_str(code);
        json.push_str("\",\"success\":false,\"message\":\"");
        json.push_str(&detail);
        json.push('"');
        if let Some(about) = &self.about {
            about.add_to(&mut json);
        }
        json.push_str("}\n");
        Bytes::from(json)
    }
}

impl About {
    fn add_to(&self, json: &mut String) {
        json.extend([",\"verdict\":\"", self.verdict, "\""]);
        if let Some(link) = &self.link {
            json.extend([",\"connect_url\":\"", &escaped(link), "\""]);
        }
    }
}

/// A sentence or a link inside a JSON text.
fn escaped(plain: &str) -> Cow<'_, str> {
    if memchr::memchr2(b'"', b'\\', plain.as_bytes()).is_none() {
        return Cow::Borrowed(plain);
    }
    Cow::Owned(plain.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_place_and_a_status_of_failure() {
        for (index, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, index);
            assert!(code.status().is_client_error() || code.status().is_server_error());
        }
    }

    #[test]
    fn the_body_is_json_in_both_dialects() {
        let problem = Problem::new(Code::PathInvalid, "http_request_error", "Say \"x\" or \\ once.").closing();
        let answer = problem.response();
        let body: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(body["detail"], "Say \"x\" or \\ once.");
        assert_eq!(body["message"], body["detail"]);
        assert_eq!(body["success"], false);
        assert_eq!(body["status"], 400);
        assert_eq!(body["code"], "path_invalid");
        assert_eq!(answer.headers()[CONNECTION], "close");
        assert_eq!(
            answer.headers()[PROXY_STATUS],
            "cloudbeds-auth-proxy; error=http_request_error; details=\"path_invalid\""
        );
    }
}
