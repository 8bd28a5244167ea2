//! Why an exchange with Cloudbeds broke off, whatever version of HTTP it was in.
//!
//! For the operator alone: callers get fixed words. It says whose fault it was, as far as that can be told.

use std::io;
use std::sync::Arc;

use h2::Reason;

use crate::wire::answer;
use crate::wire::body::Interrupted;
use crate::wire::chunks;

/// The reason.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The server closed before the answer was complete.
    #[error("the connection closed before the answer was complete")]
    Closed,
    /// What the system, or TLS, says.
    #[error(transparent)]
    Io(io::Error),
    /// The answer does not begin like one.
    #[error(transparent)]
    Head(answer::Malformed),
    /// Its body is not in the coding that its head names.
    #[error(transparent)]
    Chunks(chunks::Malformed),
    /// The request's body ended early.
    #[error(transparent)]
    Body(Interrupted),
    /// The request's body is longer or shorter than its head says.
    #[error("the request's body has another length than its head says")]
    Length,
    /// What HTTP/2 says.
    #[error(transparent)]
    Http2(Failure),
}

/// Why an HTTP/2 stream ended before its end.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// The server broke the rules, and the connection is over.
    #[error("the server broke the rules of HTTP/2: {1} ({0})")]
    Violation(Reason, &'static str),
    /// It broke them on this stream alone.
    #[error("the answer breaks the rules of HTTP/2: {0}")]
    Malformed(&'static str),
    /// The server reset the stream.
    #[error("the server reset the stream: {0}")]
    Reset(Reason),
    /// The server has not acted on it, and will act on none any more.
    #[error("the server takes no more requests: {0}")]
    GoAway(Reason),
    /// The connection was closed.
    #[error("the connection closed before the answer was complete")]
    Closed,
    /// What the system, or TLS, says.
    #[error(transparent)]
    Io(Arc<io::Error>),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

impl Broken {
    /// Whether the server broke the rules of HTTP, as opposed to ending the exchange: in HTTP/2, by RST_STREAM
    /// or GOAWAY.
    #[must_use]
    pub fn is_violation(&self) -> bool {
        match self {
            Self::Head(_) | Self::Chunks(_) => true,
            Self::Http2(failure) => matches!(failure, Failure::Violation(..) | Failure::Malformed(_)),
            Self::Closed | Self::Io(_) | Self::Body(_) | Self::Length => false,
        }
    }
}
