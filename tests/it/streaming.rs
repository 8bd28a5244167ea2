//! Bodies of any size pass in flat memory, at the pace of the slower side, unchanged; and no body, however slow or
//! large, holds up another connection's requests, even where one core serves them all.

use std::cell::Cell;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cloudbeds_auth_proxy::sandbox::{Protocols, bulk};
use flate2::write::GzEncoder;
use flate2::{Compression, Crc};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::harness::{Caller, HTTP1, Peer, Proxy, Upstream, cloudbeds, in_time, until};

const GIB: u64 = 1 << 30;

/// The most a transfer may add to the process, whatever its size.
const GROWTH: u64 = 8 << 20;

/// More than all socket buffers between two ends ever hold.
const BUFFERS: u64 = 64 << 20;

/// What the process grows by from here on.
struct Memory<'a> {
    proxy: &'a Proxy,
    before: u64,
}

impl<'a> Memory<'a> {
    /// After a first request, so that what every process needs once is there.
    async fn of(proxy: &'a Proxy) -> Self {
        assert_eq!(proxy.get("/sandbox/download?bytes=300000").property("1001").send().await.status, 200);
        let upload = proxy.call("POST", "/sandbox/upload").property("1001").body(vec![b'.'; 300_000]);
        assert_eq!(upload.send().await.status, 200);
        proxy.forget_peak_memory();
        Self { proxy, before: proxy.memory().0 }
    }

    fn check(&self, what: &str) {
        let grown = self.proxy.memory().1.saturating_sub(self.before);
        println!("{what}: {} KiB more than {} KiB", grown / 1024, self.before / 1024);
        assert!(grown < GROWTH, "{what}: grown by {} KiB from {} KiB", grown / 1024, self.before / 1024);
    }
}

/// The checksum of the sandbox's pattern.
fn pattern_sum(bytes: u64) -> u32 {
    let mut crc = Crc::new();
    bulk::pattern(bytes).for_each(|frame| crc.update(&frame));
    crc.sum()
}

/// Reads a body of known length, with a pause after every `burst` bytes.
async fn download(caller: &mut Caller, bytes: u64, burst: u64, pause: Duration) -> u32 {
    let (mut crc, mut left, mut until_pause) = (Crc::new(), bytes, burst);
    while left > 0 {
        let chunk = caller.some(left.min(256 << 10)).await;
        crc.update(&chunk);
        left -= chunk.len() as u64;
        until_pause = until_pause.saturating_sub(chunk.len() as u64);
        if until_pause == 0 {
            tokio::time::sleep(pause).await;
            until_pause = burst;
        }
    }
    crc.sum()
}

#[tokio::test]
async fn a_download_of_a_gigabyte_takes_no_memory() {
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let (cloudbeds, hotels) = cloudbeds(protocols).await;
        let proxy = Proxy::to(&cloudbeds, &hotels).log("warn").start().await;
        let memory = Memory::of(&proxy).await;
        let mut caller = Caller::connect(&proxy).await;
        caller.head("GET", &format!("/sandbox/download?bytes={GIB}"), "").await;
        assert!(caller.answer_head().await.contains(&format!("content-length: {GIB}\r\n")));
        assert_eq!(download(&mut caller, GIB, GIB, Duration::ZERO).await, pattern_sum(GIB), "{protocols:?}");
        memory.check(&format!("download, {protocols:?}"));
    }
}

#[tokio::test]
async fn an_upload_of_a_gigabyte_takes_no_memory() {
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let (cloudbeds, hotels) = cloudbeds(protocols).await;
        let proxy = Proxy::to(&cloudbeds, &hotels).log("warn").start().await;
        let memory = Memory::of(&proxy).await;
        let mut caller = Caller::connect(&proxy).await;
        caller.head("POST", "/sandbox/upload", &format!("content-length: {GIB}\r\n")).await;
        for frame in bulk::pattern(GIB) {
            caller.write(frame).await;
        }
        let head = caller.answer_head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let length: usize =
            head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
        let answer = String::from_utf8(caller.read(length).await).unwrap();
        assert!(answer.contains(&format!("{:08x}", pattern_sum(GIB))), "{protocols:?}: {answer}");
        memory.check(&format!("upload, {protocols:?}"));
    }
}

#[tokio::test]
async fn a_slow_reader_gets_every_byte_and_costs_no_memory() {
    const SIZE: u64 = 64 << 20;
    for protocols in [Protocols::Http1, Protocols::Http2] {
        for chunked in ["", "&chunked=1"] {
            let (cloudbeds, hotels) = cloudbeds(protocols).await;
            let proxy = Proxy::to(&cloudbeds, &hotels).log("warn").start().await;
            let memory = Memory::of(&proxy).await;
            let mut caller = Caller::connect(&proxy).await;
            // HTTP/1.0 knows no chunks: the end of the body is the end of the connection.
            let head = format!("GET /sandbox/download?bytes={SIZE}{chunked} HTTP/1.0\r\nx-property-id: 1001\r\n\r\n");
            caller.write(&head).await;
            caller.answer_head().await;
            caller.read(1 << 20).await;
            // Everything between the ends fills up.
            tokio::time::sleep(Duration::from_millis(700)).await;
            memory.check(&format!("paused reader, {protocols:?}{chunked}"));
            drop(caller);

            let mut caller = Caller::connect(&proxy).await;
            caller.write(head).await;
            caller.answer_head().await;
            let sum = download(&mut caller, SIZE, 4 << 20, Duration::from_millis(60)).await;
            assert_eq!(sum, pattern_sum(SIZE), "{protocols:?}");
            memory.check(&format!("slow reader, {protocols:?}{chunked}"));
        }
    }
}

#[tokio::test]
async fn an_upload_that_is_not_read_stops_its_caller() {
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let (cloudbeds, hotels) = cloudbeds(protocols).await;
        let proxy = Proxy::to(&cloudbeds, &hotels).log("warn").start().await;
        let memory = Memory::of(&proxy).await;
        let mut caller = Caller::connect(&proxy).await;
        caller.head("POST", "/sandbox/upload?hang_after=1", &format!("content-length: {GIB}\r\n")).await;
        let mut sent = 0_u64;
        while let Ok(written) = timeout(Duration::from_millis(700), caller.stream.write(&[b'.'; 64 * 1024])).await {
            sent += written.unwrap() as u64;
            assert!(sent < BUFFERS, "{protocols:?}: nothing stops the caller");
        }
        memory.check(&format!("blocked upload after {sent} bytes, {protocols:?}"));
    }
}

#[tokio::test]
async fn a_download_that_is_not_read_stops_cloudbeds() {
    let written = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&written);
    let upstream = Upstream::start(HTTP1, move |mut peer: Peer| {
        let count = Arc::clone(&count);
        async move {
            while let Some(head) = peer.request().await {
                if !head.contains("/endless") {
                    peer.answer("ok").await;
                    continue;
                }
                peer.write("HTTP/1.1 200 OK\r\n\r\n").await;
                while peer.try_write([b'.'; 64 * 1024]).await {
                    count.fetch_add(64 * 1024, Ordering::Relaxed);
                }
            }
        }
    })
    .await;
    let proxy = upstream.proxy().log("warn").start().await;
    let mut caller = Caller::connect(&proxy).await;
    caller.head("GET", "/endless", "").await;
    caller.answer_head().await;
    let mut last = 0;
    until("the upstream stands still", async || {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let now = written.load(Ordering::Relaxed);
        now == std::mem::replace(&mut last, now)
    })
    .await;
    assert!(last > 0 && last < BUFFERS, "{last}");
    // Once the caller is gone, so is the connection to Cloudbeds.
    drop(caller);
    assert_eq!(proxy.get("/x").property("1001").send().await.status, 200);
    until("the caller's connection ends", async || proxy.metric("connections_open").await <= 0.0).await;
}

/// The longest of some small requests, each on a connection of its own, through the only core.
async fn longest_wait(proxy: &Proxy, requests: usize) -> Duration {
    let mut longest = Duration::ZERO;
    for _ in 0..requests {
        let started = Instant::now();
        // Larger than a frame, so that flow control has a say.
        let answer = proxy.get("/sandbox/download?bytes=100000").property("1001").send().await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 100_000));
        longest = longest.max(started.elapsed());
    }
    longest
}

#[tokio::test]
async fn slow_callers_hold_up_nobody_else_of_their_core() {
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let (cloudbeds, hotels) = cloudbeds(protocols).await;
        let proxy = Proxy::to(&cloudbeds, &hotels).config("workers: 1").log("warn").start().await;
        let mut slow = Vec::new();
        for _ in 0..12 {
            let mut caller = Caller::connect(&proxy).await;
            caller.head("GET", &format!("/sandbox/download?bytes={GIB}"), "").await;
            caller.answer_head().await;
            slow.push(caller);
            let mut caller = Caller::connect(&proxy).await;
            caller.head("POST", "/sandbox/upload", "content-length: 1000000\r\n").await;
            caller.write([b'.'; 1000]).await;
            slow.push(caller);
            let mut caller = Caller::connect(&proxy).await;
            caller.head("GET", "/sandbox/slow?first_byte_ms=60000", "").await;
            slow.push(caller);
            let mut caller = Caller::connect(&proxy).await;
            caller.write("GET /sandbox/ec").await;
            slow.push(caller);
        }
        // Until the slow ones' windows are full.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let longest = longest_wait(&proxy, 30).await;
        assert!(longest < Duration::from_secs(3), "{protocols:?}: {longest:?}");
        drop(slow);
    }
}

#[tokio::test]
async fn a_decompression_bomb_holds_up_nobody_else_of_its_core() {
    const SIZE: usize = 1 << 30;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let zeros = vec![0; 1 << 20];
    for _ in 0..SIZE >> 20 {
        encoder.write_all(&zeros).unwrap();
    }
    let bomb = Arc::new(encoder.finish().unwrap());
    let length = bomb.len();
    let upstream = Upstream::start(HTTP1, move |mut peer: Peer| {
        let bomb = Arc::clone(&bomb);
        async move {
            while let Some(head) = peer.request().await {
                if head.contains("/bomb") {
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {length}\r\n\r\n");
                    peer.write(head).await;
                    peer.write(&bomb[..]).await;
                } else {
                    peer.answer("ok").await;
                }
            }
        }
    })
    .await;
    let proxy = upstream.proxy().config("workers: 1").log("warn").start().await;
    assert_eq!(proxy.get("/x").property("1001").send().await.status, 200);
    proxy.forget_peak_memory();
    let memory = Memory { proxy: &proxy, before: proxy.memory().0 };
    let over = Cell::new(false);
    let bombed = async {
        let started = Instant::now();
        let answer = in_time(proxy.get("/bomb").property("1001").send()).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, length));
        over.set(true);
        started.elapsed()
    };
    let others = async {
        let (mut count, mut longest) = (0, Duration::ZERO);
        while !over.get() {
            let started = Instant::now();
            assert_eq!(proxy.get("/x").property("1001").send().await.status, 200);
            (count, longest) = (count + 1, longest.max(started.elapsed()));
        }
        (count, longest)
    };
    let (whole, (count, longest)) = tokio::join!(bombed, others);
    println!("bomb: {whole:?}; meanwhile {count} requests, the longest {longest:?}");
    assert!(longest < Duration::from_secs(1), "{longest:?} of {whole:?}");
    memory.check("bomb");
}
