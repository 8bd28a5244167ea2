//! What waits to be written to an HTTP/2 connection.
//!
//! In: frames. Out: their bytes, as the connection takes them; how many have been queued and taken since the beginning, so
//! that of each request is known whether anything of it has left. Requests have keys in them, so what has left is wiped
//! before the room is given up, and when the connection rests.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use h2::Reason;
use http::Method;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroize;

use super::super::request::{Head, says_that_none_follows};
use super::super::socket::Socket;
use crate::wire::frame::{self, flag, kind};
use crate::wire::hpack;

/// Room that is kept, in bytes.
const ROOM: usize = 16 * 1024;

/// With so many bytes waiting there is no room for more of a body; with so many, which no body makes, nothing is read that
/// would have to be answered. So uploads hold up no other stream's answer, and a server that does not read makes us keep little.
const FULL: usize = 64 * 1024;
const FLOODED: usize = 2 * FULL;

/// The queue.
#[derive(Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
    /// So many of them have left.
    at: usize,
    queued: u64,
    taken: u64,
    /// Bytes may be held below, by TLS.
    held: bool,
    /// Whether a header block has been written.
    begun: bool,
    /// The frame that was queued last, if it is one of content and may go on.
    content: Option<Content>,
}

/// A frame of content: how many bytes were queued before it, whose it is, and how long.
#[derive(Clone, Copy)]
struct Content {
    before: u64,
    stream: u32,
    length: usize,
}

impl Output {
    /// Bytes queued since the beginning.
    pub(super) fn queued(&self) -> u64 {
        self.queued
    }

    /// Bytes that were taken to be encrypted and sent.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Whether too much waits for a body to go on.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() - self.at >= FULL
    }

    /// Whether too much waits for anything to be read.
    pub(super) fn is_flooded(&self) -> bool {
        self.bytes.len() - self.at >= FLOODED
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.bytes.extend_from_slice(bytes);
        self.queued += bytes.len() as u64;
    }

    /// Content of a request. Callers may have it in many short pieces; servers do not put up with as many short frames.
    pub(super) fn content(&mut self, stream: u32, data: &[u8], last: bool, frame_max: usize) {
        let flags = if last { flag::END_STREAM } else { 0 };
        let open = self
            .content
            .filter(|open| open.stream == stream && self.taken <= open.before && open.length + data.len() <= frame_max);
        let begun = open.unwrap_or(Content { before: self.queued, stream, length: 0 });
        let content = Content { length: begun.length + data.len(), ..begun };
        let head = frame::Head { length: content.length, kind: kind::DATA, flags, stream }.bytes();
        if open.is_some() {
            let from = self.bytes.len() - (self.queued - content.before) as usize;
            self.bytes[from..from + frame::HEAD].copy_from_slice(&head);
        } else {
            self.put(&head);
        }
        self.put(data);
        self.content = (!last).then_some(content);
    }

    pub(super) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.content = None;
        let head = frame::Head { length: payload.len(), kind, flags, stream };
        self.put(&head.bytes());
        self.put(payload);
    }

    pub(super) fn reset(&mut self, stream: u32, reason: Reason) {
        self.frame(kind::RST_STREAM, 0, stream, &u32::from(reason).to_be_bytes());
    }

    /// RFC 9113 6.8. Nothing of a server's is ever acted on.
    pub(super) fn goaway(&mut self, reason: Reason) {
        let [a, b, c, d] = u32::from(reason).to_be_bytes();
        self.frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 0, a, b, c, d]);
    }

    pub(super) fn window(&mut self, stream: u32, more: i64) {
        // Never more than a window.
        self.frame(kind::WINDOW_UPDATE, 0, stream, &u32::try_from(more).unwrap_or(0).to_be_bytes());
    }

    /// The head of a request: HEADERS, and where the server's frames are too short for it, CONTINUATION.
    pub(super) fn request(&mut self, stream: u32, request: &Request<'_>, frame_max: usize) {
        let Request { head: Head { method, target, headers }, authority, length, ends } = request;
        self.content = None;
        let size = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 8).sum::<usize>();
        self.reserve(size + authority.len() + target.as_str().len() + 64);
        let from = self.bytes.len();
        self.bytes.extend_from_slice(&[0; frame::HEAD]);
        if !std::mem::replace(&mut self.begun, true) {
            self.bytes.push(hpack::NO_TABLE);
        }
        hpack::put_request(&mut self.bytes, method.as_str(), authority, target.as_str());
        put_fields(&mut self.bytes, headers);
        // Once, by what the body is.
        if let Some(length) = length.filter(|length| *length > 0 || says_that_none_follows(method)) {
            hpack::put_field(&mut self.bytes, &CONTENT_LENGTH, &HeaderValue::from(length), false);
        }
        let last = if *ends { flag::END_STREAM } else { 0 };
        let mut head = frame::Head { length: 0, kind: kind::HEADERS, flags: last, stream };
        let block = self.bytes.len() - from - frame::HEAD;
        if block <= frame_max {
            head = frame::Head { length: block, flags: last | flag::END_HEADERS, ..head };
            self.bytes[from..from + frame::HEAD].copy_from_slice(&head.bytes());
            self.queued += (self.bytes.len() - from) as u64;
            return;
        }
        let mut whole = self.bytes.split_off(from);
        let mut pieces = whole[frame::HEAD..].chunks(frame_max).peekable();
        while let Some(piece) = pieces.next() {
            let end = if pieces.peek().is_none() { flag::END_HEADERS } else { 0 };
            self.frame(head.kind, head.flags | end, stream, piece);
            head = frame::Head { kind: kind::CONTINUATION, flags: 0, ..head };
        }
        whole.zeroize();
    }

    /// Room for so much more. What the old place held is wiped before it is given up.
    fn reserve(&mut self, more: usize) {
        if self.bytes.capacity() - self.bytes.len() >= more {
            return;
        }
        let needed = self.bytes.len() - self.at + more;
        if needed <= self.bytes.capacity() / 2 {
            self.bytes.drain(..std::mem::take(&mut self.at));
            return;
        }
        let mut larger = Vec::with_capacity(needed.next_power_of_two().max(ROOM));
        larger.extend_from_slice(&self.bytes[self.at..]);
        self.bytes.zeroize();
        (self.bytes, self.at) = (larger, 0);
    }

    /// Writes what waits; ready when all of it has left.
    pub(super) fn poll_write<S: Socket>(&mut self, io: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.at < self.bytes.len() {
            let before = io.taken();
            let written = ready!(Pin::new(&mut *io).poll_write(cx, &self.bytes[self.at..]));
            if written.is_err() && io.taken() != before {
                // Some of it may have left all the same.
                self.taken = self.queued;
            }
            let count = written?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            (self.at, self.taken, self.held) = (self.at + count, self.taken + count as u64, true);
        }
        self.bytes.clear();
        self.at = 0;
        if self.held {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.held = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Leaves nothing of what has left, and takes no room.
    pub(super) fn rest(&mut self) {
        if self.bytes.is_empty() {
            self.discard();
        }
    }

    /// Nothing of it will leave any more.
    pub(super) fn discard(&mut self) {
        // All of its room.
        self.bytes.zeroize();
        (self.bytes, self.at) = (Vec::new(), 0);
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

/// A request's head, and what is known of its body.
pub(super) struct Request<'a> {
    pub(super) head: &'a Head,
    pub(super) authority: &'a str,
    /// The body's length, where it is known.
    pub(super) length: Option<u64>,
    /// Whether there is none.
    pub(super) ends: bool,
}

impl Request<'_> {
    pub(super) fn is_head(&self) -> bool {
        self.head.method == Method::HEAD
    }
}

/// Writes the fields. `:authority` stands in for Host (RFC 9113 8.3.1), and `Content-Length` is set by the body.
fn put_fields(out: &mut Vec<u8>, headers: &HeaderMap) {
    let passes = |name: &HeaderName| *name != HOST && *name != CONTENT_LENGTH;
    for (name, value) in headers.iter().filter(|(name, _)| passes(name)) {
        hpack::put_field(out, name, value, *name == AUTHORIZATION);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_pieces_of_content_become_one_frame_while_nothing_of_it_has_left() {
        let mut output = Output::default();
        output.content(1, b"a", false, 4);
        output.content(1, b"bc", false, 4);
        // No longer than a frame may be; not another stream's; not behind another frame.
        output.content(1, b"de", false, 4);
        output.content(3, b"f", false, 4);
        output.reset(5, Reason::CANCEL);
        output.content(3, b"g", true, 4);
        let frames: [&[u8]; 5] = [
            b"\0\0\x03\0\0\0\0\0\x01abc",
            b"\0\0\x02\0\0\0\0\0\x01de",
            b"\0\0\x01\0\0\0\0\0\x03f",
            b"\0\0\x04\x03\0\0\0\0\x05\0\0\0\x08",
            b"\0\0\x01\0\x01\0\0\0\x03g",
        ];
        assert_eq!(output.bytes, frames.concat());
        assert_eq!(output.queued(), frames.concat().len() as u64);
        let (mut near, mut far) = tokio::io::duplex(1024);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(output.poll_write(&mut near, &mut cx).is_ready());
        // What has left is what it was.
        output.content(7, b"h", false, 4);
        assert!(output.poll_write(&mut near, &mut cx).is_ready());
        output.content(7, b"i", false, 4);
        assert_eq!(output.bytes, b"\0\0\x01\0\0\0\0\0\x07i");
        let mut left = bytes::BytesMut::new();
        while let Poll::Ready(Ok(Some(piece))) = far.poll_piece(&mut cx) {
            left.extend_from_slice(&piece);
        }
        assert_eq!(left[..frames.concat().len()], frames.concat());
    }
}
