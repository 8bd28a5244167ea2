//! A request body on its way up.
//!
//! In: the caller's body. Out: the same bytes, frame by frame, without trailers; and a shared record
//! of how far it got, from which the sender of the request tells a stalled caller from a stalled upstream, and by which
//! the rest of the body can be let go when nobody needs it any more. What was handed over can be kept for a while, a
//! little of it, so that a request that a server has provably not acted on can be sent once more.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::deadline::Deadline;
use super::incoming::{self, Incoming};

/// How much of a body is kept for another try, in bytes: the flow-control window that a stream begins with (RFC 9113
/// 6.9.2). A server that wants more of a body has begun to act on it.
const KEPT_MAX: usize = 65_535;

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
    Broken(#[from] incoming::Broken),
    /// Nothing came for the time that [`Upload::over_http2`] gives.
    #[error("the body stalled")]
    Stalled,
    /// The caller gave its stream up, and said that nothing was wrong.
    #[error("the stream was given up before the body's end")]
    GivenUp,
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
    /// Over HTTP/2: how long the caller may have nothing to give.
    limit: Cell<Option<Duration>>,
    /// `None` for a request that never had a body, or whose body was abandoned.
    incoming: RefCell<Option<Incoming>>,
    kept: RefCell<Kept>,
    /// Which body is the one that may be read: the one made last.
    turn: Cell<u32>,
}

/// What was handed over and may have to be handed over again.
#[derive(Debug, Default)]
enum Kept {
    /// Nothing is: nobody asked for it, or it was too much.
    #[default]
    No,
    /// All of it. It is copied: a piece may be one byte of a large buffer.
    All(BytesMut),
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

    /// Keeps what is handed over from now on, while it is little. To be called before anything is.
    pub fn keep(&self) {
        if self.bytes.get() == 0 {
            self.kept.replace(Kept::All(BytesMut::new()));
        }
    }

    /// Nothing is sent again from now on.
    pub fn forget(&self) {
        self.kept.replace(Kept::No);
    }

    fn handed_over(&self, data: &Bytes) {
        self.bytes.set(self.bytes.get() + data.len() as u64);
        let mut kept = self.kept.borrow_mut();
        if let Kept::All(all) = &mut *kept {
            if all.len() + data.len() > KEPT_MAX {
                *kept = Kept::No;
            } else {
                all.extend_from_slice(data);
            }
        }
    }

    /// Lets go of what has not been handed over, if there is any; true if so. The upstream connection may never ask
    /// for it again, and over HTTP/2 the caller's stream waits until somebody lets go.
    pub fn abandon(&self) -> bool {
        if self.stage.get() == Stage::Done {
            return false;
        }
        self.stage.set(Stage::Abandoned);
        drop(self.incoming.take());
        self.forget();
        true
    }
}

/// The body itself.
#[derive(Debug)]
pub struct Upload {
    progress: Rc<Progress>,
    turn: u32,
    /// What an earlier one has handed over already.
    first: VecDeque<Bytes>,
    deadline: Deadline,
}

impl Upload {
    /// The body of a request that arrived at `now`.
    #[must_use]
    pub fn new(incoming: Incoming, now: Instant) -> Self {
        Self::of((!incoming.is_end_stream()).then_some(incoming), now)
    }

    /// No body.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn absent(now: Instant) -> Self {
        Self::of(None, now)
    }

    fn of(incoming: Option<Incoming>, now: Instant) -> Self {
        let stage = if incoming.is_none() { Stage::Done } else { Stage::Upstream };
        let (stage, bytes, moved) = (Cell::new(stage), Cell::new(0), Cell::new(now));
        let (incoming, kept, turn) = (RefCell::new(incoming), RefCell::default(), Cell::new(0));
        let progress = Progress { stage, bytes, moved, limit: Cell::new(None), incoming, kept, turn };
        Self { progress: Rc::new(progress), turn: 0, first: VecDeque::new(), deadline: Deadline::default() }
    }

    /// The same of a request that came over HTTP/2, where there is a `limit`: it fails where the caller has nothing to give for
    /// so long. In HTTP/1 the gate sees to that, and to a body that ends too early.
    #[must_use]
    pub fn over_http2(self, limit: Option<Duration>) -> Self {
        self.progress.limit.set(limit);
        self
    }

    /// The body of a request that is sent once more, from its beginning; its clock starts at `now`. `None` when part of
    /// it is gone, or the caller has failed to send it. The former one ends, should anybody still read it.
    #[must_use]
    pub fn again(progress: &Rc<Progress>, now: Instant) -> Option<Self> {
        let first: VecDeque<_> = match &*progress.kept.borrow() {
            Kept::All(all) if all.is_empty() => VecDeque::new(),
            Kept::All(all) => VecDeque::from([Bytes::copy_from_slice(all)]),
            Kept::No if progress.bytes.get() == 0 => VecDeque::new(),
            Kept::No => return None,
        };
        if matches!(progress.stage(), Stage::Failed | Stage::Abandoned) {
            return None;
        }
        if !first.is_empty() {
            progress.stage.set(Stage::Upstream);
        }
        progress.moved.set(now);
        progress.turn.set(progress.turn.get() + 1);
        let (progress, turn) = (Rc::clone(progress), progress.turn.get());
        Some(Self { progress, turn, first, deadline: Deadline::default() })
    }

    /// Takes back what was handed over last and went nowhere.
    pub fn put_back(&mut self, data: Bytes) {
        self.first.push_front(data);
        self.progress.stage.set(Stage::Upstream);
    }

    /// Nothing is asked of the caller while the upstream takes nothing: it is that which is waited for.
    pub fn held_up(&self) {
        if self.progress.stage() == Stage::Caller {
            note(&self.progress, Stage::Upstream);
        }
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
        if this.progress.stage() == Stage::Abandoned || this.turn != this.progress.turn.get() {
            return Poll::Ready(Some(Err(Interrupted::Abandoned)));
        }
        if let Some(data) = this.first.pop_front() {
            let stage = if this.is_end_stream() { Stage::Done } else { Stage::Upstream };
            note(&this.progress, stage);
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let mut body = this.progress.incoming.borrow_mut();
        let Some(incoming) = &mut *body else { return Poll::Ready(None) };
        loop {
            let (stage, out) = match Pin::new(&mut *incoming).poll_frame(cx) {
                Poll::Pending => (Stage::Caller, Poll::Pending),
                // hyper takes RST_STREAM with NO_ERROR or CANCEL for an end. It is none: only END_STREAM is (RFC 9113 8.1).
                Poll::Ready(None) if this.progress.limit.get().is_some() && !incoming.is_end_stream() => {
                    (Stage::Failed, Poll::Ready(Some(Err(Interrupted::GivenUp))))
                }
                Poll::Ready(None) => (Stage::Done, Poll::Ready(None)),
                Poll::Ready(Some(Err(error))) => (Stage::Failed, Poll::Ready(Some(Err(error.into())))),
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers are dropped: merged into headers elsewhere they have smuggled (GHSA-9w88-79f8-m3vp).
                    let Some(data) = frame.data_ref() else { continue };
                    let stage = if incoming.is_end_stream() { Stage::Done } else { Stage::Upstream };
                    this.progress.handed_over(data);
                    (stage, Poll::Ready(Some(Ok(frame))))
                }
            };
            note(&this.progress, stage);
            if let (Stage::Caller, Some(limit)) = (stage, this.progress.limit.get())
                && this.deadline.passed(this.progress.moved() + limit, cx)
            {
                note(&this.progress, Stage::Failed);
                return Poll::Ready(Some(Err(Interrupted::Stalled)));
            }
            return out;
        }
    }

    fn is_end_stream(&self) -> bool {
        let ended = self.progress.incoming.borrow().as_ref().is_none_or(Body::is_end_stream);
        ended && self.first.is_empty() && self.progress.stage() != Stage::Abandoned
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.iter().map(|piece| piece.len() as u64).sum::<u64>();
        let rest = self.progress.incoming.borrow().as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let mut whole = SizeHint::new();
        whole.set_lower(rest.lower().saturating_add(first));
        if let Some(upper) = rest.upper() {
            whole.set_upper(upper.saturating_add(first));
        }
        whole
    }
}
