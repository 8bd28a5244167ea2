//! The body of a caller's request, whatever version of HTTP it comes over.
//!
//! In: a connection on which a body is still to come. Out: its bytes, piece by piece; over HTTP/1.1 read from the
//! connection by whoever asks for them, so that no channel and no other task stand between.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::chunks;

/// A body.
#[derive(Debug)]
pub enum Incoming {
    /// There is none.
    Absent,
    /// On a connection of HTTP/1.1.
    Http1(Piecewise),
    /// A stream of HTTP/2.
    Http2(hyper::body::Incoming),
}

/// Why a body did not come whole.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// What the system, TLS or the body's deadline says.
    #[error("the caller's connection failed")]
    Io(#[from] io::Error),
    /// The caller closed before the end.
    #[error("the caller closed its connection before the body's end")]
    Closed,
    /// The chunked coding is broken.
    #[error(transparent)]
    Chunks(#[from] chunks::Malformed),
    /// What HTTP/2 says.
    #[error(transparent)]
    Http2(#[from] hyper::Error),
}

/// A connection of HTTP/1.1 from which a body is read.
pub trait Source {
    /// The next bytes of the body of the request with this number; none at its end, and none of another one's.
    fn poll_body(&self, number: u64, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>>;

    /// Bytes of it that are still to come, where that is known.
    fn left(&self, number: u64) -> Option<u64>;
}

/// A body on a connection of HTTP/1.1.
pub struct Piecewise {
    source: Rc<dyn Source>,
    number: u64,
}

impl Piecewise {
    /// The body of the request with this number on a connection.
    #[must_use]
    pub fn new(source: Rc<dyn Source>, number: u64) -> Self {
        Self { source, number }
    }
}

impl fmt::Debug for Piecewise {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Piecewise").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Absent => Poll::Ready(None),
            Self::Http1(body) => {
                body.source.poll_body(body.number, cx).map(|polled| polled.map(|piece| piece.map(Frame::data)))
            }
            Self::Http2(body) => Pin::new(body).poll_frame(cx).map_err(Broken::Http2),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Absent => true,
            Self::Http1(body) => body.source.left(body.number) == Some(0),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Absent => SizeHint::with_exact(0),
            Self::Http1(body) => body.source.left(body.number).map_or_else(SizeHint::default, SizeHint::with_exact),
            Self::Http2(body) => body.size_hint(),
        }
    }
}
