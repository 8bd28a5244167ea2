//! The connections to Cloudbeds that one core holds.
//!
//! In: an origin and what the request needs of a connection. Out: a [`Lease`] on one that is open, not too old and not
//! idle for too long; or the reason why none could be made. Nothing here is shared with another core, so nothing is
//! locked. HTTP/1.1 connections carry one request at a time, newest first; an HTTP/2 connection carries many.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use super::error::{DialErrorShared, ProxyError};
use crate::https::{Connection, Counted, Dialer};
use crate::origin::Origin;
use crate::telemetry::metrics::Recorder;
use crate::wire::body::Upload;

/// Streams on one HTTP/2 connection before another is opened, unless the server allows fewer. nginx and most gateways
/// allow 100 to 128.
const STREAMS: usize = 100;

/// HTTP/2 flow-control windows, in bytes: a stream's, and a connection's. At 512 KiB a stream fills a 50 Mbit/s path of
/// 80 ms. The connection's has room for every stream's, or a few callers that do not read would fill it and hold up all
/// others; what a caller can have in memory is its own stream's window.
const STREAM_WINDOW: u32 = 1 << 19;
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;

/// A connection without a request on it counts as fresh for this long: the time it takes whoever waited for it to run.
const FRESH: Duration = Duration::from_secs(1);

/// How long connections are kept.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Unused for longer, a connection is closed; keep it below the server's own limit.
    pub idle: Duration,
    /// Older than this, a connection takes no further requests.
    pub max_age: Duration,
    /// Used within this time, a connection counts as just used and may carry a request that must not be repeated.
    pub unsafe_reuse: Duration,
}

/// What a request needs of its connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Need {
    /// Any open one: should it turn out dead, the request can be repeated.
    Any,
    /// One that is fresh or was just used, so that it is hardly dying.
    JustUsed,
    /// One that was opened at this instant or later, when another one had turned out dead.
    Since(Instant),
    /// One that carried no request yet.
    Fresh,
}

/// All of a core's connections.
pub struct Pool {
    dialer: Dialer,
    settings: Settings,
    recorder: Rc<Recorder>,
    hosts: RefCell<Vec<Rc<Host>>>,
}

struct Host {
    origin: Arc<Origin>,
    /// What the last connection negotiated; until one did, nobody knows.
    protocol: Cell<Option<Protocol>>,
    idle: RefCell<Vec<Idle>>,
    shared: RefCell<Vec<Rc<Http2>>>,
    dialing: RefCell<Option<Rc<Dialing>>>,
}

/// The version spoken on a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

struct Idle {
    connection: Http1,
    task: AbortHandle,
    since: Instant,
}

struct Http1 {
    sender: http1::SendRequest<Upload>,
    received: Rc<Cell<u64>>,
    opened: Instant,
    used: bool,
}

struct Http2 {
    sender: http2::SendRequest<Upload>,
    opened: Instant,
    last_used: Cell<Instant>,
    in_flight: Cell<usize>,
    used: Cell<bool>,
    received: Rc<Cell<u64>>,
    running: Rc<RefCell<Option<Running>>>,
}

/// What moves an HTTP/2 connection on.
type Running = http2::Connection<TokioIo<Counted<TlsStream<TcpStream>>>, Upload, LocalExecutor>;

/// One connection attempt that several requests wait for.
#[derive(Default)]
struct Dialing {
    done: RefCell<Option<Result<(), DialErrorShared>>>,
    notify: Notify,
}

/// A connection for one request. Dropped without [`give_back`](Self::give_back), an HTTP/1.1 connection is closed at
/// once, whatever it is in the middle of: hyper alone would wait for an upstream that does not read.
pub struct Lease {
    carrier: Carrier,
    /// Whether it carried a request before.
    pub reused: bool,
}

enum Carrier {
    Http1(Http1, Rc<Host>, Closing),
    Http2(Place),
}

/// Ends a connection's task, and the connection with it, unless it is told not to.
struct Closing(Option<AbortHandle>);

impl Drop for Closing {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

/// One of an HTTP/2 connection's streams.
struct Place(Rc<Http2>);

impl Place {
    fn take(connection: Rc<Http2>) -> Self {
        connection.in_flight.set(connection.in_flight.get() + 1);
        Self(connection)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get().saturating_sub(1));
        self.0.last_used.set(Instant::now());
    }
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(dialer: Dialer, settings: Settings, recorder: Rc<Recorder>) -> Self {
        Self { dialer, settings, recorder, hosts: RefCell::default() }
    }

    /// A connection that meets the need.
    ///
    /// # Errors
    /// [`ProxyError::Dial`] when none is at hand and none can be made.
    pub async fn lease(self: &Rc<Self>, origin: &Arc<Origin>, need: Need) -> Result<Lease, ProxyError> {
        let host = self.host(origin);
        match self.at_hand(&host, need) {
            Some(lease) => Ok(lease),
            // In a box: the handshake's state is large, and every request would carry room for it.
            None => Box::pin(self.made_for(&host, need)).await,
        }
    }

    fn at_hand(&self, host: &Rc<Host>, need: Need) -> Option<Lease> {
        let lease = host.shared(need, self.settings).or_else(|| host.idle(need, self.settings))?;
        if lease.reused {
            self.recorder.upstream_reused();
        }
        Some(lease)
    }

    async fn made_for(self: &Rc<Self>, host: &Rc<Host>, need: Need) -> Result<Lease, ProxyError> {
        loop {
            if host.protocol.get() == Some(Protocol::Http1) {
                self.dial(host).await?;
            } else {
                self.dial_for_all(host).await?;
            }
            // Another request may have taken it meanwhile.
            if let Some(lease) = self.at_hand(host, need) {
                return Ok(lease);
            }
        }
    }

    async fn dial(&self, host: &Rc<Host>) -> Result<(), DialErrorShared> {
        let connection = self.dialer.dial(&host.origin).await.map_err(DialErrorShared::new)?;
        self.recorder.upstream_opened();
        host.start(connection).await
    }

    fn host(&self, origin: &Arc<Origin>) -> Rc<Host> {
        let mut hosts = self.hosts.borrow_mut();
        // A handful at most; equal pointers are the usual case.
        let known = hosts.iter().find(|host| Arc::ptr_eq(&host.origin, origin) || host.origin == *origin);
        if let Some(host) = known {
            return Rc::clone(host);
        }
        let host = Rc::new(Host::new(Arc::clone(origin)));
        hosts.push(Rc::clone(&host));
        host
    }

    /// Waits for a connection that other requests may be waiting for too: with HTTP/2 one is enough for all of them.
    async fn dial_for_all(self: &Rc<Self>, host: &Rc<Host>) -> Result<(), ProxyError> {
        let under_way = host.dialing.borrow().clone();
        let dialing = under_way.unwrap_or_else(|| {
            let dialing = Rc::new(Dialing::default());
            *host.dialing.borrow_mut() = Some(Rc::clone(&dialing));
            // A task of its own, since the request that started it may be given up while others wait.
            spawn_local(Rc::clone(self).dial_task(Rc::clone(host), Rc::clone(&dialing)));
            dialing
        });
        loop {
            let notified = dialing.notify.notified();
            if let Some(done) = dialing.done.borrow().clone() {
                return Ok(done?);
            }
            notified.await;
        }
    }

    async fn dial_task(self: Rc<Self>, host: Rc<Host>, dialing: Rc<Dialing>) {
        let done = self.dial(&host).await;
        *host.dialing.borrow_mut() = None;
        *dialing.done.borrow_mut() = Some(done);
        dialing.notify.notify_waiters();
    }

    /// Closes what has been idle for too long; to be called every few seconds.
    pub fn sweep(&self) {
        for host in self.hosts.borrow().iter() {
            host.sweep(self.settings);
        }
    }
}

impl DialErrorShared {
    fn new(error: crate::https::DialError) -> Self {
        Self(Rc::new(error))
    }
}

impl Host {
    fn new(origin: Arc<Origin>) -> Self {
        Self {
            origin,
            protocol: Cell::new(None),
            idle: RefCell::default(),
            shared: RefCell::default(),
            dialing: RefCell::default(),
        }
    }

    /// Speaks HTTP on a new connection and makes it available.
    async fn start(self: &Rc<Self>, connection: Connection) -> Result<(), DialErrorShared> {
        let now = Instant::now();
        let received = connection.stream.received();
        let io = TokioIo::new(connection.stream);
        if connection.http2 {
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
                .handshake(io)
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
                received,
                running,
            }));
        } else {
            let (sender, running) =
                http1::Builder::new().handshake(io).await.map_err(|error| self.handshake_error(error))?;
            let task = spawn_local(async move {
                let ended = running.await;
                tracing::debug!(error = ended.err().map(tracing::field::display), "http/1.1 connection ended");
            });
            self.protocol.set(Some(Protocol::Http1));
            let connection = Http1 { sender, received, opened: now, used: false };
            self.idle.borrow_mut().push(Idle { connection, task: task.abort_handle(), since: now });
        }
        Ok(())
    }

    fn handshake_error(&self, error: hyper::Error) -> DialErrorShared {
        let source = std::io::Error::other(error);
        DialErrorShared::new(crate::https::DialError::Connect { origin: self.origin.to_string(), source })
    }

    /// A place on an HTTP/2 connection.
    fn shared(&self, need: Need, settings: Settings) -> Option<Lease> {
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
        Some(Lease { carrier: Carrier::Http2(Place::take(connection)), reused })
    }

    /// An HTTP/1.1 connection, the one used last first.
    fn idle(self: &Rc<Self>, need: Need, settings: Settings) -> Option<Lease> {
        let mut idle = self.idle.borrow_mut();
        let now = Instant::now();
        let mut at = idle.len();
        while at > 0 {
            at -= 1;
            let Idle { connection, since, .. } = &idle[at];
            if !connection.is_usable(now, settings) || now.duration_since(*since) > settings.idle {
                idle.remove(at);
                continue;
            }
            let waited = now.duration_since(*since);
            let fits = match need {
                Need::Any => true,
                Need::JustUsed if connection.used => waited <= settings.unsafe_reuse,
                Need::Since(instant) if connection.opened < instant => false,
                Need::JustUsed | Need::Since(_) | Need::Fresh => !connection.used && waited <= FRESH,
            };
            // One that is not ready has just been given back and its task has yet to run; a fresh one takes its first
            // request at once.
            if fits && (!connection.used || connection.sender.is_ready()) {
                let Idle { mut connection, task, .. } = idle.remove(at);
                let reused = std::mem::replace(&mut connection.used, true);
                let closing = Closing(Some(task));
                return Some(Lease { carrier: Carrier::Http1(connection, Rc::clone(self), closing), reused });
            }
        }
        None
    }

    fn sweep(&self, settings: Settings) {
        let now = Instant::now();
        self.idle
            .borrow_mut()
            .retain(|idle| idle.connection.is_usable(now, settings) && now.duration_since(idle.since) <= settings.idle);
        self.shared.borrow_mut().retain(|connection| {
            let idle =
                connection.in_flight.get() == 0 && now.duration_since(connection.last_used.get()) > settings.idle;
            connection.is_usable(now, settings) && !idle
        });
    }
}

impl Http1 {
    fn is_usable(&self, now: Instant, settings: Settings) -> bool {
        !self.sender.is_closed() && now.duration_since(self.opened) < settings.max_age
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
        !self.sender.is_closed() && now.duration_since(self.opened) < settings.max_age
    }
}

/// A request handed to a connection, and what comes of it.
pub type Sent<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// The answer's head, or the error with the request itself when none of it had been sent.
pub type Outcome =
    Result<http::Response<hyper::body::Incoming>, hyper::client::conn::TrySendError<http::Request<Upload>>>;

impl Lease {
    /// The version spoken.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        match self.carrier {
            Carrier::Http1(..) => Protocol::Http1,
            Carrier::Http2(_) => Protocol::Http2,
        }
    }

    /// Bytes received on the connection so far; `None` where it is shared and says nothing about one request.
    #[must_use]
    pub fn received(&self) -> Option<u64> {
        match &self.carrier {
            Carrier::Http1(connection, ..) => Some(connection.received.get()),
            Carrier::Http2(_) => None,
        }
    }

    /// Sends the request.
    pub fn send(&mut self, request: http::Request<Upload>) -> Sent<'_> {
        match &mut self.carrier {
            Carrier::Http1(connection, ..) => Box::pin(connection.sender.try_send_request(request)),
            Carrier::Http2(place) => Box::pin(place.0.sender.clone().try_send_request(request)),
        }
    }

    /// Makes the connection available again; to be called once the answer's body has been read to its end.
    pub fn give_back(self) {
        if let Carrier::Http1(connection, host, mut closing) = self.carrier
            && let Some(task) = closing.0.take()
            && !connection.sender.is_closed()
        {
            host.idle.borrow_mut().push(Idle { connection, task, since: Instant::now() });
        }
    }
}

/// hyper's HTTP/2 tasks stay on the core they belong to.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, task: F) {
        spawn_local(task);
    }
}
