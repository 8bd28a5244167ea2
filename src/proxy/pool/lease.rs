//! A connection on loan to one request.
//!
//! In: a connection that fits. Out: the request sent on it, and the connection back in the pool, or closed.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::Protocol;
use super::host::{Host, Http1, Http2, Idle};
use crate::wire::body::Upload;
use crate::wire::deadline::Deadline;

/// A connection for one request. Dropped without [`give_back`](Self::give_back), an HTTP/1.1 connection is closed at
/// once, whatever it is in the middle of: hyper alone would wait for an upstream that does not read.
pub struct Lease {
    pub(super) carrier: Carrier,
    /// Whether it carried a request before.
    pub reused: bool,
}

pub(super) enum Carrier {
    Http1(Http1, Rc<Host>, Closing),
    Http2(Place),
}

/// Ends a connection's task, and the connection with it, unless it is told not to.
pub(super) struct Closing(pub(super) Option<AbortHandle>);

impl Drop for Closing {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

/// One of an HTTP/2 connection's streams.
pub(super) struct Place(Rc<Http2>);

impl Place {
    pub(super) fn take(connection: Rc<Http2>) -> Self {
        connection.in_flight.set(connection.in_flight.get() + 1);
        Self(connection)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get().saturating_sub(1));
        self.0.last_used.set(Instant::now());
    }
}

/// A request handed to a connection, and what comes of it.
pub type Sent<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// The answer's head, or the error with the request itself when none of it had been sent.
pub type Outcome =
    Result<http::Response<hyper::body::Incoming>, hyper::client::conn::TrySendError<http::Request<Upload>>>;

impl Lease {
    /// The version spoken.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        match self.carrier {
            Carrier::Http1(..) => Protocol::Http1,
            Carrier::Http2(_) => Protocol::Http2,
        }
    }

    /// Bytes received on the connection so far; `None` where it is shared and says nothing about one request.
    #[must_use]
    pub fn received(&self) -> Option<u64> {
        match &self.carrier {
            Carrier::Http1(connection, ..) => Some(connection.received.get()),
            Carrier::Http2(_) => None,
        }
    }

    /// Whether what is sent leaves at once. Of a new HTTP/2 connection only the first stream does: the others wait until
    /// the server has said how many it allows.
    #[must_use]
    pub fn leaves_at_once(&self) -> bool {
        match &self.carrier {
            Carrier::Http1(..) => true,
            Carrier::Http2(place) => !self.reused || place.0.received.get() > 0 || place.0.sender.is_closed(),
        }
    }

    /// Sends the request.
    pub fn send(&mut self, request: http::Request<Upload>) -> Sent<'_> {
        match &mut self.carrier {
            Carrier::Http1(connection, ..) => Box::pin(connection.sender.try_send_request(request)),
            Carrier::Http2(place) => Box::pin(place.0.sender.clone().try_send_request(request)),
        }
    }

    /// The timer this connection's requests are watched by. It stays armed from one to the next: setting one up anew costs
    /// more than moving it.
    pub fn take_deadline(&mut self) -> Deadline {
        match &mut self.carrier {
            Carrier::Http1(connection, ..) => std::mem::take(&mut connection.deadline),
            Carrier::Http2(_) => Deadline::default(),
        }
    }

    /// Gives the timer back.
    pub fn keep_deadline(&mut self, deadline: Deadline) {
        if let Carrier::Http1(connection, ..) = &mut self.carrier {
            connection.deadline = deadline;
        }
    }

    /// The server has stopped reading. An HTTP/2 connection takes no further requests then: what was sent may have used up
    /// the window that all its streams share, and the next upload would wait as long.
    pub fn distrust(&self) {
        if let Carrier::Http2(place) = &self.carrier {
            place.0.stuck.set(true);
        }
    }

    /// Makes the connection available again; to be called once the answer's body has been read to its end.
    pub fn give_back(self) {
        if let Carrier::Http1(connection, host, mut closing) = self.carrier
            && let Some(task) = closing.0.take()
            && !connection.sender.is_closed()
        {
            host.idle.borrow_mut().push(Idle { connection, task, since: Instant::now() });
        }
    }
}
