//! A caller's HTTP/2 connection.
//!
//! In: an encrypted stream on which `h2` was agreed. Out: its requests to [`Proxy::serve`], several at a time, each in the
//! form that HTTP/1.1's have; every answer without connection-specific fields. What h2 bounds is set here: streams,
//! windows, heads, resets. What it does not bound is kept here: how long a connection may have nothing to do, how long an
//! answer may wait for its reader, and how many requests a caller may give up.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::header::CONNECTION;
use http::{Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::{Caller, Entry, LINGER, Shared, finish};
use crate::phase::Phase;
use crate::proxy::respond::Download;
use crate::proxy::sanitize::Cut;
use crate::proxy::transport::Transport;
use crate::proxy::{Arrival, CallerGone, Proxy};
use crate::wire::deadline::Deadline;
use crate::wire::gate::Limits;
use crate::wire::head;

/// Requests at once on a connection; RFC 9113 6.5.2 advises against fewer.
const STREAMS: u32 = 100;

/// What a caller may send of one body, and of all together, before it is read, in bytes.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// How much of an answer is handed over at once, and how much may wait to be written before there is no more, in bytes.
/// hyper hands over a whole piece wherever a byte has room: with all streams of a connection up to 3.2 MB wait.
const PIECE: usize = 16 * 1024;
const SEND_BUFFER: usize = 16 * 1024;

/// What is read in one turn, in bytes: thousands of the smallest frames.
const SLICE: usize = 64 * 1024;

/// Streams that may be reset before anybody has looked at them, and those we may have to reset ourselves, until the
/// connection is closed (CVE-2023-44487, CVE-2025-8671).
const RESETS: usize = 20;
const OWN_RESETS: usize = 100;

/// A caller that gives up so many more requests than it lets finish loses its connection: each cost a start at Cloudbeds.
const GIVEN_UP: u64 = 100;

/// What HPACK adds to each field in the size of a list (RFC 7541 4.1), and room for the pseudo-fields.
const FIELD: usize = 32;
const PSEUDO: usize = 1024;

/// What the streams of a connection have in common.
struct Streams {
    /// Requests that are not answered yet and whose answer is being read.
    open: Cell<usize>,
    /// Since when there is none; only of use while there is none.
    empty_since: Cell<Instant>,
    /// Whether there was one yet.
    asked: Cell<bool>,
    /// Since when the caller knows, or should, that the connection ends.
    told: Cell<Option<Instant>>,
    given_up: Cell<u64>,
    finished: Cell<u64>,
    /// An answer said that the process is ending.
    ending: Cell<bool>,
    answers: RefCell<Vec<Rc<Slot>>>,
    waker: RefCell<Option<Waker>>,
}

impl Streams {
    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    fn flooded(&self) -> bool {
        self.given_up.get() > GIVEN_UP + self.finished.get()
    }

    /// Whether a request comes too late. One that was on its way when the caller was told is served still (RFC 9113 6.8);
    /// but h2 takes new ones for as long as the caller leaves the PING after the GOAWAY unanswered.
    fn late(&self) -> bool {
        self.told.get().is_some_and(|told| self.flooded() || Instant::now() >= told + LINGER)
    }

    /// Ends answers that nobody has read on for `limit`: what they hold of Cloudbeds' connections is let go. The stream
    /// itself ends when its caller comes back to it, or with the connection.
    fn sweep(&self, now: Instant, limit: std::time::Duration) {
        self.answers.borrow_mut().retain(|slot| {
            if slot.handed.get().is_some_and(|handed| now >= handed + limit) {
                slot.let_go();
                slot.turn.release();
            }
            Rc::strong_count(slot) > 1
        });
    }
}

/// One request's place among the streams.
struct Turn {
    streams: Rc<Streams>,
    counted: Cell<bool>,
    finished: Cell<bool>,
}

impl Turn {
    fn new(streams: &Rc<Streams>) -> Self {
        streams.open.set(streams.open.get() + 1);
        streams.asked.set(true);
        Self { streams: Rc::clone(streams), counted: Cell::new(true), finished: Cell::new(false) }
    }

    fn release(&self) {
        if self.counted.replace(false) {
            let open = self.streams.open.get() - 1;
            self.streams.open.set(open);
            if open == 0 {
                self.streams.empty_since.set(Instant::now());
            }
            self.streams.wake();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let count = if self.finished.get() { &self.streams.finished } else { &self.streams.given_up };
        count.set(count.get() + 1);
        self.release();
    }
}

/// An answer under way, seen by hyper and by the connection.
struct Slot {
    download: RefCell<Option<Download>>,
    /// What it has given and hyper does not have yet.
    rest: RefCell<Bytes>,
    /// Since when hyper has not asked for more.
    handed: Cell<Option<Instant>>,
    turn: Turn,
}

impl Slot {
    /// Drops what is left of it, and what that holds.
    fn let_go(&self) {
        self.download.take();
        self.rest.take();
    }

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
struct Answer {
    slot: Rc<Slot>,
    /// An answer to HEAD, which has none (hyper leaves that to us in HTTP/2).
    bare: bool,
}

impl Drop for Answer {
    fn drop(&mut self) {
        // The connection's list may hold the slot until it looks again.
        self.slot.let_go();
        self.slot.handed.set(None);
        self.slot.turn.release();
        self.slot.turn.streams.answers.borrow_mut().retain(|slot| !Rc::ptr_eq(slot, &self.slot));
    }
}

/// Why an answer ends early.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Cut(#[from] Cut),
    #[error("the caller did not read its answer in time")]
    Unread,
}

impl Body for Answer {
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

/// Why a request has no answer. h2 resets its stream.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error(transparent)]
    Gone(#[from] CallerGone),
    /// The reason is REFUSED_STREAM: nothing was done about it, and it can be sent again elsewhere (RFC 9113 8.7).
    #[error("the request came after the end was announced")]
    Late(#[source] h2::Error),
}

/// A connection of which so much is read in one turn and no more: h2 works off all the frames it can read, and a flood of
/// small ones would hold up everybody else of the core.
struct Sliced<S> {
    shared: Shared<S>,
    left: Rc<Cell<usize>>,
}

impl<S: Transport> AsyncRead for Sliced<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let left = self.left.get();
        if left == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.shared).poll_read(cx, buf);
        self.left.set(left.saturating_sub(buf.filled().len() - before));
        polled
    }
}

impl<S: Transport> AsyncWrite for Sliced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.shared).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.shared).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.shared.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.shared).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.shared).poll_shutdown(cx)
    }
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
    limits: Limits,
    streams: Rc<Streams>,
}

impl Served {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Answer>, Unanswered> {
        if self.streams.late() {
            return Err(Unanswered::Late(h2::Reason::REFUSED_STREAM.into()));
        }
        let turn = Turn::new(&self.streams);
        let bare = request.method() == Method::HEAD;
        let (mut parts, body) = request.into_parts();
        let admitted = head::http2::admit(&mut parts, self.limits.max_head_size, self.limits.max_headers);
        let request = Request::from_parts(parts, body);
        let mut response = match admitted {
            Ok(()) => self.proxy.serve(request, &self.arrival, &self.caller).await?,
            Err(problem) => self.proxy.refuse(&request, problem),
        };
        // RFC 9113 8.2.2: what ends a connection of HTTP/1.1 is a frame here.
        response.headers_mut().remove(CONNECTION);
        if self.proxy.phase.get() >= Phase::Draining {
            self.streams.ending.set(true);
            self.streams.wake();
        }
        Ok(response.map(|download| {
            turn.finished.set(bare || download.is_end_stream());
            let slot = Rc::new(Slot {
                download: RefCell::new(Some(download)),
                rest: RefCell::default(),
                handed: Cell::default(),
                turn,
            });
            self.streams.answers.borrow_mut().push(Rc::clone(&slot));
            Answer { slot, bare }
        }))
    }
}

/// Serves the connection to its end.
pub(super) async fn served<S: Transport>(stream: S, proxy: Rc<Proxy>, arrival: Arrival, limits: Limits, entry: &Entry) {
    let streams = Rc::new(Streams {
        open: Cell::new(0),
        empty_since: Cell::new(Instant::now()),
        asked: Cell::default(),
        told: Cell::default(),
        given_up: Cell::new(0),
        finished: Cell::new(0),
        ending: Cell::new(false),
        answers: RefCell::default(),
        waker: RefCell::default(),
    });
    let stream = Rc::new(RefCell::new(stream));
    let caller = Caller { stream: Rc::<RefCell<S>>::clone(&stream), alone: false };
    let shared = Rc::new(Served { proxy: Rc::clone(&proxy), arrival, caller, limits, streams: Rc::clone(&streams) });
    let service = service_fn(move |request| {
        let shared = Rc::clone(&shared);
        async move { shared.answer(request).await }
    });
    // h2 refuses without a word what is larger; twice the size leaves what is usually too large to us.
    let list = limits.max_head_size + limits.max_headers * FIELD + PSEUDO;
    let left = Rc::new(Cell::new(0));
    let sliced = Sliced { shared: Shared(Rc::clone(&stream)), left: Rc::clone(&left) };
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
        left.set(SLICE);
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
    if let Some(stream) = Rc::into_inner(stream) {
        Box::pin(finish(stream.into_inner(), None, &proxy)).await;
    }
}
