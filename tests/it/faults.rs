//! Answers that do not come, are no HTTP, break off or stall: each has its code, none is silent, none outlives itself.
//!
//! The next request after each fault is served by the same proxy.

mod http2;

use std::time::Duration;

use cloudbeds_auth_proxy::sandbox::Protocols;

use crate::harness::{Caller, HTTP1, Peer, Proxy, Upstream, cloudbeds, soon, until};

/// What faults are tried with.
const REQUESTS: [(&str, &str); 2] = [("GET", ""), ("POST", "a=b")];

/// What the upstream of the next tests does with a request, by its path.
async fn misbehave(mut peer: Peer) {
    while let Some(head) = peer.request().await {
        match head.split(' ').nth(1).unwrap() {
            "/close" => return peer.close().await,
            "/eof" => return,
            "/reset" => return peer.reset(),
            "/hang" => return peer.hang().await,
            "/garbage" => peer.write("SSH-2.0-OpenSSH_9.6\r\n").await,
            "/version" => peer.write("HTTP/3.0 200 OK\r\n\r\n").await,
            "/status" => peer.write("HTTP/1.1 abc OK\r\n\r\n").await,
            "/header" => peer.write("HTTP/1.1 200 OK\r\nbad header: x\r\n\r\n").await,
            "/lengths" => peer.write("HTTP/1.1 200 OK\r\ncontent-length: 2, 3\r\n\r\nab").await,
            "/large" => peer.write(format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(1 << 20))).await,
            "/many" => peer.write(format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(1000))).await,
            "/switch" => {
                peer.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n").await
            }
            "/half" => {
                peer.write("HTTP/1.1 200 OK\r\ncontent-").await;
                return peer.close().await;
            }
            "/drip" => {
                for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-slow: 0123456789012345678901234567890\r\n\r\n" {
                    peer.write([*byte]).await;
                    tokio::time::sleep(Duration::from_millis(40)).await;
                }
            }
            "/early-hints" => {
                peer.write("HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n").await;
                peer.answer("after all").await;
            }
            _ => peer.answer("ok").await,
        }
    }
}

#[tokio::test]
async fn an_answer_that_does_not_come_or_is_no_http_has_its_own_code() {
    let upstream = Upstream::start(HTTP1, misbehave).await;
    let proxy = upstream.proxy().env("UPSTREAM__TIMEOUTS__FIRST_BYTE", "700ms").start().await;
    for (path, status, code, error) in [
        ("/close", 502, "upstream_reset", "connection_terminated"),
        ("/eof", 502, "upstream_reset", "connection_terminated"),
        ("/reset", 502, "upstream_reset", "connection_terminated"),
        ("/half", 502, "upstream_reset", "connection_terminated"),
        ("/hang", 504, "upstream_timeout", "http_response_timeout"),
        ("/drip", 504, "upstream_timeout", "http_response_timeout"),
        ("/garbage", 502, "upstream_invalid", "http_protocol_error"),
        ("/version", 502, "upstream_invalid", "http_protocol_error"),
        ("/status", 502, "upstream_invalid", "http_protocol_error"),
        ("/header", 502, "upstream_invalid", "http_protocol_error"),
        ("/lengths", 502, "upstream_invalid", "http_protocol_error"),
        ("/large", 502, "upstream_invalid", "http_protocol_error"),
        ("/many", 502, "upstream_invalid", "http_protocol_error"),
        ("/switch", 502, "upstream_invalid", "http_upgrade_failed"),
    ] {
        for (method, body) in [("GET", ""), ("POST", "a=b"), ("HEAD", "")] {
            let what = format!("{method} {path}");
            let answer = soon(&what, proxy.call(method, path).property("1001").body(body).send()).await;
            if (method, path) == ("HEAD", "/lengths") {
                // No body follows, so nothing depends on it; but the caller need not puzzle over it either.
                assert_eq!((answer.status.as_u16(), answer.header("content-length")), (200, None));
                continue;
            }
            if method == "HEAD" {
                assert_eq!(answer.status, status, "{what}");
                answer.assert_proxy_status(error, &what);
            } else {
                answer.assert_failed(status, code, error, &what);
            }
            let line = proxy.wait_for_access(|line| line["path"] == path && line["method"] == method).await;
            assert_eq!((&line["status"], &line["code"]), (&status.into(), &code.into()), "{what}: {line}");
            proxy.assert_serves(&what).await;
        }
    }
    let answer = proxy.get("/early-hints").property("1001").send().await;
    assert_eq!((answer.status.as_u16(), &*answer.text()), (200, "after all"));
    assert_eq!(answer.header("link"), None);
}

#[tokio::test]
async fn over_http2_the_same_faults_have_the_same_codes() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Http2).await;
    let proxy = Proxy::to(&cloudbeds, &hotels).env("UPSTREAM__TIMEOUTS__FIRST_BYTE", "700ms").start().await;
    for (target, status, code, error) in [
        ("/sandbox/reset?head=0&how=fin", 502, "upstream_reset", "connection_terminated"),
        ("/sandbox/reset?head=0&how=reset", 502, "upstream_reset", "connection_terminated"),
        ("/sandbox/slow?first_byte_ms=60000", 504, "upstream_timeout", "http_response_timeout"),
    ] {
        for (method, body) in REQUESTS {
            let what = format!("{method} {target}");
            let answer = soon(&what, proxy.call(method, target).property("1001").body(body).send()).await;
            answer.assert_failed(status, code, error, &what);
            let answer = proxy.get("/api/v1.3/getHotels").property("1001").send().await;
            assert_eq!(answer.status, 200, "{what}: the next request");
        }
    }
    http2::assert_each_ends().await;
}

/// What the upstream of the next test does with a body, by the request's path.
#[allow(clippy::never_loop, reason = "one request per connection, however it goes")]
async fn break_off(mut peer: Peer) {
    if let Some(head) = peer.request().await {
        let path = head.split(' ').nth(1).unwrap();
        let framing = match path.rsplit('-').next().unwrap() {
            "chunked" => "transfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n6\r\nsec",
            "length" => "content-length: 20\r\n\r\nfirst sec",
            "none" => "\r\nfirst sec",
            _ => return peer.answer("ok").await,
        };
        peer.write(format!("HTTP/1.1 200 OK\r\n{framing}")).await;
        // So that the head is there before the end is: this is about bodies.
        tokio::time::sleep(Duration::from_millis(50)).await;
        match path.split('-').next().unwrap() {
            "/close" => peer.close().await,
            "/eof" => drop(peer),
            "/reset" => peer.reset(),
            "/garbage" => peer.write("\r\nxyz\r\n").await,
            _ => peer.hang().await,
        }
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_or_stalls_ends_visibly() {
    let upstream = Upstream::start(HTTP1, break_off).await;
    let proxy = upstream.proxy().env("UPSTREAM__TIMEOUTS__IDLE", "500ms").start().await;
    for (path, code) in [
        ("/close-length", "upstream_reset"),
        ("/close-chunked", "upstream_reset"),
        ("/eof-length", "upstream_reset"),
        ("/eof-chunked", "upstream_reset"),
        // Without a length only close_notify is an end; a bare FIN may be anybody's.
        ("/eof-none", "upstream_reset"),
        ("/reset-length", "upstream_reset"),
        ("/reset-chunked", "upstream_reset"),
        ("/reset-none", "upstream_reset"),
        ("/garbage-chunked", "upstream_reset"),
        ("/hang-length", "upstream_timeout"),
        ("/hang-chunked", "upstream_timeout"),
        ("/hang-none", "upstream_timeout"),
    ] {
        for version in ["1.1", "1.0"] {
            let what = format!("{path} HTTP/{version}");
            let mut caller = Caller::connect(&proxy).await;
            caller.write(format!("GET {path} HTTP/{version}\r\nhost: proxy\r\nx-property-id: 1001\r\n\r\n")).await;
            let head = caller.answer_head().await;
            assert!(head.contains(" 200 OK\r\n"), "{what}: {head}");
            let (rest, reset) = soon(&what, caller.rest()).await;
            if head.contains("transfer-encoding: chunked") {
                assert!(rest.contains("first") && !rest.contains("\r\n0\r\n"), "{what}: {rest}");
            } else if head.contains("content-length: 20") {
                assert!(rest.starts_with("first") && rest.len() < 20, "{what}: {rest}");
            } else {
                assert!(reset, "{what}: an end without a length must be a reset: {rest}");
            }
            let line = proxy.wait_for_access(|line| line["path"] == path).await;
            assert_eq!((&line["end"], &line["code"]), (&"cut".into(), &code.into()), "{what}: {line}");
            proxy.assert_serves(&what).await;
        }
    }
    let answer = proxy.get("/close-none").property("1001").send().await;
    assert_eq!(answer.text(), "first sec", "an end by close_notify is an end");
}

#[tokio::test]
async fn an_old_caller_that_stopped_reading_cannot_take_what_it_got_for_the_whole_answer() {
    let upstream = Upstream::start(HTTP1, |mut peer: Peer| async move {
        while peer.request().await.is_some() {
            peer.write("HTTP/1.1 200 OK\r\n\r\n").await;
            while peer.try_write([b'.'; 64 * 1024]).await {}
        }
    })
    .await;
    let proxy = upstream.proxy().env("UPSTREAM__TIMEOUTS__IDLE", "500ms").start().await;
    let mut caller = Caller::connect(&proxy).await;
    caller.write("GET /endless HTTP/1.0\r\nx-property-id: 1001\r\n\r\n").await;
    caller.answer_head().await;
    // It is given up only now, with all that the system holds still to be read.
    proxy.wait_for_access(|line| line["path"] == "/endless").await;
    let (_, reset) = soon("an end", caller.rest()).await;
    assert!(reset, "an end without a length must be a reset");
}

#[tokio::test]
async fn over_http2_a_body_that_breaks_off_or_stalls_ends_visibly() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Http2).await;
    let proxy = Proxy::to(&cloudbeds, &hotels).env("UPSTREAM__TIMEOUTS__IDLE", "700ms").start().await;
    for target in [
        "/sandbox/reset?after=1000&how=stream",
        "/sandbox/reset?after=1000&how=stream&length=2000",
        "/sandbox/reset?after=1000&how=fin",
        "/sandbox/reset?after=1000&how=reset&length=2000",
        "/sandbox/slow?gap_ms=60000&size=1000",
    ] {
        let broken = soon(target, proxy.get(target).property("1001").try_send()).await;
        assert!(broken.is_err(), "{target}: {broken:?}");
        let answer = proxy.get("/api/v1.3/getHotels").property("1001").send().await;
        assert_eq!(answer.status, 200, "{target}: the next request");
    }
    until("five are counted", async || proxy.metric("requests_unfinished_total{end=\"cut\"}").await >= 5.0).await;
}
