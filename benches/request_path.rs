//! What a request costs: its parts alone, and the whole way over real sockets.
//!
//! In: the proxy as `serve` runs it, with one worker, before the sandbox over TLS. Out: the time of one GET on a
//! connection that is kept, beside the same GET answered by the proxy itself, and the throughput of the parts that
//! touch every byte. `README.md` says what these figures do not show.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a benchmark may end itself")]

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread::JoinHandle;

use bytes::{Bytes, BytesMut};
use cloudbeds_auth_proxy::app::{App, Handle};
use cloudbeds_auth_proxy::config;
use cloudbeds_auth_proxy::phase::Phase;
use cloudbeds_auth_proxy::sandbox::{self, Protocols};
use cloudbeds_auth_proxy::telemetry::AccessLog;
use cloudbeds_auth_proxy::wire::chunks::Chunks;
use cloudbeds_auth_proxy::wire::head::{self, Lines};
use cloudbeds_auth_proxy::wire::inspect::{Coding, Inspector, Step};
use cloudbeds_auth_proxy::wire::mask::Mask;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use flate2::Compression;
use flate2::write::GzEncoder;

/// What hyper hands on at a time, in bytes.
const CHUNK: usize = 16 * 1024;

/// What a PHP or Python client sends.
const HEAD: &[u8] = b"GET /api/v1.3/getReservations?pageSize=20&status=confirmed HTTP/1.1\r\n\
    Host: 127.0.0.1:8080\r\nUser-Agent: GuzzleHttp/7\r\nAccept: application/json\r\nAccept-Encoding: gzip, deflate\r\n\
    Connection: keep-alive\r\nX-Property-Id: 1001\r\nAuthorization: Bearer unused\r\n\r\n";

/// A body such as Cloudbeds sends, without a key in it.
fn json(size: usize) -> Vec<u8> {
    let row =
        |n: usize| format!("{{\"reservationID\":\"{n}\",\"status\":\"confirmed\",\"cancellable\":\"{}\"}},", n % 97);
    let mut body: Vec<u8> = (0..).flat_map(|n| row(n).into_bytes()).take(size).collect();
    body.truncate(size);
    body
}

fn parts(criterion: &mut Criterion) {
    let body = Bytes::from(json(CHUNK));
    let mut group = criterion.benchmark_group("parts");

    group.throughput(Throughput::Bytes(HEAD.len() as u64));
    group.bench_function("head", |bench| {
        let (head, mut lines) = (Bytes::from_static(HEAD), Lines::default());
        assert_eq!(lines.find(HEAD), Some(HEAD.len()));
        bench.iter(|| head::read(black_box(&head), &lines, 100).unwrap_or_else(|problem| panic!("{}", problem.detail)));
    });

    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("mask_clean_16k", |bench| {
        let mut mask = Mask::default();
        bench.iter(|| mask.chunk(black_box(body.clone())));
    });
    let mut dirty = body.to_vec();
    dirty[CHUNK / 2..CHUNK / 2 + 37].copy_from_slice(b"cbat_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef");
    let dirty = Bytes::from(dirty);
    group.bench_function("mask_covers_16k", |bench| {
        let mut mask = Mask::default();
        bench.iter(|| mask.chunk(black_box(dirty.clone())));
    });

    let mut chunked = format!("{CHUNK:x}\r\n").into_bytes();
    chunked.extend_from_slice(&body);
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    group.throughput(Throughput::Bytes(chunked.len() as u64));
    group.bench_function("chunks_16k", |bench| {
        bench.iter_batched(
            || BytesMut::from(&chunked[..]),
            |mut body| {
                let mut chunks = Chunks::new();
                let taken = chunks.take(black_box(&mut body));
                assert!(chunks.is_done());
                taken
            },
            BatchSize::SmallInput,
        );
    });

    // By the decoded size: that is the work.
    let plain = json(1 << 20);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&plain).unwrap();
    let coded = Bytes::from(encoder.finish().unwrap());
    group.throughput(Throughput::Bytes(plain.len() as u64));
    group.bench_function("inspect_gzip_1m", |bench| {
        bench.iter_batched(
            || Inspector::new(Coding::Gzip),
            |mut inspector| {
                for start in (0..coded.len()).step_by(CHUNK) {
                    inspector.push(coded.slice(start..coded.len().min(start + CHUNK)));
                    while inspector.step().unwrap_or_else(|refusal| panic!("{refusal}")) == Step::Pause {}
                }
                inspector.finish().unwrap_or_else(|refusal| panic!("{refusal}"))
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// A proxy and a sandbox on a thread of their own.
struct Running {
    address: SocketAddr,
    handle: Handle,
    thread: JoinHandle<()>,
}

fn start(protocols: Protocols) -> Running {
    let (tell, told) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let settings = sandbox::Settings { protocols, record: false, ..sandbox::Settings::demo() };
            let hotels = settings.hotels.clone();
            let cloudbeds = sandbox::start(settings).await.unwrap();
            let files = sandbox::write_files(directory.path(), &hotels, cloudbeds.root_pem()).unwrap();
            let yaml = format!(
                "listen: 127.0.0.1:0\nadmin: {{ listen: 127.0.0.1:0 }}\nkeys: {{ file: {:?} }}\nlimits: null\n\
                 upstream: {{ base_url: {}, ca_file: {:?} }}\ndrain: {{ min: 0s }}\nworkers: 1\n",
                files.keys,
                cloudbeds.base_url(),
                files.root
            );
            let config =
                config::parse(&yaml, "bench", directory.path(), []).unwrap_or_else(|faults| panic!("{faults:?}"));
            let app = App::prepare(config, AccessLog::off()).unwrap_or_else(|error| panic!("{error}"));
            let (address, handle) = (app.addresses()[0].parse().unwrap(), app.handle());
            let running = tokio::spawn(app.run());
            handle.phase().reached(Phase::Ready).await;
            tell.send((address, handle)).unwrap();
            running.await.unwrap().unwrap();
            cloudbeds.stop().await;
        });
    });
    let (address, handle) = told.recv().unwrap();
    Running { address, handle, thread }
}

impl Running {
    fn end(self) {
        self.handle.hurry();
        self.thread.join().unwrap();
    }
}

/// A caller with one connection that it keeps.
struct Caller {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Caller {
    fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: vec![0; 64 * 1024] }
    }

    /// Sends the request and reads the whole answer, which must have a length.
    fn call(&mut self, request: &[u8], status: &[u8]) -> usize {
        self.stream.write_all(request).unwrap();
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).unwrap();
            assert_ne!(read, 0, "the connection was closed");
            filled += read;
            let answer = &self.buffer[..filled];
            let Some(end) = memchr::memmem::find(answer, b"\r\n\r\n") else { continue };
            assert!(answer.starts_with(status), "{}", String::from_utf8_lossy(answer));
            let at = memchr::memmem::find(answer, b"content-length: ").unwrap() + b"content-length: ".len();
            let digits = answer[at..].iter().take_while(|byte| byte.is_ascii_digit());
            let length = digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0'));
            if filled == end + 4 + length {
                return filled;
            }
        }
    }
}

fn whole(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("request");
    let get = |property: &str| {
        format!(
            "GET /api/v1.3/userinfo HTTP/1.1\r\nHost: localhost\r\nX-Property-Id: {property}\r\n\
             Authorization: Bearer unused\r\n\r\n"
        )
    };
    for (name, protocols) in [("get_by_h2", Protocols::Http2), ("get_by_http1", Protocols::Http1)] {
        let running = start(protocols);
        let mut caller = Caller::new(running.address);
        let request = get("1001");
        group.bench_function(name, |bench| bench.iter(|| caller.call(request.as_bytes(), b"HTTP/1.1 200 ")));
        if protocols == Protocols::Http2 {
            let refused = get("7");
            group.bench_function("refused", |bench| {
                bench.iter(|| caller.call(refused.as_bytes(), b"HTTP/1.1 403 "));
            });
        }
        drop(caller);
        running.end();
    }
    group.finish();
}

criterion_group!(benches, parts, whole);
criterion_main!(benches);
