//! Caller, proxy and upstream on one thread, so that a whole request takes the same steps every time.
//!
//! In: which version of HTTP the upstream speaks. Out: a [`World`] in which one request after the other is answered.
//! The proxy is put together as `app/worker.rs` does it, with an access log in a file, on a runtime of its own; the
//! upstream has another. Neither ever waits: they are given turns, and [`counted_turn`] and [`counted_flush`] alone are
//! what is counted. So the figures are the proxy's, with its half of TLS and HTTP and none of the upstream's, and no
//! thread's luck is in them. What the kernel does is in no instruction count.

use std::cell::RefCell;
use std::hint::black_box;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cloudbeds_auth_proxy::https::Dialer;
use cloudbeds_auth_proxy::keys::KeyStore;
use cloudbeds_auth_proxy::listen::Stream;
use cloudbeds_auth_proxy::origin::Origin;
use cloudbeds_auth_proxy::phase::{Phase, PhaseCell};
use cloudbeds_auth_proxy::proxy::authorize::Policy;
use cloudbeds_auth_proxy::proxy::connection::{self, Open};
use cloudbeds_auth_proxy::proxy::limit::Limiter;
use cloudbeds_auth_proxy::proxy::pool::{self, Pool};
use cloudbeds_auth_proxy::proxy::rewrite::Routes;
use cloudbeds_auth_proxy::proxy::upstream::{Timeouts, Upstream};
use cloudbeds_auth_proxy::proxy::verdict::ConnectLinks;
use cloudbeds_auth_proxy::proxy::{Arrival, Proxy, identify};
use cloudbeds_auth_proxy::telemetry::{Guard, Metrics, RequestIds};
use cloudbeds_auth_proxy::wire::gate::Limits;
use tempfile::TempDir;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

use crate::inputs;
use crate::stand_in::StandIn;

/// How many properties have a key; each request is for another.
pub(crate) const KEYS: u64 = 1_000;

/// Longer than anything takes under valgrind.
pub(crate) const LONG: Duration = Duration::from_mins(10);

/// What callers are held to; nothing of it comes to pass.
pub(crate) const LIMITS: Limits =
    Limits { head_timeout: LONG, idle: LONG, body_idle: LONG, max_head_size: 64 * 1024, max_headers: 100 };

/// The proxy between a caller and an upstream.
pub(crate) struct World {
    runtime: LocalRuntime,
    far: LocalRuntime,
    pub(crate) proxy: Rc<Proxy>,
    pub(crate) origin: Arc<Origin>,
    caller: UnixStream,
    answer: Vec<u8>,
    sent: u64,
    _log: Guard,
    _directory: TempDir,
}

/// One turn of the proxy, counted: what is ready runs, and then the sockets are looked at.
#[inline(never)]
pub(crate) fn counted_turn(runtime: &LocalRuntime) {
    turn(runtime);
}

/// The hand-over of the access lines that have collected, counted. A core does it by the clock, of which the number of
/// lines in it would depend.
#[inline(never)]
pub(crate) fn counted_flush(world: &World) {
    world.proxy.lines.flush();
}

/// One turn that is not counted. It must not be the same code: the compiler would make one function of the two.
#[inline(never)]
fn free_turn(runtime: &LocalRuntime) {
    turn(black_box(runtime));
    std::thread::yield_now();
}

#[inline(always)]
fn turn(runtime: &LocalRuntime) {
    runtime.block_on(tokio::task::yield_now());
}

pub(crate) fn runtime() -> LocalRuntime {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap()
}

impl World {
    pub(crate) fn new(http2: bool, limiter: Option<Limiter>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let log = inputs::log_to(&directory.path().join("access.log"));
        let (runtime, far) = (runtime(), runtime());
        let upstream = far.block_on(async { StandIn::start_here() }).unwrap();
        let root = directory.path().join("root.pem");
        std::fs::write(&root, &upstream.root_pem).unwrap();
        let address = if http2 { upstream.http2 } else { upstream.http1 };
        let origin: Origin = format!("https://localhost:{}", address.port()).parse().unwrap();

        let recorder = Rc::new(Metrics::new(1).recorder());
        let (dialer, _) = Dialer::new(Some(&root), http2, LONG, LONG).unwrap();
        let pool = pool::Settings { idle: LONG, max_age: LONG, unsafe_reuse: LONG };
        let timeouts = Timeouts { first_byte: LONG, idle: LONG };
        let proxy = Rc::new(Proxy {
            policy: Policy::default(),
            routes: Rc::new(Routes::new(origin.clone(), [])),
            keys: RefCell::new(keys(&directory).reader()),
            upstream: Upstream::new(Rc::new(Pool::new(dialer, pool, Rc::clone(&recorder))), timeouts),
            timeouts,
            limiter,
            connect: no_links(),
            recorder,
            lines: Rc::new(log.access_log().lines()),
            ids: RequestIds::new(0),
            phase: phase(),
            refused_handshakes: cloudbeds_auth_proxy::telemetry::Sparing::default(),
        });
        let (caller, near) = UnixStream::pair().unwrap();
        caller.set_nonblocking(true).unwrap();
        near.set_nonblocking(true).unwrap();
        let inside = runtime.enter();
        let near = Stream::Unix(tokio::net::UnixStream::from_std(near).unwrap());
        drop(inside);
        let arrival = Arrival::plain(identify::Settings::default(), &near, &proxy.policy);
        let serving = connection::serve(near, Rc::clone(&proxy), arrival, LIMITS, &Rc::new(Open::default()), ());
        runtime.spawn_local(serving);
        let (answer, origin) = (Vec::with_capacity(1 << 21), Arc::new(origin));
        Self { runtime, far, proxy, origin, caller, answer, sent: 0, _log: log, _directory: directory }
    }

    /// A world that has answered a few requests already: connections are open, pages touched, properties counted.
    pub(crate) fn warm(http2: bool, path: &str, limiter: Option<Limiter>) -> Self {
        let mut world = Self::new(http2, limiter);
        for _ in 0..20 {
            world.answer(path, free_turn);
        }
        world
    }

    /// Sends one request for the next property and takes turns until it is answered.
    pub(crate) fn answer(&mut self, path: &str, proxys: fn(&LocalRuntime)) {
        let property = if path == inputs::REFUSED { 7 } else { inputs::FIRST + self.sent * 37 % KEYS };
        self.sent += 1;
        self.caller.write_all(&inputs::head(path, property)).unwrap();
        self.answer.clear();
        let started = Instant::now();
        while !self.is_answered() {
            proxys(&self.runtime);
            free_turn(&self.far);
            assert!(started.elapsed() < LONG, "no answer");
        }
        let status: &[u8] = if path == inputs::REFUSED { b"HTTP/1.1 403 " } else { b"HTTP/1.1 200 " };
        assert!(self.answer.starts_with(status), "{}", String::from_utf8_lossy(&self.answer));
    }

    /// Reads what there is; whether the answer, which must have a length, is whole.
    fn is_answered(&mut self) -> bool {
        let mut some = [0; 64 * 1024];
        loop {
            match self.caller.read(&mut some) {
                Ok(0) => panic!("the connection was closed"),
                Ok(read) => self.answer.extend_from_slice(&some[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        let Some(end) = memchr::memmem::find(&self.answer, b"\r\n\r\n") else { return false };
        let at = memchr::memmem::find(&self.answer, b"content-length: ").unwrap() + b"content-length: ".len();
        let digits = self.answer[at..].iter().take_while(|byte| byte.is_ascii_digit());
        let length = digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0'));
        self.answer.len() == end + 4 + length
    }

    /// What the proxy's runtime makes of this future, with turns for the upstream.
    pub(crate) fn run<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> T {
        let done = Rc::new(RefCell::new(None));
        let there = Rc::clone(&done);
        self.runtime.spawn_local(async move {
            let value = future.await;
            *there.borrow_mut() = Some(value);
        });
        loop {
            free_turn(&self.runtime);
            free_turn(&self.far);
            if let Some(value) = done.borrow_mut().take() {
                return value;
            }
        }
    }

    /// The runtime, for what must be polled inside one.
    pub(crate) fn inside(&self) -> tokio::runtime::EnterGuard<'_> {
        self.runtime.enter()
    }
}

fn keys(directory: &TempDir) -> Arc<KeyStore> {
    let file = directory.path().join("keys.yaml");
    inputs::write_private(&file, &inputs::key_file(KEYS));
    KeyStore::open(file).unwrap()
}

fn phase() -> Arc<PhaseCell> {
    let phase = PhaseCell::new();
    phase.set(Phase::Ready);
    Arc::new(phase)
}

/// A body such as Cloudbeds sends.
pub(crate) fn json(size: usize) -> Bytes {
    let row = |n: usize| format!("{{\"reservationID\":\"{n}\",\"status\":\"confirmed\",\"balance\":{}}},", n % 97);
    (0..).flat_map(|n| row(n).into_bytes()).take(size).collect()
}

/// Hotels connect nowhere here.
pub(crate) fn no_links() -> ConnectLinks {
    Arc::new(|_, _| None)
}
