//! The gate between a caller's socket and the proxy: one HTTP/1 connection, read and written.
//!
//! In: bytes from the socket, cut anywhere; pieces of an answer. Out: one strictly checked head at a time, and exactly
//! the body bytes that belong to it; to the connection's owner: the refusal of a head that did not pass, after every
//! answer before it was written. The gate also keeps the caller's deadlines, since it is the one place that knows what
//! is being waited for.

use std::cell::RefCell;
use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::time::Instant;

use super::chunks::Chunks;
use super::deadline::Deadline;
use super::head::{self, Framing, Head, Lines};
use super::incoming::{Broken, Source};
use super::problem::Problem;

/// First read of a connection, in bytes: most heads fit.
const READ: usize = 4 * 1024;

/// What is read of a body at a time, in bytes: it doubles while the socket fills it.
const PIECE: usize = 8 * 1024;
const PIECE_MAX: usize = 64 * 1024;

/// What a caller that expects it is told before it sends a body (RFC 9110 15.2.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What a caller is held to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the first byte of a head to its last.
    pub head_timeout: Duration,
    /// Between two requests on a connection.
    pub idle: Duration,
    /// Between two bytes of a body, in either direction.
    pub body_idle: Duration,
    /// Bytes of a head, request line included.
    pub max_head_size: usize,
    /// Header lines of a head.
    pub max_headers: usize,
}

enum At {
    /// Collecting a head, since then if anything has come of it.
    Head(Option<Instant>),
    Length(u64),
    Chunked(Chunks),
    /// Nothing more is read: a body did not come whole.
    Broken,
    /// Nothing more is read: the caller closed, or a head was refused.
    End,
}

/// Why there is no further request, or will be none before more comes.
#[derive(Debug)]
pub enum Outcome {
    /// The caller closed, was idle for too long, or broke off.
    Ended,
    /// Nothing was in flight for the time given: the caller is still there, and so is its connection. Since when it
    /// has been waited for.
    Parked(Instant),
    /// A head did not pass; the caller is to be told.
    Refused(Problem),
}

const NEXT_HEAD: At = At::Head(None);

/// A caller's connection.
pub struct Gate<S> {
    /// Nothing once it was taken away; what still has a hand on a body finds no more of it.
    stream: Option<S>,
    limits: Limits,
    park_after: Duration,
    buffer: BytesMut,
    lines: Lines,
    at: At,
    outcome: Outcome,
    /// How many heads have passed.
    number: u64,
    /// How much of a body is read next.
    piece: usize,
    /// What is left of the word that a caller waits for.
    word: &'static [u8],
    /// It has been written, and an encrypted stream may hold it.
    word_held: bool,
    read_deadline: Deadline,
    waiting_since: Option<Instant>,
    write_deadline: Deadline,
    blocked_since: Option<Instant>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gate<S> {
    /// A gate before a connection that has been waiting for a request since `waiting_since`; after `park_after` it
    /// is to wait without buffers.
    pub fn new(stream: S, limits: Limits, park_after: Duration, waiting_since: Instant) -> Self {
        Self {
            stream: Some(stream),
            limits,
            park_after,
            buffer: BytesMut::new(),
            lines: Lines::default(),
            at: NEXT_HEAD,
            outcome: Outcome::Ended,
            number: 0,
            piece: PIECE,
            word: &[],
            word_held: false,
            read_deadline: Deadline::default(),
            waiting_since: Some(waiting_since),
            write_deadline: Deadline::default(),
            blocked_since: None,
        }
    }

    /// The stream it reads and writes.
    pub fn stream(&self) -> Option<&S> {
        self.stream.as_ref()
    }

    /// The stream, once there are no more heads, and what is to be done with it now. The gate is of no use then.
    pub fn take_stream(&mut self) -> Option<(S, Outcome)> {
        Some((self.stream.take()?, std::mem::replace(&mut self.outcome, Outcome::Ended)))
    }

    /// How many heads have passed; the last one's number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether the last request has come whole, so that what comes next is another one.
    pub fn is_between(&self) -> bool {
        matches!(self.at, At::Head(_))
    }

    /// Whether a head has begun and not ended.
    pub fn is_mid_head(&self) -> bool {
        self.is_between() && !self.buffer.is_empty()
    }

    fn refuse(&mut self, problem: Problem) {
        self.outcome = Outcome::Refused(problem);
        self.at = At::End;
        self.buffer = BytesMut::new();
    }

    /// Reads more into the buffer, which gets room for `room` bytes; `Ok(0)` is the end of the stream.
    fn poll_fill(&mut self, room: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(0)) };
        self.buffer.reserve(room);
        pin!(stream.read_buf(&mut self.buffer)).poll(cx)
    }

    /// The next head; none when there will be none, for the reason that [`take_stream`](Self::take_stream) gives.
    ///
    /// # Errors
    /// When the connection breaks off.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Head>>> {
        while self.is_between() {
            if let Some(end) = self.search() {
                return Poll::Ready(Ok(self.take_head(end)));
            }
            if matches!(self.at, At::End) {
                break;
            }
            match self.poll_fill(READ, cx) {
                Poll::Ready(Ok(0)) if self.buffer.is_empty() => self.at = At::End,
                Poll::Ready(Ok(0)) => {
                    self.refuse(head::malformed("The connection was closed in the middle of the request head."))
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => ready!(self.poll_head_deadline(cx)),
            }
        }
        Poll::Ready(Ok(None))
    }

    fn poll_head_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let At::Head(since) = &mut self.at else { return Poll::Ready(()) };
        let now = Instant::now();
        if self.buffer.is_empty() {
            let waiting = *self.waiting_since.get_or_insert(now);
            let limit = self.limits.idle.min(self.park_after);
            if limit.is_zero() || self.read_deadline.passed(waiting + limit, cx) {
                if now < waiting + self.limits.idle {
                    self.outcome = Outcome::Parked(waiting);
                }
                self.at = At::End;
                return Poll::Ready(());
            }
        } else {
            let started = *since.get_or_insert(now);
            if self.read_deadline.passed(started + self.limits.head_timeout, cx) {
                self.refuse(head::malformed(
                    "The request head did not arrive in time; send it at once, or raise client.head_timeout.",
                ));
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    /// Looks for the end of a head in what is buffered; what can be none is refused.
    fn search(&mut self) -> Option<usize> {
        while self.lines.is_new() && self.buffer.starts_with(b"\r\n") {
            // RFC 9112 2.2: empty lines before a request line are ignored, however they arrive; some clients end bodies
            // with one. They are no head that has begun, so the idle limit goes on counting: they keep nothing open.
            self.buffer.advance(2);
            self.at = NEXT_HEAD;
        }
        // A lone CR may still become the empty line above.
        let found = if self.buffer[..] == *b"\r" { None } else { self.lines.find(&self.buffer) };
        if found.is_some() {
            return found;
        }
        if self.lines.count() > self.limits.max_headers + 1 {
            self.refuse(head::TOO_MANY_LINES);
            return None;
        }
        if let Some(first) = self.buffer.first().filter(|first| !head::is_token(**first)) {
            // Not HTTP at all, most often a TLS hello: no line end may ever come.
            let detail = if *first == 0x16 {
                "This listener speaks plain HTTP; use http:// instead of https://."
            } else {
                "The request does not start with a method."
            };
            if *first != b'\r' || self.buffer.len() > 1 {
                self.refuse(head::malformed(detail));
                return None;
            }
        }
        if self.buffer.len() > self.limits.max_head_size {
            self.refuse_size();
        }
        None
    }

    fn refuse_size(&mut self) {
        self.refuse(head::too_large(
            "The request line and headers are too large; send less, or raise client.max_head_size.",
        ));
    }

    /// Takes the head that ends at `end` out of the buffer; none where it is refused.
    fn take_head(&mut self, end: usize) -> Option<Head> {
        if end > self.limits.max_head_size {
            self.refuse_size();
            return None;
        }
        let head = head::read(&self.buffer.split_to(end).freeze(), &self.lines, self.limits.max_headers);
        self.lines.clear();
        let head = head.map_err(|problem| self.refuse(problem)).ok()?;
        self.at = match head.framing {
            Framing::None => NEXT_HEAD,
            Framing::Length(length) => At::Length(length),
            Framing::Chunked => At::Chunked(Chunks::new()),
        };
        self.number += 1;
        self.waiting_since = None;
        self.piece = PIECE;
        self.word = if head.expects && head.framing != Framing::None { CONTINUE } else { &[] };
        Some(head)
    }

    /// The next bytes of the body; never an empty piece.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        match self.at {
            At::Length(_) | At::Chunked(_) => {}
            At::Broken => return Poll::Ready(Some(Err(Broken::Closed))),
            At::Head(_) | At::End => return Poll::Ready(None),
        }
        let polled = ready!(self.poll_piece(cx));
        match &polled {
            Ok(_) if self.is_between() => self.rest(),
            Ok(_) => {}
            Err(_) => self.at = At::Broken,
        }
        Poll::Ready(polled.transpose())
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        if !self.word.is_empty() || self.word_held {
            ready!(self.poll_word(cx))?;
            ready!(self.poll_flush(cx))?;
            self.word_held = false;
        }
        loop {
            match &mut self.at {
                At::Length(left) if !self.buffer.is_empty() => {
                    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(self.buffer.len());
                    *left -= count as u64;
                    if *left == 0 {
                        self.at = NEXT_HEAD;
                    }
                    self.waiting_since = None;
                    return Poll::Ready(Ok(Some(self.buffer.split_to(count).freeze())));
                }
                At::Chunked(chunks) if !self.buffer.is_empty() => {
                    let piece = chunks.take(&mut self.buffer)?;
                    let done = chunks.is_done();
                    if done {
                        self.at = NEXT_HEAD;
                    }
                    self.waiting_since = None;
                    if done || piece.is_some() {
                        return Poll::Ready(Ok(piece));
                    }
                }
                _ => {}
            }
            match self.poll_fill(self.piece, cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Broken::Closed)),
                Poll::Ready(Ok(count)) if count >= self.piece => self.piece = (self.piece * 2).min(PIECE_MAX),
                Poll::Ready(result) => drop(result?),
                Poll::Pending => {
                    let waiting = *self.waiting_since.get_or_insert_with(Instant::now);
                    if self.read_deadline.passed(waiting + self.limits.body_idle, cx) {
                        return Poll::Ready(Err(Broken::Io(io::ErrorKind::TimedOut.into())));
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Bytes of the body that are still to come, where that is known.
    fn left(&self) -> Option<u64> {
        match &self.at {
            At::Head(_) | At::End => Some(0),
            At::Length(left) => Some(*left),
            At::Chunked(_) | At::Broken => None,
        }
    }

    /// Gives back the room that a body took.
    fn rest(&mut self) {
        if self.buffer.is_empty() && self.buffer.capacity() > READ {
            self.buffer = BytesMut::new();
        }
    }

    /// Writes the word that the caller waits for.
    fn poll_word(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.word.is_empty() {
            let Some(stream) = &mut self.stream else { return Poll::Ready(Err(gone())) };
            let polled = Pin::new(stream).poll_write(cx, self.word);
            let count = ready!(self.wrote(cx, polled))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.word = &self.word[count..];
            self.word_held = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes some of an answer; how many bytes it was.
    ///
    /// # Errors
    /// When the connection breaks off, or the caller reads nothing for [`Limits::body_idle`].
    pub fn poll_write(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.word.len() == CONTINUE.len() {
            // With an answer there is nothing to wait for.
            (self.word, self.blocked_since) = (&[], None);
        }
        ready!(self.poll_word(cx))?;
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(gone())) };
        let polled = Pin::new(stream).poll_write_vectored(cx, pieces);
        self.wrote(cx, polled)
    }

    /// Sees to it that all that was written has left.
    ///
    /// # Errors
    /// As with [`poll_write`](Self::poll_write).
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(gone())) };
        let polled = Pin::new(stream).poll_flush(cx);
        self.wrote(cx, polled)
    }

    /// Notes how a write went; a caller that reads nothing for `body_idle` is given up.
    fn wrote<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.blocked_since = None;
            return result;
        }
        let blocked = *self.blocked_since.get_or_insert_with(Instant::now);
        if self.write_deadline.passed(blocked + self.limits.body_idle, cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl<S: AsyncRead + AsyncWrite + Unpin> Source for RefCell<Gate<S>> {
    fn poll_body(&self, number: u64, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        let mut gate = self.borrow_mut();
        if gate.number == number { gate.poll_data(cx) } else { Poll::Ready(None) }
    }

    fn left(&self, number: u64) -> Option<u64> {
        let gate = self.borrow();
        if gate.number == number { gate.left() } else { Some(0) }
    }
}
