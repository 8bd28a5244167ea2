//! An answer over HTTP/1 (RFC 9112), from us to a caller.
//!
//! In: status, fields, and pieces of a body. Out: the bytes of the answer, its body framed by what is known of its length,
//! in writes of several pieces at once: the head leaves with the first of the body, and no piece is copied.

use std::cell::RefCell;
use std::io::{IoSlice, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, Bytes};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{HeaderMap, Response, StatusCode};

/// How much is put together before it is written, in bytes and in pieces.
pub const BATCH: usize = 63 * 1024;
const PIECES: usize = 16;

/// No more is written at once while more is at hand, in bytes: what one packet takes on a loopback interface, whose MTU is
/// 64 KiB, beside the headers of IPv6 and TCP, and of five records where the caller speaks TLS. With a full 64 KiB, each write
/// would cost a second packet for the last few.
pub const PACKET: usize = 64 * 1024 - 256;

/// Text beyond so much is not kept from one answer to the next, in bytes.
const KEPT: usize = 4 * 1024;

/// What an answer owes to its request.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// HTTP/1.0 was spoken.
    pub old: bool,
    /// It was HEAD: the answer has no body (RFC 9110 9.3.2).
    pub bare: bool,
    /// The caller wants to keep the connection.
    pub keep_alive: bool,
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Framing {
    #[default]
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// An answer on its way out.
#[derive(Debug, Default)]
pub struct Reply {
    framing: Framing,
    keep_alive: bool,
    /// What is ours: the head, and what frames the chunks.
    text: Vec<u8>,
    /// Pieces of the body, each behind the text before its place.
    pieces: Vec<(usize, Bytes)>,
    /// What has left of the text.
    text_at: usize,
    waiting: usize,
}

/// The body has another length than the head says.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the answer's body has another length than its head says")]
pub struct WrongLength;

impl Reply {
    /// Begins an answer with a body of `length` bytes, where that is known; `Some(0)` where there is none.
    pub fn start(&mut self, status: StatusCode, headers: &HeaderMap, length: Option<u64>, manner: Manner) {
        let bodiless = manner.bare || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        self.framing = match length {
            _ if bodiless => Framing::None,
            Some(0) => Framing::None,
            Some(length) => Framing::Length(length),
            None if manner.old => Framing::UntilClose,
            None => Framing::Chunked,
        };
        self.clear();
        let out = &mut self.text;
        status_line(out, status, manner.old);
        let (mut closes, mut dated, mut sized) = (false, false, false);
        for (name, value) in headers {
            match *name {
                // Framing is ours to say; what HEAD is told is the length of what GET would be answered with.
                TRANSFER_ENCODING => continue,
                CONTENT_LENGTH if !manner.bare => continue,
                CONTENT_LENGTH => sized = true,
                CONNECTION => closes |= value.as_bytes().eq_ignore_ascii_case(b"close"),
                DATE => dated = true,
                _ => {}
            }
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        match self.framing {
            Framing::None if bodiless => {
                if let Some(length @ 1..) = length
                    && manner.bare
                    && !sized
                {
                    content_length(out, length);
                }
            }
            Framing::None => out.extend_from_slice(b"content-length: 0\r\n"),
            Framing::Length(length) => content_length(out, length),
            Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            Framing::UntilClose => {}
        }
        self.keep_alive = manner.keep_alive && !closes && self.framing != Framing::UntilClose;
        // RFC 9112 9.3: what each version takes for granted is not said.
        match (manner.old, self.keep_alive) {
            (true, true) => out.extend_from_slice(b"connection: keep-alive\r\n"),
            (false, false) if !closes => out.extend_from_slice(b"connection: close\r\n"),
            _ => {}
        }
        if !dated {
            out.extend_from_slice(b"date: ");
            date(out);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        self.waiting = self.text.len();
    }

    fn clear(&mut self) {
        if self.text.capacity() > KEPT {
            self.text = Vec::new();
        }
        self.text.clear();
        self.pieces.clear();
        (self.text_at, self.waiting) = (0, 0);
    }

    /// Whether a body follows.
    #[must_use]
    pub fn has_body(&self) -> bool {
        self.framing != Framing::None
    }

    /// Whether another request may come on the connection.
    #[must_use]
    pub fn keeps_alive(&self) -> bool {
        self.keep_alive
    }

    /// Whether a body that breaks off can be told from a whole one only by how the connection ends.
    #[must_use]
    pub fn ends_with_connection(&self) -> bool {
        self.framing == Framing::UntilClose
    }

    /// Whether so much waits that it should be written first.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.waiting >= BATCH || self.pieces.len() >= PIECES
    }

    /// Whether nothing waits to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Adds a piece of the body.
    ///
    /// # Errors
    /// When it is more than was announced.
    pub fn push(&mut self, piece: Bytes) -> Result<(), WrongLength> {
        if piece.is_empty() {
            // An empty chunk would be the last one.
            return Ok(());
        }
        let before = self.text.len();
        match &mut self.framing {
            Framing::None => return Err(WrongLength),
            Framing::Length(left) => *left = left.checked_sub(piece.len() as u64).ok_or(WrongLength)?,
            Framing::Chunked => drop(write!(self.text, "{:x}\r\n", piece.len())),
            Framing::UntilClose => {}
        }
        let place = self.text.len();
        if self.framing == Framing::Chunked {
            self.text.extend_from_slice(b"\r\n");
        }
        self.waiting += self.text.len() - before + piece.len();
        self.pieces.push((place, piece));
        Ok(())
    }

    /// Ends the body.
    ///
    /// # Errors
    /// When it is less than was announced.
    pub fn end(&mut self) -> Result<(), WrongLength> {
        match self.framing {
            Framing::Length(1..) => return Err(WrongLength),
            Framing::Chunked => {
                self.text.extend_from_slice(b"0\r\n\r\n");
                self.waiting += 5;
            }
            _ => {}
        }
        Ok(())
    }

    /// What is to be written now, in its order, as far as there is room; how many slices it is. Where `more` can be put
    /// behind it, the end of it waits for that.
    pub fn slices<'a>(&'a self, more: bool, slices: &mut [IoSlice<'a>; 2 * PIECES + 1]) -> usize {
        let (mut text, mut count, mut left) = (self.text_at, 0, if more { PACKET } else { usize::MAX });
        let mut add = |bytes: &'a [u8]| {
            let bytes = &bytes[..bytes.len().min(left)];
            if !bytes.is_empty()
                && let Some(slice) = slices.get_mut(count)
            {
                *slice = IoSlice::new(bytes);
                (count, left) = (count + 1, left - bytes.len());
            }
        };
        for (place, piece) in &self.pieces {
            add(&self.text[text..*place]);
            add(piece);
            text = *place;
        }
        add(&self.text[text..]);
        count
    }

    /// Notes that so many bytes were written.
    pub fn wrote(&mut self, mut count: usize) {
        self.waiting = self.waiting.saturating_sub(count);
        if self.waiting == 0 {
            return self.clear();
        }
        let mut gone = 0;
        for (place, piece) in &mut self.pieces {
            let step = count.min(*place - self.text_at);
            (self.text_at, count) = (self.text_at + step, count - step);
            let step = count.min(piece.len());
            piece.advance(step);
            count -= step;
            if !piece.is_empty() {
                break;
            }
            gone += 1;
        }
        self.pieces.drain(..gone);
        self.text_at = (self.text_at + count).min(self.text.len());
        // A body may have no end, and something of it may always be waiting.
        if self.text_at > KEPT {
            self.text.drain(..self.text_at);
            self.pieces.iter_mut().for_each(|(place, _)| *place -= self.text_at);
            self.text_at = 0;
        }
    }
}

/// All bytes of an answer whose body is here.
#[must_use]
pub fn whole(response: &Response<Bytes>, manner: Manner) -> Vec<u8> {
    let mut reply = Reply::default();
    reply.start(response.status(), response.headers(), Some(response.body().len() as u64), manner);
    let mut bytes = reply.text;
    bytes.extend_from_slice(response.body());
    bytes
}

/// Room for all that [`Reply::slices`] may give.
#[must_use]
pub fn room<'a>() -> [IoSlice<'a>; 2 * PIECES + 1] {
    [IoSlice::new(&[]); 2 * PIECES + 1]
}

/// RFC 9112 4. A reason phrase of Cloudbeds' is text that nobody inspected, so the usual one stands for it.
fn status_line(out: &mut Vec<u8>, status: StatusCode, old: bool) {
    if status == StatusCode::OK && !old {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.extend_from_slice(if old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(status.canonical_reason().unwrap_or("Unknown").as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn content_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"content-length: ");
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The time as HTTP writes it (RFC 9110 5.6.7), made anew each second.
fn date(out: &mut Vec<u8>) {
    thread_local! {
        static LAST: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    LAST.with_borrow_mut(|(second, text)| {
        if *second != now {
            *second = now;
            *text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(now));
        }
        out.extend_from_slice(text.as_bytes());
    });
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const PLAIN: Manner = Manner { old: false, bare: false, keep_alive: true };

    /// What is written when each write takes `most` bytes.
    fn written(reply: &mut Reply, most: usize) -> String {
        let mut out = Vec::new();
        while !reply.is_empty() {
            let mut room = room();
            let count = reply.slices(false, &mut room);
            let all: Vec<u8> = room[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
            let step = all.len().min(most);
            out.extend_from_slice(&all[..step]);
            reply.wrote(step);
        }
        String::from_utf8(out).unwrap()
    }

    fn head(
        status: u16,
        fields: &[(&'static str, &'static str)],
        length: Option<u64>,
        manner: Manner,
    ) -> (String, bool) {
        let mut headers = HeaderMap::new();
        headers.insert(DATE, HeaderValue::from_static("today"));
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let mut reply = Reply::default();
        reply.start(StatusCode::from_u16(status).unwrap(), &headers, length, manner);
        (written(&mut reply, usize::MAX), reply.keeps_alive())
    }

    fn with(head: &str) -> String {
        head.replace('|', "\r\n") + "\r\n\r\n"
    }

    #[test]
    fn a_head_says_once_how_its_body_ends_and_whether_the_connection_does() {
        let (old, bare) = (Manner { old: true, ..PLAIN }, Manner { bare: true, ..PLAIN });
        let last = Manner { keep_alive: false, ..PLAIN };
        let stale = &[("content-length", "9"), ("transfer-encoding", "gzip")][..];
        for (status, fields, length, manner, expected, stays) in [
            (200, stale, Some(3), PLAIN, "HTTP/1.1 200 OK|date: today|content-length: 3", true),
            (200, stale, Some(0), PLAIN, "HTTP/1.1 200 OK|date: today|content-length: 0", true),
            (404, stale, None, PLAIN, "HTTP/1.1 404 Not Found|date: today|transfer-encoding: chunked", true),
            (299, &[], Some(0), PLAIN, "HTTP/1.1 299 Unknown|date: today|content-length: 0", true),
            (200, stale, Some(0), bare, "HTTP/1.1 200 OK|date: today|content-length: 9", true),
            (403, &[], Some(7), bare, "HTTP/1.1 403 Forbidden|date: today|content-length: 7", true),
            (200, &[], None, bare, "HTTP/1.1 200 OK|date: today", true),
            (204, stale, None, PLAIN, "HTTP/1.1 204 No Content|date: today", true),
            (304, stale, Some(0), PLAIN, "HTTP/1.1 304 Not Modified|date: today", true),
            (200, &[], Some(3), last, "HTTP/1.1 200 OK|date: today|content-length: 3|connection: close", false),
            (
                200,
                &[("connection", "close")],
                Some(3),
                PLAIN,
                "HTTP/1.1 200 OK|date: today|connection: close|content-length: 3",
                false,
            ),
            (200, &[], Some(3), old, "HTTP/1.0 200 OK|date: today|content-length: 3|connection: keep-alive", true),
            (200, &[], None, old, "HTTP/1.0 200 OK|date: today", false),
        ] {
            assert_eq!(head(status, fields, length, manner), (with(expected), stays), "{status} {fields:?} {length:?}");
        }
    }

    #[test]
    fn a_body_is_framed_the_same_however_little_is_taken_at_a_time() {
        let bodies = [(Some(5), "hello"), (None, "3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n")];
        for (length, expected) in bodies {
            for most in 1..60 {
                let mut reply = Reply::default();
                reply.start(StatusCode::OK, &HeaderMap::new(), length, PLAIN);
                reply.push(Bytes::from_static(b"hel")).unwrap();
                let mut room = room();
                assert_eq!(reply.slices(false, &mut room), if length.is_none() { 3 } else { 2 });
                let mut out = String::new();
                if most % 2 == 0 {
                    out = written(&mut reply, most);
                }
                reply.push(Bytes::new()).unwrap();
                reply.push(Bytes::from_static(b"lo")).unwrap();
                reply.end().unwrap();
                out += &written(&mut reply, most);
                assert_eq!(out.split_once("\r\n\r\n").unwrap().1, expected, "{most} at a time");
            }
        }
    }

    #[test]
    fn any_number_of_pieces_passes_a_few_at_a_time() {
        let mut reply = Reply::default();
        reply.start(StatusCode::OK, &HeaderMap::new(), None, PLAIN);
        let mut out = String::new();
        for number in 0..100_u8 {
            if reply.is_full() {
                out += &written(&mut reply, usize::MAX);
            }
            assert!(!reply.is_full());
            reply.push(Bytes::from(vec![b'a' + number % 26])).unwrap();
        }
        reply.end().unwrap();
        out += &written(&mut reply, usize::MAX);
        assert_eq!(out.matches("\r\n1\r\n").count(), 100);
        assert!(out.ends_with("\r\nv\r\n0\r\n\r\n"), "{out}");
    }

    #[test]
    fn no_write_is_longer_than_a_packet_while_more_of_a_body_is_at_hand_and_all_of_it_comes() {
        for length in [Some(100 * 16_000), None] {
            let mut reply = Reply::default();
            reply.start(StatusCode::OK, &HeaderMap::new(), length, PLAIN);
            let mut out = Vec::new();
            for number in 0..100_u8 {
                reply.push(Bytes::from(vec![b'a' + number % 26; 16_000])).unwrap();
                while reply.is_full() {
                    let mut room = room();
                    let count = reply.slices(true, &mut room);
                    let all = room[..count].iter().flat_map(|slice| slice.iter().copied()).collect::<Vec<_>>();
                    assert!((BATCH..=PACKET).contains(&all.len()), "{}", all.len());
                    reply.wrote(all.len());
                    out.extend(all);
                }
            }
            reply.end().unwrap();
            let out = String::from_utf8(out).unwrap() + &written(&mut reply, usize::MAX);
            let (head, body) = out.split_once("\r\n\r\n").unwrap();
            assert!(!head.is_empty());
            let expected: String = (0..100_u8)
                .map(|number| {
                    let piece = char::from(b'a' + number % 26).to_string().repeat(16_000);
                    if length.is_some() { piece } else { format!("3e80\r\n{piece}\r\n") }
                })
                .collect();
            assert_eq!(body, expected + if length.is_some() { "" } else { "0\r\n\r\n" });
        }
    }

    #[test]
    fn what_frames_a_body_without_an_end_is_not_kept() {
        let mut reply = Reply::default();
        reply.start(StatusCode::OK, &HeaderMap::new(), None, PLAIN);
        for _ in 0..10_000 {
            reply.push(Bytes::from_static(b"abc")).unwrap();
            // Three bytes of it always wait.
            reply.wrote(reply.waiting - 3);
        }
        assert!(reply.text.len() < 2 * KEPT && reply.pieces.len() == 1, "{} {}", reply.text.len(), reply.pieces.len());
        reply.end().unwrap();
        assert_eq!(written(&mut reply, 1), "c\r\n0\r\n\r\n");
    }

    #[test]
    fn a_body_of_another_length_than_announced_is_not_passed_for_whole() {
        let mut reply = Reply::default();
        reply.start(StatusCode::OK, &HeaderMap::new(), Some(5), PLAIN);
        assert!(reply.push(Bytes::from_static(b"too long")).is_err());
        reply.push(Bytes::from_static(b"shor")).unwrap();
        assert!(reply.end().is_err());
        reply.start(StatusCode::OK, &HeaderMap::new(), Some(0), PLAIN);
        assert!(!reply.has_body() && reply.push(Bytes::from_static(b"x")).is_err());
    }
}
