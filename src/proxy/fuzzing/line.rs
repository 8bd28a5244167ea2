//! Sockets in memory: a caller that has sent everything already, and an upstream that judges what arrives.
//!
//! In: bytes, and how they are cut. Out: the requests that the gate makes of them, one after the other, to a service.
//! Nothing waits and no clock counts, so the same bytes always take the same way.
#![allow(clippy::expect_used, reason = "a broken promise is to end the process")]

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Response;
use http_body_util::Full;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::strict::{Body, Reading, read};
use crate::proxy::connection::Open;
use crate::proxy::connection::http1::talk;
use crate::proxy::pool::Head;
use crate::proxy::pool::http1::Http1;
use crate::proxy::pool::socket::Socket;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Recorder;
use crate::wire::body::Upload;
use crate::wire::gate::{Gate, Limits, Outcome};
use crate::wire::incoming::Incoming;
use crate::wire::problem::Problem;

const LONG: Duration = Duration::from_secs(3600);

/// Small, so that a fuzzer gets to them.
pub(crate) const LIMITS: Limits =
    Limits { head_timeout: LONG, idle: LONG, body_idle: LONG, max_head_size: 3 * 1024, max_headers: 40 };

/// How bytes arrive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Cut {
    /// All at once.
    Whole,
    /// In pieces of a few bytes, with a pause before each; and answers are taken in such pieces.
    Pieces,
}

/// What became of a connection.
pub(crate) struct Served {
    pub(crate) answers: Vec<u8>,
    /// The gate's refusal.
    pub(crate) refusal: Option<Problem>,
}

/// Serves what a caller sent, as `connection.rs` does it.
pub(crate) fn serve<F, R>(sent: &[u8], cut: Cut, service: F) -> Served
where
    F: Fn(http::Request<Incoming>) -> R,
    R: Future<Output = Response<Full<Bytes>>>,
{
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime without sockets needs nothing of the system");
        static RECORDER: Rc<Recorder> = Rc::new(Metrics::new(1).recorder());
    }
    let answers = Rc::new(RefCell::new(Vec::new()));
    let answered = Rc::clone(&answers);
    let caller = Sent { bytes: sent.into(), at: 0, cut, paused: false, may_write: false, answers: answered };
    let open = Rc::<Open>::default();
    let entry = open.enter(&RECORDER.with(Rc::clone));
    let refusal = RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let gate = Rc::new(RefCell::new(Gate::new(caller, LIMITS, LONG, Instant::now())));
            let answer = async |request: Box<http::Request<Incoming>>| Ok(service(*request).await);
            talk(&gate, answer, &entry).await.expect("nothing breaks off that stays in memory");
            let taken = gate.borrow_mut().take_stream();
            taken.and_then(|(_, outcome)| if let Outcome::Refused(problem) = outcome { Some(problem) } else { None })
        })
    });
    Served { answers: answers.take(), refusal }
}

/// The caller.
struct Sent {
    bytes: Box<[u8]>,
    at: usize,
    cut: Cut,
    paused: bool,
    may_write: bool,
    answers: Rc<RefCell<Vec<u8>>>,
}

impl Sent {
    /// Whether this write is the one that does not go at once: with pieces, each has a pause before it.
    fn waits_to_write(&mut self, cx: &Context<'_>) -> bool {
        let waits = self.cut == Cut::Pieces && !self.may_write;
        self.may_write = waits;
        if waits {
            cx.waker().wake_by_ref();
        }
        waits
    }
}

impl AsyncRead for Sent {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let most = match self.cut {
            Cut::Whole => usize::MAX,
            Cut::Pieces if !self.paused => {
                self.paused = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            // 1, 2, 3 or 5, in an order that repeats nowhere a protocol does.
            Cut::Pieces => [1, 3, 1, 2, 1, 5, 1][self.at % 7],
        };
        self.paused = false;
        let count = most.min(self.bytes.len() - self.at).min(buf.remaining());
        buf.put_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Sent {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.waits_to_write(cx) {
            return Poll::Pending;
        }
        let most = if self.cut == Cut::Whole { usize::MAX } else { 1 + self.answers.borrow().len() % 9 };
        let count = most.min(buf.len());
        self.answers.borrow_mut().extend_from_slice(&buf[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waits_to_write(cx) {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The upstream: it answers a request once that is whole, as `strict.rs` reads it, and closes on anything else.
#[derive(Default)]
struct Upstream {
    arrived: Rc<RefCell<Vec<u8>>>,
    /// With fewer bytes it cannot be whole, unless they end like a chunked body.
    at_least: usize,
    answered: bool,
    reader: Option<Waker>,
}

/// Sends a request over HTTP/1.1 to an upstream in memory; the bytes that arrive there.
pub(super) async fn send(head: &Head, upload: Upload) -> Vec<u8> {
    let upstream = Upstream::default();
    let arrived = Rc::clone(&upstream.arrived);
    let mut connection = Http1::new(upstream, Instant::now());
    connection.start(head, upload);
    // What the answer does not wait for is not sent either.
    let _ = std::future::poll_fn(|cx| connection.poll_head(cx)).await;
    arrived.take()
}

impl Socket for Upstream {
    fn taken(&self) -> u64 {
        self.arrived.borrow().len() as u64
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<BytesMut>>> {
        // Before a request it has nothing to say.
        let whole = if self.arrived.borrow().is_empty() { None } else { self.is_whole() };
        if whole.is_none() {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let answers = whole == Some(true) && !self.answered;
        self.answered |= answers;
        Poll::Ready(Ok(answers.then(|| (&b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..]).into())))
    }
}

impl Upstream {
    /// Whether a request is here; or what is here is none.
    fn is_whole(&mut self) -> Option<bool> {
        let arrived = self.arrived.borrow();
        // Small pieces are many, and each reading begins at the beginning.
        if arrived.len() < self.at_least && !arrived.ends_with(b"\r\n\r\n") {
            return None;
        }
        match read(&arrived) {
            Reading::Unfinished => None,
            Reading::Malformed(_) => Some(false),
            Reading::Request(request) => match request.body {
                Body::Unfinished(missing) => {
                    let chunked = request.values("transfer-encoding").next().is_some();
                    self.at_least = if chunked { usize::MAX } else { arrived.len().saturating_add(missing) };
                    None
                }
                Body::Whole(_) => Some(true),
                Body::Malformed => Some(false),
            },
        }
    }
}

impl AsyncWrite for Upstream {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.arrived.borrow_mut().extend_from_slice(buf);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
