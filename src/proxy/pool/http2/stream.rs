//! One exchange on an HTTP/2 connection.
//!
//! In: a request. Out: the answer's head, then its body piece by piece. Request and answer move at the same time. A body
//! ends with the stream's own end alone: whatever else ends it is an error.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http_body::Body as _;

use super::super::lease::{Answered, Failed};
use super::super::request::Head;
use super::output::Request;
use super::streams::Place;
use super::{Http2, Io, Shared};
use crate::origin::Origin;
use crate::proxy::broken::Broken;
use crate::wire::answer::{FIELDS_MAX, Malformed};
use crate::wire::body::Upload;

/// Where one exchange is.
pub(in crate::proxy) enum Stream<S = Io> {
    /// There is none, or it has ended.
    Idle,
    /// The connection has no stream for it yet.
    Waiting(Box<Waiting>),
    Sent(Open<S>, Option<Sending>),
    Answering {
        open: Open<S>,
        sending: Option<Sending>,
        left: Option<u64>,
    },
    /// It ended before its end.
    Broken,
}

/// A request that waits for a stream.
pub(in crate::proxy) struct Waiting {
    head: Head,
    authority: Box<str>,
    upload: Upload,
}

/// A stream of the connection. Dropped before its end, it is reset.
pub(in crate::proxy) struct Open<S>(Shared<S>, Place);

impl<S> Drop for Open<S> {
    fn drop(&mut self) {
        self.0.borrow_mut().leave(self.1);
    }
}

/// A request's body on its way.
pub(in crate::proxy) struct Sending {
    upload: Upload,
    /// What there is no room for yet; nothing while none of the body is at hand.
    rest: Option<Bytes>,
}

impl<S> Stream<S> {
    /// Puts a request on the connection, if that takes it at once.
    pub(in crate::proxy) fn start(connection: &Http2<S>, head: &Head, upload: Upload, origin: &Origin) -> Self {
        let authority = origin.authority().as_str();
        if connection.is_closed() || !connection.has_room() {
            return Self::Waiting(Box::new(Waiting { head: head.clone(), authority: authority.into(), upload }));
        }
        Self::open(connection, head, authority, upload)
    }

    fn open(connection: &Http2<S>, head: &Head, authority: &str, upload: Upload) -> Self {
        let (length, ends) = (upload.size_hint().exact(), upload.is_absent());
        let place = connection.connection.borrow_mut().open(&Request { head, authority, length, ends });
        let sending = (!ends).then_some(Sending { upload, rest: None });
        Self::Sent(Open(Shared::clone(&connection.connection), place), sending)
    }

    pub(in crate::proxy) fn poll_head(
        &mut self,
        connection: &Http2<S>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Answered, Failed>> {
        if let Self::Waiting(_) = self {
            let closed = connection.is_closed();
            if !closed && !connection.has_room() {
                connection.connection.borrow_mut().wait(cx.waker());
                return Poll::Pending;
            }
            let Self::Waiting(waiting) = std::mem::replace(self, Self::Broken) else { return Poll::Pending };
            let Waiting { head, authority, upload } = *waiting;
            if closed {
                return Poll::Ready(Err(Failed::Unsent(upload)));
            }
            *self = Self::open(connection, &head, &authority, upload);
        }
        let Self::Sent(open, sending) = self else {
            return Poll::Ready(Err(Failed::Sent(Broken::Closed)));
        };
        if let Poll::Ready(Err(error)) = poll_sending(open, sending, cx) {
            *self = Self::Broken;
            return Poll::Ready(Err(Failed::Sent(error)));
        }
        let polled = open.poll_answer(cx);
        if polled.is_pending() {
            return Poll::Pending;
        }
        let Self::Sent(open, sending) = std::mem::replace(self, Self::Broken) else { return Poll::Pending };
        let (answered, left) = ready!(polled)?;
        *self = Self::Answering { open, sending, left };
        Poll::Ready(Ok(answered))
    }

    /// The next bytes of the body, never an empty piece.
    pub(in crate::proxy) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        let Self::Answering { open, sending, left } = self else { return Poll::Ready(None) };
        // The answer has begun, and goes on without the rest where that cannot be sent.
        let _ = poll_sending(open, sending, cx);
        match ready!(open.poll_data(cx)) {
            Some(Ok(data)) => {
                if let Some(left) = left {
                    *left = left.saturating_sub(data.len() as u64);
                }
                Poll::Ready(Some(Ok(data)))
            }
            // Whatever the reason, NO_ERROR too (RFC 9113 8.1): it came before the end.
            Some(Err(error)) => {
                *self = Self::Broken;
                Poll::Ready(Some(Err(error)))
            }
            None => {
                *self = Self::Idle;
                Poll::Ready(None)
            }
        }
    }

    pub(in crate::proxy) fn left(&self) -> Option<u64> {
        match self {
            Self::Answering { left, .. } => *left,
            Self::Idle => Some(0),
            Self::Waiting(_) | Self::Sent(..) | Self::Broken => None,
        }
    }

    pub(in crate::proxy) fn is_end(&self) -> bool {
        match self {
            Self::Answering { open, .. } => open.is_end(),
            Self::Idle => true,
            Self::Waiting(_) | Self::Sent(..) | Self::Broken => false,
        }
    }
}

impl<S> Open<S> {
    /// The head, and how much follows it where that is known.
    fn poll_answer(&self, cx: &Context<'_>) -> Poll<Result<(Answered, Option<u64>), Failed>> {
        let mut connection = self.0.borrow_mut();
        let (ended, taken) = (connection.has_ended(), connection.output.taken());
        let state = connection.streams.at(self.1);
        if let Some(answered) = state.take_answer() {
            if answered.headers.len() > FIELDS_MAX {
                return Poll::Ready(Err(Failed::Sent(Broken::Head(Malformed::TooMany))));
            }
            let left = if state.ended && state.is_drained() { Some(0) } else { state.length };
            return Poll::Ready(Ok((answered, left)));
        }
        let Some(failure) = &state.failed else {
            state.wait(cx);
            return Poll::Pending;
        };
        // All that is queued before a request leaves before it.
        let unwritten = ended && taken <= state.queued_before;
        let broken = Broken::Http2(failure.clone());
        Poll::Ready(Err(if unwritten { Failed::Unwritten(broken) } else { Failed::Sent(broken) }))
    }

    fn poll_data(&self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        let mut connection = self.0.borrow_mut();
        let state = connection.streams.at(self.1);
        if let Some(data) = state.pop() {
            // Whoever is handed it does not ask for more before it is written.
            connection.took(self.1, data.len());
            return Poll::Ready(Some(Ok(data)));
        }
        if let Some(failure) = &state.failed {
            return Poll::Ready(Some(Err(Broken::Http2(failure.clone()))));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        state.wait(cx);
        Poll::Pending
    }

    fn is_end(&self) -> bool {
        let mut connection = self.0.borrow_mut();
        let state = connection.streams.at(self.1);
        state.ended && state.is_drained()
    }
}

/// Sends what can be sent of a request's body; an error is the caller's. That the server takes no more, its answer says.
fn poll_sending<S>(open: &Open<S>, slot: &mut Option<Sending>, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
    let Some(sending) = slot else { return Poll::Ready(Ok(())) };
    let sent = ready!(sending.poll(open, cx));
    *slot = None;
    Poll::Ready(match sent {
        Err(error @ Broken::Body(_)) => Err(error),
        _ => Ok(()),
    })
}

impl Sending {
    fn poll<S>(&mut self, open: &Open<S>, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let Open(connection, place) = open;
        loop {
            let room = {
                let mut connection = connection.borrow_mut();
                if connection.has_ended() || connection.streams.at(*place).reset {
                    return Poll::Ready(Err(Broken::Closed));
                }
                let room = connection.may_send(*place);
                if room == 0 && self.rest.as_ref().is_none_or(Bytes::has_remaining) {
                    connection.streams.at(*place).wait(cx);
                    connection.wait(cx.waker());
                    self.upload.held_up();
                    return Poll::Pending;
                }
                room
            };
            let Some(rest) = &mut self.rest else {
                // A little room is enough to ask the caller for a piece.
                match ready!(Pin::new(&mut self.upload).poll_frame(cx)) {
                    Some(frame) => self.rest = frame.map_err(Broken::Body)?.into_data().ok(),
                    None => {
                        connection.borrow_mut().send(*place, &[], true);
                        return Poll::Ready(Ok(()));
                    }
                }
                continue;
            };
            let count = rest.len().min(room);
            let last = count == rest.len() && self.upload.is_end_stream();
            if count > 0 || last {
                connection.borrow_mut().send(*place, &rest[..count], last);
            }
            rest.advance(count);
            if rest.is_empty() {
                self.rest = None;
            }
            if last {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
