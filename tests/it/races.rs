//! An upstream that closes connections just when a request may be on its way, ten thousand times: no GET fails, no POST
//! is sent twice, and no POST fails that was not sent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Response;
use tokio::task::{JoinSet, yield_now};

use crate::harness::frames::{GOAWAY, HEADERS, frame};
use crate::harness::{Caller, HTTP1, HTTP2, Peer, Proxy, Upstream, hpack};

const CALLERS: usize = 8;

/// What became of a request: its line without the version, and the status of the answer.
type Fate = (String, u16);

/// How often each request came.
type Came = HashMap<String, usize>;

/// A moment between nothing and some hundred microseconds, another one each time: a timer's are a millisecond apart.
async fn moment(seed: usize) {
    for _ in 0..seed.wrapping_mul(7919) % 61 {
        yield_now().await;
    }
}

/// Callers that ask at odd moments, every request with a target of its own.
async fn ask(proxy: &Proxy, rounds: usize) -> Vec<Fate> {
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        let (address, secrets) = (proxy.address, proxy.secrets.clone());
        let mut caller = Caller::connect(proxy).await;
        callers.spawn(async move {
            let mut fates = Vec::with_capacity(rounds);
            for round in 0..rounds {
                let (method, target) = (["GET", "POST", "GET"][round % 3], format!("/{number}/{round}"));
                if method == "POST" {
                    let lines = "host: proxy\r\nx-property-id: 1001\r\ncontent-length: 4";
                    caller.write(format!("POST {target} HTTP/1.1\r\n{lines}\r\n\r\na=b\n")).await;
                } else {
                    caller.head(method, &target, "").await;
                }
                let head = caller.answer_head().await;
                let status = head[9..12].parse().unwrap();
                let length = head.to_ascii_lowercase().split_once("content-length: ").unwrap().1.to_owned();
                caller.read(length.split("\r\n").next().unwrap().parse().unwrap()).await;
                if head.contains("connection: close") {
                    caller = Caller::at(address, &secrets).await;
                }
                fates.push((format!("{method} {target}"), status));
                moment(number + 3 * round).await;
            }
            fates
        });
    }
    callers.join_all().await.concat()
}

/// Whatever happened, every GET was answered and no POST came twice; of the POSTs, how many failed.
fn assert_kept(fates: &[Fate], came: &Came) -> usize {
    let mut failed = 0;
    for (line, status) in fates {
        let came = came.get(line).copied().unwrap_or_default();
        match (line.starts_with("GET"), status) {
            (true, 200) => assert!((1..=2).contains(&came), "{line} came {came} times"),
            (false, 200) => assert_eq!(came, 1, "{line}"),
            (false, 502) => {
                failed += 1;
                assert!(came <= 1, "{line} came {came} times");
            }
            _ => panic!("{line}: {status}"),
        }
    }
    failed
}

/// What failed was sent.
fn assert_sent(fates: &[Fate], came: &Came) {
    for (line, _) in fates.iter().filter(|(_, status)| *status == 502) {
        assert_eq!(came.get(line), Some(&1), "{line} failed and was not sent");
    }
}

#[tokio::test]
async fn connections_that_close_at_any_moment_cost_no_get_and_double_no_post() {
    for unsafe_reuse in ["0s", "1h"] {
        let upstream = Upstream::start(HTTP1, |mut peer: Peer| async move {
            for turn in 0.. {
                if peer.request().await.is_none() {
                    return;
                }
                peer.answer("ok").await;
                if turn == peer.number % 3 {
                    moment(peer.number).await;
                    // What comes now was sent, and is not answered.
                    return peer.close_and_log().await;
                }
            }
        })
        .await;
        let proxy = upstream.proxy().env("UPSTREAM__POOL__UNSAFE_REUSE", unsafe_reuse).log("error").start().await;
        let fates = ask(&proxy, 1250).await;
        let mut came = Came::new();
        for line in upstream.request_lines() {
            *came.entry(line).or_default() += 1;
        }
        let failed = assert_kept(&fates, &came);
        // Where a POST never rides on a used connection, none can meet its end.
        assert!(failed == 0 || unsafe_reuse == "1h", "{failed} failed");
        assert_sent(&fates, &came);
        println!("{unsafe_reuse}: {} connections, {failed} POSTs met a close", upstream.connections());
    }
}

#[tokio::test]
async fn goaway_at_any_moment_costs_no_get_and_doubles_no_post() {
    let came: Arc<Mutex<Came>> = Arc::default();
    let count = Arc::clone(&came);
    let upstream = Upstream::start(HTTP2, move |peer: Peer| {
        let count = Arc::clone(&count);
        async move {
            let number = peer.number;
            let Ok(mut connection) = h2::server::Builder::new().handshake::<_, Bytes>(peer.into_stream()).await else {
                return;
            };
            let mut left = 3 + number % 17;
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let line = format!("{} {}", request.method(), request.uri().path());
                *count.lock().unwrap().entry(line).or_default() += 1;
                if let Ok(mut body) = respond.send_response(whole(), false) {
                    let _ = body.send_data(Bytes::from_static(b"ok"), true);
                }
                // What was on its way comes, and is answered.
                left = left.checked_sub(1).unwrap_or(usize::MAX);
                if left == 0 {
                    moment(number).await;
                    connection.graceful_shutdown();
                }
            }
        }
    })
    .await;
    let proxy = upstream.proxy().log("error").start().await;
    let fates = ask(&proxy, 625).await;
    let failed = assert_kept(&fates, &came.lock().unwrap());
    assert_eq!(failed, 0, "a graceful end refuses nothing that was sent");
}

/// How a server ends an HTTP/2 connection without waiting for what is on its way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    /// Without a word.
    Fin,
    /// The same, and what is on its way is lost.
    Reset,
    /// It says which request was the last it acted on, as nginx does.
    GoAway,
}

/// Answers some requests and ends. Every request that came is counted, before an end that is not announced or after it;
/// of those that GOAWAY excludes, none.
async fn end_abruptly(mut peer: Peer, way: Way, came: &Mutex<Came>) {
    const HEADER_TABLE_SIZE: [u8; 6] = [0, 1, 0, 0, 0, 0];
    let count = |line: String| *came.lock().unwrap().entry(line).or_default() += 1;
    // Enough that a GET which is sent once more does not meet a second end at once.
    let mut left = 16 + peer.number % 17;
    let (mut begun, mut last) = (HashMap::new(), 0);
    peer.begin(&HEADER_TABLE_SIZE).await;
    // Whoever says that it acted on a request has all of it.
    while left > 0 || way == Way::GoAway && !begun.is_empty() {
        let Some(frame) = peer.frame().await else { break };
        if frame.kind == HEADERS {
            begun.insert(frame.stream, line(&frame.payload));
        }
        if frame.is_last() {
            begun.remove(&frame.stream).into_iter().for_each(count);
            peer.answer_stream(frame.stream).await;
            (left, last) = (left.saturating_sub(1), last.max(frame.stream));
        }
    }
    moment(peer.number).await;
    if way != Way::GoAway {
        begun.into_values().for_each(count);
    }
    match way {
        Way::Reset => return peer.reset(),
        Way::GoAway => peer.write(frame(GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat())).await,
        Way::Fin => {}
    }
    peer.end().await;
    while let Some(frame) = peer.silent_frame().await {
        if frame.kind == HEADERS && way == Way::Fin {
            count(line(&frame.payload));
        }
    }
}

/// Method and path of a head.
fn line(head: &[u8]) -> String {
    let fields = hpack::fields(head);
    let value = |name: &str| fields.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value);
    format!("{} {}", value(":method"), value(":path"))
}

#[tokio::test]
async fn http2_connections_that_end_abruptly_cost_no_get_and_double_no_post() {
    for way in [Way::Fin, Way::Reset, Way::GoAway] {
        let came: Arc<Mutex<Came>> = Arc::default();
        let log = Arc::clone(&came);
        let upstream = Upstream::start(HTTP2, move |peer: Peer| {
            let log = Arc::clone(&log);
            async move { end_abruptly(peer, way, &log).await }
        })
        .await;
        let begun = std::time::Instant::now();
        let proxy = upstream.proxy().log("error").start().await;
        let fates = ask(&proxy, 625).await;
        let came = came.lock().unwrap();
        let failed = assert_kept(&fates, &came);
        println!("{way:?}: {} connections, {failed} POSTs met the end, {:?}", upstream.connections(), begun.elapsed());
        match way {
            Way::Fin => assert_sent(&fates, &came),
            // What came when it reset the connection is not known to it.
            Way::Reset => {}
            Way::GoAway => assert_eq!(failed, 0, "what it did not act on is sent elsewhere"),
        }
    }
}

fn whole() -> Response<()> {
    Response::builder().header("content-length", "2").body(()).unwrap()
}
