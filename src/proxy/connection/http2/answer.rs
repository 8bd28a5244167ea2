//! An answer on its way down a stream of HTTP/2.
//!
//! In: the body that [`Proxy::serve`](crate::proxy::Proxy::serve) gives. Out: the same in pieces, and an end where nobody
//! reads it: the connection lets go what waits too long, with all that it holds of Cloudbeds' connections.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::streams::{Turn, Waiting};
use crate::proxy::sanitize::Cut;

/// How much of an answer is handed over at once, in bytes: hyper hands over a whole piece wherever a byte has room.
const PIECE: usize = 16 * 1024;

/// An answer under way, seen by hyper and by the connection.
struct Slot<B> {
    download: RefCell<Option<B>>,
    /// What it has given and hyper does not have yet.
    rest: RefCell<Bytes>,
    /// Since when hyper has not asked for more.
    handed: Cell<Option<Instant>>,
    turn: Turn,
}

impl<B> Waiting for Slot<B> {
    fn handed(&self) -> Option<Instant> {
        self.handed.get()
    }

    fn let_go(&self) {
        self.download.take();
        self.rest.take();
        self.turn.release();
    }
}

impl<B: Body> Slot<B> {
    /// Takes the next piece of what is there already.
    fn piece(&self) -> Option<Bytes> {
        let mut rest = self.rest.borrow_mut();
        let length = rest.len().min(PIECE);
        (length > 0).then(|| rest.split_to(length))
    }

    fn is_end(&self) -> bool {
        self.rest.borrow().is_empty() && self.download.borrow().as_ref().is_some_and(Body::is_end_stream)
    }
}

/// Its body.
pub(super) struct Answer<B> {
    slot: Rc<Slot<B>>,
    /// An answer to HEAD, which has none (hyper leaves that to us in HTTP/2).
    bare: bool,
}

impl<B: Body + 'static> Answer<B> {
    /// Of a request that has this turn; `bare` where it answers a HEAD. The connection's list knows of it from now on.
    pub(super) fn new(download: B, bare: bool, turn: Turn) -> Self {
        turn.finished.set(bare || download.is_end_stream());
        let streams = Rc::clone(&turn.streams);
        let slot = Rc::new(Slot {
            download: RefCell::new(Some(download)),
            rest: RefCell::default(),
            handed: Cell::default(),
            turn,
        });
        streams.answers.borrow_mut().push(Rc::<Slot<B>>::clone(&slot));
        Self { slot, bare }
    }
}

impl<B> Drop for Answer<B> {
    fn drop(&mut self) {
        // The connection's list may hold the slot until it looks again.
        self.slot.let_go();
        self.slot.handed.set(None);
        let own = Rc::as_ptr(&self.slot);
        self.slot.turn.streams.answers.borrow_mut().retain(|slot| !std::ptr::addr_eq(Rc::as_ptr(slot), own));
    }
}

/// Why an answer ends early.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error(transparent)]
    Cut(#[from] Cut),
    #[error("the caller did not read its answer in time")]
    Unread,
}

impl<B: Body<Data = Bytes, Error = Cut> + Unpin> Body for Answer<B> {
    type Data = Bytes;
    type Error = Ended;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Ended>>> {
        let slot = &self.slot;
        slot.handed.set(None);
        let mut piece = slot.piece();
        if piece.is_none() {
            let mut download = slot.download.borrow_mut();
            let Some(body) = &mut *download else { return Poll::Ready(Some(Err(Ended::Unread))) };
            match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => drop(slot.rest.replace(bytes)),
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                end => {
                    slot.turn.finished.set(true);
                    return Poll::Ready(end.map(|end| end.map_err(Ended::Cut)));
                }
            }
            drop(download);
            piece = slot.piece();
        }
        slot.turn.finished.set(slot.is_end());
        slot.handed.set(Some(Instant::now()));
        Poll::Ready(Some(Ok(Frame::data(piece.unwrap_or_default()))))
    }

    fn is_end_stream(&self) -> bool {
        self.bare || self.slot.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.slot.download.borrow().as_ref().map_or_else(SizeHint::default, Body::size_hint);
        let rest = self.slot.rest.borrow().len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}
