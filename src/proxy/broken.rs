//! Why an exchange with Cloudbeds broke off, whatever version of HTTP it was in.
//!
//! For the operator alone: callers get fixed words. It says whose fault it was, as far as that can be told.

use std::io;

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
    Http2(h2::Error),
}

impl Broken {
    /// Whether the server broke the rules of HTTP, as opposed to ending the exchange. In HTTP/2 both have the same reasons:
    /// what h2 itself found is the server's breach, and what came in RST_STREAM or GOAWAY is the server's end.
    #[must_use]
    pub fn is_violation(&self) -> bool {
        match self {
            Self::Head(_) | Self::Chunks(_) => true,
            Self::Http2(error) => error.is_library(),
            Self::Closed | Self::Io(_) | Self::Body(_) | Self::Length => false,
        }
    }

    /// What HTTP/2 says of it.
    #[must_use]
    pub fn h2(&self) -> Option<&h2::Error> {
        if let Self::Http2(error) = self { Some(error) } else { None }
    }
}
