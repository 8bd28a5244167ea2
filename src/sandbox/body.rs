//! Bodies of the sandbox's answers, and how its handlers read what they are sent.
//!
//! In: bytes, or a script of [`Step`]s. Out: a [`Body`] that plays the script, one frame at a time and never ahead of its
//! reader. An answer of several gigabytes costs one step.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::time::Sleep;

use super::socket::{Cut, Fuse};

/// One thing a body does next.
pub(super) enum Step {
    /// Sends these bytes as one frame: a chunk in HTTP/1.1, DATA in HTTP/2.
    Data(Bytes),
    /// Lets the bytes so far be flushed, and time pass.
    Wait(Duration),
    /// Sends trailers.
    Trailers(HeaderMap),
    /// Ends the stream as broken: RST_STREAM in HTTP/2, a closed connection in HTTP/1.1.
    Break,
    /// Ends the whole connection.
    Cut(Cut, Arc<Fuse>),
}

/// The body of an answer.
pub(super) struct Body {
    steps: Box<dyn Iterator<Item = Step> + Send>,
    waiting: Option<Pin<Box<Sleep>>>,
    hint: SizeHint,
}

impl Body {
    /// A body of known length in one piece.
    pub(super) fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let length = bytes.len() as u64;
        Self::script((length > 0).then_some(Step::Data(bytes)).into_iter()).length(length)
    }

    /// A body that does as told, of a length it does not announce.
    pub(super) fn script(steps: impl Iterator<Item = Step> + Send + 'static) -> Self {
        Self { steps: Box::new(steps), waiting: None, hint: SizeHint::default() }
    }

    /// Announces the length, which becomes `Content-Length`.
    pub(super) fn length(mut self, bytes: u64) -> Self {
        self.hint = SizeHint::with_exact(bytes);
        self
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            if let Some(sleep) = &mut self.waiting {
                ready!(sleep.as_mut().poll(context));
                self.waiting = None;
            }
            match self.steps.next() {
                Some(Step::Data(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Some(Step::Wait(time)) => self.waiting = Some(Box::pin(tokio::time::sleep(time))),
                Some(Step::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Some(Step::Break) => return Poll::Ready(Some(Err(io::Error::other("broken off on request")))),
                Some(Step::Cut(how, fuse)) => {
                    fuse.blow(how);
                    // The connection is gone before this wait is over.
                    self.waiting = Some(Box::pin(tokio::time::sleep(Duration::from_secs(60))));
                }
                None => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        // Lets a bodiless answer end with its head.
        self.hint.exact() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

/// A JSON answer.
pub(super) fn json(status: StatusCode, value: &Value) -> Response<Body> {
    typed(status, "application/json", value.to_string())
}

/// An answer of any type.
pub(super) fn typed(status: StatusCode, media: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    let mut answer = Response::new(Body::full(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    answer
}

/// Reads a whole body, keeping the first `keep` bytes and counting the rest. An upload that breaks ends it early; the
/// client is not there to be told.
pub(super) async fn read<B>(mut body: B, keep: usize) -> (Bytes, u64)
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let (mut kept, mut count) = (BytesMut::new(), 0);
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data() {
            count += data.len() as u64;
            let room = keep - kept.len();
            kept.extend_from_slice(&data[..data.len().min(room)]);
        }
    }
    (kept.freeze(), count)
}
