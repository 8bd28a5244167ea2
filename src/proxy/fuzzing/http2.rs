//! From any bytes of a caller's HTTP/2 to what Cloudbeds would get.
//!
//! In: one byte of options, then a program (`program.rs` has its notation) or, by an option, bytes as they are. They
//! go through the listener's own HTTP/2 side and the stages up to the connection. Asserted of every request that
//! reaches the stages: a plain reading that shares no code with h2 (`reading.rs`) finds it among what was sent, field
//! by field; it has every pseudo-field once and before the others, one host, a plain path, no field of one connection
//! and no value with a second reading; and all that `request.rs` asserts of what goes out. Never are more under way
//! than streams are allowed, what is written is bounded, and everything ends.
#![allow(clippy::expect_used, clippy::panic, reason = "a broken promise is to end the process")]

mod answers;
pub(super) mod far;
mod hpack;
mod program;
mod reading;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt as _, Full};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::LocalSet;
use tokio::time::timeout;

pub use self::answers::answers;
use self::reading::{Asked, read};
use super::line::LIMITS;
use super::request::{self, Call, World};
use super::strict::{Body, Request};
use crate::phase::PhaseCell;
use crate::proxy::CallerGone;
use crate::proxy::connection::Open;
use crate::proxy::connection::http2::talk;
use crate::proxy::sanitize::Cut;
use crate::telemetry::metrics::{Metrics, Recorder};
use crate::wire::incoming::Incoming;
use crate::wire::problem::Problem;

/// The bits of the first byte besides those of `request.rs`: bytes instead of a program, and large answers.
const RAW: u8 = 16;
const LARGE: u8 = 32;

/// A large answer, in bytes: more than one window has room for.
const LARGE_ANSWER: usize = 100 * 1024;

/// Requests at once, as the listener announces them.
const STREAMS: usize = 100;

/// Looks at the caller that find nothing, before each of its pieces: what came before is worked off meanwhile.
const PAUSE: u8 = 4;

/// Within this everything has ended; nothing waits for a clock.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request as it reached the stages.
struct Seen {
    method: String,
    target: String,
    fields: Vec<(String, Vec<u8>)>,
    call: Call,
}

/// What is observed of a connection.
#[derive(Default)]
struct Observed {
    seen: RefCell<Vec<Seen>>,
    answered: Cell<usize>,
    under_way: Cell<usize>,
}

thread_local! {
    static WORLD: Rc<World> = Rc::new(World::new());
    static RECORDER: Rc<Recorder> = Rc::new(Metrics::new(1).recorder());
    static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime without sockets needs nothing of the system");
}

/// Follows any bytes.
pub fn http2(data: &[u8]) {
    let Some((options, rest)) = data.split_first() else { return };
    let pieces = if options & RAW != 0 { vec![rest.to_vec()] } else { program::pieces(rest) };
    let sent = pieces.concat();
    let (observed, written) = serve(*options, pieces);
    let large = if options & LARGE != 0 { LARGE_ANSWER } else { 0 };
    let most = 4096 + 4 * sent.len() + observed.answered.get() * (4096 + large);
    assert!(written <= most, "{written} bytes for {} requests in {} bytes", observed.answered.get(), sent.len());

    let mut asked: Vec<Option<Asked>> = read(&sent).into_iter().map(Some).collect();
    // Several may be under way at once, so their order says nothing. Those that came whole first: of two with the same
    // head, another one may not have.
    let (whole, broken): (Vec<_>, _) = observed.seen.take().into_iter().partition(|seen| seen.body().is_some());
    for seen in whole.into_iter().chain(broken) {
        let same = |asked: &&mut Option<Asked>| asked.as_ref().is_some_and(|asked| seen.is(asked));
        let found = asked.iter_mut().find(same).and_then(Option::take);
        let found = found.unwrap_or_else(|| panic!("nobody sent {seen:?}: {asked:?}"));
        check(&seen, &found, options & !(RAW | LARGE));
    }
}

/// Serves what a caller sent, as `connection/http2.rs` does it; how many bytes were written.
fn serve(options: u8, pieces: Vec<Vec<u8>>) -> (Rc<Observed>, usize) {
    let (observed, written) = (Rc::<Observed>::default(), Rc::new(Cell::new(0)));
    let looks = 1000 + pieces.iter().map(|piece| piece.len() + usize::from(PAUSE)).sum::<usize>();
    let caller = Caller { pieces: pieces.into(), pause: PAUSE, looks, written: Rc::clone(&written) };
    let (world, seen) = (WORLD.with(Rc::clone), Rc::clone(&observed));
    let answer = move |request, admitted| {
        let (world, seen) = (Rc::clone(&world), Rc::clone(&seen));
        async move { Ok::<_, CallerGone>(answer(options, &world, &seen, request, admitted).await) }
    };
    let open = Rc::<Open>::default();
    let entry = open.enter(&RECORDER.with(Rc::clone));
    let ended = RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let local = LocalSet::new();
            let served = async {
                local.run_until(talk(caller, answer, LIMITS, Arc::new(PhaseCell::new()), &entry)).await;
                // What was under way ends with its connection.
                local.await;
            };
            timeout(PATIENCE, served).await
        })
    });
    assert!(ended.is_ok(), "it does not end");
    assert_eq!(observed.under_way.get(), 0, "something is still under way");
    (observed, written.get())
}

async fn answer(
    options: u8,
    world: &World,
    observed: &Rc<Observed>,
    request: http::Request<Incoming>,
    admitted: Result<(), Problem>,
) -> Response<impl http_body::Body<Data = Bytes, Error = Cut> + Unpin + use<>> {
    let _under_way = UnderWay::new(observed);
    let response = match admitted {
        Err(problem) => problem.response(),
        Ok(()) => {
            let (method, target) = (request.method().to_string(), request.uri().to_string());
            let field =
                |(name, value): (&http::HeaderName, &http::HeaderValue)| (name.to_string(), value.as_bytes().to_vec());
            let fields = request.headers().iter().map(field).collect();
            let (call, response) = world.forward(options & !(RAW | LARGE) | request::HTTP2, request).await;
            let large = options & LARGE != 0 && matches!(call, Call::Sent(_));
            observed.seen.borrow_mut().push(Seen { method, target, fields, call });
            if large { response.map(|_| Bytes::from(vec![b' '; LARGE_ANSWER])) } else { response }
        }
    };
    request::assert_silent(format!("{:?}", response.headers()).as_bytes());
    request::assert_silent(response.body());
    response.map(|body| Full::new(body).map_err(|never| match never {}))
}

/// One of the requests under way.
struct UnderWay(Rc<Observed>);

impl UnderWay {
    fn new(observed: &Rc<Observed>) -> Self {
        let count = observed.under_way.get() + 1;
        assert!(count <= STREAMS, "more are under way than are allowed");
        observed.under_way.set(count);
        observed.answered.set(observed.answered.get() + 1);
        Self(Rc::clone(observed))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get() - 1);
    }
}

impl Seen {
    /// What went out of its body, if that is whole.
    fn body(&self) -> Option<&[u8]> {
        if let Call::Sent(sent) = &self.call { sent.body.as_deref() } else { None }
    }

    /// Whether it is what somebody has asked.
    fn is(&self, asked: &Asked) -> bool {
        let one = |name: &'static str| asked.values(name).next();
        let host = one(":authority").or_else(|| one("host"));
        let mut theirs: Vec<(String, Vec<u8>)> = regular(asked).filter(|(name, _)| name != "host").collect();
        if self.body().is_some_and(|body| !asked.whole || body != asked.body) {
            return false;
        }
        let connect = self.method == "CONNECT";
        // It is refused as it is.
        theirs.extend(host.filter(|_| !connect).map(|host| ("host".to_owned(), host.to_vec())));
        let mut ours: Vec<_> = self.fields.iter().filter(|(name, _)| !connect || name != "host").cloned().collect();
        // Stable: the order of a field's own lines counts.
        theirs.sort_by(|(one, _), (other, _)| one.cmp(other));
        ours.sort_by(|(one, _), (other, _)| one.cmp(other));
        let path = one(":path").map(without_fragment).unwrap_or_default();
        one(":method") == Some(self.method.as_bytes()) && (connect || path == self.target.as_bytes()) && theirs == ours
    }
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fields: Vec<_> = self.fields.iter().map(|(name, value)| (name, String::from_utf8_lossy(value))).collect();
        write!(out, "{} {} {fields:?}: {:?}", self.method, self.target, self.call)
    }
}

/// h2 cuts it off before anybody sees it (`wire/head/http2.rs`).
fn without_fragment(path: &[u8]) -> &[u8] {
    path.split(|byte| *byte == b'#').next().unwrap_or_default()
}

fn regular(asked: &Asked) -> impl Iterator<Item = (String, Vec<u8>)> + '_ {
    let named = asked.fields.iter().filter(|(name, _)| !name.starts_with(b":"));
    named.map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), value.clone()))
}

/// The rules of RFC 9113 8.2 and 8.3, and what goes out.
fn check(seen: &Seen, asked: &Asked, options: u8) {
    let pseudo = asked.fields.iter().take_while(|(name, _)| name.starts_with(b":")).count();
    for (name, value) in &asked.fields[pseudo..] {
        let token =
            |byte: &u8| byte.is_ascii_graphic() && !byte.is_ascii_uppercase() && !b"\"(),/:;<=>?@[\\]{}".contains(byte);
        assert!(!name.is_empty() && name.iter().all(token), "a name that is none: {asked:?}");
        let plain = |byte: &u8| (*byte >= b' ' || *byte == b'\t') && *byte != 0x7f;
        assert!(value.iter().all(plain) && value.trim_ascii().len() == value.len(), "a value that is none: {asked:?}");
        let of_one_connection = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
        assert!(!of_one_connection.iter().any(|known| name == known.as_bytes()), "of one connection: {asked:?}");
        assert!(name != b"te" || value == b"trailers", "{asked:?}");
    }
    let count = |name| asked.values(name).count();
    let connect = seen.method == "CONNECT";
    let known = [":method", ":scheme", ":authority", ":path"].map(count);
    assert_eq!(known.iter().sum::<usize>(), pseudo, "an unknown pseudo-field: {asked:?}");
    let [method, scheme, authority, path] = known;
    assert!(method == 1 && authority <= 1 && (connect || scheme == 1 && path <= 1), "{asked:?}");
    assert!(path == 1 || matches!(seen.call, Call::Refused(_)), "without a path: {asked:?}");
    let hosts: Vec<_> = asked.values(":authority").chain(asked.values("host")).collect();
    let (first, others) = hosts.split_first().expect("a host");
    assert!(others.len() < 2 && others.iter().all(|other| other.eq_ignore_ascii_case(first)), "{asked:?}");
    let lengths: Vec<_> = asked.values("content-length").collect();
    assert!(lengths.len() < 2, "{asked:?}");
    let Call::Sent(sent) = &seen.call else { return };
    if let (Some(body), [length]) = (&sent.body, &lengths[..]) {
        assert_eq!(*length, body.len().to_string().as_bytes(), "{asked:?}");
    }
    // A request that was given up afterwards need not arrive.
    let body = if sent.body.is_some() { Body::Whole(asked.body.clone()) } else { Body::Unfinished(1) };
    let target = asked.values(":path").next().map(without_fragment).unwrap_or_default();
    let mut fields: Vec<_> = asked.fields[pseudo..].iter().filter(|(name, _)| name != b"host").map(as_text).collect();
    fields.push(("host", first));
    request::check(sent, &Request { method: &seen.method, target, minor: 1, fields, body, rest: &[] }, options);
}

fn as_text(field: &(Vec<u8>, Vec<u8>)) -> (&str, &[u8]) {
    (std::str::from_utf8(&field.0).expect("it is a token"), &field.1)
}

/// The caller, who reads whatever is written and sends piece by piece.
struct Caller {
    pieces: VecDeque<Vec<u8>>,
    pause: u8,
    /// How often it may still be looked at.
    looks: usize,
    written: Rc<Cell<usize>>,
}

impl AsyncRead for Caller {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.looks = self.looks.checked_sub(1).expect("it is read for ever");
        let Some(piece) = self.pieces.front_mut() else {
            // The pause behind the last piece.
            if self.pause > 0 {
                self.pause -= 1;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            return Poll::Ready(Ok(()));
        };
        if !piece.is_empty() {
            let count = piece.len().min(buf.remaining());
            buf.put_slice(&piece[..count]);
            piece.drain(..count);
            return Poll::Ready(Ok(()));
        }
        if self.pause > 0 {
            self.pause -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.pause = PAUSE;
        self.pieces.pop_front();
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl AsyncWrite for Caller {
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
