//! A request body on its way up.
//!
//! In: the caller's body as hyper reads it. Out: the same bytes, frame by frame, without trailers; and a shared record
//! of how far it got, from which the sender of the request tells a stalled caller from a stalled upstream, and by which
//! the rest of the body can be let go when nobody needs it any more.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::deadline::Deadline;

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
    /// The answer was complete before the body was.
    Abandoned,
}

/// Why a body did not arrive whole.
#[derive(Debug, thiserror::Error)]
pub enum Interrupted {
    /// It ended early, was malformed or stalled.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
    /// Nothing came for the time that [`Upload::within`] gives.
    #[error("the body stalled")]
    Stalled,
    /// See [`Progress::abandon`].
    #[error("the rest of the body is not needed")]
    Abandoned,
}

/// How far an upload got; shared between the body and whoever waits for the answer.
#[derive(Debug)]
pub struct Progress {
    stage: Cell<Stage>,
    bytes: Cell<u64>,
    moved: Cell<Instant>,
    /// `None` for a request that never had a body, or whose body was abandoned.
    incoming: RefCell<Option<Incoming>>,
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

    /// Lets go of what has not been handed over, if there is any; true if so. The upstream connection may never ask
    /// for it again, and until somebody lets go the caller's connection waits for it to be read.
    pub fn abandon(&self) -> bool {
        if self.stage.get() == Stage::Done {
            return false;
        }
        self.stage.set(Stage::Abandoned);
        drop(self.incoming.take());
        true
    }
}

/// The body itself.
#[derive(Debug)]
pub struct Upload {
    progress: Rc<Progress>,
    limit: Option<(Duration, Deadline)>,
}

impl Upload {
    /// The body of a request that arrived at `now`.
    #[must_use]
    pub fn new(incoming: Incoming, now: Instant) -> Self {
        let incoming = (!incoming.is_end_stream()).then_some(incoming);
        let stage = if incoming.is_none() { Stage::Done } else { Stage::Upstream };
        let (stage, bytes, moved) = (Cell::new(stage), Cell::new(0), Cell::new(now));
        let progress = Rc::new(Progress { stage, bytes, moved, incoming: RefCell::new(incoming) });
        Self { progress, limit: None }
    }

    /// The same, failing where the caller has nothing to give for `limit`. In HTTP/1 the gate sees to that.
    #[must_use]
    pub fn within(mut self, limit: Option<Duration>) -> Self {
        self.limit = limit.map(|limit| (limit, Deadline::default()));
        self
    }

    /// The absent body of a request that is sent once more; its clock starts at `now`.
    #[must_use]
    pub fn again(progress: &Rc<Progress>, now: Instant) -> Self {
        progress.moved.set(now);
        Self { progress: Rc::clone(progress), limit: None }
    }

    /// Whether there is no body at all.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.progress.incoming.borrow().is_none()
    }

    /// The record that outlives the body.
    #[must_use]
    pub fn progress(&self) -> Rc<Progress> {
        Rc::clone(&self.progress)
    }
}

fn note(progress: &Progress, stage: Stage) {
    if progress.stage.replace(stage) != stage || stage == Stage::Upstream {
        progress.moved.set(Instant::now());
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Interrupted;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Interrupted>>> {
        let this = self.get_mut();
        let mut body = this.progress.incoming.borrow_mut();
        let Some(incoming) = &mut *body else {
            let abandoned = this.progress.stage() == Stage::Abandoned;
            return Poll::Ready(abandoned.then_some(Err(Interrupted::Abandoned)));
        };
        loop {
            let (stage, out) = match Pin::new(&mut *incoming).poll_frame(cx) {
                Poll::Pending => (Stage::Caller, Poll::Pending),
                Poll::Ready(None) => (Stage::Done, Poll::Ready(None)),
                Poll::Ready(Some(Err(error))) => (Stage::Failed, Poll::Ready(Some(Err(error.into())))),
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers are dropped: merged into headers elsewhere they have smuggled (GHSA-9w88-79f8-m3vp).
                    let Some(data) = frame.data_ref() else { continue };
                    let stage = if incoming.is_end_stream() { Stage::Done } else { Stage::Upstream };
                    this.progress.bytes.set(this.progress.bytes.get() + data.len() as u64);
                    (stage, Poll::Ready(Some(Ok(frame))))
                }
            };
            note(&this.progress, stage);
            if let (Stage::Caller, Some((limit, deadline))) = (stage, &mut this.limit)
                && deadline.passed(this.progress.moved() + *limit, cx)
            {
                note(&this.progress, Stage::Failed);
                return Poll::Ready(Some(Err(Interrupted::Stalled)));
            }
            return out;
        }
    }

    fn is_end_stream(&self) -> bool {
        let ended = self.progress.incoming.borrow().as_ref().is_none_or(Body::is_end_stream);
        ended && self.progress.stage() != Stage::Abandoned
    }

    fn size_hint(&self) -> SizeHint {
        self.progress.incoming.borrow().as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
