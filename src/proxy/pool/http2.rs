//! One HTTP/2 connection to Cloudbeds (RFC 9113).
//!
//! In: an encrypted stream. Out: a place for requests, each on a stream of its own (`stream.rs`). The connection has a task
//! that moves frames and sees whether the server is still there (`pulse.rs`); all else is done by whoever waits for the
//! answer, the sending of the request's body too.

mod pulse;
mod stream;

use std::cell::{Cell, RefCell};
use std::future::Future as _;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::Instant;

use self::pulse::Pulse;
pub(super) use self::stream::Stream;
use super::Settings;
use crate::https::{Counted, Encrypted};

/// Streams on one connection before another is opened, unless the server allows fewer. nginx and most gateways allow 100
/// to 128.
const STREAMS: usize = 100;

/// Flow-control windows, in bytes: a stream's, and a connection's. At 256 KiB a stream fills a 25 Mbit/s path of
/// 80 ms. The connection's has room for every stream's, or a few callers that do not read would fill it and hold up all
/// others; what a caller can have in memory is its own stream's window.
const STREAM_WINDOW: u32 = 1 << 18;
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;

type Io = Counted<Encrypted<TcpStream>>;

/// A connection.
pub(super) struct Http2 {
    sender: SendRequest<Bytes>,
    pub(super) opened: Instant,
    pub(super) last_used: Cell<Instant>,
    pub(super) in_flight: Rc<Cell<usize>>,
    /// Whether it has carried a request.
    pub(super) used: Cell<bool>,
    /// Takes no further request.
    stuck: Cell<bool>,
    received: Rc<Cell<u64>>,
    /// Bytes written so far: what h2 is given is written by the connection's task, unless that sees the end first.
    sent: Rc<Cell<u64>>,
    moving: Rc<Moving>,
    /// The last field: by then the connection knows that no request will come any more.
    _farewell: Farewell,
}

/// What moves frames.
struct Moving {
    /// Nothing once it has ended.
    connection: RefCell<Option<Connection<Io, Bytes>>>,
    waker: Cell<Option<Waker>>,
    /// Streams that h2 has been given and that have not ended.
    open: Cell<usize>,
    /// Those who wait for one.
    waiting: RefCell<Vec<Waker>>,
    /// How many were open when the connection ended.
    at_the_end: Cell<usize>,
}

impl Moving {
    fn wake_waiting(&self) {
        self.waiting.take().into_iter().for_each(Waker::wake);
    }
}

/// A stream that h2 has been given.
pub(super) struct Open(Rc<Moving>);

impl Open {
    fn new(moving: &Rc<Moving>) -> Self {
        moving.open.set(moving.open.get() + 1);
        Self(Rc::clone(moving))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get().saturating_sub(1));
        self.0.wake_waiting();
    }
}

/// Wakes the connection's task, which does not notice by itself that nobody is left.
struct Farewell(Rc<Moving>);

impl Drop for Farewell {
    fn drop(&mut self) {
        if let Some(waker) = self.0.waker.take() {
            waker.wake();
        }
    }
}

impl Http2 {
    /// Speaks HTTP/2 on a stream that has just been opened.
    pub(super) async fn start(stream: Io, now: Instant) -> Result<Self, h2::Error> {
        let (received, sent) = (stream.received(), stream.sent());
        let (sender, mut connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(64 * 1024)
            .enable_push(false)
            // Until the server has said how many it allows, a second stream would be refused by one that allows
            // one; it waits for those few milliseconds instead.
            .initial_max_send_streams(1)
            .handshake(stream)
            .await?;
        let in_flight = Rc::default();
        let pulse = connection.ping_pong().map(|pings| Pulse::new(pings, &received, &in_flight));
        let moving = Rc::new(Moving {
            connection: RefCell::new(Some(connection)),
            waker: Cell::default(),
            open: Cell::default(),
            waiting: RefCell::default(),
            at_the_end: Cell::default(),
        });
        spawn_local(run(Rc::clone(&moving), pulse));
        Ok(Self {
            sender,
            opened: now,
            last_used: Cell::new(now),
            in_flight,
            used: Cell::new(false),
            stuck: Cell::new(false),
            received,
            sent,
            _farewell: Farewell(Rc::clone(&moving)),
            moving,
        })
    }

    /// How many streams it takes at once. What h2 says before the server's first frame is our own guess.
    pub(super) fn streams(&self) -> usize {
        match &*self.moving.connection.borrow() {
            Some(connection) if self.has_spoken() => connection.max_concurrent_send_streams().clamp(1, STREAMS),
            _ => STREAMS,
        }
    }

    pub(super) fn is_usable(&self, now: Instant, settings: Settings) -> bool {
        !self.stuck.get() && now.duration_since(self.opened) < settings.max_age && !self.is_closed()
    }

    /// Whether a request given to it leaves at once. Until the server has said how many streams it allows, only the first
    /// one does: h2 would keep the others, and what it keeps when the connection dies it does not give back.
    pub(super) fn has_room(&self) -> bool {
        self.moving.open.get() < if self.has_spoken() { self.streams() } else { 1 }
    }

    /// Wakes whoever waits for room when there may be some, or when the connection has ended.
    fn wait(&self, waker: &Waker) {
        let mut waiting = self.moving.waiting.borrow_mut();
        if !waiting.iter().any(|known| known.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }

    /// Whether the server has said anything yet.
    fn has_spoken(&self) -> bool {
        self.received.get() > 0
    }

    /// Whether it takes no request any more: it has ended, or the server has said that it will.
    pub(super) fn is_closed(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.has_ended() || matches!(self.sender.clone().poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    /// Whether nothing is read or written any more.
    fn has_ended(&self) -> bool {
        self.moving.connection.borrow().is_none()
    }

    /// Whether it ended with a single request on it: what the server did wrong at last was about that one.
    pub(super) fn ended_with_one(&self) -> bool {
        self.moving.at_the_end.get() == 1
    }

    /// Lets it carry no further request.
    pub(super) fn distrust(&self) {
        self.stuck.set(true);
    }
}

/// Moves frames until the connection ends.
async fn run(moving: Rc<Moving>, mut pulse: Option<Pulse>) {
    std::future::poll_fn(|cx| {
        moving.waker.set(Some(cx.waker().clone()));
        let mut slot = moving.connection.borrow_mut();
        let Some(connection) = &mut *slot else { return Poll::Ready(()) };
        let dead = pulse.as_mut().is_some_and(|pulse| pulse.poll(cx).is_ready());
        match Pin::new(connection).poll(cx) {
            Poll::Pending if !dead => {
                drop(slot);
                moving.wake_waiting();
                return Poll::Pending;
            }
            Poll::Pending => tracing::debug!("h2 ended: no answer to a ping"),
            Poll::Ready(ended) => {
                tracing::debug!(error = ended.as_ref().err().map(tracing::field::display), "h2 ended");
            }
        }
        moving.at_the_end.set(moving.open.get());
        // Only now do those who wait for answers hear of it.
        let ended = slot.take();
        drop(slot);
        drop(ended);
        moving.wake_waiting();
        Poll::Ready(())
    })
    .await;
}
