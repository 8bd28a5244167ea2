//! A request body on its way up.
//!
//! In: the caller's body as hyper reads it. Out: the same bytes, frame by frame, without trailers; and a shared record
//! of how far it got, from which the sender of the request tells a stalled caller from a stalled upstream.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

/// What the upload waits for, or how it ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// Bytes were handed to the upstream connection, which has not asked for more yet.
    Upstream,
    /// The upstream connection asked and the caller has nothing to give yet.
    Caller,
    /// The whole body was handed over.
    Done,
    /// The caller's body ended early, was malformed or stalled.
    Failed,
}

/// How far an upload got; shared between the body and whoever waits for the answer.
#[derive(Debug)]
pub struct Progress {
    stage: Cell<Stage>,
    bytes: Cell<u64>,
    moved: Cell<Instant>,
}

impl Progress {
    /// The current stage.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage.get()
    }

    /// Bytes handed over so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// When the stage last changed or bytes last moved.
    #[must_use]
    pub fn moved(&self) -> Instant {
        self.moved.get()
    }
}

/// The body itself.
#[derive(Debug)]
pub struct Upload {
    /// `None` for a request that never had a body.
    incoming: Option<Incoming>,
    progress: Rc<Progress>,
}

impl Upload {
    /// The body of a request that arrived at `now`.
    #[must_use]
    pub fn new(incoming: Incoming, now: Instant) -> Self {
        let incoming = (!incoming.is_end_stream()).then_some(incoming);
        let stage = if incoming.is_none() { Stage::Done } else { Stage::Upstream };
        let progress = Progress { stage: Cell::new(stage), bytes: Cell::new(0), moved: Cell::new(now) };
        Self { incoming, progress: Rc::new(progress) }
    }

    /// The absent body of a request that is sent once more; its clock starts at `now`.
    #[must_use]
    pub fn again(progress: &Rc<Progress>, now: Instant) -> Self {
        progress.moved.set(now);
        Self { incoming: None, progress: Rc::clone(progress) }
    }

    /// Whether there is no body at all.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.incoming.is_none()
    }

    /// The record that outlives the body.
    #[must_use]
    pub fn progress(&self) -> Rc<Progress> {
        Rc::clone(&self.progress)
    }

    fn note(&self, stage: Stage) {
        if self.progress.stage.replace(stage) != stage || stage == Stage::Upstream {
            self.progress.moved.set(Instant::now());
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        loop {
            let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
            let polled = Pin::new(&mut *incoming).poll_frame(cx);
            let (stage, out) = match polled {
                Poll::Pending => (Stage::Caller, Poll::Pending),
                Poll::Ready(None) => (Stage::Done, Poll::Ready(None)),
                Poll::Ready(Some(Err(error))) => (Stage::Failed, Poll::Ready(Some(Err(error)))),
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers are dropped: merged into headers elsewhere they have smuggled (GHSA-9w88-79f8-m3vp).
                    let Some(data) = frame.data_ref() else { continue };
                    let stage = if incoming.is_end_stream() { Stage::Done } else { Stage::Upstream };
                    self.progress.bytes.set(self.progress.bytes.get() + data.len() as u64);
                    (stage, Poll::Ready(Some(Ok(frame))))
                }
            };
            self.note(stage);
            return out;
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
