//! Uploads that stall, on either side, are answered before they are over, or lose their caller: each ends, and leaves
//! nothing behind.

use cloudbeds_auth_proxy::sandbox::Protocols;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Caller, HTTP1, Peer, Proxy, Upstream, cloudbeds, in_time, until};

#[tokio::test]
async fn a_caller_that_stops_sending_its_body_gets_400_and_is_closed() {
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let (cloudbeds, hotels) = cloudbeds(protocols).await;
        let proxy = Proxy::to(&cloudbeds, &hotels).env("UPSTREAM__TIMEOUTS__IDLE", "500ms").start().await;
        for (lines, body, hang_up) in [
            ("content-length: 100\r\n", "0123456789", false),
            ("transfer-encoding: chunked\r\n", "5\r\nfirst\r\n", false),
            ("content-length: 100\r\n", "", false),
            ("content-length: 100\r\n", "0123456789", true),
            ("transfer-encoding: chunked\r\n", "5\r\nfirst\r\n", true),
            ("transfer-encoding: chunked\r\n", "5\r\nfirst\r\nxyz\r\n", false),
        ] {
            let mut caller = Caller::connect(&proxy).await;
            caller.head("POST", "/sandbox/upload", lines).await;
            caller.write(body).await;
            if hang_up {
                caller.stream.shutdown().await.unwrap();
            }
            let head = caller.answer_head().await;
            let what = format!("{protocols:?} {lines:?} {body:?} {hang_up}");
            assert!(head.starts_with("HTTP/1.1 400 ") && head.contains("request_invalid"), "{what}: {head}");
            assert!(head.contains("connection: close"), "{what}: {head}");
            let (_, reset) = caller.rest().await;
            assert!(!reset, "{what}: the caller must be able to read the answer");
        }
        assert_eq!(proxy.get("/sandbox/echo").property("1001").send().await.status, 200);
    }
}

#[tokio::test]
async fn an_upstream_that_stops_reading_an_upload_is_504() {
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let (cloudbeds, hotels) = cloudbeds(protocols).await;
        let proxy = Proxy::to(&cloudbeds, &hotels).log("info").env("UPSTREAM__TIMEOUTS__IDLE", "700ms").start().await;
        let mut caller = Caller::connect(&proxy).await;
        caller.head("POST", "/sandbox/upload?hang_after=1000", "content-length: 1000000000\r\n").await;
        let (mut read, mut write) = caller.stream.split();
        let sending = async {
            while write.write_all(&[b'.'; 64 * 1024]).await.is_ok() {}
            std::future::pending::<()>().await;
        };
        let mut answer = vec![0; 12];
        tokio::select! {
            () = sending => {}
            read = in_time(read.read_exact(&mut answer)) => { read.unwrap(); }
        }
        assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 504", "{protocols:?}");
        let head = caller.answer_head().await;
        assert!(head.contains("error=connection_write_timeout; details=\"upstream_timeout\""), "{head}");
        assert!(head.contains("connection: close"), "{head}");
        assert_eq!(proxy.get("/sandbox/echo").property("1001").send().await.status, 200);
    }
}

#[tokio::test]
async fn an_answer_that_comes_during_the_upload_reaches_the_caller() {
    // One that goes on reading, one that stops reading, one that closes.
    for end in ["drain", "hang", "close"] {
        let upstream = Upstream::start(HTTP1, move |mut peer: Peer| async move {
            while let Some(head) = peer.head().await {
                if !head.starts_with("POST") {
                    peer.answer("ok").await;
                    continue;
                }
                peer.write("HTTP/1.1 413 Content Too Large\r\ncontent-length: 9\r\n\r\ntoo large").await;
                match end {
                    "drain" => peer.drain().await,
                    "hang" => return peer.hang().await,
                    _ => return peer.linger().await,
                }
            }
        })
        .await;
        let proxy = upstream.proxy().log("info").env("UPSTREAM__TIMEOUTS__IDLE", "700ms").start().await;
        for pieces in [1, 400] {
            let mut caller = Caller::connect(&proxy).await;
            let length = if pieces == 1 { 1 << 20 } else { pieces * (64 << 10) };
            caller.head("POST", "/large", &format!("content-length: {length}\r\n")).await;
            let (mut read, mut write) = caller.stream.split();
            let sending = async {
                for _ in 0..pieces {
                    if write.write_all(&[b'.'; 64 * 1024]).await.is_err() {
                        break;
                    }
                }
                std::future::pending::<()>().await;
            };
            let mut answer = vec![0; 12];
            tokio::select! {
                () = sending => {}
                read = in_time(read.read_exact(&mut answer)) => { read.unwrap(); }
            }
            assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 413", "{end} {pieces}");
            let head = caller.answer_head().await;
            assert!(head.contains("content-length: 9"), "{head}");
            assert_eq!(caller.read(9).await, b"too large", "{end} {pieces}");
            drop(caller);
            proxy.assert_serves(end).await;
        }
        // Nothing is left behind by either side.
        until(end, async || proxy.metric("connections_open").await <= 0.0).await;
    }
}

#[tokio::test]
async fn over_http2_an_answer_that_comes_during_the_upload_reaches_the_caller() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Http2).await;
    let proxy = Proxy::to(&cloudbeds, &hotels).config("workers: 1").log("info").start().await;
    for _ in 0..3 {
        let mut caller = Caller::connect(&proxy).await;
        caller.head("POST", "/sandbox/upload?answer_after=1000", "content-length: 1000000000\r\n").await;
        caller.write([b'.'; 64 * 1024]).await;
        let head = caller.answer_head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        // The caller learns that nobody waits for the rest.
        let (answer, _) = caller.rest().await;
        assert!(answer.contains("\"success\":true"), "{answer}");
    }
    assert_eq!(proxy.get("/sandbox/echo").property("1001").send().await.status, 200);
    assert_eq!(cloudbeds.connections(), 1, "only the stream ends");
    until("nothing is left", async || proxy.metric("connections_open").await <= 0.0).await;
}

#[tokio::test]
async fn a_caller_that_hangs_up_breaks_nothing() {
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let (cloudbeds, hotels) = cloudbeds(protocols).await;
        let proxy = Proxy::to(&cloudbeds, &hotels).log("info").start().await;
        for (target, lines, body) in [
            ("/sandbox/upload", "content-length: 1000000\r\n", "0123456789"),
            ("/sandbox/upload", "transfer-encoding: chunked\r\n", "5\r\nfirst\r\n"),
            ("/sandbox/download?bytes=1000000000", "", ""),
            ("/sandbox/download?bytes=1000000000&chunked=1", "", ""),
            ("/sandbox/slow?first_byte_ms=300", "", ""),
        ] {
            let method = if body.is_empty() { "GET" } else { "POST" };
            for reset in [false, true] {
                let mut caller = Caller::connect(&proxy).await;
                caller.head(method, target, lines).await;
                caller.write(body).await;
                if target.contains("download") {
                    caller.answer_head().await;
                    caller.read(100_000).await;
                }
                if reset {
                    caller.stream.set_zero_linger().unwrap();
                }
                drop(caller);
                let answer = proxy.get("/sandbox/echo").property("1001").send().await;
                assert_eq!(answer.status, 200, "{protocols:?} {target} reset={reset}");
            }
        }
        until("all connections end", async || proxy.metric("connections_open").await <= 0.0).await;
        assert!(proxy.metric("requests_unfinished_total{end=\"client_gone\"}").await >= 4.0);
        assert_eq!(proxy.metric("panics_total").await, 0.0);
    }
}
