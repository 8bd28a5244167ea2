//! One host's connections: made, found again, and given up.
//!
//! In: a dialled stream. Out: an HTTP/1.1 or HTTP/2 connection that a [`Lease`] can be had on while it is open, young
//! enough and used recently enough for what the request needs.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use super::http1;
use super::lease::{Carrier, Lease, Place, Stream};
use super::{Need, Protocol, Settings};
use crate::flight::Flights;
use crate::https::{Connection, Counted, DialError, Resolved};
use crate::origin::Origin;
use crate::proxy::error::DialErrorShared;
use crate::wire::ahead::ReadAhead;
use crate::wire::body::Upload;

/// Streams on one HTTP/2 connection before another is opened, unless the server allows fewer. nginx and most gateways
/// allow 100 to 128.
const STREAMS: usize = 100;

/// HTTP/2 flow-control windows, in bytes: a stream's, and a connection's. At 256 KiB a stream fills a 25 Mbit/s path of
/// 80 ms. The connection's has room for every stream's, or a few callers that do not read would fill it and hold up all
/// others; what a caller can have in memory is its own stream's window.
const STREAM_WINDOW: u32 = 1 << 18;
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;

/// A connection without a request on it counts as fresh for this long: the time it takes whoever waited for it to run.
const FRESH: Duration = Duration::from_secs(1);

/// A host and all that is known of it.
pub(super) struct Host {
    pub(super) origin: Arc<Origin>,
    /// What the last connection negotiated; until one did, nobody knows.
    pub(super) protocol: Cell<Option<Protocol>>,
    pub(super) idle: RefCell<Vec<Idle>>,
    pub(super) shared: RefCell<Vec<Rc<Http2>>>,
    /// The connection attempt that several requests wait for.
    pub(super) dialing: Flights<Result<(), DialErrorShared>>,
    /// The look-up of the host's name, of which several attempts at a time need no more than one: each takes a thread.
    pub(super) resolving: Flights<Resolved>,
}

pub(super) struct Idle {
    pub(super) connection: Box<http1::Connection>,
    pub(super) since: Instant,
}

pub(super) struct Http2 {
    pub(super) sender: http2::SendRequest<Upload>,
    pub(super) opened: Instant,
    pub(super) last_used: Cell<Instant>,
    pub(super) in_flight: Cell<usize>,
    pub(super) used: Cell<bool>,
    /// Takes no further request.
    pub(super) stuck: Cell<bool>,
    pub(super) received: Rc<Cell<u64>>,
    pub(super) running: Rc<RefCell<Option<Running>>>,
}

/// What moves an HTTP/2 connection on.
pub(super) type Running = http2::Connection<TokioIo<Counted<TlsStream<ReadAhead<TcpStream>>>>, Upload, LocalExecutor>;

impl Host {
    pub(super) fn new(origin: Arc<Origin>) -> Self {
        Self {
            origin,
            protocol: Cell::new(None),
            idle: RefCell::default(),
            shared: RefCell::default(),
            dialing: Flights::default(),
            resolving: Flights::default(),
        }
    }

    /// Speaks HTTP on a new connection and makes it available.
    pub(super) async fn start(self: &Rc<Self>, connection: Connection) -> Result<(), DialErrorShared> {
        let now = Instant::now();
        if connection.http2 {
            let received = connection.stream.received();
            let (sender, running) = http2::Builder::new(LocalExecutor)
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_header_list_size(64 * 1024)
                // Until the server has said how many it allows, a second stream would be refused by one that allows
                // one; it waits for those few milliseconds instead.
                .initial_max_send_streams(1)
                .keep_alive_interval(Duration::from_secs(15))
                .keep_alive_timeout(Duration::from_secs(10))
                .handshake(TokioIo::new(connection.stream))
                .await
                .map_err(|error| self.handshake_error(error))?;
            let running = Rc::new(RefCell::new(Some(running)));
            let moving = Rc::clone(&running);
            spawn_local(std::future::poll_fn(move |cx| {
                let mut moving = moving.borrow_mut();
                let Some(connection) = &mut *moving else { return Poll::Ready(()) };
                let polled = Pin::new(connection).poll(cx);
                if let Poll::Ready(ended) = &polled {
                    tracing::debug!(error = ended.as_ref().err().map(tracing::field::display), "h2 ended");
                    // Only now do requests that it was handed and did not send come back.
                    drop(moving.take());
                }
                polled.map(drop)
            }));
            self.protocol.set(Some(Protocol::Http2));
            self.shared.borrow_mut().push(Rc::new(Http2 {
                sender,
                opened: now,
                last_used: Cell::new(now),
                in_flight: Cell::new(0),
                used: Cell::new(false),
                stuck: Cell::new(false),
                received,
                running,
            }));
        } else {
            self.protocol.set(Some(Protocol::Http1));
            let connection = Box::new(http1::Http1::new(connection.stream.into_inner(), now));
            self.idle.borrow_mut().push(Idle { connection, since: now });
        }
        Ok(())
    }

    fn handshake_error(&self, error: hyper::Error) -> DialErrorShared {
        let source = std::io::Error::other(error);
        DialErrorShared::new(DialError::Connect { origin: self.origin.to_string(), source })
    }

    /// A place on an HTTP/2 connection.
    pub(super) fn shared(&self, need: Need, settings: Settings) -> Option<Lease> {
        let mut shared = self.shared.borrow_mut();
        if shared.is_empty() {
            return None;
        }
        let now = Instant::now();
        shared.retain(|connection| connection.is_usable(now, settings));
        let fits = |connection: &&Rc<Http2>| {
            let idle = now.duration_since(connection.last_used.get());
            connection.in_flight.get() < connection.streams()
                && match need {
                    Need::Any => true,
                    Need::JustUsed if connection.used.get() => {
                        connection.in_flight.get() > 0 || idle <= settings.unsafe_reuse
                    }
                    Need::JustUsed => idle <= FRESH,
                    Need::Since(instant) => connection.opened >= instant,
                    Need::Fresh => !connection.used.get() && idle <= FRESH,
                }
        };
        // The newest that fits: older ones run out of work and are swept.
        let connection = Rc::clone(shared.iter().rev().find(fits)?);
        let reused = connection.used.replace(true);
        Some(Lease { carrier: Carrier::Http2(Place::take(connection), Stream::Idle), reused })
    }

    /// An HTTP/1.1 connection, the one used last first.
    pub(super) fn idle(self: &Rc<Self>, need: Need, settings: Settings) -> Option<Lease> {
        let mut idle = self.idle.borrow_mut();
        let now = Instant::now();
        let mut at = idle.len();
        while at > 0 {
            at -= 1;
            let Idle { connection, since } = &mut idle[at];
            let waited = now.duration_since(*since);
            if !connection.is_usable(now, settings) || waited > settings.idle {
                idle.remove(at).connection.close();
                continue;
            }
            let fits = match need {
                Need::Any => true,
                Need::JustUsed if connection.used => waited <= settings.unsafe_reuse,
                Need::Since(instant) if connection.opened < instant => false,
                Need::JustUsed | Need::Since(_) | Need::Fresh => !connection.used && waited <= FRESH,
            };
            if fits {
                let mut connection = idle.remove(at).connection;
                let reused = std::mem::replace(&mut connection.used, true);
                return Some(Lease { carrier: Carrier::Http1(connection, Rc::clone(self)), reused });
            }
        }
        None
    }

    /// Closes what is closed already or has been idle for too long.
    pub(super) fn sweep(&self, settings: Settings) {
        let now = Instant::now();
        let usable = |idle: &mut Idle| {
            idle.connection.is_usable(now, settings) && now.duration_since(idle.since) <= settings.idle
        };
        for spent in self.idle.borrow_mut().extract_if(.., |idle| !usable(idle)) {
            spent.connection.close();
        }
        self.shared.borrow_mut().retain(|connection| {
            let idle =
                connection.in_flight.get() == 0 && now.duration_since(connection.last_used.get()) > settings.idle;
            connection.is_usable(now, settings) && !idle
        });
    }
}

impl Http2 {
    /// How many streams it takes at once. What h2 says before the server's first frame is our own guess.
    fn streams(&self) -> usize {
        match &*self.running.borrow() {
            Some(running) if self.received.get() > 0 => running.current_max_send_streams().clamp(1, STREAMS),
            _ => STREAMS,
        }
    }

    fn is_usable(&self, now: Instant, settings: Settings) -> bool {
        !self.sender.is_closed() && !self.stuck.get() && now.duration_since(self.opened) < settings.max_age
    }
}

/// hyper's HTTP/2 tasks stay on the core they belong to.
#[derive(Clone, Copy)]
pub(super) struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, task: F) {
        spawn_local(task);
    }
}
