//! An upstream that closes connections just when a request may be on its way, ten thousand times: no GET fails, no POST
//! is sent twice, and no POST fails that was not sent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Response;
use tokio::task::{JoinSet, yield_now};

use crate::harness::{Caller, HTTP1, HTTP2, Peer, Proxy, Upstream};

const CALLERS: usize = 8;
const ROUNDS: usize = 1250;

/// What became of a request: its line without the version, and the status of the answer.
type Fate = (String, u16);

/// A moment between nothing and some hundred microseconds, another one each time: a timer's are a millisecond apart.
async fn moment(seed: usize) {
    for _ in 0..seed.wrapping_mul(7919) % 61 {
        yield_now().await;
    }
}

/// Callers that ask at odd moments, every request with a target of its own.
async fn ask(proxy: &Proxy) -> Vec<Fate> {
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        let mut caller = Caller::connect(proxy).await;
        callers.spawn(async move {
            let mut fates = Vec::with_capacity(ROUNDS);
            for round in 0..ROUNDS {
                let (method, target) = (["GET", "POST", "GET"][round % 3], format!("/{number}/{round}"));
                caller.head(method, &target, if method == "POST" { "content-length: 0\r\n" } else { "" }).await;
                let head = caller.answer_head().await;
                let status = head[9..12].parse().unwrap();
                let length = head.to_ascii_lowercase().split_once("content-length: ").unwrap().1.to_owned();
                caller.read(length.split("\r\n").next().unwrap().parse().unwrap()).await;
                fates.push((format!("{method} {target}"), status));
                moment(number + 3 * round).await;
            }
            fates
        });
    }
    callers.join_all().await.concat()
}

/// Whatever happened, every GET was answered and no POST came twice; of the POSTs, how many failed.
fn assert_kept(fates: &[Fate], came: &HashMap<String, usize>) -> usize {
    assert_eq!(fates.len(), CALLERS * ROUNDS);
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
        let fates = ask(&proxy).await;
        let mut came = HashMap::new();
        for line in upstream.request_lines() {
            *came.entry(line).or_default() += 1;
        }
        let failed = assert_kept(&fates, &came);
        // Where a POST never rides on a used connection, none can meet its end.
        assert!(failed == 0 || unsafe_reuse == "1h", "{failed} failed");
        for (line, _) in fates.iter().filter(|(_, status)| *status == 502) {
            assert_eq!(came.get(line), Some(&1), "{line} failed and was not sent");
        }
        println!("{unsafe_reuse}: {} connections, {failed} POSTs met a close", upstream.connections());
    }
}

#[tokio::test]
async fn goaway_at_any_moment_costs_no_get_and_doubles_no_post() {
    let came: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
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
    let fates = ask(&proxy).await;
    let failed = assert_kept(&fates, &came.lock().unwrap());
    assert_eq!(failed, 0, "a graceful end refuses nothing that was sent");
}

fn whole() -> Response<()> {
    Response::builder().header("content-length", "2").body(()).unwrap()
}
