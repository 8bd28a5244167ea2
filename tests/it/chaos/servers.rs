//! The servers of the chaos: each does one thing or another with a request, as its dice fall, and writes down what came.
//!
//! In: a connection, a seed, a log. Out: bodies that belong to one request alone, or whatever a server in trouble does.

use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::Response;
use tokio::time::sleep;

use crate::harness::Peer;

/// The longest that the proxy waits for a server, in milliseconds; one that stalls takes longer.
pub const IDLE: u64 = 2000;

/// A 429 takes a tenth off the rate, which so long without one gives back (docs/budgets.md). More of them, and a long run
/// would ask once a second for most of its time.
const CLEAN: Duration = Duration::from_secs(70);

/// A generator of small numbers (splitmix64): the same seed, the same numbers.
#[derive(Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn throw(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

/// One request as it came to a server, and status and length of the body where the server answered as a whole.
pub struct Came {
    at: Instant,
    pub line: String,
    pub property: String,
    pub key: String,
    pub sent: Option<(u16, usize)>,
}

pub type Log = Arc<Mutex<Vec<Came>>>;

/// Writes down what came, and what becomes of it: what the server was about to do, but for a 429 too soon after another.
fn note(log: &Log, line: &str, property: &str, key: &str, mut act: Act) -> Act {
    let mut log = log.lock().unwrap();
    if let Act::Answer { status: status @ 429, .. } = &mut act {
        let mut lately = log.iter().rev().take_while(|came| came.at.elapsed() < CLEAN);
        if lately.any(|came| came.sent.is_some_and(|(status, _)| status == 429)) {
            *status = 200;
        }
    }
    let [line, property, key] = [line, property, key].map(str::to_owned);
    log.push(Came { at: Instant::now(), line, property, key, sent: act.sent() });
    act
}

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
    /// Says nothing for longer than the proxy waits.
    Stall,
    /// Gives the key away in a coded body.
    Reflect,
    /// HTTP/2 only, and then it has not acted on it.
    Refuse,
}

impl Act {
    /// What reaches a caller who waits for it.
    fn sent(self) -> Option<(u16, usize)> {
        match self {
            Self::Answer { status, size, .. } => Some((status, size)),
            _ => None,
        }
    }
}

fn act(dice: &mut Dice, http2: bool) -> Act {
    let after = Duration::from_millis([0, 0, 0, 1, 5, 40][dice.throw(6) as usize]);
    // What costs seconds is rare: a stall, and a 429, after which the whole app's calls wait for one.
    match dice.throw(400) {
        0 => return Act::Stall,
        1 => return Act::Answer { status: 429, size: 40, chunked: false, after },
        _ => {}
    }
    match dice.throw(20) {
        0 => Act::Die(false),
        1 => Act::Die(true),
        2 => Act::BreakOff,
        3 => Act::Reflect,
        4 if http2 => Act::Refuse,
        throw => {
            let status = match throw {
                5 => 500,
                6 => 503,
                8 => 404,
                _ => 200,
            };
            Act::Answer { status, size: 40 + size(dice), chunked: dice.throw(2) == 0, after }
        }
    }
}

/// How long a body is beyond its first line.
fn size(dice: &mut Dice) -> usize {
    [0, 10, 3000, 70_000, 300_000][dice.throw(5) as usize]
}

/// The body of this length that belongs to a request, and is different at every place: nobody can get another's, and
/// nothing of it can be lost, doubled or moved, unnoticed.
pub fn body(line: &str, property: &str, length: usize) -> Vec<u8> {
    let mut body = format!("{line} {property}\n").into_bytes();
    let mut dice = Dice(body.iter().fold(0, |sum: u64, byte| sum.wrapping_mul(257).wrapping_add(u64::from(*byte))));
    while body.len() < length {
        body.extend(dice.throw(u64::MAX).to_le_bytes());
    }
    body.truncate(length);
    body
}

/// A coded body with the key in it, which nobody may get.
fn coded(key: &str) -> Vec<u8> {
    let mut coded = GzEncoder::new(Vec::new(), Compression::fast());
    coded.write_all(format!("{{\"you sent\":\"{key}\"}}").as_bytes()).unwrap();
    coded.finish().unwrap()
}

fn field(head: &str, name: &str) -> String {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).unwrap_or_default()
}

pub async fn over_http1(mut peer: Peer, seed: u64, log: Log) {
    let mut dice = Dice(seed ^ (peer.number as u64) << 20);
    while let Some(head) = peer.request().await {
        let line = head.split(" HTTP/").next().unwrap_or_default().to_owned();
        let property = field(&head, "x-property-id");
        let key = field(&head, "authorization");
        match note(&log, &line, &property, &key, act(&mut dice, false)) {
            Act::Answer { status, size, chunked, after } => {
                sleep(after).await;
                let body = body(&line, &property, size);
                let framing = match chunked {
                    true => "transfer-encoding: chunked".to_owned(),
                    false => format!("content-length: {}", body.len()),
                };
                peer.write(format!("HTTP/1.1 {status} X\r\n{framing}\r\n\r\n")).await;
                if chunked {
                    for part in body.chunks(1 + body.len() / 3) {
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
            Act::Reflect => {
                let body = coded(&key);
                let length = body.len();
                let head = format!("HTTP/1.1 200 X\r\ncontent-encoding: gzip\r\ncontent-length: {length}\r\n\r\n");
                peer.write(head).await;
                peer.write(body).await;
            }
            Act::Stall => {
                sleep(Duration::from_millis(IDLE + 1000)).await;
                return peer.close().await;
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

pub async fn over_http2(peer: Peer, seed: u64, log: Log) {
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
            match note(&log, &line, &property, &key, act) {
                Act::Answer { status, size, after, .. } => {
                    sleep(after).await;
                    let head = Response::builder().status(status).body(()).unwrap();
                    if let Ok(mut stream) = respond.send_response(head, false) {
                        let _ = stream.send_data(body(&line, &property, size).into(), true);
                    }
                }
                Act::Reflect => {
                    let head = Response::builder().header("content-encoding", "gzip").body(()).unwrap();
                    if let Ok(mut stream) = respond.send_response(head, false) {
                        let _ = stream.send_data(coded(&key).into(), true);
                    }
                }
                Act::Stall => {
                    sleep(Duration::from_millis(IDLE + 1000)).await;
                    respond.send_reset(h2::Reason::INTERNAL_ERROR);
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
