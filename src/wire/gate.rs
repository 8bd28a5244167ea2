//! The gate between a caller's socket and hyper's HTTP/1 server.
//!
//! In: bytes from the socket, cut anywhere. Out, to hyper: one strictly checked head at a time, and exactly the body
//! bytes that belong to it; to the connection's owner: the refusal of a head that did not pass, after every answer
//! before it was written. hyper parses everything again; what it would have forgiven never reaches it. The gate also
//! keeps the caller's deadlines, since it is the one place that knows what is being waited for.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use memchr::memchr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};
use tokio::time::Instant;

use super::chunks::Chunks;
use super::deadline::Deadline;
use super::head::{self, Framing};
use super::problem::{Code, Problem};

/// First read of a connection, in bytes: most heads fit.
const READ: usize = 4 * 1024;

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
    /// Collecting a head; so many bytes of the buffer were searched for its end.
    Head {
        searched: usize,
        line_start: usize,
        since: Option<Instant>,
    },
    /// A checked head on its way to hyper.
    Deliver {
        left: usize,
        then: Framing,
    },
    Length(u64),
    Chunked(Chunks),
    /// Nothing more is read: the caller closed, or a head was refused.
    End,
}

/// Why hyper sees the end of the stream, or will when it comes.
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

const NEXT_HEAD: At = At::Head { searched: 0, line_start: 0, since: None };

/// The stream hyper serves.
pub struct Gate<S> {
    inner: Take<S>,
    limits: Limits,
    park_after: Duration,
    buffer: BytesMut,
    at: At,
    outcome: Outcome,
    read_deadline: Deadline,
    waiting_since: Option<Instant>,
    write_deadline: Deadline,
    blocked_since: Option<Instant>,
    read_held: bool,
    mid_head: Rc<Cell<bool>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gate<S> {
    /// A gate before a connection that has been waiting for a request since `waiting_since`; after `park_after` it
    /// waits without hyper.
    pub fn new(stream: S, limits: Limits, park_after: Duration, waiting_since: Instant) -> Self {
        Self {
            inner: stream.take(u64::MAX),
            limits,
            park_after,
            buffer: BytesMut::new(),
            at: NEXT_HEAD,
            outcome: Outcome::Ended,
            read_deadline: Deadline::default(),
            waiting_since: Some(waiting_since),
            write_deadline: Deadline::default(),
            blocked_since: None,
            read_held: false,
            mid_head: Rc::default(),
        }
    }

    /// True while a head has begun and not ended. hyper sees nothing of such a head, and would take the connection for
    /// an idle one.
    pub fn mid_head(&self) -> Rc<Cell<bool>> {
        Rc::clone(&self.mid_head)
    }

    /// The socket, once hyper is done with it, and what is to be done with it now.
    pub fn into_parts(self) -> (S, Outcome) {
        (self.inner.into_inner(), self.outcome)
    }

    fn refuse(&mut self, problem: Problem) {
        self.outcome = Outcome::Refused(problem);
        self.at = At::End;
        self.buffer = BytesMut::new();
    }

    /// Reads more into the buffer; `Ok(0)` is the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.inner.set_limit(u64::MAX);
        self.buffer.reserve(READ);
        let read = std::pin::pin!(self.inner.read_buf(&mut self.buffer));
        read.poll(cx)
    }

    /// Gets a complete, checked head into the buffer, or finds that there will be none.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.mid_head.set(false);
        while let At::Head { .. } = self.at {
            if self.search() {
                continue;
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(0)) if self.buffer.is_empty() => self.at = At::End,
                Poll::Ready(Ok(0)) => self.refuse(
                    Problem::new(
                        Code::RequestInvalid,
                        "http_request_error",
                        "The connection was closed in the middle of the request head.",
                    )
                    .closing(),
                ),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.mid_head.set(!self.buffer.is_empty());
                    ready!(self.poll_head_deadline(cx));
                    self.mid_head.set(false);
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_head_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let At::Head { since, .. } = &mut self.at else { return Poll::Ready(()) };
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
                self.refuse(
                    Problem::new(
                        Code::RequestInvalid,
                        "http_request_error",
                        "The request head did not arrive in time; send it at once, or raise client.head_timeout.",
                    )
                    .closing(),
                );
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    /// Looks for the end of a head in what is buffered; true when that decided something.
    fn search(&mut self) -> bool {
        let At::Head { searched, line_start, since } = &mut self.at else { return false };
        while *searched == 0 && self.buffer.starts_with(b"\r\n") {
            // RFC 9112 2.2: empty lines before a request line are ignored, however they arrive; some clients end bodies
            // with one. They are no head that has begun, so the idle limit goes on counting: they keep nothing open.
            self.buffer.advance(2);
            *since = None;
        }
        while let Some(found) = memchr(b'\n', &self.buffer[*searched..]) {
            let lf = *searched + found;
            let line = &self.buffer[*line_start..lf];
            *searched = lf + 1;
            // A bare LF ends the search too: `check` refuses it, and waiting for a CRLF would be waiting for ever.
            let bare = line.last() != Some(&b'\r');
            if bare || line == b"\r" {
                let end = lf + 1;
                self.finish_head(end);
                return true;
            }
            *line_start = lf + 1;
        }
        // A lone CR may still become the empty line above.
        *searched = if self.buffer[..] == *b"\r" { 0 } else { self.buffer.len() };
        if let Some(first) = self.buffer.first().filter(|first| !head::is_token(**first)) {
            // Not HTTP at all, most often a TLS hello: no line end may ever come.
            let detail = if *first == 0x16 {
                "This listener speaks plain HTTP; use http:// instead of https://."
            } else {
                "The request does not start with a method."
            };
            if *first != b'\r' || self.buffer.len() > 1 {
                self.refuse(Problem::new(Code::RequestInvalid, "http_request_error", detail).closing());
                return true;
            }
        }
        if self.buffer.len() > self.limits.max_head_size {
            self.refuse_size();
            return true;
        }
        false
    }

    fn refuse_size(&mut self) {
        self.refuse(
            Problem::new(
                Code::HeadersTooLarge,
                "http_request_error",
                "The request line and headers are too large; send less, or raise client.max_head_size.",
            )
            .closing(),
        );
    }

    fn finish_head(&mut self, end: usize) {
        if end > self.limits.max_head_size {
            return self.refuse_size();
        }
        match head::check(&self.buffer[..end], self.limits.max_headers) {
            Ok(then) => self.at = At::Deliver { left: end, then },
            Err(problem) => self.refuse(problem),
        }
    }

    /// Hands out buffered bytes, at most `max`.
    fn hand_out(&mut self, max: usize, buf: &mut ReadBuf<'_>) -> usize {
        let count = max.min(self.buffer.len()).min(buf.remaining());
        buf.put_slice(&self.buffer[..count]);
        self.buffer.advance(count);
        count
    }

    fn poll_length(&mut self, cx: &mut Context<'_>, left: u64, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.buffer.is_empty() {
            self.inner.set_limit(left);
            match Pin::new(&mut self.inner).poll_read(cx, buf) {
                Poll::Ready(result) => result?,
                Poll::Pending => return self.poll_body_deadline(cx),
            }
        } else {
            self.hand_out(usize::try_from(left).unwrap_or(usize::MAX), buf);
        }
        self.waiting_since = None;
        let left = left - (buf.filled().len() - before) as u64;
        self.at = if left == 0 { NEXT_HEAD } else { At::Length(left) };
        Poll::Ready(Ok(()))
    }

    fn poll_chunked(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.buffer.is_empty() {
            match self.poll_fill(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(result) => result?,
                Poll::Pending => return self.poll_body_deadline(cx).map_ok(|()| ()),
            };
        }
        self.waiting_since = None;
        let At::Chunked(chunks) = &mut self.at else { return Poll::Ready(Ok(())) };
        let view = self.buffer.len().min(buf.remaining());
        let used = chunks
            .advance(&self.buffer[..view])
            .map_err(|malformed| io::Error::new(io::ErrorKind::InvalidData, malformed))?;
        let done = chunks.is_done();
        self.hand_out(used, buf);
        if done {
            self.at = NEXT_HEAD;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_body_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let waiting = *self.waiting_since.get_or_insert_with(Instant::now);
        if self.read_deadline.passed(waiting + self.limits.body_idle, cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }

    /// Notes how a write went; a caller that reads nothing for `body_idle` is given up.
    fn wrote<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.blocked_since = None;
            if std::mem::take(&mut self.read_held) {
                cx.waker().wake_by_ref();
            }
            return result;
        }
        let blocked = *self.blocked_since.get_or_insert_with(Instant::now);
        if self.write_deadline.passed(blocked + self.limits.body_idle, cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gate<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match &this.at {
                At::Head { .. } => {
                    if this.blocked_since.is_some() {
                        // The answer before has not left yet: no further request until the caller reads it.
                        this.read_held = true;
                        return Poll::Pending;
                    }
                    ready!(this.poll_head(cx))?;
                }
                At::Deliver { left, then } => {
                    let (left, then) = (*left, *then);
                    let left = left - this.hand_out(left, buf);
                    this.waiting_since = None;
                    this.at = match then {
                        _ if left > 0 => At::Deliver { left, then },
                        Framing::None => NEXT_HEAD,
                        Framing::Length(length) => At::Length(length),
                        Framing::Chunked => At::Chunked(Chunks::new()),
                    };
                    return Poll::Ready(Ok(()));
                }
                At::Length(left) => return this.poll_length(cx, *left, buf),
                At::Chunked(_) => return this.poll_chunked(cx, buf),
                At::End => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(self.inner.get_mut()).poll_write(cx, buf);
        self.wrote(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(self.inner.get_mut()).poll_write_vectored(cx, bufs);
        self.wrote(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.get_ref().is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(self.inner.get_mut()).poll_flush(cx);
        self.wrote(cx, result)
    }

    /// Nothing: the connection's owner ends it, after the refusal that may still have to be written.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
