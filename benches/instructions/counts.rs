//! What is counted: each stage of the request path by itself, and whole requests.
//!
//! In: nothing. Out: for every function here the instructions of [`CALLS`] rounds, as gungraun and valgrind report
//! them; inputs are made by `setup`, which is not counted, and results are given back or forgotten, so that freeing
//! them is not either. A function's name is the stage's name in `expected.tsv`.

use std::hint::black_box;
use std::mem::forget;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cloudbeds_auth_proxy::budget::{Ask, Budget, Flow};
use cloudbeds_auth_proxy::keys::KeySet;
use cloudbeds_auth_proxy::origin::Origin;
use cloudbeds_auth_proxy::property::PropertyId;
use cloudbeds_auth_proxy::proxy;
use cloudbeds_auth_proxy::proxy::authorize::{Authorized, Policy};
use cloudbeds_auth_proxy::proxy::credential::Credentialed;
use cloudbeds_auth_proxy::proxy::error::ProxyError;
use cloudbeds_auth_proxy::proxy::identify::Identified;
use cloudbeds_auth_proxy::proxy::respond::Afterwards;
use cloudbeds_auth_proxy::proxy::rewrite::Routes;
use cloudbeds_auth_proxy::proxy::sanitize::Sanitized;
use cloudbeds_auth_proxy::proxy::trace::Trace;
use cloudbeds_auth_proxy::proxy::upstream::{Answer, Exchange};
use cloudbeds_auth_proxy::telemetry::access::{Connection, End, Finished};
use cloudbeds_auth_proxy::telemetry::metrics::Recorder;
use cloudbeds_auth_proxy::telemetry::{AccessLines, Guard, Metrics, RequestIds};
use cloudbeds_auth_proxy::wire::chunks::Chunks;
use cloudbeds_auth_proxy::wire::gate::Gate;
use cloudbeds_auth_proxy::wire::head::{self, Head, Lines};
use cloudbeds_auth_proxy::wire::incoming::Incoming;
use cloudbeds_auth_proxy::wire::inspect::{Coding, Inspector, Step};
use cloudbeds_auth_proxy::wire::mask::Mask;
use flate2::Compression;
use flate2::write::GzEncoder;
use gungraun::prelude::*;
use gungraun::{Callgrind, EntryPoint};
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, LocalRuntime, Runtime};
use tokio::time::Instant;

use crate::crowd::{Crowd, TOGETHER};
use crate::inputs::{self, CALLS, FIRST, requests, usual_head};
use crate::world::{self, LIMITS, LONG, World, counted_flush, counted_turn, json};

/// The value of a future that never waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a stage waits that never should"),
    }
}

fn id(number: u64) -> PropertyId {
    number.to_string().parse().unwrap()
}

// Towards the caller.

fn one_head() -> (Bytes, Vec<Head>) {
    (Bytes::from(usual_head(0)), Vec::with_capacity(CALLS))
}

#[library_benchmark(setup = one_head)]
fn head_read((head, mut read): (Bytes, Vec<Head>)) -> Vec<Head> {
    let mut lines = Lines::default();
    for _ in 0..CALLS {
        lines.clear();
        assert_eq!(lines.find(&head), Some(head.len()));
        read.push(head::read(black_box(&head), &lines, 100).unwrap());
    }
    forget(head);
    read
}

/// A socket that holds one head.
struct Memory(Bytes);

impl AsyncRead for Memory {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let size = buf.remaining().min(self.0.len());
        buf.put_slice(&self.0.split_to(size));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Memory {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn gates() -> (LocalRuntime, Vec<Gate<Memory>>) {
    let (runtime, now) = (world::runtime(), Instant::now());
    let gates = (0..CALLS).map(|at| Gate::new(Memory(usual_head(at).into()), LIMITS, LONG, now)).collect();
    (runtime, gates)
}

#[library_benchmark(setup = gates)]
fn gate((runtime, mut gates): (LocalRuntime, Vec<Gate<Memory>>)) {
    let inside = runtime.enter();
    for gate in &mut gates {
        let polled = gate.poll_head(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(&polled, Poll::Ready(Ok(Some(_)))));
        forget(black_box(polled));
    }
    forget((gates, inside));
    forget(runtime);
}

// The stages up to the upstream.

fn identified(requests: Vec<Box<Request<Incoming>>>) -> Vec<Identified> {
    let one = |request| proxy::identify::property(request, proxy::identify::Settings::default()).unwrap();
    requests.into_iter().map(one).collect()
}

fn authorized(identified: Vec<Identified>) -> Vec<Authorized> {
    let policy = Policy::default();
    let identify = proxy::identify::Settings::default();
    let arrival = proxy::Arrival { identify, local: None, encrypted: false, known: None, shown: None };
    let anybody = policy.who(&http::HeaderMap::new(), &arrival, || None).unwrap();
    identified.into_iter().map(|one| policy.authorize(one, anybody, &arrival).unwrap()).collect()
}

fn credentialed(authorized: Vec<Authorized>, keys: &KeySet) -> Vec<Credentialed> {
    let links = world::no_links();
    let attach = |one| proxy::credential::attach(proxy::limit::unlimited(one), keys, &links).unwrap();
    authorized.into_iter().map(attach).collect()
}

fn keys(rows: u64) -> KeySet {
    KeySet::parse("bench", &inputs::key_file(rows)).unwrap()
}

fn to_identify() -> Vec<Box<Request<Incoming>>> {
    requests(CALLS)
}

#[library_benchmark(setup = to_identify)]
fn identify(requests: Vec<Box<Request<Incoming>>>) -> Vec<Identified> {
    identified(requests)
}

fn to_authorize() -> Vec<Identified> {
    identified(to_identify())
}

#[library_benchmark(setup = to_authorize)]
fn authorize(identified: Vec<Identified>) -> Vec<Authorized> {
    authorized(identified)
}

fn to_credential() -> (Vec<Authorized>, KeySet) {
    (authorized(to_authorize()), keys(world::KEYS))
}

#[library_benchmark(setup = to_credential)]
fn limit_and_credential((authorized, keys): (Vec<Authorized>, KeySet)) -> Vec<Credentialed> {
    let credentialed = credentialed(authorized, &keys);
    forget(keys);
    credentialed
}

fn budget() -> Arc<Budget> {
    Arc::clone(inputs::wide_budget().budgets.of(None).unwrap())
}

// A permit for the taking, its start, and the answer it heard.
#[library_benchmark(setup = budget)]
fn permit(budget: Arc<Budget>) {
    let (ask, headers) = (Ask::normal(Flow::Property(id(FIRST))), HeaderMap::new());
    for _ in 0..CALLS {
        let mut permit = now(budget.take(black_box(ask), Instant::now())).unwrap();
        assert!(permit.start(Instant::now()));
        permit.heard(StatusCode::OK, &headers);
    }
    forget(budget);
}

fn crowd(hotels: usize) -> (Runtime, Crowd) {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let mut crowd = runtime.block_on(Crowd::of(hotels));
    // Once around, so that all that grows has grown.
    for _ in 0..hotels / TOGETHER + 1 {
        runtime.block_on(crowd.window_passes());
        let inside = runtime.enter();
        crowd.decide();
        drop(inside);
    }
    (runtime, crowd)
}

// Somebody's turn comes, and the same hotel queues again. A tenth of a step of the clock is in it.
#[library_benchmark(setup = crowd)]
#[bench::of_ten(10)]
#[bench::of_ten_thousand(10_000)]
fn turn((runtime, mut crowd): (Runtime, Crowd)) {
    for _ in 0..CALLS / TOGETHER {
        runtime.block_on(crowd.window_passes());
        let inside = runtime.enter();
        crowd.decide();
        drop(inside);
    }
    forget(crowd);
    forget(runtime);
}

/// Ids in no order, so that neighbouring look-ups touch different parts of the map.
fn look_ups(rows: u64) -> (KeySet, Vec<PropertyId>) {
    (keys(rows), (0..CALLS as u64).map(|at| id(FIRST + at * 7_919 % rows)).collect())
}

#[library_benchmark(setup = look_ups)]
#[bench::one(1)]
#[bench::hundred_thousand(100_000)]
fn key_look_up((keys, wanted): (KeySet, Vec<PropertyId>)) {
    for property in wanted {
        assert!(keys.get(black_box(property)).is_some());
    }
    forget(keys);
}

fn to_rewrite() -> (Vec<Credentialed>, Routes) {
    let (authorized, keys) = to_credential();
    let base: Origin = "https://api.cloudbeds.com".parse().unwrap();
    let credentialed = credentialed(authorized, &keys);
    drop(keys);
    // glibc tidies up what was freed when a large piece is asked for: now, and not in the middle of the counting.
    drop(black_box(Vec::<u8>::with_capacity(100 * 1024)));
    (credentialed, Routes::new(base, []))
}

#[library_benchmark(setup = to_rewrite)]
fn rewrite((credentialed, routes): (Vec<Credentialed>, Routes)) {
    for one in credentialed {
        forget(black_box(proxy::rewrite::for_cloudbeds(one, &routes)));
    }
}

// The stages behind the upstream.

/// Answers whose heads have come; HTTP/2, so that all are open on one connection.
fn answers() -> (World, Vec<Answer>) {
    let world = World::new(true, None);
    let (authorized, proxy) = (authorized(to_authorize()), Rc::clone(&world.proxy));
    let outbound: Vec<_> = credentialed(authorized, proxy.keys.borrow_mut().load())
        .into_iter()
        .map(|one| proxy::rewrite::for_cloudbeds(one, &proxy.routes))
        .collect();
    let answers = world.run(async move {
        let mut answers = Vec::new();
        for one in outbound {
            answers.push(proxy.upstream.send(one, &mut Exchange::default(), |_| None).await.unwrap());
        }
        answers
    });
    (world, answers)
}

fn sanitized(world: &World, answers: Vec<Answer>) -> Vec<Sanitized> {
    answers.into_iter().map(|one| now(proxy::sanitize::answer(one, &world.origin, false, LONG)).unwrap()).collect()
}

#[library_benchmark(setup = answers)]
fn sanitize((world, answers): (World, Vec<Answer>)) {
    let inside = world.inside();
    forget(sanitized(&world, answers));
    forget(inside);
    forget(world);
}

fn to_respond() -> (World, Vec<(Sanitized, Box<Trace>)>) {
    let (world, answers) = answers();
    let inside = world.inside();
    let sanitized = sanitized(&world, answers);
    let trace = |request: Box<Request<Incoming>>| Trace::start(&world.proxy, &*request);
    let both = sanitized.into_iter().zip(to_identify().into_iter().map(trace)).collect();
    drop(inside);
    (world, both)
}

#[library_benchmark(setup = to_respond)]
fn respond((world, sanitized): (World, Vec<(Sanitized, Box<Trace>)>)) {
    for (sanitized, trace) in sanitized {
        forget(black_box(proxy::respond::answer(sanitized, trace, LONG, Afterwards::KeepAlive)));
    }
    forget(world);
}

#[library_benchmark]
fn problem() {
    let unknown = ProxyError::PropertyUnknown(id(7));
    for _ in 0..CALLS {
        let response: Response<Bytes> = black_box(&unknown).problem().response();
        forget(black_box(response));
    }
}

// Bodies.

fn body(size: usize) -> Vec<Bytes> {
    vec![json(size); CALLS]
}

#[library_benchmark(setup = body)]
#[bench::clean_1k(1024)]
#[bench::clean_64k(64 * 1024)]
fn mask(chunks: Vec<Bytes>) {
    let mut mask = Mask::default();
    for chunk in chunks {
        forget(black_box(mask.chunk(chunk)));
    }
    assert_eq!(mask.found(), 0);
}

fn dirty(size: usize) -> Vec<Bytes> {
    let mut body = json(size).to_vec();
    body[size / 2..size / 2 + 37].copy_from_slice(b"cbat_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef");
    vec![Bytes::from(body); CALLS]
}

#[library_benchmark(setup = dirty)]
#[bench::in_1k(1024)]
fn mask_covers(chunks: Vec<Bytes>) {
    let mut mask = Mask::default();
    for chunk in chunks {
        forget(black_box(mask.chunk(chunk)));
    }
    assert_eq!(mask.found() as usize, CALLS);
}

fn gzip(size: usize) -> (Bytes, Vec<Inspector>) {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    std::io::Write::write_all(&mut encoder, &json(size)).unwrap();
    (encoder.finish().unwrap().into(), (0..CALLS).map(|_| Inspector::new(Coding::Gzip)).collect())
}

#[library_benchmark(setup = gzip)]
#[bench::decoded_16k(16 * 1024)]
fn inspect_gzip((coded, inspectors): (Bytes, Vec<Inspector>)) {
    for mut inspector in inspectors {
        inspector.push(coded.clone());
        while inspector.step().unwrap() == Step::Pause {}
        inspector.finish().unwrap();
        forget(inspector);
    }
}

fn chunked(size: usize) -> Vec<BytesMut> {
    let body = [format!("{size:x}\r\n").as_bytes(), &json(size), b"\r\n0\r\n\r\n"].concat();
    (0..CALLS).map(|_| BytesMut::from(&body[..])).collect()
}

#[library_benchmark(setup = chunked)]
#[bench::one_of_16k(16 * 1024)]
fn chunks(mut bodies: Vec<BytesMut>) {
    for body in &mut bodies {
        let mut chunks = Chunks::new();
        forget(chunks.take(black_box(body)).unwrap());
        assert!(chunks.is_done());
    }
    forget(bodies);
}

// What a request leaves behind.

fn finished(ids: &RequestIds) -> Finished<'static> {
    Finished {
        id: ids.next(),
        caller: None,
        property: Some(id(FIRST)),
        method: "GET",
        path: "/api/v1.3/getReservations",
        status: 200,
        code: None,
        end: End::Complete,
        bytes_up: 0,
        bytes_down: 1024,
        total: Duration::from_micros(123_456),
        upstream: Some(Duration::from_micros(120_007)),
        queued: None,
        connection: Some(Connection::Reused),
        upstream_protocol: Some("h2"),
        upstream_request_id: Some("6f1f3f0a-0001-4c4e-9a51-bench0000001"),
    }
}

fn recorder() -> (Recorder, Finished<'static>) {
    let (recorder, finished) = (Metrics::new(1).recorder(), finished(&RequestIds::new(0)));
    // The first request of a property makes its counters.
    recorder.finished(&finished);
    (recorder, finished)
}

#[library_benchmark(setup = recorder)]
fn metrics_record((recorder, finished): (Recorder, Finished<'static>)) {
    for _ in 0..CALLS {
        recorder.finished(black_box(&finished));
    }
}

fn log() -> (Guard, AccessLines, Finished<'static>) {
    let guard = inputs::log_to(std::path::Path::new("/dev/null"));
    let (lines, finished) = (guard.access_log().lines(), finished(&RequestIds::new(0)));
    lines.write(&finished);
    lines.flush();
    (guard, lines, finished)
}

#[library_benchmark(setup = log)]
fn access_line((guard, lines, finished): (Guard, AccessLines, Finished<'static>)) {
    for _ in 0..CALLS {
        lines.write(black_box(&finished));
    }
    lines.flush();
    forget((guard, lines));
}

// Whole requests. Only what the proxy does is counted.

fn proxy_only() -> LibraryBenchmarkConfig {
    let mut callgrind = instructions_only();
    callgrind.entry_point(EntryPoint::Custom("*::counted_*".to_owned()));
    LibraryBenchmarkConfig::default().tool(callgrind).clone()
}

fn whole(http2: bool, path: &'static str) -> (World, &'static str) {
    (World::warm(http2, path, None), path)
}

/// The same, within a budget that is far from used up.
fn within_budget(http2: bool, path: &'static str) -> (World, &'static str) {
    (World::warm(http2, path, Some(inputs::wide_budget())), path)
}

#[library_benchmark(setup = whole, config = proxy_only())]
#[bench::get_1k_http1(false, "/bench/1k")]
#[bench::get_1k_http2(true, "/bench/1k")]
#[bench::get_16k_http1(false, "/bench/16k")]
#[bench::get_16k_http2(true, "/bench/16k")]
#[bench::within_budget_http1(args = (false, "/bench/1k"), setup = within_budget)]
#[bench::within_budget_http2(args = (true, "/bench/1k"), setup = within_budget)]
#[bench::refused(false, inputs::REFUSED)]
fn request((mut world, path): (World, &'static str)) {
    for _ in 0..CALLS {
        world.answer(path, counted_turn);
    }
    counted_flush(&world);
    forget(world);
}

library_benchmark_group!(
    name = stages,
    benchmarks = [
        head_read,
        gate,
        identify,
        authorize,
        limit_and_credential,
        permit,
        turn,
        key_look_up,
        rewrite,
        sanitize,
        respond,
        problem,
        mask,
        mask_covers,
        inspect_gzip,
        chunks,
        metrics_record,
        access_line
    ]
);

library_benchmark_group!(name = whole_requests, benchmarks = request);

/// Without the simulated caches, of which nothing is reported here.
fn instructions_only() -> Callgrind {
    Callgrind::with_args(["--cache-sim=no"])
}

fn everywhere() -> LibraryBenchmarkConfig {
    let mut config = LibraryBenchmarkConfig::default();
    // For long copies glibc uses `rep movsb` where the CPU is good at it. Valgrind counts that as an instruction for
    // every byte, and a quarter of a request with 16 KiB would be copying.
    config.env("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-ERMS").tool(instructions_only());
    config
}

gungraun::main!(config = everywhere(), library_benchmark_groups = [stages, whole_requests]);

/// Hands over to gungraun: its runner, or one benchmark that its runner asks for.
pub(crate) fn run() {
    main();
}
