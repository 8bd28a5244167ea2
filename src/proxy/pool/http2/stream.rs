//! One exchange on an HTTP/2 connection.
//!
//! In: a request. Out: the answer's head, then its body piece by piece. Request and answer move at the same time. A body
//! ends with the stream's own end alone: whatever else ends it is an error.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use http_body::Body as _;

use super::super::lease::{Answered, Failed};
use super::super::request::Head;
use super::{Http2, Open};
use crate::origin::Origin;
use crate::proxy::broken::Broken;
use crate::wire::answer::{self, Malformed};
use crate::wire::body::Upload;

/// Where one exchange is.
#[derive(Default)]
pub(in super::super) enum Stream {
    /// There is none, or it has ended.
    #[default]
    Idle,
    Ready(Box<Request<()>>, Upload),
    /// With the count of what had been written to the connection before.
    Sent(ResponseFuture, Option<Sending>, Open, u64),
    Answering {
        body: RecvStream,
        _open: Open,
        left: Option<u64>,
        sending: Option<Sending>,
    },
    /// It ended before its end.
    Broken,
}

/// A request's body on its way.
pub(in super::super) struct Sending {
    stream: SendStream<Bytes>,
    upload: Upload,
}

impl Stream {
    /// A request, of which nothing is sent before the answer is polled for.
    pub(in super::super) fn start(head: &Head, upload: Upload, origin: &Origin) -> Self {
        Self::Ready(Box::new(head.http2(&upload, origin)), upload)
    }

    pub(in super::super) fn poll_head(
        &mut self,
        connection: &Http2,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Answered, Failed>> {
        if let Self::Ready(..) = self {
            let closed = connection.is_closed();
            if !closed && !connection.has_room() {
                connection.wait(cx.waker());
                return Poll::Pending;
            }
            let Self::Ready(request, upload) = std::mem::take(self) else { return Poll::Pending };
            if closed {
                return Poll::Ready(Err(Failed::Unsent(upload)));
            }
            let absent = upload.is_absent();
            match connection.sender.clone().send_request(*request, absent) {
                Ok((answer, stream)) => {
                    let sending = (!absent).then_some(Sending { stream, upload });
                    *self = Self::Sent(answer, sending, Open::new(&connection.moving), connection.sent.get());
                }
                Err(error) => return Poll::Ready(Err(Failed::Sent(Broken::Http2(error)))),
            }
        }
        let Self::Sent(answer, sending, _, before) = self else {
            return Poll::Ready(Err(Failed::Sent(Broken::Closed)));
        };
        if let Poll::Ready(Err(error)) = poll_sending(sending, cx) {
            *self = Self::Broken;
            return Poll::Ready(Err(Failed::Sent(error)));
        }
        let answered = ready!(Pin::new(answer).poll(cx)).map(Response::into_parts);
        // While the connection is still ending, what h2 holds may yet be written.
        let unwritten = connection.has_ended() && connection.sent.get() == *before;
        let Self::Sent(_, sending, open, _) = std::mem::replace(self, Self::Broken) else { return Poll::Pending };
        Poll::Ready(match answered {
            Ok((parts, body)) => {
                let left = match answer::content_length(&parts.headers) {
                    _ if parts.headers.len() > answer::FIELDS_MAX => {
                        return Poll::Ready(Err(Failed::Sent(Broken::Head(Malformed::TooMany))));
                    }
                    _ if body.is_end_stream() => Some(0),
                    Ok(left) => left,
                    Err(malformed) => return Poll::Ready(Err(Failed::Sent(Broken::Head(malformed)))),
                };
                *self = Self::Answering { body, _open: open, left, sending };
                Ok(Answered { status: parts.status, headers: parts.headers })
            }
            Err(error) if unwritten => Err(Failed::Unwritten(Broken::Http2(error))),
            Err(error) => Err(Failed::Sent(Broken::Http2(error))),
        })
    }

    /// The next bytes of the body, never an empty piece.
    pub(in super::super) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        let Self::Answering { body, left, sending, .. } = self else { return Poll::Ready(None) };
        // The answer has begun, and goes on without the rest where that cannot be sent.
        let _ = poll_sending(sending, cx);
        loop {
            match ready!(body.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Whoever is handed it does not ask for more before it is written.
                    let _ = body.flow_control().release_capacity(data.len());
                    if let Some(left) = left {
                        *left = left.saturating_sub(data.len() as u64);
                    }
                    if !data.is_empty() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                // Whatever the reason, NO_ERROR too: h2 reports no reset behind the end of an answer (RFC 9113 8.1).
                Some(Err(error)) => {
                    *self = Self::Broken;
                    return Poll::Ready(Some(Err(Broken::Http2(error))));
                }
                None => break,
            }
        }
        *self = Self::Idle;
        Poll::Ready(None)
    }

    pub(in super::super) fn left(&self) -> Option<u64> {
        match self {
            Self::Answering { left, .. } => *left,
            Self::Idle => Some(0),
            Self::Ready(..) | Self::Sent(..) | Self::Broken => None,
        }
    }

    pub(in super::super) fn is_end(&self) -> bool {
        match self {
            Self::Answering { body, .. } => body.is_end_stream(),
            Self::Idle => true,
            Self::Ready(..) | Self::Sent(..) | Self::Broken => false,
        }
    }
}

/// Sends what can be sent of a request's body; an error is the caller's. That the server takes no more, its answer says.
fn poll_sending(slot: &mut Option<Sending>, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
    let Some(sending) = slot else { return Poll::Ready(Ok(())) };
    let sent = ready!(sending.poll(cx));
    *slot = None;
    Poll::Ready(match sent {
        Err(error @ Broken::Body(_)) => Err(error),
        _ => Ok(()),
    })
}

impl Sending {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let Self { stream, upload } = self;
        loop {
            // A little is enough to ask the caller for a piece; the piece waits in h2 for the rest.
            stream.reserve_capacity(1);
            while stream.capacity() == 0 {
                match ready!(stream.poll_capacity(cx)) {
                    Some(granted) => drop(granted.map_err(Broken::Http2)?),
                    None => return Poll::Ready(Err(Broken::Closed)),
                }
            }
            if stream.poll_reset(cx).is_ready() {
                return Poll::Ready(Err(Broken::Closed));
            }
            match ready!(Pin::new(&mut *upload).poll_frame(cx)) {
                Some(frame) => {
                    let Ok(data) = frame.map_err(Broken::Body)?.into_data() else { continue };
                    let last = upload.is_end_stream();
                    stream.send_data(data, last).map_err(Broken::Http2)?;
                    if last {
                        return Poll::Ready(Ok(()));
                    }
                }
                None => return Poll::Ready(stream.send_data(Bytes::new(), true).map_err(Broken::Http2)),
            }
        }
    }
}
