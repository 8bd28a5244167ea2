//! Every way a request can fail here, said twice.
//!
//! `Display` and `source()` are for the operator's log. [`problem`](ProxyError::problem) is for the caller: fixed words
//! that say what to do, in which nothing the caller or Cloudbeds sent can turn up; property ids are numbers by type.

use std::borrow::Cow;
use std::time::Duration;

use super::broken::Broken;
use super::verdict::Rejected;
use crate::budget::{Exhausted, Why};
use crate::https::DialError;
use crate::property::PropertyId;
use crate::wire::inspect::Refusal;
use crate::wire::problem::{Code, Problem};

/// Why a request did not get an answer from Cloudbeds.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's message is its documentation")]
pub enum ProxyError {
    #[error("a head that is against the rules")]
    Head(Box<Problem>),
    #[error("no property named")]
    PropertyMissing,
    #[error("more than one X-Property-Id line")]
    PropertyTwice,
    #[error("an underscore twin of X-Property-Id")]
    PropertyTwin,
    #[error("X-Property-Id is not a property id")]
    PropertyInvalid,
    #[error("the query's property is not a property id")]
    QueryPropertyInvalid,
    #[error("several properties that no one key serves")]
    PropertiesApart,
    #[error("the request names property {named} and property {other}")]
    PropertyConflict { named: PropertyId, other: PropertyId },
    #[error("no key for property {0}")]
    PropertyUnknown(PropertyId),
    #[error("X-Organization-Id is not one plain name")]
    OrganizationInvalid,
    #[error("no key for the organisation")]
    OrganizationUnknown,
    #[error("more than one key for the organisation")]
    OrganizationApart,
    #[error("the key is {}", .0.verdict)]
    KeyRejected(Box<Rejected>),
    #[error("the caller is not known: {0}")]
    CallerUnknown(&'static str),
    #[error("the certificate of its connection counts no longer")]
    CertificateRevoked,
    #[error("{caller} may not ask for this {why}")]
    CallerRefused { caller: &'static str, why: &'static str },
    #[error("it comes from a page of another site")]
    ForeignPage,
    #[error("it calls this host by a name that a stranger can own")]
    ForeignName,
    #[error("method refused")]
    Method,
    #[error("the client wants to upgrade the connection")]
    Upgrade,
    #[error("absolute-form target for another host")]
    ForeignHost,
    #[error("ambiguous request target")]
    Path,
    #[error("a path that hands out or destroys credentials")]
    CredentialPath,
    #[error("an expectation other than 100-continue")]
    Expectation,
    #[error("the request body ended early, is malformed or stalled")]
    RequestBody(#[source] Broken),
    #[error("draining")]
    Draining,
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    #[error("the caller broke off while its request waited for its turn")]
    CallerGone,
    #[error(transparent)]
    Dial(#[from] DialErrorShared),
    #[error("the upstream connection ended before the answer")]
    UpstreamReset(#[source] Broken),
    #[error("every upstream connection closed before the request could be sent")]
    UpstreamGone,
    #[error("the upstream's answer is not HTTP")]
    UpstreamInvalid(#[source] Broken),
    #[error("the upstream's answer has a content coding that cannot be inspected")]
    UpstreamCoding,
    #[error("the upstream's answer cannot be shown")]
    UpstreamRefused(#[source] Refusal),
    #[error("the upstream's answer contradicts itself about its length")]
    UpstreamFraming,
    #[error("the upstream's answer has a status that HTTP does not know")]
    UpstreamStatus,
    #[error("the upstream switched protocols unasked")]
    UpstreamSwitched,
    #[error("no answer within {0:?}")]
    FirstByteTimeout(Duration),
    #[error("the upstream took nothing of the request body for {0:?}")]
    UploadTimeout(Duration),
}

/// A failed dial may have been waited for by several requests; each gets the same error.
#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
pub struct DialErrorShared(pub std::rc::Rc<DialError>);

impl ProxyError {
    /// The property, ours, that was refused for its dead key.
    #[must_use]
    pub fn dead_property(&self) -> Option<PropertyId> {
        if let Self::KeyRejected(rejected) = self { rejected.property } else { None }
    }

    /// What the caller is told. No `_` arm: a new variant compiles once someone has chosen its code and its words.
    #[must_use]
    pub fn problem(&self) -> Problem {
        const REQUEST: &str = "http_request_error";
        const DENIED: &str = "http_request_denied";
        match self {
            Self::Head(problem) => (**problem).clone(),
            Self::PropertyMissing => Problem::new(
                Code::PropertyMissing,
                REQUEST,
                "Name the hotel: send the header X-Property-Id: <property id>.",
            ),
            Self::PropertyTwice => Problem::new(
                Code::PropertyInvalid,
                REQUEST,
                "X-Property-Id was sent more than once; send exactly one such header.",
            ),
            Self::PropertyTwin => Problem::new(
                Code::PropertyInvalid,
                REQUEST,
                "A header spells X-Property-Id with underscores; spell it with hyphens, and send it once.",
            ),
            Self::PropertyInvalid => Problem::new(
                Code::PropertyInvalid,
                REQUEST,
                "X-Property-Id must be digits without a leading zero, such as 1001, or a comma list of such ids.",
            ),
            Self::QueryPropertyInvalid => Problem::new(
                Code::PropertyInvalid,
                REQUEST,
                "propertyID in the query must be digits without a leading zero, such as 1001.",
            ),
            Self::PropertiesApart => Problem::new(
                Code::PropertyInvalid,
                REQUEST,
                "The listed properties have different keys; send one request for each of them.",
            ),
            Self::PropertyConflict { named, other } => {
                let detail = format!(
                    "The request is for property {named}, but its query or path names property {other}; make them agree."
                );
                Problem { detail: Cow::Owned(detail), ..Problem::new(Code::PropertyConflict, REQUEST, "") }
            }
            Self::PropertyUnknown(_) => Problem::new(
                Code::PropertyUnknown,
                DENIED,
                "There is no key for this property; connect the hotel, or check the id and the key file.",
            ),
            Self::OrganizationInvalid => Problem::new(
                Code::PropertyInvalid,
                REQUEST,
                "X-Organization-Id must stand once at most, spelt with hyphens, and hold plain characters.",
            ),
            Self::OrganizationUnknown => Problem::new(
                Code::PropertyUnknown,
                DENIED,
                "No key names this organization; name a property, or add `organization` to its row in the key file.",
            ),
            Self::OrganizationApart => Problem::new(
                Code::PropertyInvalid,
                REQUEST,
                "Several keys name this organization; send the header X-Property-Id as well.",
            ),
            Self::KeyRejected(rejected) => rejected.problem(),
            Self::Method => {
                Problem::new(Code::MethodRefused, DENIED, "CONNECT and TRACE are never forwarded; use another method.")
            }
            Self::Upgrade => Problem::new(
                Code::UpgradeUnsupported,
                REQUEST,
                "Protocol upgrades are not forwarded; send plain HTTP/1.1 without an Upgrade header.",
            ),
            Self::ForeignHost => Problem::new(
                Code::PathInvalid,
                REQUEST,
                "The request target names another host; send only the path, such as /api/v1.3/getHotels.",
            ),
            Self::Path => Problem::new(
                Code::PathInvalid,
                REQUEST,
                "The path is ambiguous: no dot segments, encoded or double slashes, backslashes or control characters.",
            ),
            Self::CallerUnknown(_) => Problem::new(
                Code::CallerUnknown,
                DENIED,
                "This proxy serves known callers only: send your token, once, in the header X-Proxy-Token.",
            ),
            Self::CertificateRevoked => Problem::new(
                Code::CallerUnknown,
                DENIED,
                "The certificate of this connection counts no longer; connect again with one that does.",
            )
            .closing(),
            Self::CallerRefused { .. } => Problem::new(
                Code::CallerRefused,
                DENIED,
                "This caller is known, but not for this property, organization, method or path; ask whoever runs the proxy.",
            ),
            Self::ForeignPage => Problem::new(
                Code::CallerRefused,
                DENIED,
                "A browser says that a page of another site sent this; if that is meant to be, name it in policy.origins.",
            ),
            Self::ForeignName => Problem::new(
                Code::CallerRefused,
                DENIED,
                "The Host header is a name that others could own; use localhost or 127.0.0.1, or name it in policy.hosts.",
            ),
            Self::CredentialPath => Problem::new(
                Code::PathRefused,
                DENIED,
                "This path hands out or destroys credentials and is not available through the proxy.",
            ),
            Self::Expectation => Problem::new(
                Code::RequestInvalid,
                REQUEST,
                "The only expectation this proxy can meet is 100-continue; leave Expect out.",
            ),
            Self::RequestBody(_) => Problem::new(
                Code::RequestInvalid,
                REQUEST,
                "The request body ended early, is not valid chunked coding, or stalled (see upstream.timeouts.idle); send it whole.",
            )
            .closing(),
            Self::Draining => Problem::new(
                Code::Draining,
                "proxy_internal_response",
                "This instance is shutting down; send the request again, to another instance or after the restart.",
            )
            .closing(),
            Self::Exhausted(exhausted) => exhausted_problem(*exhausted),
            // Nobody is there to read it.
            Self::CallerGone => {
                Problem::new(Code::RequestInvalid, REQUEST, "The connection broke off while the request waited.")
                    .closing()
            }
            Self::Dial(DialErrorShared(error)) => dial_problem(error),
            Self::UpstreamReset(_) => Problem::new(
                Code::UpstreamReset,
                "connection_terminated",
                "Cloudbeds closed the connection before it answered; whether it acted on the request is unknown.",
            ),
            Self::UpstreamGone => Problem::new(
                Code::UpstreamReset,
                "connection_terminated",
                "Cloudbeds closes every connection at once; nothing was sent. Try again later.",
            ),
            Self::UpstreamInvalid(_) => Problem::new(
                Code::UpstreamInvalid,
                "http_protocol_error",
                "Cloudbeds sent an answer that is not valid HTTP; whether it acted on the request is unknown.",
            ),
            Self::UpstreamCoding => Problem::new(
                Code::UpstreamInvalid,
                "http_response_content_coding",
                "Cloudbeds sent an answer in a coding that cannot be checked for keys; ask for gzip or none at all.",
            ),
            Self::UpstreamRefused(_) => Problem::new(
                Code::UpstreamInvalid,
                "http_response_content_coding",
                "Cloudbeds sent a compressed answer that must not be shown or does not decompress; ask for none.",
            ),
            Self::UpstreamFraming => Problem::new(
                Code::UpstreamInvalid,
                "http_protocol_error",
                "Cloudbeds sent an answer whose length cannot be trusted; whether it acted on the request is unknown.",
            ),
            Self::UpstreamStatus => Problem::new(
                Code::UpstreamInvalid,
                "http_protocol_error",
                "Cloudbeds sent an answer without a valid status; whether it acted on the request is unknown.",
            ),
            Self::UpstreamSwitched => Problem::new(
                Code::UpstreamInvalid,
                "http_upgrade_failed",
                "Cloudbeds switched protocols without being asked to.",
            ),
            Self::FirstByteTimeout(_) => Problem::new(
                Code::UpstreamTimeout,
                "http_response_timeout",
                "Cloudbeds did not answer in time; whether it acted on the request is unknown.",
            ),
            Self::UploadTimeout(_) => Problem::new(
                Code::UpstreamTimeout,
                "connection_write_timeout",
                "Cloudbeds stopped taking the request body; whether it acted on the request is unknown.",
            )
            .closing(),
        }
    }
}

fn exhausted_problem(exhausted: Exhausted) -> Problem {
    let detail = match exhausted.why {
        Why::Full => {
            "As many requests of the app wait for their turn as limits.max_waiting allows; try again after Retry-After, \
             with fewer at a time."
        }
        Why::PropertyFull => {
            "As many requests for this hotel wait for their turn as limits.max_waiting_per_property allows; try again \
             after Retry-After, with fewer at a time."
        }
        Why::TooLong => {
            "The app's requests per second at Cloudbeds are used up for longer than limits.max_wait; try again after \
             Retry-After."
        }
        Why::Paused => "Cloudbeds has told the app to wait; nothing is sent until then. Try again after Retry-After.",
    };
    Problem::new(Code::BudgetExhausted, "http_request_denied", detail).retry_after(exhausted.retry_after)
}

fn dial_problem(error: &DialError) -> Problem {
    match error {
        DialError::Resolve { .. } => Problem::new(
            Code::UpstreamUnreachable,
            "dns_error",
            "Cloudbeds' host name could not be resolved; nothing was sent. Try again, and check this host's DNS.",
        ),
        DialError::Connect { .. } if error.is_unroutable() => Problem::new(
            Code::UpstreamUnreachable,
            "destination_ip_unroutable",
            "There is no route to Cloudbeds; nothing was sent. Try again, and check this host's network.",
        ),
        DialError::Connect { .. } => Problem::new(
            Code::UpstreamUnreachable,
            "connection_refused",
            "No connection to Cloudbeds could be made; nothing was sent. Try again, and check this host's network.",
        ),
        DialError::ConnectTimeout { .. } => Problem::new(
            Code::UpstreamUnreachable,
            "connection_timeout",
            "No connection to Cloudbeds could be made in time; nothing was sent. Try again.",
        ),
        DialError::Tls { .. } if error.is_alert() => Problem::new(
            Code::UpstreamTls,
            "tls_alert_received",
            "Cloudbeds refused the TLS handshake; nothing was sent. Try again, or ask the operator to read the log.",
        ),
        DialError::Tls { .. } if !error.is_certificate() => Problem::new(
            Code::UpstreamTls,
            "tls_protocol_error",
            "The TLS handshake with Cloudbeds failed; nothing was sent. Try again, or ask the operator to read the log.",
        ),
        DialError::Tls { .. } => Problem::new(
            Code::UpstreamTls,
            "tls_certificate_error",
            "Cloudbeds' server could not prove its identity; nothing was sent. Ask the operator to read the log.",
        ),
        DialError::TlsTimeout { .. } => Problem::new(
            Code::UpstreamTls,
            "connection_timeout",
            "The TLS handshake with Cloudbeds took too long; nothing was sent. Try again.",
        ),
    }
}
