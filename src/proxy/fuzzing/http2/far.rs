//! An upstream that speaks HTTP/2, in memory.
//!
//! In: a request as the proxy would send it. Out: what arrives of it, read by the plain reading of `reading.rs`, which shares
//! no code with what writes it. It allows everything and answers once the request is whole.

use std::cell::RefCell;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use super::super::request::Sent;
use super::reading::{Asked, read};
use crate::origin::Origin;
use crate::proxy::pool::Head;
use crate::proxy::pool::http2::{Http2, Stream};
use crate::proxy::pool::socket::Socket;
use crate::wire::body::Upload;

/// SETTINGS with the largest window, and as much more for the connection.
const GREETING: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x04\x7f\xff\xff\xff\0\0\x04\x08\0\0\0\0\0\x7f\xff\0\0";

/// `:status: 200`, and no content.
const ANSWER: &[u8] = b"\0\0\x01\x01\x05\0\0\0\x01\x88";

/// The upstream.
#[derive(Default)]
struct Far {
    arrived: Rc<RefCell<Vec<u8>>>,
    /// So much of what arrived was read.
    read: usize,
    greeted: bool,
    answered: bool,
    reader: Option<Waker>,
}

/// Sends a request; what has arrived of it, if its head has.
pub(in crate::proxy::fuzzing) async fn send(head: &Head, upload: Upload, origin: &Origin) -> Option<Sent> {
    let far = Far::default();
    let arrived = Rc::clone(&far.arrived);
    let (connection, turns) = Http2::new(far, Instant::now());
    let mut turns = pin!(turns);
    let mut stream = Stream::start(&connection, head, upload, origin);
    // What the answer does not wait for is not sent either.
    let answered = poll_fn(|cx| {
        let ended = turns.as_mut().poll(cx);
        assert!(ended.is_pending(), "the connection ends while its server does not");
        stream.poll_head(&connection, cx)
    });
    let _ = answered.await;
    let mut all = read(&arrived.borrow());
    assert!(all.len() < 2, "{all:?} came of one request");
    all.pop().map(|asked| checked(asked, origin.authority().as_str()))
}

/// The pseudo-fields, once each and before all others, and no field of one connection (RFC 9113 8.2.2 and 8.3.1).
fn checked(asked: Asked, origin: &str) -> Sent {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (first, rest) = asked.fields.split_at_checked(4).unwrap_or_else(|| panic!("{asked:?}"));
    let names: Vec<_> = first.iter().map(|(name, _)| text(name)).collect();
    assert_eq!(names, [":method", ":scheme", ":authority", ":path"], "{asked:?}");
    assert_eq!((text(&first[1].1).as_str(), text(&first[2].1).as_str()), ("https", origin));
    let fields: Vec<_> = rest.iter().map(|(name, value)| (text(name), value.clone())).collect();
    for (name, _) in &fields {
        let ours = ["host", "connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"];
        assert!(!name.starts_with(':') && !ours.contains(&name.as_str()), "{name} in {asked:?}");
        assert_eq!(*name, name.to_ascii_lowercase());
    }
    let length = fields.iter().find(|(name, _)| name == "content-length").map(|(_, value)| text(value));
    assert!(!asked.whole || length.is_none_or(|length| length == asked.body.len().to_string()), "{asked:?}");
    Sent { method: text(&first[0].1), target: text(&first[3].1), fields, body: asked.whole.then_some(asked.body) }
}

impl Socket for Far {
    fn taken(&self) -> u64 {
        self.arrived.borrow().len() as u64
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<BytesMut>>> {
        if !std::mem::replace(&mut self.greeted, true) {
            return Poll::Ready(Ok(Some(GREETING.into())));
        }
        let there = self.arrived.borrow().len();
        let grown = std::mem::replace(&mut self.read, there) != there;
        if !self.answered && grown && read(&self.arrived.borrow()).first().is_some_and(|asked| asked.whole) {
            self.answered = true;
            return Poll::Ready(Ok(Some(ANSWER.into())));
        }
        self.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for Far {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.arrived.borrow_mut().extend_from_slice(buf);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
