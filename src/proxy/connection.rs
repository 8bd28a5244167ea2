//! One caller's connection, from accept to its last byte.
//!
//! In: an accepted stream. Out: its requests, one after the other, to [`Proxy::serve`]; the refusal of a head that did
//! not pass the gate, after every answer before it; and an end that lets the caller read what was written.

pub mod encrypted;
pub(super) mod http1;
pub(super) mod http2;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use http::{Method, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use self::http1::Broke;
use super::respond::X_PROXY_REQUEST_ID;
use super::trace::Trace;
use super::transport::Transport;
use super::{Arrival, Proxy};
use crate::listen::{Peer, Stream, Watch};
use crate::telemetry::metrics::Recorder;
use crate::wire::gate::{Gate, Limits, Outcome};
use crate::wire::problem::{Code, Problem};
use crate::wire::reply::{self, Manner};

/// How long a connection waits for its next request with all it needs for one before it is parked without: building
/// that anew costs a microsecond or two. Where many connections are open, memory counts for more.
const PARK_AFTER: Duration = Duration::from_secs(1);
const MANY: usize = 256;

/// How long, and how much, is still read from a caller that was told to go: closing at once would reset the
/// connection and could take the answer away from the caller before it is read (RFC 9112 9.6).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;

/// The connections of one core, so that a drain can reach each of them.
#[derive(Default)]
pub struct Open {
    next: Cell<u64>,
    closing: Cell<bool>,
    wakers: RefCell<HashMap<u64, Option<Waker>>>,
    left: Notify,
}

impl Open {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.wakers.borrow().len()
    }

    /// Lets every connection end with the request it is in; idle ones end at once.
    pub fn close(&self) {
        self.closing.set(true);
        for waker in self.wakers.borrow().values().flatten() {
            waker.wake_by_ref();
        }
    }

    /// Waits until there is none.
    pub async fn emptied(&self) {
        while self.count() > 0 {
            self.left.notified().await;
        }
    }

    pub(super) fn enter(self: &Rc<Self>, recorder: &Rc<Recorder>) -> Entry {
        let id = self.next.get();
        self.next.set(id + 1);
        self.wakers.borrow_mut().insert(id, None);
        recorder.connection_opened();
        Entry { open: Rc::clone(self), recorder: Rc::clone(recorder), id }
    }
}

/// One connection's place among the open ones.
pub(super) struct Entry {
    open: Rc<Open>,
    recorder: Rc<Recorder>,
    id: u64,
}

impl Entry {
    fn listen(&self, waker: &Waker) {
        if let Some(slot) = self.open.wakers.borrow_mut().get_mut(&self.id) {
            *slot = Some(waker.clone());
        }
    }

    /// Waits for the caller of a parked connection; whether it has something to say before `due`.
    async fn wait<S: Transport>(&self, stream: &S, due: Instant) -> bool {
        let mut readable = pin!(timeout_at(due, stream.socket().readable()));
        std::future::poll_fn(|cx| {
            self.listen(cx.waker());
            // A request that has arrived is answered, also at the end.
            match readable.as_mut().poll(cx) {
                Poll::Ready(in_time) => Poll::Ready(in_time.is_ok()),
                Poll::Pending if self.open.closing.get() => Poll::Ready(false),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.open.wakers.borrow_mut().remove(&self.id);
        self.open.left.notify_one();
        self.recorder.connection_closed();
    }
}

/// Serves a connection to its end. It counts as open from this call on, not from the first poll: a drain between the
/// two would not wait for it.
///
/// `place` is dropped with the connection.
pub fn serve<P>(
    stream: Stream,
    proxy: Rc<Proxy>,
    arrival: Arrival,
    limits: Limits,
    open: &Rc<Open>,
    place: P,
) -> impl Future<Output = ()> + use<P> {
    let entry = open.enter(&proxy.recorder);
    served(stream, proxy, arrival, limits, (entry, place))
}

/// While a connection waits for its next request it is parked: gate and buffers are gone, and ten thousand idle
/// connections cost little more than their sockets.
///
/// Everything but the waiting is in boxes of its own: ten thousand connections that wait should not carry room for it.
async fn served<S: Transport, P>(mut stream: S, proxy: Rc<Proxy>, arrival: Arrival, limits: Limits, entry: (Entry, P)) {
    let (entry, _place) = &entry;
    let mut waiting_since = Instant::now();
    loop {
        let talked = Box::pin(talk(stream, &proxy, &arrival, limits, entry, waiting_since)).await;
        let Ok((next, outcome)) = talked else { return };
        match outcome {
            Outcome::Parked(since) if entry.wait(&next, since + limits.idle).await => {
                (stream, waiting_since) = (next, since);
            }
            Outcome::Parked(_) | Outcome::Ended => return Box::pin(finish(next, None, &proxy)).await,
            Outcome::Refused(problem) => return Box::pin(finish(next, Some(problem), &proxy)).await,
        }
    }
}

/// The caller, seen from one of its requests.
pub struct Caller {
    stream: Rc<dyn Watched>,
    /// Whether the connection is this request's alone; where several share it h2 tells when one is given up.
    alone: bool,
}

/// A caller's stream that somebody else reads and writes. What is asked of it is asked seldom, so [`Caller`] need not be
/// made for each kind of stream.
trait Watched {
    fn watch(&self) -> io::Result<Watch>;
    fn peer(&self) -> Option<Peer>;
}

impl<S: Transport> Watched for RefCell<Gate<S>> {
    fn watch(&self) -> io::Result<Watch> {
        self.borrow().stream().ok_or(io::ErrorKind::NotConnected)?.socket().watch()
    }

    fn peer(&self) -> Option<Peer> {
        self.borrow().stream()?.socket().peer()
    }
}

impl Caller {
    /// Who it is, as far as the system knows.
    #[must_use]
    pub fn peer(&self) -> Option<Peer> {
        self.stream.peer()
    }

    /// Waits until the caller has broken the connection off; [`Watch`] says what counts as that.
    pub async fn gone(&self) {
        if !self.alone {
            return std::future::pending().await;
        }
        match self.stream.watch() {
            Ok(watch) => watch.lost().await,
            // Its request goes on without.
            Err(error) => {
                tracing::debug!(%error, "a caller cannot be watched");
                std::future::pending().await
            }
        }
    }
}

/// Serves requests until the connection ends, is refused or can be parked; an error means that it broke off.
async fn talk<S: Transport>(
    stream: S,
    proxy: &Proxy,
    arrival: &Arrival,
    limits: Limits,
    entry: &Entry,
    waiting_since: Instant,
) -> Result<(S, Outcome), ()> {
    let park_after = if entry.open.count() > MANY { Duration::ZERO } else { PARK_AFTER };
    let gate = Rc::new(RefCell::new(Gate::new(stream, limits, park_after, waiting_since)));
    let caller = Caller { stream: Rc::<RefCell<Gate<S>>>::clone(&gate), alone: true };
    let ended = http1::talk(&gate, |request| proxy.serve(request, arrival, &caller), entry).await;
    let (stream, outcome) = gate.borrow_mut().take_stream().ok_or(())?;
    ended.map_err(|broke| {
        tracing::debug!(error = %broke, "connection ended early");
        // Without a length, the end of an HTTP/1.0 connection is the end of the message.
        if let Broke::LooksWhole = broke {
            stream.socket().end_with_reset();
        }
    })?;
    Ok((stream, outcome))
}

/// Answers a connection that is one too many, and ends it.
pub async fn refuse(stream: Stream, proxy: Rc<Proxy>) {
    let problem = Problem::new(
        Code::Overloaded,
        "connection_limit_reached",
        "As many connections are open as client.max_connections or the limit of open files allows; try again shortly, \
         and reuse connections.",
    )
    .closing();
    finish(stream, Some(problem), &proxy).await;
}

/// Writes the refusal, if there is one, and ends the connection so that the caller can read it.
async fn finish<S: Transport>(mut stream: S, refusal: Option<Problem>, proxy: &Proxy) {
    if let Some(problem) = refusal {
        let bytes = refusal_bytes(&problem, proxy);
        if timeout(LINGER, stream.write_all(&bytes)).await.is_err() {
            return;
        }
    }
    // Over TLS this waits until the caller has room for all that was encrypted; one that reads nothing never has.
    if !matches!(timeout(LINGER, stream.shutdown()).await, Ok(Ok(()))) {
        stream.socket().end_with_reset();
        return;
    }
    let drain = async {
        let (mut left, mut sink) = (LINGER_BYTES, [0; 4096]);
        while let Ok(read @ 1..) = stream.read(&mut sink).await {
            left = left.saturating_sub(read);
            if left == 0 {
                break;
            }
        }
    };
    // Whoever still sends after that gets the reset.
    let _ = timeout(LINGER, drain).await;
}

/// The refusal on the wire.
fn refusal_bytes(problem: &Problem, proxy: &Proxy) -> Vec<u8> {
    // The request could not be read, so the record has neither method nor path.
    let mut unread = Request::new(());
    *unread.method_mut() = Method::from_bytes(b"-").unwrap_or_default();
    *unread.uri_mut() = http::Uri::default();
    let mut trace = Trace::start(proxy, &unread);
    let mut response = problem.response();
    response.headers_mut().insert(X_PROXY_REQUEST_ID, trace.id().header_value());
    trace.answered(response.status(), Some(problem.code), response.headers());
    trace.sent(response.body().len());
    trace.complete();
    reply::whole(&response, Manner { old: false, bare: false, keep_alive: false })
}
