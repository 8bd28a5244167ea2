//! One HTTP/1.1 connection to Cloudbeds, and the exchange that is on it (RFC 9112).
//!
//! In: a request, and what the server sends. Out: the answer's head, then its body piece by piece. It has no task of its
//! own: whoever waits for the answer moves it on, so that a request crosses no channel and wakes nobody but its caller.
//! Request and answer move at the same time: an answer may come before the request's body is through.

mod output;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use tokio::net::TcpStream;
use tokio::time::Instant;

use self::output::Output;
use super::Settings;
use super::lease::Failed;
use super::request::Head;
use super::socket::Socket;
use crate::https::Encrypted;
use crate::proxy::broken::Broken;
use crate::wire::answer::{self, Framing};
use crate::wire::body::Upload;
use crate::wire::chunks::Chunks;
use crate::wire::deadline::Deadline;

/// A connection to Cloudbeds.
pub(super) type Connection = Http1<Encrypted<TcpStream>>;

/// A connection.
pub(in crate::proxy) struct Http1<S> {
    io: S,
    pub(super) opened: Instant,
    /// Whether it has carried a request.
    pub(super) used: bool,
    /// The timer its requests are watched by.
    pub(super) deadline: Deadline,
    /// Received and not handed out.
    input: BytesMut,
    output: Output,
    /// The request's body, until all of it was handed over.
    upload: Option<Upload>,
    at: At,
    /// Whether anything of the answer has come.
    heard: bool,
    keep_alive: bool,
}

/// Where the exchange is.
enum At {
    /// No request, or one that has been answered.
    Idle,
    /// A request with this method of which nothing has been written.
    Ready(Method),
    /// A request with this method is on its way.
    Sent(Method),
    Length(u64),
    Chunked(Chunks),
    UntilClose,
    /// Not one more byte is to be expected of it.
    Broken,
}

impl<S: Socket> Http1<S> {
    /// A connection that has just been opened.
    pub(in crate::proxy) fn new(io: S, now: Instant) -> Self {
        Self {
            io,
            opened: now,
            used: false,
            deadline: Deadline::default(),
            input: BytesMut::new(),
            output: Output::default(),
            upload: None,
            at: At::Idle,
            heard: false,
            keep_alive: true,
        }
    }

    /// Whether it can be expected to carry a request: the server has not closed it, and has not said a word unasked.
    pub(super) fn is_usable(&mut self, now: Instant, settings: Settings) -> bool {
        // Nobody needs to be woken: the connection is asked again when it is wanted.
        now.duration_since(self.opened) < settings.max_age
            && self.poll_fill(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Puts a request on it; nothing is written before the answer is polled for.
    pub(in crate::proxy) fn start(&mut self, head: &Head, upload: Upload) {
        self.output.start(head, &upload);
        self.at = At::Ready(head.method.clone());
        self.upload = Some(upload);
        self.heard = false;
    }

    /// Whether anything has come since the request was put on it.
    pub(super) fn heard(&self) -> bool {
        self.heard
    }

    /// The head of the answer.
    pub(in crate::proxy) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<answer::Head, Failed>> {
        let polled = ready!(self.poll_answered(cx));
        if polled.is_err() {
            self.at = At::Broken;
        }
        Poll::Ready(polled)
    }

    fn poll_answered(&mut self, cx: &mut Context<'_>) -> Poll<Result<answer::Head, Failed>> {
        if let At::Ready(method) = &self.at {
            let method = method.clone();
            // Whatever comes before the request is no answer to it: a server that closes, perhaps with a 408.
            if let Poll::Ready(read) = self.poll_fill(cx) {
                return Poll::Ready(self.unsent(read.err()));
            }
            let before = self.io.taken();
            self.at = At::Sent(method);
            match self.poll_send(cx) {
                // Being told of more bytes has been asked for.
                Poll::Ready(Ok(())) | Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(Broken::Io(error))) if self.io.taken() == before && self.output.is_untouched() => {
                    return Poll::Ready(self.unsent(Some(error)));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(self.last_words(error, cx)),
            }
        }
        // Before more is sent: a server that has answered may have stopped reading.
        loop {
            if let Some(head) = self.next_head()? {
                return Poll::Ready(Ok(head));
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Failed::Sent(Broken::Closed))),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failed::Sent(Broken::Io(error)))),
                Poll::Pending => break,
            }
        }
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(self.last_words(error, cx));
        }
        Poll::Pending
    }

    /// The request cannot be sent on: what the server has said before it closed is worth more than that it did.
    fn last_words(&mut self, error: Broken, cx: &mut Context<'_>) -> Result<answer::Head, Failed> {
        while self.input.len() < answer::HEAD_MAX && matches!(self.poll_fill(cx), Poll::Ready(Ok(1..))) {}
        self.next_head()?.ok_or(Failed::Sent(error))
    }

    /// Nothing has left.
    fn unsent(&mut self, reason: Option<io::Error>) -> Result<answer::Head, Failed> {
        tracing::debug!(error = reason.as_ref().map(tracing::field::display), "a connection ended before its request");
        let upload = self.upload.take().map(|upload| self.output.give_back(upload));
        Err(upload.map_or(Failed::Sent(Broken::Closed), Failed::Unsent))
    }

    /// The head of the final answer, if it is all there; 101 counts as final, though nobody asks for it.
    fn next_head(&mut self) -> Result<Option<answer::Head>, Failed> {
        let At::Sent(method) = &self.at else { return Ok(None) };
        while !self.input.is_empty() {
            let head = answer::take(&mut self.input, method).map_err(|error| Failed::Sent(Broken::Head(error)))?;
            let Some(head) = head else { return Ok(None) };
            let_go(&mut self.input);
            if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
                continue;
            }
            self.keep_alive = head.keep_alive;
            self.at = match head.framing {
                Framing::Length(0) => At::Idle,
                Framing::Length(length) => At::Length(length),
                Framing::Chunked => At::Chunked(Chunks::new()),
                Framing::UntilClose => At::UntilClose,
            };
            return Ok(Some(head));
        }
        Ok(None)
    }

    /// The next bytes of the answer's body; never an empty piece.
    pub(in crate::proxy) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        loop {
            if let Some(piece) = self.piece().transpose() {
                return Poll::Ready(Some(piece.inspect_err(|_| self.at = At::Broken)));
            }
            if matches!(self.at, At::Idle | At::Broken) {
                return Poll::Ready(None);
            }
            if let Poll::Ready(Err(_)) = self.poll_send(cx) {
                // The answer has begun and goes on without the rest.
                self.upload = None;
                self.keep_alive = false;
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) if matches!(self.at, At::UntilClose) => self.at = At::Idle,
                Ok(0) => return self.broken(Broken::Closed),
                Ok(_) => {}
                Err(error) => return self.broken(Broken::Io(error)),
            }
        }
    }

    fn broken(&mut self, error: Broken) -> Poll<Option<Result<Bytes, Broken>>> {
        self.at = At::Broken;
        Poll::Ready(Some(Err(error)))
    }

    /// What has been received of the body.
    fn piece(&mut self) -> Result<Option<Bytes>, Broken> {
        match &mut self.at {
            At::Length(left) if !self.input.is_empty() => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(self.input.len());
                *left -= count as u64;
                if *left == 0 {
                    self.at = At::Idle;
                }
                if count == self.input.len() {
                    return Ok(Some(std::mem::take(&mut self.input).freeze()));
                }
                Ok(Some(self.input.split_to(count).freeze()))
            }
            At::Chunked(chunks) => {
                let piece = chunks.take(&mut self.input).map_err(Broken::Chunks)?;
                if chunks.is_done() {
                    self.at = At::Idle;
                }
                let_go(&mut self.input);
                Ok(piece)
            }
            At::UntilClose if !self.input.is_empty() => Ok(Some(std::mem::take(&mut self.input).freeze())),
            _ => Ok(None),
        }
    }

    /// Bytes of the body that are still to come, where that is known.
    pub(super) fn left(&self) -> Option<u64> {
        match self.at {
            At::Length(left) => Some(left),
            At::Idle => Some(0),
            _ => None,
        }
    }

    /// Whether the answer has ended.
    pub(super) fn is_end(&self) -> bool {
        matches!(self.at, At::Idle)
    }

    /// Whether it can carry another request.
    pub(in crate::proxy) fn is_reusable(&self) -> bool {
        let sent = self.upload.is_none() && self.output.is_empty();
        self.is_end() && sent && self.keep_alive && self.input.is_empty()
    }

    /// Says goodbye, as far as the system takes that at once.
    pub(super) fn close(mut self) {
        let _ = Pin::new(&mut self.io).poll_shutdown(&mut Context::from_waker(Waker::noop()));
    }

    /// Wipes what it sent last, since no answer is awaited. Not after each request: the next one writes over it.
    pub(super) fn wipe(&mut self) {
        self.output.wipe();
    }

    /// Sends what can be sent; ready when all of the request has left.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let Some(upload) = &mut self.upload else { return Poll::Ready(Ok(())) };
        ready!(self.output.poll(upload, Pin::new(&mut self.io), cx))?;
        self.upload = None;
        Poll::Ready(Ok(()))
    }

    /// Receives once; `Ok(0)` is the end of the stream. Of a body nothing is left by then, so its bytes are not copied.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(piece) = ready!(self.io.poll_piece(cx))? else { return Poll::Ready(Ok(0)) };
        self.heard = true;
        let count = piece.len();
        if self.input.is_empty() {
            self.input = piece;
        } else {
            self.input.extend_from_slice(&piece);
        }
        Poll::Ready(Ok(count))
    }
}

/// Keeps no part of a buffer that nothing is left in: others receive there.
fn let_go(input: &mut BytesMut) {
    if input.is_empty() {
        *input = BytesMut::new();
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::uri::PathAndQuery;

    use tokio::io::AsyncWrite;

    use super::*;

    /// Takes what is written into a buffer of its own, as TLS does, and cannot pass it on.
    struct Stuck;

    impl Socket for Stuck {
        fn taken(&self) -> u64 {
            0
        }

        fn poll_piece(&mut self, _: &mut Context<'_>) -> Poll<io::Result<Option<BytesMut>>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Stuck {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_was_handed_over_is_not_called_unsent_even_where_the_system_took_nothing() {
        let head = Head { method: Method::GET, target: PathAndQuery::from_static("/"), headers: HeaderMap::new() };
        let mut connection = Http1::new(Stuck, Instant::now());
        connection.start(&head, Upload::absent(Instant::now()));
        let polled = connection.poll_head(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Ready(Err(Failed::Sent(Broken::Io(_))))));
    }
}
