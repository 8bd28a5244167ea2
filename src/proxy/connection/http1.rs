//! The requests on a caller's connection of HTTP/1, one after the other.
//!
//! In: the gate before the connection, and what answers a request. Out: every answer, written before the next head is
//! looked at. An answer is given while its request's body may still be on its way; a request that did not come whole is
//! the connection's last one. A body that breaks off ends the connection before the announced length or the last chunk.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::response::Parts;
use http::{Method, Request, Response, Version};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Entry;
use crate::proxy::CallerGone;
use crate::wire::gate::Gate;
use crate::wire::head::{Framing, Head};
use crate::wire::incoming::{Incoming, Piecewise};
use crate::wire::reply::{Manner, Reply, WrongLength, room};
use crate::wire::spare;

/// Why a connection ends in the middle of something.
#[derive(Debug, thiserror::Error)]
pub(in crate::proxy) enum Broke {
    /// What the system, TLS or a deadline says.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The caller went away while its request waited.
    #[error(transparent)]
    Gone(#[from] CallerGone),
    /// An answer broke off whose end is the connection's (HTTP/1.0): it would look whole.
    #[error("an answer broke off that ends with its connection")]
    LooksWhole,
    /// The answer's body broke off.
    #[error("an answer broke off")]
    Cut,
    /// The answer's body is not what its head says.
    #[error(transparent)]
    Length(#[from] WrongLength),
}

impl Broke {
    /// Why this answer broke off.
    fn of(why: impl Into<Self>, reply: &Reply) -> Self {
        if reply.ends_with_connection() { Self::LooksWhole } else { why.into() }
    }
}

/// Has all requests of a connection answered, until there will be no further one, or none before more comes: the gate
/// knows which.
///
/// # Errors
/// When it broke off.
pub(in crate::proxy) async fn talk<S, F, R, B>(
    gate: &Rc<RefCell<Gate<S>>>,
    answer: F,
    entry: &Entry,
) -> Result<(), Broke>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    F: Fn(Box<Request<Incoming>>) -> R,
    R: Future<Output = Result<Response<B>, CallerGone>>,
    B: Body<Data = Bytes> + Unpin,
{
    let mut reply = Reply::default();
    poll_fn(|cx| {
        entry.listen(cx.waker());
        Poll::Ready(())
    })
    .await;
    while let Some(Head { mut request, framing, keep_alive, .. }) = poll_fn(|cx| poll_next(gate, entry, cx)).await? {
        let (old, bare) = (request.version() == Version::HTTP_10, request.method() == Method::HEAD);
        if framing != Framing::None {
            let number = gate.borrow().number();
            *request.body_mut() = Incoming::Http1(Piecewise::new(gate.clone(), number));
        }
        let response = answer(request).await?;
        send(gate, response, Manner { old, bare, keep_alive }, &mut reply).await?;
        if !reply.keeps_alive() || !gate.borrow().is_between() {
            break;
        }
    }
    Ok(())
}

/// The next head. Where the process is about to end and none has begun, there is none.
fn poll_next<S: AsyncRead + AsyncWrite + Unpin>(
    gate: &RefCell<Gate<S>>,
    entry: &Entry,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Option<Head>>> {
    let mut gate = gate.borrow_mut();
    match gate.poll_head(cx) {
        // What has arrived is answered first. A head that is still on its way gets the answer that the process is
        // ending, instead of a connection that closes without a word.
        Poll::Pending if entry.open.closing.get() && !gate.is_mid_head() => Poll::Ready(Ok(None)),
        polled => polled,
    }
}

async fn send<S, B>(
    gate: &RefCell<Gate<S>>,
    response: Response<B>,
    manner: Manner,
    reply: &mut Reply,
) -> Result<(), Broke>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
{
    let (Parts { status, headers, .. }, body) = response.into_parts();
    let length = if body.is_end_stream() { Some(0) } else { body.size_hint().exact() };
    reply.start(status, &headers, length, manner);
    spare::give_back(headers);
    let mut body = Some(body).filter(|_| reply.has_body());
    let (mut broke, mut held) = (None, false);
    poll_fn(|cx| {
        loop {
            let collected = poll_collect(&mut body, reply, cx);
            let waits = collected.is_pending();
            if let Poll::Ready(Err(error)) = collected {
                (body, broke) = (None, Some(error));
            }
            // What has come is written out, also before an end that comes too early.
            let more = !waits && body.is_some();
            ready!(poll_write(gate, reply, more, &mut held, cx)).map_err(|error| Broke::of(error, reply))?;
            if let Some(broke) = broke.take() {
                return Poll::Ready(Err(broke));
            }
            if body.is_none() {
                return Poll::Ready(Ok(()));
            }
            if waits {
                return Poll::Pending;
            }
        }
    })
    .await
}

/// Collects of a body what is there, as far as it should be written at once; ready when more can be collected behind it,
/// or all of it has been.
fn poll_collect<B: Body<Data = Bytes> + Unpin>(
    body: &mut Option<B>,
    reply: &mut Reply,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Broke>> {
    while let Some(open) = body
        && (!reply.is_full() || open.is_end_stream())
    {
        let ended = open.is_end_stream();
        let frame = if ended { None } else { ready!(Pin::new(open).poll_frame(cx)) };
        match frame {
            Some(Ok(frame)) => {
                // Trailers are none of ours to send.
                if let Ok(piece) = frame.into_data() {
                    reply.push(piece)?;
                }
            }
            Some(Err(_)) => return Poll::Ready(Err(Broke::of(Broke::Cut, reply))),
            None => {
                // What belongs to the request is recorded before its last bytes leave.
                *body = None;
                reply.end()?;
            }
        }
    }
    Poll::Ready(Ok(()))
}

/// Writes what waits, in full batches where `more` can be put behind it; ready when that has left. An encrypted stream may
/// have `held` what the system did not take at once.
fn poll_write<S: AsyncRead + AsyncWrite + Unpin>(
    gate: &RefCell<Gate<S>>,
    reply: &mut Reply,
    more: bool,
    held: &mut bool,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    if reply.is_empty() && !*held {
        return Poll::Ready(Ok(()));
    }
    let mut gate = gate.borrow_mut();
    *held = true;
    while !reply.is_empty() && (reply.is_full() || !more) {
        let mut room = room();
        let count = reply.slices(more, &mut room);
        let written = ready!(gate.poll_write(cx, &room[..count]))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        reply.wrote(written);
    }
    ready!(gate.poll_flush(cx))?;
    *held = false;
    Poll::Ready(Ok(()))
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::time::Duration;

    use http::HeaderValue;
    use http::header::DATE;
    use http_body::{Frame, SizeHint};
    use tokio::io::ReadBuf;
    use tokio::time::Instant;

    use super::*;
    use crate::wire::gate::Limits;
    use crate::wire::reply::{BATCH, PACKET};

    const LONG: Duration = Duration::from_secs(3600);
    const PIECE: usize = 16 * 1024;

    /// A caller who takes whatever is written, and how long each write was.
    #[derive(Default)]
    struct Caller(Rc<RefCell<Vec<usize>>>);

    impl AsyncRead for Caller {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Caller {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(buf)])
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let length = bufs.iter().map(|buf| buf.len()).sum();
            self.0.borrow_mut().push(length);
            Poll::Ready(Ok(length))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// A body in so many pieces; before this one of them it is waited for, once.
    struct Pieces {
        left: usize,
        wait_at: Option<usize>,
    }

    impl Body for Pieces {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            if self.wait_at == Some(self.left) {
                self.wait_at = None;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let Some(left) = self.left.checked_sub(1) else { return Poll::Ready(None) };
            self.left = left;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'a'; PIECE])))))
        }

        fn is_end_stream(&self) -> bool {
            self.left == 0
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact((self.left * PIECE) as u64)
        }
    }

    /// How long the writes of an answer are.
    async fn writes(left: usize, wait_at: Option<usize>) -> Vec<usize> {
        let limits = Limits { head_timeout: LONG, idle: LONG, body_idle: LONG, max_head_size: 1, max_headers: 1 };
        let (caller, manner) = (Caller::default(), Manner { old: false, bare: false, keep_alive: true });
        let seen = Rc::clone(&caller.0);
        let gate = RefCell::new(Gate::new(caller, limits, LONG, Instant::now()));
        let mut response = Response::new(Pieces { left, wait_at });
        response.headers_mut().insert(DATE, HeaderValue::from_static("today"));
        send(&gate, response, manner, &mut Reply::default()).await.unwrap();
        seen.take()
    }

    #[tokio::test]
    async fn each_write_of_a_body_fills_a_packet_while_more_is_at_hand() {
        let head = writes(1, None).await.iter().sum::<usize>() - PIECE;
        let long = writes(40, None).await;
        assert_eq!(long.iter().sum::<usize>(), 40 * PIECE + head + 1);
        let (last, full) = long.split_last().unwrap();
        assert!(full.iter().all(|length| (BATCH..=PACKET).contains(length)) && *last <= BATCH + PIECE, "{long:?}");
        assert_eq!(long.len(), 40 * PIECE / PACKET);
        // With its end at hand too there is nothing to wait for.
        assert_eq!(writes(4, None).await, [4 * PIECE + head]);
    }

    #[tokio::test]
    async fn all_that_is_at_hand_is_written_before_more_is_waited_for() {
        let head = writes(1, None).await.iter().sum::<usize>() - PIECE;
        for before in 1..12 {
            let all = writes(12, Some(12 - before)).await;
            let sums = all.iter().scan(0, |sum, length| {
                *sum += length;
                Some(*sum)
            });
            // Content lengths of five and six digits.
            assert!(sums.into_iter().any(|sum| sum == before * PIECE + head + 1), "{before}: {all:?}");
        }
    }
}
