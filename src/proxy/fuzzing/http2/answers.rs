//! From any frames of a server to the answers that two callers would get.
//!
//! In: one byte of options, then a program (`program.rs` has its notation) of what the server sends once it is asked, until
//! it closes. Asserted of each answer: status, fields and body are those that a plain reading (`reading.rs`) finds on its
//! stream, cut short where anything is wrong; one that is taken for whole is whole; where bytes are cut does not matter; what
//! is written is bounded, and everything ends.

use std::cell::Cell;
use std::future::Future as _;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::BytesMut;
use http::{HeaderMap, Method};
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use super::reading::{Asked, PREFACE, read};
use super::{RUNTIME, program};
use crate::origin::Origin;
use crate::proxy::pool::Head;
use crate::proxy::pool::http2::{Http2, Stream};
use crate::proxy::pool::socket::Socket;
use crate::wire::body::Upload;

/// The bits of the first byte: the first of the two asks by HEAD; the others say how the bytes are cut.
const HEAD: u8 = 1;

/// The streams of the two.
const STREAMS: [u32; 2] = [1, 3];

/// SETTINGS, before which no second request is sent; and looks that find no more.
const GREETING: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
const LOOKS: usize = 4;

/// What came of an exchange.
#[derive(Debug, Default, Eq, PartialEq)]
struct Got {
    status: u16,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
    whole: bool,
}

/// Follows any bytes.
pub fn answers(data: &[u8]) {
    let Some((options, rest)) = data.split_first() else { return };
    let sent = program::pieces(rest).concat();
    let method = if options & HEAD != 0 { Method::HEAD } else { Method::GET };
    let whole = exchange(&sent[PREFACE.len()..], &method, usize::MAX);
    let pieces = exchange(&sent[PREFACE.len()..], &method, 1 + usize::from(options >> 1));
    assert_eq!(whole, pieces, "it depends on where bytes are cut");
    let plain = read(&sent);
    for (got, stream) in whole.iter().zip(STREAMS).filter_map(|(got, stream)| Some((got.as_ref()?, stream))) {
        let asked = plain.iter().find(|asked| asked.stream == stream);
        check(got, asked.unwrap_or_else(|| panic!("nobody answered {stream}: {got:?}")));
    }
}

fn check(got: &Got, sent: &Asked) {
    let status: Vec<_> = sent.values(":status").collect();
    assert_eq!(status, [got.status.to_string().as_bytes()], "{sent:?}");
    let mut expected: Vec<_> = sent.fields.iter().filter(|(name, _)| name != b":status").cloned().collect();
    let mut shown = got.fields.clone();
    // The order of fields with the same name counts, that of others does not.
    expected.sort_by(|(one, _), (other, _)| one.cmp(other));
    shown.sort_by(|(one, _), (other, _)| one.cmp(other));
    assert_eq!(shown, expected);
    assert!(sent.body.starts_with(&got.body), "{got:?} came of {sent:?}");
    if got.whole {
        assert!(sent.whole && got.body == sent.body, "{got:?} is taken for whole: {sent:?}");
    }
}

/// What is made of the bytes for each of the two; nothing where there is no answer.
fn exchange(bytes: &[u8], method: &Method, piece: usize) -> [Option<Got>; 2] {
    let written = Rc::new(Cell::new(0));
    let server = Server { rest: bytes, piece, paused: false, greeted: LOOKS, written: Rc::clone(&written) };
    let got = RUNTIME.with(|runtime| {
        // Its clock stands still.
        let _inside = runtime.enter();
        let now = Instant::now();
        let (connection, turns) = Http2::new(server, now);
        let mut turns = pin!(turns);
        let origin: Origin = "https://base.example".parse().expect("a good origin");
        let mut callers = [method.clone(), Method::GET].map(|method| {
            let target = http::uri::PathAndQuery::from_static("/");
            let head = Head { method, target, headers: HeaderMap::new() };
            let stream = Stream::start(&connection, &head, Upload::absent(now), &origin);
            (stream, None::<Got>, Arc::new(Woken(AtomicBool::new(true))), false)
        });
        let mut ended = false;
        while callers.iter().any(|(.., done)| !done) {
            ended = ended || turns.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
            let mut slept = true;
            for (stream, got, woken, done) in callers.iter_mut().filter(|(.., done)| !done) {
                // As a task is polled: only once it was woken.
                if woken.0.swap(false, Ordering::Relaxed) {
                    slept = false;
                    let waker = Waker::from(Arc::clone(woken));
                    *done = poll(stream, &connection, got, &mut Context::from_waker(&waker)).is_ready();
                }
            }
            assert!(!(ended && slept), "the connection has ended, and nobody told its callers");
        }
        callers.map(|(_, got, ..)| got)
    });
    // An acknowledgement for each frame there may be, and what asks.
    assert!(written.get() <= 1024 + 2 * bytes.len(), "{} bytes for {}", written.get(), bytes.len());
    got
}

/// Whether a caller was woken.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Follows an answer to its end.
fn poll<S>(stream: &mut Stream<S>, connection: &Http2<S>, got: &mut Option<Got>, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        let Some(answer) = got else {
            match stream.poll_head(connection, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(head)) => {
                    let fields = head.headers.iter();
                    let fields = fields.map(|(name, value)| (name.as_str().into(), value.as_bytes().into())).collect();
                    *got = Some(Got { status: head.status.as_u16(), fields, ..Got::default() });
                    continue;
                }
            }
        };
        match stream.poll_data(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Ok(data))) => {
                assert!(!data.is_empty(), "an empty piece");
                answer.body.extend_from_slice(&data);
            }
            Poll::Ready(Some(Err(_))) => return Poll::Ready(()),
            Poll::Ready(None) => {
                answer.whole = true;
                return Poll::Ready(());
            }
        }
    }
}

/// A server that sends what it has once it is asked, and closes.
struct Server<'a> {
    rest: &'a [u8],
    piece: usize,
    paused: bool,
    /// So many looks are left before anything but the greeting comes: both are asked by then.
    greeted: usize,
    written: Rc<Cell<usize>>,
}

impl Socket for Server<'_> {
    fn taken(&self) -> u64 {
        self.written.get() as u64
    }

    fn poll_piece(&mut self, _: &mut Context<'_>) -> Poll<io::Result<Option<BytesMut>>> {
        self.paused = !self.paused;
        if self.written.get() == 0 || self.paused {
            return Poll::Pending;
        }
        if self.greeted > 0 {
            self.greeted -= 1;
            return if self.greeted + 1 == LOOKS { Poll::Ready(Ok(Some(GREETING.into()))) } else { Poll::Pending };
        }
        let (piece, rest) = self.rest.split_at(self.piece.min(self.rest.len()));
        self.rest = rest;
        Poll::Ready(Ok((!piece.is_empty()).then(|| piece.into())))
    }
}

impl AsyncWrite for Server<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.written.set(self.written.get() + buf.len());
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
