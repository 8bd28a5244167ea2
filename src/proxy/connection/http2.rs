//! A caller's HTTP/2 connection.
//!
//! In: an encrypted stream on which `h2` was agreed. Out: its requests to [`Proxy::serve`], several at a time, each
//! in the form that HTTP/1.1's have; every answer without connection-specific fields. What h2 bounds is set here:
//! streams, windows, heads, resets. What it does not bound is kept here: how long a connection may have nothing to
//! do, how long an answer may wait for its reader, and how many requests a caller may give up.

mod answer;
mod sliced;
mod streams;

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONNECTION;
use http::{Method, Request, Response};
use http_body::Body;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::spawn_local;
use tokio::time::Instant;

use self::answer::Answer;
use self::sliced::{Slice, Sliced};
use self::streams::{Streams, Turn};
use super::{Caller, Entry, LINGER, Watched, finish};
use crate::listen::{Peer, Watch};
use crate::phase::{Phase, PhaseCell};
use crate::proxy::respond::Download;
use crate::proxy::sanitize::Cut;
use crate::proxy::transport::Transport;
use crate::proxy::{Arrival, CallerGone, Proxy};
use crate::wire::deadline::Deadline;
use crate::wire::gate::Limits;
use crate::wire::head;
use crate::wire::incoming::Incoming;
use crate::wire::problem::Problem;

/// Requests at once on a connection; RFC 9113 6.5.2 advises against fewer.
const STREAMS: u32 = 100;

/// What a caller may send of one body, and of all together, before it is read, in bytes.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// How much of an answer may wait to be written before there is no more, in bytes. Answers come in pieces of as much,
/// and one is taken whole wherever a byte has room: with all streams of a connection up to 3.2 MB wait.
const SEND_BUFFER: usize = 16 * 1024;

/// Streams that may be reset before anybody has looked at them, and those we may have to reset ourselves, until the
/// connection is closed (CVE-2023-44487, CVE-2025-8671).
const RESETS: usize = 20;
const OWN_RESETS: usize = 100;

/// What HPACK adds to each field in the size of a list (RFC 7541 4.1), and room for the pseudo-fields.
const FIELD: usize = 32;
const PSEUDO: usize = 1024;

/// Why a request has no answer. h2 resets its stream.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error(transparent)]
    Gone(#[from] CallerGone),
    /// The reason is REFUSED_STREAM: nothing was done about it, and it can be sent again elsewhere (RFC 9113 8.7).
    #[error("the request came after the end was announced")]
    Late(#[source] h2::Error),
}

/// Runs the streams on this core.
#[derive(Clone, Copy)]
struct OnThisCore;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for OnThisCore {
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}

/// What the requests of a connection share.
struct Served {
    proxy: Rc<Proxy>,
    arrival: Arrival,
    caller: Caller,
}

impl Served {
    async fn answer(
        &self,
        request: Request<Incoming>,
        admitted: Result<(), Problem>,
    ) -> Result<Response<Download>, CallerGone> {
        match admitted {
            Ok(()) => self.proxy.serve(Box::new(request), &self.arrival, &self.caller).await,
            Err(problem) => Ok(self.proxy.refuse(&request, problem)),
        }
    }
}

/// A connection that hyper reads and writes while its [`Caller`] is watched.
struct Shared<S>(Rc<RefCell<S>>);

impl<S: Transport> AsyncRead for Shared<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, buf)
    }
}

impl<S: Transport> AsyncWrite for Shared<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.borrow().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(cx)
    }
}

impl<S: Transport> Watched for RefCell<S> {
    fn watch(&self) -> io::Result<Watch> {
        self.borrow().socket().watch()
    }

    fn peer(&self) -> Option<Peer> {
        self.borrow().socket().peer()
    }
}

/// Serves the connection to its end.
pub(super) async fn served<S: Transport>(stream: S, proxy: Rc<Proxy>, arrival: Arrival, limits: Limits, entry: &Entry) {
    let stream = Rc::new(RefCell::new(stream));
    let caller = Caller { stream: Rc::<RefCell<S>>::clone(&stream), alone: false };
    let shared = Rc::new(Served { proxy: Rc::clone(&proxy), arrival, caller });
    let answer = move |request, admitted| {
        let shared = Rc::clone(&shared);
        async move { shared.answer(request, admitted).await }
    };
    talk(Shared(Rc::clone(&stream)), answer, limits, Arc::clone(&proxy.phase), entry).await;
    if let Some(stream) = Rc::into_inner(stream) {
        Box::pin(finish(stream.into_inner(), None, &proxy)).await;
    }
}

/// Has one request answered, as a stream of this connection.
async fn turn<F, R, B>(
    request: Request<Incoming>,
    answer: &F,
    limits: Limits,
    phase: &PhaseCell,
    streams: &Rc<Streams>,
) -> Result<Response<Answer<B>>, Unanswered>
where
    F: Fn(Request<Incoming>, Result<(), Problem>) -> R,
    R: Future<Output = Result<Response<B>, CallerGone>>,
    B: Body<Data = Bytes, Error = Cut> + 'static,
{
    if streams.late() {
        return Err(Unanswered::Late(h2::Reason::REFUSED_STREAM.into()));
    }
    let turn = Turn::new(streams);
    let bare = request.method() == Method::HEAD;
    let (mut parts, body) = request.into_parts();
    let admitted = head::http2::admit(&mut parts, limits.max_head_size, limits.max_headers);
    let mut response = answer(Request::from_parts(parts, body), admitted).await?;
    // RFC 9113 8.2.2: what ends a connection of HTTP/1.1 is a frame here.
    response.headers_mut().remove(CONNECTION);
    if phase.get() >= Phase::Draining {
        streams.ending.set(true);
        streams.wake();
    }
    Ok(response.map(|download| Answer::new(download, bare, turn)))
}

/// Has all requests of a connection answered, until it ends. `answer` is given each in the form of HTTP/1.1, or as it
/// came with why it is refused.
pub(in crate::proxy) async fn talk<IO, F, R, B>(io: IO, answer: F, limits: Limits, phase: Arc<PhaseCell>, entry: &Entry)
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
    F: Fn(Request<Incoming>, Result<(), Problem>) -> R + 'static,
    R: Future<Output = Result<Response<B>, CallerGone>> + 'static,
    B: Body<Data = Bytes, Error = Cut> + Unpin + 'static,
{
    let streams = Rc::new(Streams::new());
    let shared = Rc::new((answer, phase, Rc::clone(&streams)));
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let shared = Rc::clone(&shared);
        async move {
            let (answer, phase, streams) = &*shared;
            turn(request.map(Incoming::Http2), answer, limits, phase, streams).await
        }
    });
    // h2 refuses without a word what is larger; twice the size leaves what is usually too large to us.
    let list = limits.max_head_size + limits.max_headers * FIELD + PSEUDO;
    let slice = Slice::default();
    let sliced = Sliced::new(io, &slice);
    let mut connection = http2::Builder::new(OnThisCore)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(OWN_RESETS)
        .max_header_list_size(u32::try_from(2 * list).unwrap_or(u32::MAX))
        .serve_connection(TokioIo::new(sliced), service);
    let (mut due, mut look) = (Deadline::default(), Deadline::default());
    let mut looked = Instant::now();
    std::future::poll_fn(|cx| {
        entry.listen(cx.waker());
        streams.waker.replace(Some(cx.waker().clone()));
        slice.begin();
        loop {
            if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended early");
                }
                return Poll::Ready(());
            }
            let now = Instant::now();
            let (idle, told) = (streams.open.get() == 0, streams.told.get());
            // Until the first head is there, the time for one runs: a stranger needs no more.
            let wait = if streams.asked.get() { limits.idle } else { limits.idle.min(limits.head_timeout) };
            let quiet = idle && told.is_none() && due.passed(streams.empty_since.get() + wait, cx);
            let ends = quiet || streams.flooded() || streams.ending.get() || entry.open.closing.get();
            if ends && told.is_none() {
                streams.told.set(Some(now));
                Pin::new(&mut connection).graceful_shutdown();
                continue;
            }
            // A caller that does not go is let go. Requests under way are finished, but not a flood of them; and since
            // late ones are refused, the last one under way is near.
            let last = match told {
                Some(told) if streams.flooded() => Some(told),
                Some(told) if idle => Some(told.max(streams.empty_since.get())),
                _ => None,
            };
            if last.is_some_and(|last| due.passed(last + LINGER, cx)) {
                return Poll::Ready(());
            }
            if !idle && look.passed(looked + limits.body_idle / 2, cx) {
                looked = now;
                streams.sweep(now, limits.body_idle);
                continue;
            }
            return Poll::Pending;
        }
    })
    .await;
    drop(connection);
    streams.waker.take();
}
