//! A connection on loan to one request.
//!
//! In: a connection that fits, and the request. Out: the answer's head, its body piece by piece, and the connection back
//! in the pool, or closed.

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::Protocol;
use super::host::{Host, Idle};
use super::http1;
use super::http2::{Http2, Stream};
use super::request::Head;
use crate::origin::Origin;
use crate::proxy::broken::Broken;
use crate::wire::body::Upload;
use crate::wire::deadline::Deadline;

/// A connection for one request. Dropped without [`give_back`](Self::give_back), an HTTP/1.1 connection is closed at
/// once, whatever it is in the middle of, and a stream of an HTTP/2 connection is reset.
pub struct Lease {
    pub(super) carrier: Carrier,
    /// Whether it carried a request before.
    pub reused: bool,
}

pub(super) enum Carrier {
    /// In a box: it is moved often, and TLS keeps much.
    Http1(Box<http1::Connection>, Rc<Host>),
    Http2(Place, Stream),
}

/// One of an HTTP/2 connection's streams.
pub(super) struct Place(Rc<Http2>);

/// The head of an answer.
#[derive(Debug)]
pub struct Answered {
    /// The status.
    pub status: StatusCode,
    /// All fields.
    pub headers: HeaderMap,
}

/// Why there is none.
pub enum Failed {
    /// Nothing of the request has left; here is its body, untouched.
    Unsent(Upload),
    /// Nothing of it has left either, but its body may have been taken.
    Unwritten(Broken),
    /// It left, or some of it did.
    Sent(Broken),
}

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

impl Lease {
    /// The version spoken.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        match self.carrier {
            Carrier::Http1(..) => Protocol::Http1,
            Carrier::Http2(..) => Protocol::Http2,
        }
    }

    /// Whether bytes of an answer may have come when `broken` ended it. An HTTP/2 connection is shared and says nothing
    /// about one request, and a stream gets its head in one piece or not at all; but a head that is none has come, and
    /// where the server broke the rules while there was one request alone, that was its answer.
    #[must_use]
    pub fn heard(&self, broken: &Broken) -> bool {
        match &self.carrier {
            Carrier::Http1(connection, _) => connection.heard(),
            Carrier::Http2(place, _) => {
                matches!(broken, Broken::Head(_)) || (broken.is_violation() && place.0.ended_with_one())
            }
        }
    }

    /// Whether what is sent leaves at once: on an HTTP/2 connection it may have to wait for a stream.
    #[must_use]
    pub fn leaves_at_once(&self) -> bool {
        match &self.carrier {
            Carrier::Http1(..) => true,
            Carrier::Http2(place, _) => place.0.has_room() || place.0.is_closed(),
        }
    }

    /// Puts the request on the connection; it leaves as the answer is polled for.
    pub fn start(&mut self, head: &Head, upload: Upload, origin: &Origin) {
        match &mut self.carrier {
            Carrier::Http1(connection, _) => connection.start(head, upload),
            Carrier::Http2(place, stream) => *stream = Stream::start(&place.0, head, upload, origin),
        }
    }

    /// The answer's head.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answered, Failed>> {
        match &mut self.carrier {
            Carrier::Http1(connection, _) => {
                connection.poll_head(cx).map_ok(|head| Answered { status: head.status, headers: head.headers })
            }
            Carrier::Http2(place, stream) => stream.poll_head(&place.0, cx),
        }
    }

    /// The next bytes of the answer's body, never an empty piece. Trailers are dropped: no field of theirs was inspected,
    /// and merged into a head they smuggle.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        match &mut self.carrier {
            Carrier::Http1(connection, _) => connection.poll_data(cx),
            Carrier::Http2(_, stream) => stream.poll_data(cx),
        }
    }

    /// Bytes of the body that are still to come, where that is known.
    #[must_use]
    pub fn left(&self) -> Option<u64> {
        match &self.carrier {
            Carrier::Http1(connection, _) => connection.left(),
            Carrier::Http2(_, stream) => stream.left(),
        }
    }

    /// Whether the answer has ended.
    #[must_use]
    pub fn is_end(&self) -> bool {
        match &self.carrier {
            Carrier::Http1(connection, _) => connection.is_end(),
            Carrier::Http2(_, stream) => stream.is_end(),
        }
    }

    /// The timer this connection's requests are watched by. It stays armed from one to the next.
    pub fn take_deadline(&mut self) -> Deadline {
        match &mut self.carrier {
            Carrier::Http1(connection, _) => std::mem::take(&mut connection.deadline),
            Carrier::Http2(place, _) => place.0.take_deadline(),
        }
    }

    /// Gives the timer back.
    pub fn keep_deadline(&mut self, deadline: Deadline) {
        match &mut self.carrier {
            Carrier::Http1(connection, _) => connection.deadline = deadline,
            Carrier::Http2(place, _) => place.0.keep_deadline(deadline),
        }
    }

    /// The server has stopped reading. An HTTP/2 connection takes no further requests then: what was sent may have used up
    /// the window that all its streams share, and the next upload would wait as long.
    pub fn distrust(&self) {
        if let Carrier::Http2(place, _) = &self.carrier {
            place.0.distrust();
        }
    }

    /// Makes the connection available again, if it can carry another request; to be called once the answer's body has
    /// been read to its end.
    pub fn give_back(self) {
        let Carrier::Http1(connection, host) = self.carrier else { return };
        if connection.is_reusable() {
            host.idle.borrow_mut().push(Idle { connection, since: Instant::now() });
        } else {
            connection.close();
        }
    }
}
