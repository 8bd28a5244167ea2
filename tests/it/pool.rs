//! Which connection a request rides on, and what is sent twice: a GET or HEAD, once, when a connection that had been
//! used before died without a byte of an answer. Nothing else, ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cloudbeds_auth_proxy::sandbox::Protocols;
use http::{Response, StatusCode};

use crate::harness::{Caller, HTTP1, HTTP2, Peer, Proxy, Upstream, cloudbeds, in_time, together, until};

/// How the upstream of these tests leaves a request without an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Death {
    Close,
    Eof,
    Reset,
    /// After the first byte of an answer.
    FirstByte,
    /// After an answer that is only provisional.
    Provisional,
}

impl Death {
    async fn come(self, mut peer: Peer) {
        match self {
            Self::Close => peer.close().await,
            Self::Eof => drop(peer),
            Self::Reset => peer.reset(),
            Self::FirstByte => {
                peer.write("H").await;
                peer.close().await;
            }
            Self::Provisional => {
                peer.write("HTTP/1.1 103 Early Hints\r\n\r\n").await;
                peer.close().await;
            }
        }
    }
}

/// Answers the first request of each connection, and dies on the second; on the first ones of the connections after
/// `mortal`, too.
async fn dies_when_reused(death: Death, mortal: usize) -> Upstream {
    Upstream::start(HTTP1, move |mut peer: Peer| async move {
        if peer.number <= mortal && peer.request().await.is_some() {
            peer.answer("ok").await;
        }
        if peer.request().await.is_some() {
            death.come(peer).await;
        }
    })
    .await
}

/// How often the upstream got this request.
fn sent(upstream: &Upstream, line: &str) -> usize {
    upstream.request_lines().iter().filter(|seen| *seen == line).count()
}

#[tokio::test]
async fn connections_are_reused() {
    let (http1, hotels) = cloudbeds(Protocols::Http1).await;
    let proxy = Proxy::to(&http1, &hotels).config("workers: 1").start().await;
    for _ in 0..20 {
        assert_eq!(proxy.get("/sandbox/echo").property("1001").send().await.status, 200);
    }
    assert_eq!(http1.connections(), 1);
    assert_eq!(proxy.metric("upstream_connections_opened_total").await, 1.0);
    assert_eq!(proxy.metric("upstream_connections_reused_total").await, 19.0);

    let (http2, hotels) = cloudbeds(Protocols::Http2).await;
    let proxy = Proxy::to(&http2, &hotels).config("workers: 1").start().await;
    let calls = (0..50).map(|_| proxy.get("/sandbox/slow?first_byte_ms=50").property("1001").send());
    assert!(together(calls).await.iter().all(|answer| answer.status == 200));
    assert_eq!(http2.connections(), 1, "fifty at once share one connection, also while it is being made");
    assert_eq!(proxy.metric("upstream_connections_reused_total").await, 49.0);
}

#[tokio::test]
async fn answers_of_every_shape_leave_the_connection_usable() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Http1).await;
    let proxy = Proxy::to(&cloudbeds, &hotels).config("workers: 1").start().await;
    for (method, target) in [
        ("GET", "/sandbox/download?bytes=100000"),
        ("GET", "/sandbox/download?bytes=100000&chunked=1"),
        ("GET", "/sandbox/download?bytes=0"),
        ("GET", "/sandbox/download?bytes=0&chunked=1"),
        ("HEAD", "/sandbox/download?bytes=100000"),
        ("GET", "/sandbox/echo?status=204"),
        ("GET", "/sandbox/echo?status=304"),
        ("GET", "/sandbox/echo?coding=gzip"),
        ("GET", "/sandbox/echo?status=500&chunk=7"),
        ("POST", "/sandbox/upload"),
        ("GET", "/sandbox/echo?trailer=1&chunk=100"),
    ] {
        let _ = proxy.call(method, target).property("1001").try_send().await;
        let answer = proxy.get("/sandbox/echo").property("1001").send().await;
        assert_eq!(answer.status, 200, "{method} {target}");
        // A coded answer that holds a key is cut, and its connection with it.
        let expected = if target.contains("coding=") || cloudbeds.connections() == 2 { 2 } else { 1 };
        assert_eq!(cloudbeds.connections(), expected, "{method} {target}");
    }
}

#[tokio::test]
async fn a_get_is_sent_once_more_when_its_reused_connection_dies_in_silence() {
    for death in [Death::Close, Death::Eof, Death::Reset] {
        for method in ["GET", "HEAD"] {
            let upstream = dies_when_reused(death, usize::MAX).await;
            let proxy = upstream.proxy().config("workers: 1").start().await;
            proxy.get("/first").property("1001").send().await;
            let answer = proxy.call(method, "/again").property("1001").send().await;
            assert_eq!(answer.status, 200, "{death:?} {method}: {}", answer.text());
            assert_eq!(sent(&upstream, &format!("{method} /again")), 2, "{death:?} {method}");
            assert_eq!(upstream.connections(), 2, "{death:?} {method}");
        }
    }
}

#[tokio::test]
async fn with_one_byte_of_an_answer_nothing_is_sent_again() {
    for death in [Death::FirstByte, Death::Provisional] {
        let upstream = dies_when_reused(death, usize::MAX).await;
        let proxy = upstream.proxy().config("workers: 1").start().await;
        proxy.get("/first").property("1001").send().await;
        let answer = proxy.get("/again").property("1001").send().await;
        assert_eq!((answer.status, &*answer.code()), (StatusCode::BAD_GATEWAY, "upstream_reset"), "{death:?}");
        assert_eq!((sent(&upstream, "GET /again"), upstream.connections()), (1, 1), "{death:?}");
    }
}

#[tokio::test]
async fn a_second_death_is_502() {
    for death in [Death::Close, Death::Reset] {
        let upstream = dies_when_reused(death, 0).await;
        let proxy = upstream.proxy().config("workers: 1").start().await;
        proxy.get("/first").property("1001").send().await;
        let answer = proxy.get("/again").property("1001").send().await;
        assert_eq!((answer.status, &*answer.code()), (StatusCode::BAD_GATEWAY, "upstream_reset"), "{death:?}");
        assert_eq!((sent(&upstream, "GET /again"), upstream.connections()), (2, 2), "{death:?}");
    }
}

#[tokio::test]
async fn what_may_have_been_done_is_never_sent_twice() {
    for (method, body) in [
        ("POST", ""),
        ("POST", "a=b"),
        ("PUT", "a=b"),
        ("PATCH", "a=b"),
        ("DELETE", ""),
        ("OPTIONS", ""),
        // A body makes even a GET one that cannot be taken back.
        ("GET", "a=b"),
    ] {
        for death in [Death::Close, Death::Reset] {
            let upstream = dies_when_reused(death, usize::MAX).await;
            let proxy = upstream.proxy().config("workers: 1").env("UPSTREAM__POOL__UNSAFE_REUSE", "1h").start().await;
            proxy.get("/first").property("1001").send().await;
            let answer = proxy.call(method, "/again").property("1001").body(body).send().await;
            let what = format!("{method} {body:?} {death:?}");
            assert_eq!((answer.status, &*answer.code()), (StatusCode::BAD_GATEWAY, "upstream_reset"), "{what}");
            assert_eq!(sent(&upstream, &format!("{method} /again")), 1, "{what}");
            assert_eq!(upstream.connections(), 1, "{what}: it was to ride on the connection just used");
        }
    }
}

#[tokio::test]
async fn a_booking_rides_on_a_connection_just_used_but_never_on_an_old_one() {
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let (cloudbeds, hotels) = cloudbeds(protocols).await;
        for (unsafe_reuse, connections) in [("1h", 1), ("150ms", 2), ("0s", 2)] {
            let before = cloudbeds.connections();
            let proxy = Proxy::to(&cloudbeds, &hotels)
                .config("workers: 1")
                .env("UPSTREAM__POOL__UNSAFE_REUSE", unsafe_reuse)
                .start()
                .await;
            assert_eq!(proxy.get("/sandbox/echo").property("1001").send().await.status, 200);
            // The age of the connection is what this is about.
            tokio::time::sleep(Duration::from_millis(300)).await;
            let answer = proxy.call("POST", "/sandbox/echo").property("1001").body("a=b").send().await;
            assert_eq!(answer.status, 200);
            assert_eq!(cloudbeds.connections() - before, connections, "{protocols:?} {unsafe_reuse}");
            // A GET has no such need.
            assert_eq!(proxy.get("/sandbox/echo").property("1001").send().await.status, 200);
            assert_eq!(cloudbeds.connections() - before, connections, "{protocols:?} {unsafe_reuse}");
        }
    }
}

#[tokio::test]
async fn a_connection_idle_for_too_long_is_closed_by_us() {
    for manner in [HTTP1, HTTP2] {
        let closed = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&closed);
        let upstream = Upstream::start(manner, move |mut peer: Peer| {
            let seen = Arc::clone(&seen);
            async move {
                if let crate::harness::Manner::Tls(_, crate::harness::Alpn::Http2) = manner {
                    serve_http2(peer, None, &AtomicUsize::new(0)).await;
                } else {
                    peer.serve().await;
                }
                seen.fetch_add(1, Ordering::Relaxed);
            }
        })
        .await;
        let proxy = upstream.proxy().config("workers: 1").env("UPSTREAM__POOL__IDLE", "200ms").start().await;
        for round in 1..3 {
            assert_eq!(proxy.get("/x").property("1001").send().await.status, 200);
            assert_eq!(upstream.connections(), round);
            until("it is closed", async || closed.load(Ordering::Relaxed) == round).await;
        }
    }
}

#[tokio::test]
async fn a_connection_is_replaced_when_it_is_old_however_busy_it_is() {
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let (cloudbeds, hotels) = cloudbeds(protocols).await;
        let proxy =
            Proxy::to(&cloudbeds, &hotels).config("workers: 1").env("UPSTREAM__POOL__MAX_AGE", "300ms").start().await;
        until("there are three connections", async || {
            let answer = proxy.get("/sandbox/echo").property("1001").send().await;
            assert_eq!(answer.status, 200);
            cloudbeds.connections() >= 3
        })
        .await;
        assert!(proxy.metric("upstream_connections_reused_total").await > 2.0);
    }
}

#[tokio::test]
async fn redirects_are_passed_on_and_never_followed() {
    let elsewhere = Upstream::start(HTTP1, async |mut peer: Peer| peer.serve().await).await;
    let target = elsewhere.base_url();
    let upstream = Upstream::start(HTTP1, move |mut peer: Peer| {
        let target = target.clone();
        async move {
            while let Some(head) = peer.request().await {
                let status = head.split(' ').nth(1).unwrap().trim_start_matches('/').to_owned();
                peer.write(format!("HTTP/1.1 {status} x\r\nlocation: {target}/x\r\ncontent-length: 0\r\n\r\n")).await;
            }
        }
    })
    .await;
    let proxy = upstream.proxy().start().await;
    for status in [301, 302, 303, 307, 308] {
        for method in ["GET", "POST"] {
            let answer = proxy.call(method, &format!("/{status}")).property("1001").send().await;
            assert_eq!(answer.status, status, "{method}");
            assert_eq!(answer.header("location"), Some(&*format!("{}/x", elsewhere.base_url())), "{method}");
        }
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn of_a_thousand_gets_none_fails_when_every_connection_is_closed_after_three_answers() {
    for death in [Death::Close, Death::Eof, Death::Reset] {
        let upstream = Upstream::start(HTTP1, move |mut peer: Peer| async move {
            for _ in 0..3 {
                if peer.request().await.is_none() {
                    return;
                }
                peer.answer("ok").await;
            }
            // Without a word of it in the answer, and before the next request can be there.
            death.come(peer).await;
        })
        .await;
        let proxy = upstream.proxy().config("workers: 1").log("warn").start().await;
        let mut caller = Caller::connect(&proxy).await;
        for round in 0..1000 {
            caller.head("GET", "/x", "").await;
            let head = caller.answer_head().await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{death:?} {round}: {head}");
            assert_eq!(caller.read(2).await, b"ok", "{death:?} {round}");
        }
    }
}

/// Serves HTTP/2, with at most so many streams at once.
async fn serve_http2(peer: Peer, streams: Option<u32>, served: &AtomicUsize) {
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

/// One frame (RFC 9113 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = &(payload.len() as u32).to_be_bytes()[1..];
    [length, &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Answers so many requests of a connection, by hand; at the next one it says GOAWAY and that it did not act on it.
async fn goaway_after(mut peer: Peer, answers: usize, served: &AtomicUsize) {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;
    peer.write(frame(SETTINGS, 0, 0, &[])).await;
    let _preface = peer.exactly(24).await;
    let (mut left, mut last) = (answers, 0);
    while let Some(head) = peer.exactly(9).await {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let Some(payload) = peer.exactly(length).await else { return };
        match (head[3], head[4] & 1) {
            (SETTINGS, 0) => peer.write(frame(SETTINGS, 1, 0, &[])).await,
            (PING, 0) => peer.write(frame(PING, 1, 0, &payload)).await,
            (HEADERS, _) if left > 0 => {
                (left, last) = (left - 1, stream);
                served.fetch_add(1, Ordering::Relaxed);
                // `:status: 200` is number 8 of HPACK's table.
                peer.write(frame(HEADERS, 4, stream, &[0x88])).await;
                peer.write(frame(DATA, 1, stream, b"ok")).await;
            }
            (HEADERS, _) => {
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
async fn gets_survive_a_server_that_says_goaway_again_and_again() {
    for answers in [1, 7] {
        let served = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&served);
        let upstream = Upstream::start(HTTP2, move |peer: Peer| {
            let count = Arc::clone(&count);
            async move { goaway_after(peer, answers, &count).await }
        })
        .await;
        let proxy = upstream.proxy().config("workers: 1").log("info").start().await;
        for round in 0..20 {
            let calls = (0..10).map(|_| proxy.get("/x").property("1001").send());
            for answer in together(calls).await {
                assert_eq!(answer.status, 200, "{answers} {round}: {}", answer.text());
            }
        }
        assert_eq!(served.load(Ordering::Relaxed), 200);
    }
}

#[tokio::test]
async fn a_refused_stream_is_tried_elsewhere_and_a_broken_one_is_not() {
    let (upstream, served) = http2(None).await;
    let proxy = upstream.proxy().config("workers: 1").start().await;
    for (method, path, most) in [("GET", "/refuse", 4), ("POST", "/refuse", 1), ("GET", "/break", 1)] {
        proxy.get("/x").property("1001").send().await;
        let before = served.load(Ordering::Relaxed);
        let answer = proxy.call(method, path).property("1001").send().await;
        assert_eq!((answer.status, &*answer.code()), (StatusCode::BAD_GATEWAY, "upstream_reset"), "{method} {path}");
        assert_eq!(served.load(Ordering::Relaxed) - before, most, "{method} {path}");
    }
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
