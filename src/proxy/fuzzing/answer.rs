//! From any bytes of a server to the answer that a caller would get.
//!
//! In: one byte of options, then what the server sends over HTTP/1.1 once the request is there, until it closes. Asserted:
//! status, fields and body are those that a plain reading of RFC 9112 finds, cut short where the bytes are; a body that is
//! taken for whole is whole; the connection carries another request only if the answer ends with the bytes and nothing in
//! it says that it is the last; where bytes are cut does not matter.
#![allow(clippy::expect_used, clippy::panic, reason = "a broken promise is to end the process")]

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use http::{HeaderMap, Method};
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use crate::proxy::pool::Head;
use crate::proxy::pool::http1::Http1;
use crate::proxy::pool::socket::Socket;
use crate::wire::body::Upload;

/// The bits of the first byte: asks by HEAD; the others say how the bytes are cut.
const HEAD: u8 = 1;

/// What came of an exchange.
#[derive(Debug, Eq, PartialEq)]
struct Got {
    status: u16,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    whole: bool,
    reusable: bool,
}

/// The same as a plain reading finds it, up to the body.
struct Plain<'a> {
    status: u16,
    /// HTTP/1.`minor`.
    minor: u8,
    fields: Vec<(String, Vec<u8>)>,
    rest: &'a [u8],
}

/// A server that sends what it has once it is asked, and closes.
struct Server<'a> {
    rest: &'a Cell<&'a [u8]>,
    piece: usize,
    asked: bool,
    paused: bool,
}

/// Follows any bytes.
pub fn answer(data: &[u8]) {
    let Some((options, bytes)) = data.split_first() else { return };
    let method = if options & HEAD != 0 { Method::HEAD } else { Method::GET };
    let whole = exchange(bytes, &method, usize::MAX);
    let pieces = exchange(bytes, &method, 1 + usize::from(options >> 1));
    assert_eq!(whole, pieces, "it depends on where bytes are cut");
    if let Some(got) = whole {
        check(&got, bytes, &method);
    }
}

/// What is made of the bytes; nothing where they begin with no answer.
fn exchange(bytes: &[u8], method: &Method, piece: usize) -> Option<Got> {
    let head =
        Head { method: method.clone(), target: http::uri::PathAndQuery::from_static("/"), headers: HeaderMap::new() };
    let rest = Cell::new(bytes);
    let server = Server { rest: &rest, piece, asked: false, paused: false };
    // Its deadlines need a runtime and are never polled.
    let mut connection = Http1::new(server, Instant::now());
    connection.start(&head, Upload::absent(Instant::now()));
    let mut talk = pin!(async {
        let head = poll_fn(|cx| connection.poll_head(cx)).await.ok()?;
        let (mut body, mut whole) = (Vec::new(), true);
        while let Some(piece) = poll_fn(|cx| connection.poll_data(cx)).await {
            match piece {
                Ok(piece) => {
                    assert!(!piece.is_empty(), "an empty piece");
                    body.extend_from_slice(&piece);
                }
                Err(_) => whole = false,
            }
        }
        let fields = head.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
        // What has not been read yet is found when the connection is wanted again.
        let reusable = connection.is_reusable() && rest.get().is_empty();
        Some(Got { status: head.status.as_u16(), fields, body, whole, reusable })
    });
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(got) = talk.as_mut().poll(&mut cx) {
            return got;
        }
    }
}

fn check(got: &Got, bytes: &[u8], method: &Method) {
    let Plain { status, minor, fields, rest } = final_head(bytes);
    let mut expected: Vec<_> = fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
    let mut shown = got.fields.clone();
    // The order of fields with the same name counts, that of others does not.
    expected.sort_by(|(one, _), (other, _)| one.cmp(other));
    shown.sort_by(|(one, _), (other, _)| one.cmp(other));
    assert_eq!((got.status, &shown), (status, &expected));
    let values = |wanted: &str| {
        let lines = expected.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.as_slice());
        let members = lines.flat_map(|line| line.split(|byte| *byte == b','));
        members.map(|member| String::from_utf8_lossy(member).trim().to_ascii_lowercase()).collect::<Vec<_>>()
    };
    let last = match minor {
        0 => !values("connection").contains(&"keep-alive".to_owned()),
        _ => values("connection").contains(&"close".to_owned()),
    };
    let bodiless = *method == Method::HEAD || matches!(status, 100..=199 | 204 | 304);
    let (codings, lengths) = (values("transfer-encoding"), values("content-length"));
    let (body, behind, until_close) = if bodiless {
        (Vec::new(), Some(rest), false)
    } else if codings.last().is_some_and(|coding| coding == "chunked") {
        let (body, behind) = chunks(rest);
        (body, behind, false)
    } else if let (true, Some(length)) = (codings.is_empty(), lengths.first()) {
        let length = usize::try_from(length.parse::<u64>().expect("a length")).unwrap_or(usize::MAX);
        let whole = length <= rest.len();
        let (body, behind) = rest.split_at(length.min(rest.len()));
        (body.to_vec(), whole.then_some(behind), false)
    } else {
        (rest.to_vec(), Some(&[][..]), true)
    };
    let switched = status == 101;
    assert_eq!((&got.body, got.whole), (&body, behind.is_some()));
    if got.reusable {
        assert!(!last && !until_close && !switched, "{got:?} is the last of its connection");
        assert_eq!(behind, Some(&[][..]), "{got:?} is not all that came");
    }
}

/// The first head that is no interim one, and what follows it.
fn final_head(mut bytes: &[u8]) -> Plain<'_> {
    loop {
        let mut lines = Vec::new();
        let mut rest = bytes;
        loop {
            let end = rest.iter().position(|byte| *byte == b'\n').expect("a head that ends");
            let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
            rest = &rest[end + 1..];
            match (line.is_empty(), lines.is_empty()) {
                // Empty lines before a head are passed over.
                (true, true) => {}
                (true, false) => break,
                (false, _) => lines.push(line),
            }
        }
        let start = lines.remove(0);
        let minor = match start.get(..8) {
            Some(b"HTTP/1.0") => 0,
            Some(b"HTTP/1.1") => 1,
            other => panic!("{other:?} is taken for a version"),
        };
        let code = std::str::from_utf8(&start[8..]).unwrap_or_default();
        let code = start.get(9..12).and_then(|code| std::str::from_utf8(code).ok()).unwrap_or(code);
        let status = code.parse().unwrap_or_else(|_| panic!("{code:?} is taken for a status"));
        let fields = lines.into_iter().map(|line| {
            let colon = line.iter().position(|byte| *byte == b':').expect("a colon");
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            (String::from_utf8_lossy(name).into_owned(), value.to_vec())
        });
        let fields = fields.collect();
        if !(100..200).contains(&status) || status == 101 {
            return Plain { status, minor, fields, rest };
        }
        bytes = rest;
    }
}

/// The data of a chunked body, and what is behind it if it ends.
fn chunks(mut rest: &[u8]) -> (Vec<u8>, Option<&[u8]>) {
    let (mut body, mut extensions) = (Vec::new(), 0);
    loop {
        let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else { return (body, None) };
        let line = &rest[..end];
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let extension = &line[digits..];
        let spaces = extension.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let plain = extension.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f));
        let begins = extension.is_empty() || extension.get(spaces) == Some(&b';');
        // The semicolon is not counted.
        extensions += extension.len().saturating_sub(1);
        if !(1..=16).contains(&digits) || !plain || !begins || extensions > 1024 {
            return (body, None);
        }
        let size = std::str::from_utf8(&line[..digits]).ok().and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let size = usize::try_from(size.expect("sixteen digits at most")).unwrap_or(usize::MAX);
        rest = &rest[end + 2..];
        if size == 0 {
            return (body, behind_trailers(rest));
        }
        let data = size.min(rest.len());
        body.extend_from_slice(&rest[..data]);
        rest = &rest[data..];
        match rest.strip_prefix(b"\r\n") {
            Some(behind) if data == size => rest = behind,
            _ => return (body, None),
        }
    }
}

fn behind_trailers(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let line = &rest[..end];
        rest = &rest[end + 2..];
        if line.is_empty() {
            return Some(rest);
        }
        let colon = line.iter().position(|byte| *byte == b':')?;
        let value = &line[colon + 1..];
        let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        let good = colon > 0
            && line[..colon].iter().all(token)
            && value.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f));
        if !good {
            return None;
        }
    }
}

impl Socket for Server<'_> {
    fn taken(&self) -> u64 {
        0
    }

    fn poll_piece(&mut self, _: &mut Context<'_>) -> Poll<io::Result<Option<BytesMut>>> {
        self.paused = !self.paused;
        if !self.asked || self.paused {
            return Poll::Pending;
        }
        let rest = self.rest.get();
        let (piece, rest) = rest.split_at(self.piece.min(rest.len()));
        self.rest.set(rest);
        Poll::Ready(Ok((!piece.is_empty()).then(|| piece.into())))
    }
}

impl AsyncWrite for Server<'_> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.asked = true;
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
