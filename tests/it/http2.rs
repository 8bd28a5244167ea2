//! HTTP/2 as servers end it: GOAWAY, refused and broken streams, few streams at once; and callers that give up while the
//! connection all of them wait for is being made.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::harness::frames::{DATA, END_HEADERS, GOAWAY, HEADERS, RST_STREAM, frame};
use crate::harness::{Caller, HTTP2, Peer, Upstream, in_time, together, until};

/// Serves HTTP/2, with at most so many streams at once.
pub async fn serve_http2(peer: Peer, streams: Option<u32>, served: &AtomicUsize) {
    let mut builder = h2::server::Builder::new();
    if let Some(streams) = streams {
        builder.max_concurrent_streams(streams);
    }
    let Ok(mut connection) = builder.handshake::<_, Bytes>(peer.into_stream()).await else { return };
    while let Some(Ok((mut request, mut respond))) = connection.accept().await {
        served.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            while let Some(Ok(data)) = request.body_mut().data().await {
                let _ = request.body_mut().flow_control().release_capacity(data.len());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            match request.uri().path() {
                "/refuse" => respond.send_reset(h2::Reason::REFUSED_STREAM),
                "/break" => respond.send_reset(h2::Reason::INTERNAL_ERROR),
                _ => {
                    if let Ok(mut body) = respond.send_response(Response::new(()), false) {
                        let _ = body.send_data(Bytes::from_static(b"ok"), true);
                    }
                }
            }
        });
    }
}

/// Answers so many requests of a connection, by hand; at the next one it says GOAWAY and that it did not act on it.
async fn goaway_after(mut peer: Peer, answers: usize, served: &AtomicUsize) {
    peer.begin(&[]).await;
    let (mut left, mut last) = (answers, 0);
    while let Some(asked) = peer.frame().await {
        match asked.kind {
            HEADERS if left > 0 => {
                (left, last) = (left - 1, asked.stream);
                served.fetch_add(1, Ordering::Relaxed);
                peer.answer_stream(last).await;
            }
            HEADERS => {
                peer.write(frame(GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat())).await;
                return peer.linger().await;
            }
            _ => {}
        }
    }
}

async fn http2(streams: Option<u32>) -> (Upstream, Arc<AtomicUsize>) {
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    let upstream = Upstream::start(HTTP2, move |peer: Peer| {
        let count = Arc::clone(&count);
        async move { serve_http2(peer, streams, &count).await }
    })
    .await;
    (upstream, served)
}

#[tokio::test]
async fn requests_survive_a_server_that_says_goaway_again_and_again() {
    for answers in [1, 7] {
        let served = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&served);
        let upstream = Upstream::start(HTTP2, move |peer: Peer| {
            let count = Arc::clone(&count);
            async move { goaway_after(peer, answers, &count).await }
        })
        .await;
        let proxy = upstream.proxy().config("workers: 1").log("info").start().await;
        for method in ["GET", "POST"] {
            for round in 0..20 {
                let body = if method == "POST" { "a=b" } else { "" };
                let calls = (0..10).map(|_| proxy.call(method, "/x").property("1001").body(body).send());
                for answer in together(calls).await {
                    assert_eq!(answer.status, 200, "{method} {answers} {round}: {}", answer.text());
                }
            }
            // Exactly once each: what it did not act on came elsewhere.
            assert_eq!(served.swap(0, Ordering::Relaxed), 200, "{method}");
        }
    }
}

#[tokio::test]
async fn a_refused_stream_is_tried_elsewhere_and_a_broken_one_is_not() {
    let (upstream, served) = http2(None).await;
    let proxy = upstream.proxy().config("workers: 1").start().await;
    for (method, path, most) in
        [("GET", "/refuse", 4), ("POST", "/refuse", 4), ("GET", "/break", 1), ("POST", "/break", 1)]
    {
        proxy.get("/x").property("1001").send().await;
        let before = served.load(Ordering::Relaxed);
        let answer = proxy.call(method, path).property("1001").send().await;
        assert_eq!((answer.status, &*answer.code()), (StatusCode::BAD_GATEWAY, "upstream_reset"), "{method} {path}");
        assert_eq!(served.load(Ordering::Relaxed) - before, most, "{method} {path}");
    }
}

/// Answers every request with as much as there is at once, and with the rest of its body only once all may go on.
async fn in_two_goes(peer: Peer, at_once: usize, rest: usize, goes_on: &Arc<Semaphore>) {
    let Ok(mut connection) = h2::server::handshake(peer.into_stream()).await else { return };
    let mut answers = JoinSet::new();
    loop {
        let (_, mut respond) = tokio::select! {
            asked = connection.accept() => match asked { Some(Ok(asked)) => asked, _ => return },
            Some(_) = answers.join_next() => continue,
        };
        let head = Response::builder().header("content-length", at_once + rest).body(()).unwrap();
        let mut body = respond.send_response(head, false).unwrap();
        body.send_data(vec![b'a'; at_once].into(), false).unwrap();
        let permit = Arc::clone(goes_on).acquire_owned();
        answers.spawn(async move {
            let _permit = permit.await;
            // Where the caller has gone the test has failed already.
            let _ = body.send_data(vec![b'b'; rest].into(), true);
        });
    }
}

#[tokio::test]
async fn of_bodies_that_came_fast_and_then_stop_nothing_is_held_back() {
    const BODIES: usize = 8;
    // Frames of 16 KiB do not divide it, so that a part of one is the last that comes.
    const AT_ONCE: usize = 1_500_000;
    const REST: usize = 500_000;
    let goes_on = Arc::new(Semaphore::new(0));
    let may = Arc::clone(&goes_on);
    let upstream = Upstream::start(HTTP2, move |peer: Peer| {
        let may = Arc::clone(&may);
        async move { in_two_goes(peer, AT_ONCE, REST, &may).await }
    })
    .await;
    let proxy = upstream.proxy().config("workers: 1").start().await;
    let callers = (0..BODIES).map(|_| async {
        let mut caller = Caller::connect(&proxy).await;
        caller.head("GET", "/x", "").await;
        assert!(caller.answer_head().await.starts_with("HTTP/1.1 200 "));
        // Well before a server that says nothing is asked whether it is still there.
        let read = timeout(Duration::from_secs(8), caller.read(AT_ONCE)).await;
        assert!(read.is_ok_and(|body| body.iter().all(|byte| *byte == b'a')), "some of it is held back");
        caller
    });
    let callers = together(callers).await;
    goes_on.add_permits(BODIES);
    together(callers.into_iter().map(async |mut caller| assert_eq!(caller.read(REST).await, [b'b'; REST]))).await;
}

/// Answers the first request; when so many more have come, one of them gets a head that is none. Serves all other
/// connections.
async fn break_the_rules(mut peer: Peer, more: usize, served: &AtomicUsize) {
    peer.begin(&[]).await;
    if peer.number == 0 {
        for left in (0..=more).rev() {
            let Some(stream) = peer.asked().await else { return };
            match left {
                0 => peer.write(frame(HEADERS, END_HEADERS, stream, &[0xff; 6])).await,
                _ if left == more => peer.answer_stream(stream).await,
                _ => {}
            }
        }
        return peer.linger().await;
    }
    while let Some(stream) = peer.asked().await {
        served.fetch_add(1, Ordering::Relaxed);
        peer.answer_stream(stream).await;
    }
}

#[tokio::test]
async fn a_get_whose_answer_is_none_is_not_sent_again_but_those_beside_it_are() {
    for more in [1, 2] {
        let served = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&served);
        let upstream = Upstream::start(HTTP2, move |peer: Peer| {
            let count = Arc::clone(&count);
            async move { break_the_rules(peer, more, &count).await }
        })
        .await;
        let proxy = upstream.proxy().config("workers: 1").start().await;
        assert_eq!(proxy.get("/x").property("1001").send().await.status, 200);
        let answers = together((0..more).map(|_| proxy.get("/x").property("1001").send())).await;
        for answer in &answers {
            if more == 1 {
                answer.assert_failed(502, "upstream_invalid", "http_protocol_error", "alone");
            } else {
                // Nobody can tell whose answer it was, so each is asked for once more.
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
        }
        assert_eq!(served.load(Ordering::Relaxed), if more == 1 { 0 } else { 2 });
    }
}

#[tokio::test]
async fn a_stream_whose_end_comes_after_its_last_byte_is_not_reset() {
    let resets = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&resets);
    let upstream = Upstream::start(HTTP2, move |peer: Peer| {
        let count = Arc::clone(&count);
        async move {
            let Ok(mut connection) = h2::server::handshake(peer.into_stream()).await else { return };
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let count = Arc::clone(&count);
                tokio::spawn(async move {
                    let head = Response::builder().header("content-length", "2").body(()).unwrap();
                    let mut body = respond.send_response(head, false).unwrap();
                    body.send_data(Bytes::from_static(b"ok"), false).unwrap();
                    let reset = std::future::poll_fn(|cx| body.poll_reset(cx));
                    if tokio::time::timeout(Duration::from_millis(50), reset).await.is_ok() {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    let _ = body.send_data(Bytes::new(), true);
                });
            }
        }
    })
    .await;
    let proxy = upstream.proxy().config("workers: 1").start().await;
    for _ in 0..3 {
        let answer = proxy.get("/x").property("1001").send().await;
        assert_eq!((answer.status.as_u16(), &*answer.text()), (200, "ok"));
    }
    // The next answer comes behind the ends of those before it.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(proxy.get("/x").property("1001").send().await.status, 200);
    assert_eq!(resets.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn twenty_requests_at_once_pass_a_server_that_allows_one_stream() {
    let (upstream, served) = http2(Some(1)).await;
    let proxy = upstream.proxy().config("workers: 1").start().await;
    for method in ["GET", "POST"] {
        let calls = (0..20).map(|_| proxy.call(method, "/x").property("1001").body("").send());
        for answer in together(calls).await {
            assert_eq!(answer.status, 200, "{method}: {}", answer.text());
        }
    }
    assert_eq!(served.load(Ordering::Relaxed), 40);
}

#[tokio::test]
async fn callers_that_give_up_while_a_connection_is_made_leave_nothing_behind() {
    // The first handshake hangs until it is released; the connection after it is good.
    let release = Arc::new(tokio::sync::Notify::new());
    let held = Arc::clone(&release);
    let upstream = Upstream::start_after(
        HTTP2,
        move |number| {
            let held = Arc::clone(&held);
            async move {
                if number == 0 {
                    held.notified().await;
                }
            }
        },
        async |peer: Peer| serve_http2(peer, None, &AtomicUsize::new(0)).await,
    )
    .await;
    let proxy = upstream.proxy().config("workers: 1").start().await;
    let mut callers = Vec::new();
    for _ in 0..5 {
        let mut caller = Caller::connect(&proxy).await;
        caller.head("GET", "/x", "").await;
        callers.push(caller);
    }
    let patient = proxy.get("/x").property("1001").send();
    until("the dial has begun", async || upstream.connections() == 1).await;
    for caller in &callers {
        caller.stream.set_zero_linger().unwrap();
    }
    drop(callers);
    release.notify_one();
    let answer = in_time(patient).await;
    assert_eq!((answer.status, upstream.connections()), (StatusCode::OK, 1));
}

#[tokio::test]
async fn a_body_whose_stream_is_reset_is_cut_whatever_the_reason() {
    // NO_ERROR, INTERNAL_ERROR, REFUSED_STREAM and CANCEL, as gateways send them for an upstream of theirs that died.
    for reason in [0_u32, 2, 7, 8] {
        let upstream = Upstream::start(HTTP2, move |mut peer: Peer| async move {
            peer.begin(&[]).await;
            let Some(stream) = peer.asked().await else { return };
            peer.write(frame(HEADERS, END_HEADERS, stream, &[0x88])).await;
            peer.write(frame(DATA, 0, stream, b"{\"data\": [1, 2")).await;
            peer.write(frame(RST_STREAM, 0, stream, &reason.to_be_bytes())).await;
            peer.linger().await;
        })
        .await;
        let proxy = upstream.proxy().start().await;
        let answer = proxy.get("/x").property("1001").try_send().await;
        assert!(answer.is_err(), "{reason}: {answer:?}");
    }
}

#[tokio::test]
async fn of_posts_that_wait_for_a_connection_that_dies_unspoken_only_the_one_that_left_fails() {
    let (made, served) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&served);
    let upstream = Upstream::start(HTTP2, move |mut peer: Peer| {
        let (first, count) = (made.fetch_add(1, Ordering::Relaxed) == 0, Arc::clone(&count));
        async move {
            if first {
                peer.exactly(24).await;
                while peer.silent_frame().await.is_some_and(|frame| frame.kind != HEADERS) {}
                // Time for the others to be on it.
                tokio::time::sleep(Duration::from_millis(50)).await;
            } else {
                serve_http2(peer, None, &count).await;
            }
        }
    })
    .await;
    let proxy = upstream.proxy().config("workers: 1\nlimits: null").start().await;
    let calls = (0..20).map(|_| proxy.call("POST", "/x").property("1001").body("a=b").send());
    let statuses: Vec<_> = together(calls).await.iter().map(|answer| answer.status.as_u16()).collect();
    let failed = statuses.iter().filter(|status| **status == 502).count();
    let done = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!((failed, done), (1, 19), "{statuses:?}");
    assert_eq!(served.load(Ordering::Relaxed), 19, "none of them twice");
}
