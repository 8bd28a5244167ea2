//! HTTP/2 servers that say what they have not acted on (RFC 9113 6.8 and 8.7), which is sent elsewhere, whole and whatever
//! its method; that say nothing of the kind; and that stop reading.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Response;
use tokio::io::AsyncReadExt;

use crate::harness::frames::{GOAWAY, frame};
use crate::harness::{Caller, HTTP2, Peer, Upstream, in_time, until};

/// The bodies of requests that were acted on.
type Acted = Arc<Mutex<Vec<Vec<u8>>>>;

/// Refuses the first POST of its first connections after so many bytes of its body; all others it acts on.
async fn refuses(connections: usize, after: usize) -> (Upstream, Acted) {
    let acted = Acted::default();
    let log = Arc::clone(&acted);
    let upstream = Upstream::start(HTTP2, move |peer: Peer| {
        let log = Arc::clone(&log);
        async move {
            let refuse = peer.number < connections;
            let Ok(mut connection) = h2::server::handshake(peer.into_stream()).await else { return };
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let log = Arc::clone(&log);
                tokio::spawn(async move {
                    let (mut body, mut all) = (request.into_body(), Vec::new());
                    while !refuse || all.len() < after {
                        let Some(Ok(data)) = body.data().await else { break };
                        let _ = body.flow_control().release_capacity(data.len());
                        all.extend_from_slice(&data);
                    }
                    if refuse {
                        return respond.send_reset(h2::Reason::REFUSED_STREAM);
                    }
                    log.lock().unwrap().push(all);
                    let head = Response::builder().header("content-length", "2").body(()).unwrap();
                    if let Ok(mut body) = respond.send_response(head, false) {
                        let _ = body.send_data(Bytes::from_static(b"ok"), true);
                    }
                });
            }
        }
    })
    .await;
    (upstream, acted)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

#[tokio::test]
async fn a_refused_booking_is_sent_elsewhere_once_and_whole() {
    for (connections, length, after) in [(1, 3, 0), (1, 3, 3), (3, 20_000, 1), (2, 60_000, 60_000), (1, 65_535, 30_000)]
    {
        for method in ["POST", "PUT", "DELETE"] {
            for chunked in [false, true] {
                let what = format!("{method} {length} after {after} of {connections}, chunked: {chunked}");
                let (upstream, acted) = refuses(connections, after).await;
                let proxy = upstream.proxy().config("workers: 1").log("info").start().await;
                let mut caller = Caller::connect(&proxy).await;
                let sent = pattern(length);
                if chunked {
                    caller.head(method, "/book", "transfer-encoding: chunked\r\n").await;
                    // In two pieces, the second after the refusal.
                    let (one, two) = sent.split_at(length.div_ceil(2).max(after.min(length)));
                    for piece in [one, two].into_iter().filter(|piece| !piece.is_empty()) {
                        caller.write(format!("{:x}\r\n", piece.len())).await;
                        caller.write(piece).await;
                        caller.write("\r\n").await;
                        if std::ptr::eq(piece, one) {
                            until("it was refused", async || upstream.connections() > connections).await;
                        }
                    }
                    caller.write("0\r\n\r\n").await;
                } else {
                    caller.head(method, "/book", &format!("content-length: {length}\r\n")).await;
                    caller.write(&sent).await;
                }
                let head = caller.answer_head().await;
                assert!(head.starts_with("HTTP/1.1 200 "), "{what}: {head}");
                let acted = acted.lock().unwrap();
                assert_eq!(acted.len(), 1, "{what}");
                assert!(acted[0] == sent, "{what}: {} bytes came", acted[0].len());
            }
        }
    }
}

#[tokio::test]
async fn what_is_too_large_to_keep_fails_and_is_sent_to_nobody_else() {
    let (upstream, acted) = refuses(1, 200_000).await;
    let proxy = upstream.proxy().config("workers: 1").log("info").start().await;
    let mut caller = Caller::connect(&proxy).await;
    caller.head("POST", "/book", "content-length: 1000000\r\n").await;
    caller.write(pattern(400_000)).await;
    let head = caller.answer_head().await;
    assert!(head.starts_with("HTTP/1.1 502 ") && head.contains("upstream_reset"), "{head}");
    assert_eq!((acted.lock().unwrap().len(), upstream.connections()), (0, 1));
    proxy.assert_serves("after it").await;
}

/// Takes the first stream of each connection, says GOAWAY with `last` and closes; how many POSTs came.
async fn says_goaway(last: u32, reason: u32) -> Upstream {
    Upstream::start(HTTP2, move |mut peer: Peer| async move {
        peer.begin(&[]).await;
        if peer.asked().await.is_some() {
            let payload = [last.to_be_bytes(), reason.to_be_bytes()].concat();
            peer.write(frame(GOAWAY, 0, 0, &payload)).await;
            peer.linger().await;
        }
    })
    .await
}

#[tokio::test]
async fn a_booking_that_a_goaway_includes_is_never_sent_again() {
    const NO_ERROR: u32 = 0;
    const INTERNAL_ERROR: u32 = 2;
    for (last, reason, connections) in
        [(1, NO_ERROR, 1), (1, INTERNAL_ERROR, 1), (0x7fff_ffff, NO_ERROR, 1), (0, NO_ERROR, 4), (0, INTERNAL_ERROR, 4)]
    {
        let upstream = says_goaway(last, reason).await;
        let proxy = upstream.proxy().config("workers: 1").log("info").start().await;
        let answer = proxy.call("POST", "/book").property("1001").body("a=b").send().await;
        let what = format!("{last} {reason}");
        assert_eq!((answer.status.as_u16(), &*answer.code()), (502, "upstream_reset"), "{what}");
        // Excluded, it is tried three times more.
        assert_eq!(upstream.connections(), connections, "{what}");
    }
}

/// Answers so many requests at their end, never gives a window, neither a stream's nor the connection's, and then falls
/// silent: it neither reads nor writes.
async fn answers(mut peer: Peer, most: usize) {
    peer.begin(&[]).await;
    for _ in 0..most {
        let Some(stream) = peer.asked().await else { return };
        peer.answer_stream(stream).await;
    }
    peer.hang().await;
}

#[tokio::test]
async fn a_connection_that_has_fallen_silent_is_given_up_long_before_its_answers_are() {
    // `first_byte` is two minutes; a ping is sent after 15 seconds and waited for ten.
    let upstream = Upstream::start(HTTP2, |peer: Peer| async move {
        let most = if peer.number == 0 { 1 } else { usize::MAX };
        answers(peer, most).await;
    })
    .await;
    let proxy = upstream.proxy().config("workers: 1").log("info").start().await;
    proxy.assert_serves("before it").await;
    let (mut get, mut post) = (Caller::connect(&proxy).await, Caller::connect(&proxy).await);
    get.head("GET", "/x", "").await;
    post.head("POST", "/book", "content-length: 0\r\n").await;
    let patience = std::time::Duration::from_secs(45);
    let head = async |caller: &mut Caller| {
        tokio::time::timeout(patience, caller.stream.readable()).await.expect("an answer in time").unwrap();
        caller.answer_head().await
    };
    let answer = head(&mut get).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "a GET is sent once more: {answer}");
    let answer = head(&mut post).await;
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("upstream_reset"), "a POST is not: {answer}");
    assert_eq!(upstream.connections(), 2);
    proxy.assert_serves("after it").await;
}

#[tokio::test]
async fn an_upload_without_a_window_is_504_and_the_next_request_is_served() {
    let upstream = Upstream::start(HTTP2, |peer: Peer| answers(peer, usize::MAX)).await;
    let proxy =
        upstream.proxy().config("workers: 1").env("UPSTREAM__TIMEOUTS__IDLE", "500ms").log("info").start().await;
    proxy.assert_serves("before it").await;
    for method in ["POST", "PUT"] {
        let mut caller = Caller::connect(&proxy).await;
        caller.head(method, "/large", "content-length: 10000000\r\n").await;
        let (mut read, mut write) = caller.stream.split();
        let sending = async {
            while tokio::io::AsyncWriteExt::write_all(&mut write, &[b'.'; 16 * 1024]).await.is_ok() {}
            std::future::pending::<()>().await;
        };
        let mut answer = vec![0; 12];
        tokio::select! {
            () = sending => {}
            read = in_time(read.read_exact(&mut answer)) => { read.unwrap(); }
        }
        assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 504", "{method}");
        proxy.assert_serves(method).await;
        // And a booking too: the connection's window is used up for good, so it must not ride on that connection.
        let booked = proxy.call("POST", "/small").property("1001").body("a=b").send().await;
        assert_eq!(booked.status, 200, "{method}");
    }
}
