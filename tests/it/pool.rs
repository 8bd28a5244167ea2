//! Which connection a request rides on, and how long connections are kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cloudbeds_auth_proxy::sandbox::Protocols;

use crate::harness::{Alpn, HTTP1, HTTP2, Manner, Peer, Proxy, Upstream, cloudbeds, in_time, together, until};
use crate::http2::serve_http2;

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
                if let Manner::Tls(_, Alpn::Http2) = manner {
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
async fn a_server_that_closes_every_connection_as_soon_as_it_is_made_is_given_up_after_a_few() {
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let upstream = Upstream::start(HTTP1, move |peer: Peer| {
        count.fetch_add(1, Ordering::Relaxed);
        async move { drop(peer) }
    })
    .await;
    let proxy = upstream.proxy().start().await;
    for method in ["GET", "POST"] {
        let answer = in_time(proxy.call(method, "/x").property("1001").send()).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (502, "upstream_reset"), "{method}");
    }
    let made = made.load(Ordering::Relaxed);
    assert!((2..=24).contains(&made), "{made} connections for two requests");
}
