//! A request on its way into an HTTP/1.1 connection.
//!
//! In: its head, and its body as the caller sends it. Out: bytes for the stream, the head and the first of the body in
//! one write where both are there. The body is framed as the head says, which is checked, since whoever gets the bytes
//! after a length that is wrong takes them for the next request.

use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http_body::Body as _;
use tokio::io::AsyncWrite;
use zeroize::{Zeroize as _, Zeroizing};

use super::super::request::{Head, says_that_none_follows};
use crate::proxy::broken::Broken;
use crate::wire::body::Upload;

/// Room for what is added to a head: its end, how the body is framed, and the size of a chunk.
const ROOM: usize = 128;

/// What has been put together and not written yet.
#[derive(Default)]
pub(super) struct Output {
    /// The head, or the size of a chunk; written up to `at`. There is a key in it: it is wiped while the connection waits,
    /// and in the end.
    front: Zeroizing<Vec<u8>>,
    at: usize,
    /// Whether any of it has been handed over.
    begun: bool,
    data: Bytes,
    /// The end of a chunk.
    back: &'static [u8],
    framing: Framing,
    state: State,
}

/// How the body's end is shown (RFC 9112 6).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    #[default]
    None,
    Chunked,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    /// There is more of the body.
    Body,
    /// As many bytes are here as the length says, and the body has not ended. They stay until it has: of a request that
    /// turns out too long (RFC 9113 8.1.1) nothing whole is to arrive.
    Held,
    /// All is here.
    Last,
    /// All has left.
    #[default]
    Done,
}

impl Output {
    /// Begins with the head of a request.
    pub(super) fn start(&mut self, head: &Head, upload: &Upload) {
        let Head { method, target, headers } = head;
        (self.at, self.begun, self.data, self.back) = (0, false, Bytes::new(), &[]);
        let fields = || headers.iter().filter(|(name, _)| !matches!(**name, CONTENT_LENGTH | TRANSFER_ENCODING));
        let needed = fields().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>()
            + method.as_str().len()
            + target.as_str().len()
            + ROOM;
        self.front.clear();
        if self.front.capacity() < needed {
            // A buffer that grows leaves a copy behind; one that is dropped is wiped.
            self.front = Zeroizing::new(Vec::with_capacity(needed));
        }
        let out = &mut *self.front;
        for part in [method.as_str(), " ", target.as_str(), " HTTP/1.1\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
        for (name, value) in fields() {
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        // How the body is framed is said once, by what it is. A vector takes whatever is written.
        (self.framing, self.state) = match upload.size_hint().exact() {
            _ if upload.is_absent() => {
                if says_that_none_follows(method) {
                    out.extend_from_slice(b"content-length: 0\r\n");
                }
                (Framing::None, State::Last)
            }
            Some(length) => {
                let _ = write!(out, "content-length: {length}\r\n");
                (Framing::Length(length), State::Body)
            }
            None => {
                out.extend_from_slice(b"transfer-encoding: chunked\r\n");
                (Framing::Chunked, State::Body)
            }
        };
        out.extend_from_slice(b"\r\n");
    }

    /// Wipes the head that was sent last, with all the room it lay in.
    pub(super) fn wipe(&mut self) {
        self.front.zeroize();
        self.at = 0;
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.state == State::Done
    }

    /// Whether all of it is still here.
    pub(super) fn is_untouched(&self) -> bool {
        !self.begun
    }

    /// Nothing has been written; the body with what was taken of it.
    pub(super) fn give_back(&mut self, mut upload: Upload) -> Upload {
        let data = std::mem::take(&mut self.data);
        if !data.is_empty() {
            upload.put_back(data);
        }
        self.state = State::Done;
        upload
    }

    /// Writes what can be written; ready when all of the request has left.
    pub(super) fn poll<W: AsyncWrite>(
        &mut self,
        upload: &mut Upload,
        mut io: Pin<&mut W>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        loop {
            // A piece is added while nothing of one waits: what is kept is bounded by what the caller's side hands out.
            if self.state == State::Held || self.state == State::Body && !self.has_piece() {
                match self.poll_piece(upload, cx) {
                    Poll::Ready(result) => result?,
                    // The head does not wait for the body.
                    Poll::Pending if self.at < self.front.len() => {}
                    Poll::Pending => return Poll::Pending,
                }
            }
            while self.at < self.front.len() || self.has_piece() {
                let data = if self.state == State::Held { &[] } else { &self.data[..] };
                let slices = [IoSlice::new(&self.front[self.at..]), IoSlice::new(data), IoSlice::new(self.back)];
                let count = ready!(io.as_mut().poll_write_vectored(cx, &slices)).map_err(Broken::Io)?;
                if count == 0 {
                    return Poll::Ready(Err(Broken::Io(io::ErrorKind::WriteZero.into())));
                }
                self.wrote(count);
            }
            // An encrypted stream may hold what the system did not take at once.
            ready!(io.as_mut().poll_flush(cx)).map_err(Broken::Io)?;
            if self.state == State::Last {
                self.state = State::Done;
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Whether a piece of the body waits to be written.
    fn has_piece(&self) -> bool {
        self.state != State::Held && !(self.data.is_empty() && self.back.is_empty())
    }

    fn wrote(&mut self, mut count: usize) {
        self.begun = true;
        let step = count.min(self.front.len() - self.at);
        self.at += step;
        count -= step;
        let step = count.min(self.data.len());
        self.data.advance(step);
        if self.data.is_empty() {
            // Empty, it would still hold the room it lies in, for as long as the connection then waits.
            self.data = Bytes::new();
        }
        self.back = &self.back[count - step..];
    }

    /// Adds the next of the body, framed.
    fn poll_piece(&mut self, upload: &mut Upload, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let data = loop {
            match ready!(Pin::new(&mut *upload).poll_frame(cx)) {
                // An empty chunk would be the last one.
                Some(frame) => match frame.map_err(Broken::Body)?.into_data() {
                    Ok(data) if !data.is_empty() => break data,
                    _ => {}
                },
                None => break Bytes::new(),
            }
        };
        let ended = data.is_empty() || upload.is_end_stream();
        if self.state == State::Held {
            self.state = State::Last;
            return Poll::Ready(if data.is_empty() { Ok(()) } else { Err(Broken::Length) });
        }
        if self.at == self.front.len() {
            self.front.clear();
            self.at = 0;
        }
        self.state = match &mut self.framing {
            Framing::Chunked => {
                if !data.is_empty() {
                    let _ = write!(self.front, "{:x}\r\n", data.len());
                }
                self.back = match (data.is_empty(), ended) {
                    (true, _) => b"0\r\n\r\n",
                    (false, true) => b"\r\n0\r\n\r\n",
                    (false, false) => b"\r\n",
                };
                if ended { State::Last } else { State::Body }
            }
            Framing::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Broken::Length)?;
                match (*left, ended) {
                    (0, true) => State::Last,
                    (0, false) => State::Held,
                    (_, true) => return Poll::Ready(Err(Broken::Length)),
                    (_, false) => State::Body,
                }
            }
            Framing::None => return Poll::Ready(Err(Broken::Length)),
        };
        self.data = data;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::Waker;

    use tokio::time::Instant;

    use super::*;

    /// Where a caller's bytes were received.
    struct Room(Arc<[u8; 8]>);

    impl AsRef<[u8]> for Room {
        fn as_ref(&self) -> &[u8] {
            &*self.0
        }
    }

    #[test]
    fn what_a_body_was_received_in_is_free_once_it_has_left() {
        let room = Arc::new([7; 8]);
        let data = Bytes::from_owner(Room(Arc::clone(&room)));
        let mut output = Output { data, state: State::Last, ..Output::default() };
        assert_eq!(Arc::strong_count(&room), 2);
        let (mut upload, mut cx) = (Upload::absent(Instant::now()), Context::from_waker(Waker::noop()));
        let sent = output.poll(&mut upload, pin!(tokio::io::sink()), &mut cx);
        assert!(matches!(sent, Poll::Ready(Ok(()))));
        // The connection waits for its next request now, perhaps for a minute.
        assert_eq!(Arc::strong_count(&room), 1);
    }
}
