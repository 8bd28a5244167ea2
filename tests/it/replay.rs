//! What is sent twice: a GET or HEAD, once, when a connection that had been used before died without a byte of an answer.
//! Nothing else, ever.

use http::StatusCode;

use crate::harness::{Caller, HTTP1, Peer, Upstream};

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

/// Answers the first request of each connection up to number `last_good` and dies on the second; the connections after
/// those die on the first.
async fn dies_when_reused(death: Death, last_good: usize) -> Upstream {
    Upstream::start(HTTP1, move |mut peer: Peer| async move {
        if peer.number <= last_good && peer.request().await.is_some() {
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
