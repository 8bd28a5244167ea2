//! One HTTP/2 connection to Cloudbeds, and the exchanges on it (RFC 9113).
//!
//! In: requests, each on a stream of its own. Out: for each the answer's head, then its body piece by piece. The
//! connection has a task that moves frames; all else is done by whoever waits for the answer, the sending of the request's
//! body too. A connection on which something is waited for and nothing comes is asked whether it is alive.

use std::cell::{Cell, RefCell};
use std::future::Future as _;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, ResponseFuture, SendRequest};
use h2::{Ping, PingPong, Reason, RecvStream, SendStream};
use http::{Request, Response};
use http_body::Body as _;
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::{Instant, Sleep, sleep};
use tokio_rustls::client::TlsStream;

use super::Settings;
use super::lease::{Answered, Failed};
use super::request::Head;
use crate::https::Counted;
use crate::origin::Origin;
use crate::proxy::broken::Broken;
use crate::wire::ahead::ReadAhead;
use crate::wire::answer;
use crate::wire::body::Upload;

/// Streams on one connection before another is opened, unless the server allows fewer. nginx and most gateways allow 100
/// to 128.
const STREAMS: usize = 100;

/// Flow-control windows, in bytes: a stream's, and a connection's. At 256 KiB a stream fills a 25 Mbit/s path of
/// 80 ms. The connection's has room for every stream's, or a few callers that do not read would fill it and hold up all
/// others; what a caller can have in memory is its own stream's window.
const STREAM_WINDOW: u32 = 1 << 18;
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;

/// How long nothing may have come, while something is waited for, before the server is asked; and how long it has then.
const QUIET: Duration = Duration::from_secs(15);
const PATIENCE: Duration = Duration::from_secs(10);

type Io = Counted<TlsStream<ReadAhead<TcpStream>>>;

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
    moving: Rc<Moving>,
    /// The last field: by then the connection knows that no request will come any more.
    _farewell: Farewell,
}

/// What moves frames.
#[derive(Default)]
struct Moving {
    /// Nothing once it has ended.
    connection: RefCell<Option<Connection<Io, Bytes>>>,
    waker: Cell<Option<Waker>>,
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
        let received = stream.received();
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
        let pulse = connection.ping_pong().map(|pings| Pulse {
            pings,
            asked: false,
            seen: 0,
            due: Box::pin(sleep(QUIET)),
            received: Rc::clone(&received),
            in_flight: Rc::clone(&in_flight),
        });
        let moving = Rc::new(Moving { connection: RefCell::new(Some(connection)), waker: Cell::default() });
        spawn_local(run(Rc::clone(&moving), pulse));
        Ok(Self {
            sender,
            opened: now,
            last_used: Cell::new(now),
            in_flight,
            used: Cell::new(false),
            stuck: Cell::new(false),
            received,
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

    /// Whether the server has said anything yet.
    pub(super) fn has_spoken(&self) -> bool {
        self.received.get() > 0
    }

    /// Whether it takes no request any more: it has ended, or the server has said that it will.
    pub(super) fn is_closed(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.moving.connection.borrow().is_none()
            || matches!(self.sender.clone().poll_ready(&mut cx), Poll::Ready(Err(_)))
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
            Poll::Pending if !dead => return Poll::Pending,
            Poll::Pending => tracing::debug!("h2 ended: no answer to a ping"),
            Poll::Ready(ended) => {
                tracing::debug!(error = ended.as_ref().err().map(tracing::field::display), "h2 ended");
            }
        }
        // Only now do those who wait for answers hear of it.
        let ended = slot.take();
        drop(slot);
        drop(ended);
        Poll::Ready(())
    })
    .await;
}

/// Whether the server is still there.
struct Pulse {
    pings: PingPong,
    asked: bool,
    /// Bytes received when it was last looked at.
    seen: u64,
    due: Pin<Box<Sleep>>,
    received: Rc<Cell<u64>>,
    in_flight: Rc<Cell<usize>>,
}

impl Pulse {
    /// Ready when the server is gone.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.asked && self.pings.poll_pong(cx).is_ready() {
                self.asked = false;
                self.due.as_mut().reset(Instant::now() + QUIET);
            }
            ready!(self.due.as_mut().poll(cx));
            if self.asked {
                return Poll::Ready(());
            }
            let received = self.received.get();
            let quiet = std::mem::replace(&mut self.seen, received) == received;
            self.asked = quiet && self.in_flight.get() > 0 && self.pings.send_ping(Ping::opaque()).is_ok();
            self.due.as_mut().reset(Instant::now() + if self.asked { PATIENCE } else { QUIET });
        }
    }
}

/// Where one exchange is.
#[derive(Default)]
pub(super) enum Stream {
    /// There is none, or it has ended.
    #[default]
    Idle,
    Ready(Box<Request<()>>, Upload),
    Sent(ResponseFuture, Option<Sending>),
    Answering {
        body: RecvStream,
        left: Option<u64>,
        sending: Option<Sending>,
    },
    /// It ended before its end.
    Broken,
}

/// A request's body on its way.
pub(super) struct Sending {
    stream: SendStream<Bytes>,
    upload: Upload,
}

impl Stream {
    /// A request, of which nothing is sent before the answer is polled for.
    pub(super) fn start(head: &Head, upload: Upload, origin: &Origin) -> Self {
        Self::Ready(Box::new(head.http2(&upload, origin)), upload)
    }

    pub(super) fn poll_head(&mut self, connection: &Http2, cx: &mut Context<'_>) -> Poll<Result<Answered, Failed>> {
        if let Self::Ready(..) = self
            && let Self::Ready(request, upload) = std::mem::take(self)
        {
            if connection.is_closed() {
                return Poll::Ready(Err(Failed::Unsent(upload)));
            }
            let absent = upload.is_absent();
            match connection.sender.clone().send_request(*request, absent) {
                Ok((answer, stream)) => *self = Self::Sent(answer, (!absent).then_some(Sending { stream, upload })),
                Err(error) => return Poll::Ready(Err(Failed::Sent(Broken::Http2(error)))),
            }
        }
        let Self::Sent(answer, sending) = self else { return Poll::Ready(Err(Failed::Sent(Broken::Closed))) };
        if let Poll::Ready(Err(error)) = poll_sending(sending, cx) {
            *self = Self::Broken;
            return Poll::Ready(Err(Failed::Sent(error)));
        }
        let answered = ready!(Pin::new(answer).poll(cx)).map(Response::into_parts);
        let sending = sending.take();
        Poll::Ready(match answered {
            Ok((parts, body)) => {
                // What is no length is h2's to refuse.
                let left = answer::content_length(&parts.headers).unwrap_or_default();
                let left = if body.is_end_stream() { Some(0) } else { left };
                *self = Self::Answering { body, left, sending };
                Ok(Answered { status: parts.status, headers: parts.headers })
            }
            Err(error) => {
                *self = Self::Broken;
                Err(Failed::Sent(Broken::Http2(error)))
            }
        })
    }

    /// The next bytes of the body, never an empty piece.
    pub(super) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        let Self::Answering { body, left, sending } = self else { return Poll::Ready(None) };
        if poll_sending(sending, cx).is_ready() {
            // The answer has begun, and goes on without the rest.
            *sending = None;
        }
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
                // RFC 9113 8.1: so does a server end that has answered in full and wants no more of the request.
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) && left.is_none_or(|left| left == 0) => {
                    break;
                }
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

    pub(super) fn left(&self) -> Option<u64> {
        match self {
            Self::Answering { left, .. } => *left,
            Self::Idle => Some(0),
            Self::Ready(..) | Self::Sent(..) | Self::Broken => None,
        }
    }

    pub(super) fn is_end(&self) -> bool {
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

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;
    use tokio::time::timeout;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    /// A connection on which so many requests wait, polled until its server is taken for dead.
    async fn until_given_up(stream: DuplexStream, waiting: usize) {
        let (sender, mut connection) = h2::client::Builder::new().handshake::<_, Bytes>(stream).await.unwrap();
        let mut pulse = Pulse {
            pings: connection.ping_pong().unwrap(),
            asked: false,
            seen: 0,
            due: Box::pin(sleep(QUIET)),
            received: Rc::default(),
            in_flight: Rc::new(Cell::new(waiting)),
        };
        std::future::poll_fn(|cx| {
            let _ = Pin::new(&mut connection).poll(cx);
            pulse.poll(cx)
        })
        .await;
        drop(sender);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_answers_no_ping_while_something_is_waited_for_is_given_up() {
        let (near, _far) = tokio::io::duplex(1 << 16);
        let started = Instant::now();
        until_given_up(near, 1).await;
        assert_eq!(started.elapsed().as_secs(), (QUIET + PATIENCE).as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_of_which_nothing_is_wanted_is_left_alone() {
        let (near, _far) = tokio::io::duplex(1 << 16);
        assert!(timeout(LONG, until_given_up(near, 0)).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_answers_pings_may_take_its_time() {
        let (near, far) = tokio::io::duplex(1 << 16);
        let serving = async {
            let mut server = h2::server::handshake(far).await.unwrap();
            while server.accept().await.is_some() {}
        };
        tokio::select! {
            outcome = timeout(LONG, until_given_up(near, 1)) => assert!(outcome.is_err()),
            () = serving => panic!("the client has gone"),
        }
    }
}
