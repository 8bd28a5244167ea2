//! Everything at once, for as long as `CHAOS_SECONDS` says (a quarter of a minute without it; `scripts/chaos` takes ten
//! minutes): servers that are slow, reset, refuse and break off, keys that come and go, callers that hang up. What
//! `docs/promises.md` says holds for each request, and memory and descriptors are back at the end.
//!
//! What happens follows from a seed, printed at the start; `CHAOS_SEED` sets it. When it happens does not.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::Response;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::harness::{Caller, HTTP1, HTTP2, Peer, Proxy, Upstream, key, until};

const CALLERS: u64 = 12;
const HOTELS: [&str; 4] = ["1001", "1002", "1003", "1004"];

/// How much the process may hold at most beyond what it held after its first requests, in bytes.
const GROWTH: u64 = 48 << 20;

/// A generator of small numbers (splitmix64): the same seed, the same numbers.
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

/// One request as it came to a server.
struct Came {
    line: String,
    property: String,
    key: String,
}

type Log = Arc<Mutex<Vec<Came>>>;

/// What a server does with a request.
#[derive(Clone, Copy)]
enum Act {
    Answer {
        status: u16,
        size: usize,
        chunked: bool,
        after: Duration,
    },
    /// Ends without a byte of an answer; `true`: with a reset.
    Die(bool),
    /// Ends in the middle of the body.
    BreakOff,
    /// HTTP/2 only, and then it has not acted on it.
    Refuse,
}

fn act(dice: &mut Dice, http2: bool) -> Act {
    let after = Duration::from_millis([0, 0, 0, 1, 5, 40][dice.throw(6) as usize]);
    match dice.throw(20) {
        0 => Act::Die(false),
        1 => Act::Die(true),
        2 => Act::BreakOff,
        3 | 4 if http2 => Act::Refuse,
        throw => {
            let status = match throw {
                5 => 500,
                6 => 503,
                7 => 429,
                8 => 404,
                _ => 200,
            };
            let size = [0, 10, 3000, 70_000, 300_000][dice.throw(5) as usize];
            Act::Answer { status, size, chunked: dice.throw(2) == 0, after }
        }
    }
}

/// The body that belongs to a request, so that nobody can get another's.
fn body(line: &str, property: &str, size: usize) -> Vec<u8> {
    let mut body = format!("{line} {property}\n").into_bytes();
    body.resize(body.len() + size, b'.');
    body
}

fn field(head: &str, name: &str) -> String {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).unwrap_or_default()
}

async fn over_http1(mut peer: Peer, seed: u64, log: Log) {
    let mut dice = Dice(seed ^ (peer.number as u64) << 20);
    while let Some(head) = peer.request().await {
        let line = head.split(" HTTP/").next().unwrap_or_default().to_owned();
        let property = field(&head, "x-property-id");
        let act = act(&mut dice, false);
        let came = Came { line: line.clone(), property: property.clone(), key: field(&head, "authorization") };
        log.lock().unwrap().push(came);
        match act {
            Act::Answer { status, size, chunked, after } => {
                sleep(after).await;
                let body = body(&line, &property, size);
                let framing = match chunked {
                    true => "transfer-encoding: chunked".to_owned(),
                    false => format!("content-length: {}", body.len()),
                };
                peer.write(format!("HTTP/1.1 {status} X\r\n{framing}\r\n\r\n")).await;
                if chunked {
                    for part in body.chunks(1 + size / 3) {
                        peer.write(format!("{:x}\r\n", part.len())).await;
                        peer.write(part).await;
                        peer.write("\r\n").await;
                    }
                    peer.write("0\r\n\r\n").await;
                } else {
                    peer.write(body).await;
                }
                // Some servers close just after an answer.
                if dice.throw(9) == 0 {
                    return peer.close().await;
                }
            }
            Act::Die(true) => return peer.reset(),
            Act::BreakOff => {
                peer.write("HTTP/1.1 200 X\r\ncontent-length: 100000\r\n\r\nhalf").await;
                return peer.close().await;
            }
            Act::Die(false) | Act::Refuse => return peer.close().await,
        }
    }
}

async fn over_http2(peer: Peer, seed: u64, log: Log) {
    let mut dice = Dice(seed ^ (peer.number as u64) << 20);
    let streams = [1, 3, 100][dice.throw(3) as usize];
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(streams);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(peer.into_stream()).await else { return };
    let mut left = 5 + dice.throw(60);
    while let Some(Ok((mut request, mut respond))) = connection.accept().await {
        let line = format!("{} {}", request.method(), request.uri().path());
        let text =
            |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let (property, key) = (text("x-property-id"), text("authorization"));
        let act = act(&mut dice, true);
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            if matches!(act, Act::Refuse) {
                return respond.send_reset(h2::Reason::REFUSED_STREAM);
            }
            while let Some(Ok(data)) = request.body_mut().data().await {
                let _ = request.body_mut().flow_control().release_capacity(data.len());
            }
            log.lock().unwrap().push(Came { line: line.clone(), property: property.clone(), key });
            match act {
                Act::Answer { status, size, after, .. } => {
                    sleep(after).await;
                    let head = Response::builder().status(status).body(()).unwrap();
                    if let Ok(mut stream) = respond.send_response(head, false) {
                        let _ = stream.send_data(body(&line, &property, size).into(), true);
                    }
                }
                Act::BreakOff => {
                    if let Ok(mut stream) = respond.send_response(Response::new(()), false) {
                        let _ = stream.send_data(Bytes::from_static(b"half"), false);
                        sleep(Duration::from_millis(1)).await;
                        stream.send_reset(h2::Reason::INTERNAL_ERROR);
                    }
                }
                _ => respond.send_reset(h2::Reason::INTERNAL_ERROR),
            }
        });
        left = left.saturating_sub(1);
        if left == 0 {
            connection.graceful_shutdown();
        }
    }
}

/// What a caller saw of a request; nothing where it hung up or the answer was cut.
struct Fate {
    line: String,
    property: &'static str,
    status: Option<u16>,
}

/// One caller: asks until the time is over, on connections it sometimes breaks.
async fn calls(address: std::net::SocketAddr, number: u64, seed: u64, end: Instant) -> Vec<Fate> {
    let mut dice = Dice(seed.wrapping_mul(31).wrapping_add(number));
    let mut fates = Vec::new();
    let mut open: Option<Caller> = None;
    for turn in 0.. {
        if Instant::now() >= end {
            break;
        }
        let property = HOTELS[dice.throw(4) as usize];
        let method = ["GET", "POST", "GET", "PUT", "DELETE"][dice.throw(5) as usize];
        let line = format!("{method} /{number}/{turn}");
        let length = if method == "GET" { 0 } else { [0, 20, 40_000][dice.throw(3) as usize] };
        let mut caller = match open.take() {
            Some(caller) => caller,
            None => Caller::at(address, &[]).await,
        };
        let head =
            format!("{line} HTTP/1.1\r\nhost: x\r\nx-property-id: {property}\r\ncontent-length: {length}\r\n\r\n");
        let manner = dice.throw(25);
        let mut status = None;
        let sent = caller.try_write(&head).await && {
            let part = if manner == 0 { length / 2 } else { length };
            caller.try_write(vec![b'b'; part]).await
        };
        match manner {
            // Hangs up: in the upload, before the answer, or with a reset.
            0..=2 => {
                sleep(Duration::from_millis(dice.throw(8))).await;
                if manner == 2 {
                    caller.stream.set_zero_linger().unwrap();
                }
            }
            _ if sent => {
                if let Some((code, head, whole)) = caller.whole_answer().await {
                    let ours = head.to_ascii_lowercase().contains("application/problem+json");
                    let text = String::from_utf8_lossy(&whole);
                    assert!(
                        ours || text.starts_with(&format!("{line} {property}\n")),
                        "{line} for {property} got another's answer: {head}{:.80}",
                        text
                    );
                    status = Some(code);
                    if !head.to_ascii_lowercase().contains("connection: close") {
                        open = Some(caller);
                    }
                }
            }
            _ => {}
        }
        fates.push(Fate { line, property, status });
    }
    fates
}

/// Changes the key file again and again: all that each hotel ever had.
async fn turn_keys(proxy: &Proxy, seed: u64, end: Instant, all: &mut HashMap<&'static str, HashSet<String>>) {
    let mut dice = Dice(seed ^ 0x6b65_7973);
    let mut now: HashMap<&str, String> =
        all.iter().map(|(hotel, keys)| (*hotel, keys.iter().next().unwrap().clone())).collect();
    while Instant::now() < end {
        sleep(Duration::from_millis(50 + dice.throw(300))).await;
        match dice.throw(4) {
            // Something that is no key file.
            0 => proxy.write_keys("\"1001\": cbat_unfinis\n\"10"),
            1 => drop(now.remove("1004")),
            _ => {
                let hotel = HOTELS[2 + dice.throw(2) as usize];
                let new = key();
                all.get_mut(hotel).unwrap().insert(new.clone());
                now.insert(hotel, new);
            }
        }
        let mut rows: Vec<_> = now.iter().map(|(hotel, key)| format!("\"{hotel}\": {key}\n")).collect();
        rows.sort();
        proxy.write_keys(&rows.concat());
    }
}

#[tokio::test]
async fn whatever_happens_at_once_the_promises_hold() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = number("CHAOS_SEED").unwrap_or(clock.as_nanos() as u64);
    let seconds = number("CHAOS_SECONDS").unwrap_or(14);
    println!("CHAOS_SEED={seed} CHAOS_SECONDS={seconds}");
    for http2 in [false, true] {
        let log = Log::default();
        let came = Arc::clone(&log);
        let upstream = Upstream::start(if http2 { HTTP2 } else { HTTP1 }, move |peer: Peer| {
            let log = Arc::clone(&came);
            async move {
                match http2 {
                    true => over_http2(peer, seed, log).await,
                    false => over_http1(peer, seed, log).await,
                }
            }
        })
        .await;
        let mut keys: HashMap<&'static str, HashSet<String>> =
            HOTELS.iter().map(|hotel| (*hotel, HashSet::from([key()]))).collect();
        let mut builder = Proxy::to_origin(&upstream.base_url(), upstream.root_pem());
        for (hotel, keys) in &keys {
            builder = builder.key(hotel, keys.iter().next().unwrap());
        }
        let mut proxy =
            builder.env("UPSTREAM__POOL__IDLE", "2s").env("UPSTREAM__TIMEOUTS__IDLE", "2s").log("warn").start().await;
        // What every process needs once is there.
        calls(proxy.address, 1000, seed, Instant::now() + Duration::from_millis(500)).await;
        let (memory, files) = (proxy.memory().0, proxy.descriptors());
        proxy.forget_peak_memory();

        let end = Instant::now() + Duration::from_secs(seconds) / 2;
        let mut callers = JoinSet::new();
        for number in 0..CALLERS {
            callers.spawn(calls(proxy.address, number, seed, end));
        }
        turn_keys(&proxy, seed, end, &mut keys).await;
        let fates = callers.join_all().await.into_iter().flatten().collect::<Vec<_>>();
        proxy.secrets.extend(keys.values().flatten().cloned());

        // Nothing is left over: no connection, no descriptor, no memory.
        until("all connections end", async || proxy.metric("connections_open").await <= 0.0).await;
        until("all descriptors are free", async || proxy.descriptors() <= files + 4).await;
        let grown = proxy.memory().1.saturating_sub(memory);
        assert!(grown < GROWTH, "seed {seed}: grown by {} KiB", grown / 1024);
        assert_eq!(proxy.metric("panics_total").await, 0.0, "seed {seed}");

        let log = log.lock().unwrap();
        let mut times: HashMap<&str, usize> = HashMap::new();
        for came in log.iter() {
            *times.entry(&came.line).or_default() += 1;
            let key = came.key.strip_prefix("Bearer ").unwrap_or_default();
            let right = keys.get(&*came.property).is_some_and(|keys| keys.contains(key));
            assert!(right, "seed {seed}: {} for {} came with another's key", came.line, came.property);
        }
        let asked: HashMap<&str, &str> = fates.iter().map(|fate| (&*fate.line, fate.property)).collect();
        for came in log.iter() {
            let Some(property) = asked.get(&*came.line) else { continue };
            assert_eq!(came.property, *property, "seed {seed}: {}", came.line);
        }
        let (mut good, mut failed) = (0, 0);
        for fate in &fates {
            let came = times.get(&*fate.line).copied().unwrap_or_default();
            let most = if fate.line.starts_with("GET") { 2 } else { 1 };
            assert!(came <= most, "seed {seed}: {} was acted on {came} times", fate.line);
            match fate.status {
                Some(200 | 404 | 429 | 500) => {
                    good += 1;
                    assert!(came >= 1, "seed {seed}: {} was answered and never came", fate.line);
                }
                Some(502..=504 | 403) | None => failed += 1,
                Some(other) => panic!("seed {seed}: {} got {other}", fate.line),
            }
        }
        println!(
            "http2 {http2}: {good} answered, {failed} failed or given up, {} came; {} KiB more",
            log.len(),
            grown / 1024
        );
        assert!(good > 100 && good > failed, "seed {seed}: {good} {failed}");
    }
}
