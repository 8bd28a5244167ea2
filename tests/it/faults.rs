//! Every way Cloudbeds, the network or the caller can fail: each has its code, none is silent, none outlives itself.
//!
//! The next request after each fault is served by the same proxy.

use std::time::Duration;

use cloudbeds_auth_proxy::sandbox::Protocols;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{
    Alpn, Answer, Caller, Certificate, HTTP1, Manner, Peer, Proxy, Upstream, cloudbeds, in_time, key, together, until,
};

/// Checks code, status and RFC 9209's error type of a failure of our own.
fn check(answer: &Answer, status: u16, code: &str, error: &str, what: &str) {
    assert_eq!(answer.status, status, "{what}: {}", answer.text());
    assert_eq!(answer.code(), code, "{what}");
    let proxy_status = answer.header("proxy-status").unwrap();
    assert!(proxy_status.contains(&format!("error={error};")), "{what}: {proxy_status}");
}

async fn check_served(proxy: &Proxy, what: &str) {
    let answer = proxy.get("/ok").property("1001").send().await;
    assert_eq!((answer.status.as_u16(), &*answer.text()), (200, "ok"), "{what}: the next request");
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_502_upstream_unreachable() {
    // Bound and not listening: the port is ours, and refuses.
    let refusing = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    refusing.bind(&SockAddr::from("127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap())).unwrap();
    let port = refusing.local_addr().unwrap().as_socket().unwrap().port();
    let upstream = Upstream::start(HTTP1, Peer::hang).await;
    let origin = |base_url: &str| Proxy::to_origin(base_url, upstream.root_pem()).key("1001", &key());

    let proxy = origin(&format!("https://127.0.0.1:{port}")).start().await;
    for method in ["GET", "POST"] {
        let answer = proxy.call(method, "/x").property("1001").send().await;
        check(&answer, 502, "upstream_unreachable", "connection_refused", method);
    }

    let proxy = origin("https://nowhere.invalid").env("UPSTREAM__TIMEOUTS__CONNECT", "15s").start().await;
    let answer = proxy.get("/x").property("1001").send().await;
    check(&answer, 502, "upstream_unreachable", "dns_error", "a name that does not resolve");
}

#[tokio::test]
async fn a_connection_that_is_not_accepted_in_time_is_502_upstream_unreachable() {
    // A listener whose queue is full: the system drops further SYNs, as a packet filter would.
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    full.bind(&SockAddr::from("127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap())).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap();
    let fill: Vec<Socket> = (0..4)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address);
            socket
        })
        .collect();
    let upstream = Upstream::start(HTTP1, Peer::hang).await;
    let base_url = format!("https://127.0.0.1:{}", address.as_socket().unwrap().port());
    let proxy = Proxy::to_origin(&base_url, upstream.root_pem())
        .key("1001", &key())
        .env("UPSTREAM__TIMEOUTS__CONNECT", "300ms")
        .start()
        .await;

    let calls = (0..5).map(|_| proxy.get("/x").property("1001").send());
    for answer in together(calls).await {
        check(&answer, 502, "upstream_unreachable", "connection_timeout", "a full queue");
    }
    drop((fill, full));
}

#[tokio::test]
async fn a_server_that_cannot_prove_itself_gets_no_byte_of_a_request() {
    for certificate in [Certificate::WrongName, Certificate::Expired, Certificate::NotYetValid, Certificate::SelfSigned]
    {
        for alpn in [Alpn::Http1, Alpn::Http2] {
            let upstream = Upstream::start(Manner::Tls(certificate, alpn), async |mut peer| peer.serve().await).await;
            let proxy = upstream.proxy().start().await;
            for method in ["GET", "POST"] {
                let answer = proxy.call(method, "/x").property("1001").body("secret").send().await;
                check(&answer, 502, "upstream_tls", "tls_certificate_error", &format!("{certificate:?}"));
            }
            assert!(upstream.connections() >= 2, "{certificate:?}");
            assert!(upstream.received().iter().all(String::is_empty), "{certificate:?}: {:?}", upstream.received());
        }
    }
}

#[tokio::test]
async fn a_server_without_tls_gets_no_byte_of_a_request() {
    let plain = Upstream::start(Manner::Plain, async |mut peer: Peer| {
        peer.write("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        peer.log_all().await;
    })
    .await;
    let proxy = plain.proxy().start().await;
    let answer = proxy.get("/marker").property("1001").send().await;
    check(&answer, 502, "upstream_tls", "tls_protocol_error", "plain text");

    let hanging = Upstream::start(Manner::Plain, async |mut peer: Peer| peer.log_all().await).await;
    let proxy = hanging.proxy().env("UPSTREAM__TIMEOUTS__TLS", "300ms").start().await;
    let answer = proxy.get("/marker").property("1001").send().await;
    check(&answer, 502, "upstream_tls", "connection_timeout", "a handshake that hangs");

    let gone = Upstream::start(Manner::Plain, async |peer: Peer| peer.close().await).await;
    let proxy = gone.proxy().start().await;
    let answer = proxy.get("/marker").property("1001").send().await;
    check(&answer, 502, "upstream_tls", "tls_protocol_error", "closed within the handshake");

    for received in [plain.received(), hanging.received()].concat() {
        // The hello only: nothing of HTTP is in it.
        assert!(received.starts_with('\u{16}') && !received.contains("marker"), "{received:?}");
    }
}

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
            let answer = proxy.call(method, path).property("1001").body(body).send().await;
            if (method, path) == ("HEAD", "/lengths") {
                // No body follows, so nothing depends on it; but the caller need not puzzle over it either.
                assert_eq!((answer.status.as_u16(), answer.header("content-length")), (200, None));
                continue;
            }
            if method == "HEAD" {
                assert_eq!(answer.status, status, "{what}");
                assert!(answer.header("proxy-status").unwrap().contains(&format!("error={error};")), "{what}");
            } else {
                check(&answer, status, code, error, &what);
            }
            let line = proxy.wait_for_access(|line| line["path"] == path && line["method"] == method).await;
            assert_eq!((&line["status"], &line["code"]), (&status.into(), &code.into()), "{what}: {line}");
            check_served(&proxy, &what).await;
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
        for (method, body) in [("GET", ""), ("POST", "a=b")] {
            let what = format!("{method} {target}");
            let answer = proxy.call(method, target).property("1001").body(body).send().await;
            check(&answer, status, code, error, &what);
            let answer = proxy.get("/api/v1.3/getHotels").property("1001").send().await;
            assert_eq!(answer.status, 200, "{what}: the next request");
        }
    }
}

/// What the upstream of the next test does with a body, by the request's path.
#[allow(clippy::never_loop, reason = "one request per connection, however it goes")]
async fn break_off(mut peer: Peer) {
    while let Some(head) = peer.request().await {
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
            "/close" => return peer.close().await,
            "/eof" => return,
            "/reset" => return peer.reset(),
            "/garbage" => return peer.write("\r\nxyz\r\n").await,
            _ => return peer.hang().await,
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
            let (rest, reset) = caller.rest().await;
            if head.contains("transfer-encoding: chunked") {
                assert!(rest.contains("first") && !rest.contains("\r\n0\r\n"), "{what}: {rest}");
            } else if head.contains("content-length: 20") {
                assert!(rest.starts_with("first") && rest.len() < 20, "{what}: {rest}");
            } else {
                assert!(reset, "{what}: an end without a length must be a reset: {rest}");
            }
            let line = proxy.wait_for_access(|line| line["path"] == path).await;
            assert_eq!((&line["end"], &line["code"]), (&"cut".into(), &code.into()), "{what}: {line}");
            check_served(&proxy, &what).await;
        }
    }
    let answer = proxy.get("/close-none").property("1001").send().await;
    assert_eq!(answer.text(), "first sec", "an end by close_notify is an end");
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
        let broken = proxy.get(target).property("1001").try_send().await;
        assert!(broken.is_err(), "{target}: {broken:?}");
        let answer = proxy.get("/api/v1.3/getHotels").property("1001").send().await;
        assert_eq!(answer.status, 200, "{target}: the next request");
    }
    until("five are counted", async || proxy.metric("requests_unfinished_total{end=\"cut\"}").await >= 5.0).await;
}

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
            check_served(&proxy, end).await;
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
