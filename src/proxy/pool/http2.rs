//! One HTTP/2 connection to Cloudbeds (RFC 9113).
//!
//! In: an encrypted stream. Out: a place for requests, each on a stream of its own (`stream.rs`). The connection has a task
//! that reads and writes for all of them (`connection.rs`, `frames.rs`, `answers.rs`, `windows.rs`, `output.rs`), wakes less often
//! while much comes (`arrivals.rs`), hands their bodies on in portions (`portions.rs`) and sees whether the server is still
//! there (`pulse.rs`); all else is done by whoever waits for the answer, the sending of the request's body too.

mod answers;
mod arrivals;
mod connection;
mod frames;
mod output;
mod portions;
mod pulse;
mod stream;
mod streams;
mod windows;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Poll;

use tokio::net::TcpStream;
use tokio::time::Instant;

use self::arrivals::Arrivals;
use self::connection::Connection;
use self::portions::Portions;
use self::pulse::Pulse;
pub(in crate::proxy) use self::stream::Stream;
use super::Settings;
use super::socket::Socket;
use crate::https::Encrypted;
use crate::proxy::broken::Failure;
use crate::wire::deadline::Deadline;

/// Streams on one connection before another is opened, unless the server allows fewer. nginx and most gateways allow 100
/// to 128.
const STREAMS: usize = 100;

/// Flow-control windows, in bytes: a stream's, and a connection's. At 256 KiB a stream fills a 25 Mbit/s path of
/// 80 ms. The connection's has room for every stream's, or a few callers that do not read would fill it and hold up all
/// others; what a caller can have in memory is its own stream's window.
const STREAM_WINDOW: u32 = 1 << 18;
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;

/// Timers that are kept for the next requests.
const DEADLINES: usize = 32;

type Io = Encrypted<TcpStream>;

/// A connection and whoever has a hand on it.
type Shared<S> = Rc<RefCell<Connection<S>>>;

/// A connection.
pub(in crate::proxy) struct Http2<S = Io> {
    connection: Shared<S>,
    pub(super) opened: Instant,
    pub(super) last_used: Cell<Instant>,
    pub(super) in_flight: Rc<Cell<usize>>,
    /// Whether it has carried a request.
    pub(super) used: Cell<bool>,
    /// Takes no further request.
    stuck: Cell<bool>,
    /// Timers that no request is watched by at the moment. Still armed, each may wake its last request's task once, for nothing.
    deadlines: RefCell<Vec<Deadline>>,
}

impl<S> Drop for Http2<S> {
    /// Tells the connection's task, which does not notice by itself that nobody is left.
    fn drop(&mut self) {
        let mut connection = self.connection.borrow_mut();
        connection.deserted = true;
        connection.ask();
    }
}

impl<S: Socket> Http2<S> {
    /// Speaks HTTP/2 on a stream that has just been opened; and what must be polled as long as it is wanted.
    pub(in crate::proxy) fn new(stream: S, now: Instant) -> (Self, impl Future<Output = ()>) {
        let connection = Rc::new(RefCell::new(Connection::new(stream)));
        let in_flight = Rc::default();
        let turns = run(Rc::clone(&connection), Pulse::new(&in_flight));
        let (last_used, used, stuck) = (Cell::new(now), Cell::new(false), Cell::new(false));
        (Self { connection, opened: now, last_used, in_flight, used, stuck, deadlines: RefCell::default() }, turns)
    }
}

impl<S> Http2<S> {
    /// How many streams it takes at once.
    pub(super) fn streams(&self) -> usize {
        self.connection.borrow().allowed.streams.clamp(1, STREAMS)
    }

    pub(super) fn is_usable(&self, now: Instant, settings: Settings) -> bool {
        !self.stuck.get() && now.duration_since(self.opened) < settings.max_age && !self.is_closed()
    }

    /// See [`Connection::has_room`].
    pub(super) fn has_room(&self) -> bool {
        self.connection.borrow().has_room()
    }

    /// See [`Connection::is_closed`].
    pub(super) fn is_closed(&self) -> bool {
        self.connection.borrow().is_closed()
    }

    /// See [`Connection::ended_with_one`].
    pub(super) fn ended_with_one(&self) -> bool {
        self.connection.borrow().ended_with_one()
    }

    /// Lets it carry no further request.
    pub(super) fn distrust(&self) {
        self.stuck.set(true);
    }

    /// A timer for one request. Setting one up anew costs more than moving it.
    pub(super) fn take_deadline(&self) -> Deadline {
        self.deadlines.borrow_mut().pop().unwrap_or_default()
    }

    /// Gives the timer back.
    pub(super) fn keep_deadline(&self, deadline: Deadline) {
        let mut deadlines = self.deadlines.borrow_mut();
        if deadlines.len() < DEADLINES {
            deadlines.push(deadline);
        }
    }

    /// Where nothing waits to be sent it keeps no room for it, and no byte of a request; nor timers that nobody needs.
    pub(super) fn rest(&self) {
        self.connection.borrow_mut().output.rest();
        self.deadlines.take();
    }
}

/// Gives the connection its turns until it ends.
async fn run<S: Socket>(connection: Shared<S>, mut pulse: Pulse) {
    let (mut arrivals, mut portions) = (Arrivals::default(), Portions::default());
    std::future::poll_fn(|cx| {
        let mut connection = connection.borrow_mut();
        if connection.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        arrivals.poll(&mut connection, cx);
        portions.poll(&mut connection, cx);
        if pulse.poll(&mut connection, cx).is_ready() {
            tracing::debug!("h2 ended: no answer to a ping");
            connection.end(&Failure::Closed);
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
}
