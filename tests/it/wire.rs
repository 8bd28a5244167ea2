//! Bytes as no client library sends them: each malformed request gets a code and a sentence, the connection closes where
//! nobody knows any more where the next message starts, and nothing hidden in one request becomes another. The questions
//! of one message each are in the table beside this file; here are the scenes that need more.

use std::time::{Duration, Instant};

use cloudbeds_auth_proxy::sandbox::{Hotel, Protocols, Sandbox};

use crate::harness::{EITHER, Proxy, cloudbeds};

mod case;
mod compare;
mod http2;
mod judge;
mod table;

/// A good request; its target tells where it came from.
fn good(target: &str) -> String {
    format!("GET /sandbox/echo?{target} HTTP/1.1\r\nHost: a\r\nX-Property-Id: 1001\r\n\r\n")
}

const POST: &str = "POST /sandbox/echo?post HTTP/1.1\r\nHost: a\r\nX-Property-Id: 1001\r\n";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n\r\n";

async fn scene(protocols: Protocols, config: &str) -> (Sandbox, Vec<Hotel>, Proxy) {
    let (cloudbeds, hotels) = cloudbeds(protocols).await;
    let proxy = Proxy::to(&cloudbeds, &hotels).config(config).start().await;
    (cloudbeds, hotels, proxy)
}

/// Sends bytes with a good request hidden behind them: one refusal, then the end, and Cloudbeds sees nothing of either.
async fn check_refused(proxy: &Proxy, bytes: impl AsRef<[u8]>, code: &str) {
    let bytes = bytes.as_ref();
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    let mut line = proxy.line().await;
    let answer = line.write([bytes, good("smuggled").as_bytes()].concat()).await.answer().await;
    assert_eq!(answer.code(), code, "{shown:?}: {}", answer.text());
    answer.assert_refused(code);
    assert_eq!(answer.header("connection"), Some("close"), "{shown:?}");
    assert!(answer.header("date").is_some(), "{shown:?}");
    line.closed().await;
}

fn targets(cloudbeds: &Sandbox) -> Vec<String> {
    cloudbeds.requests().into_iter().map(|seen| seen.target).collect()
}

#[tokio::test]
async fn whoever_speaks_tls_is_told_which_scheme_to_use() {
    let (cloudbeds, _, proxy) = scene(Protocols::Both, "").await;
    check_refused(&proxy, "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}", "request_invalid").await;
    assert!(proxy.raw_text("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0").await.contains("http://"), "the hint at TLS");
    assert_eq!(targets(&cloudbeds), [""; 0]);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_before_it_is_complete() {
    let (cloudbeds, _, proxy) = scene(Protocols::Both, "client: { max_head_size: 8KiB, max_headers: 20 }").await;
    let long = "x".repeat(9000);
    for head in [
        format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("GET /{long}"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nX-A: {long}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nX-{long}"),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X-A: b\r\n".repeat(20)),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}", "X-A: b\r\n".repeat(2000)),
    ] {
        check_refused(&proxy, &head, "headers_too_large").await;
    }
    assert_eq!(targets(&cloudbeds), [""; 0]);
    // At the limits it passes.
    let lines = "X-A: b\r\n".repeat(18);
    let head = format!("GET /sandbox/echo HTTP/1.1\r\nHost: a\r\nX-Property-Id: 1001\r\n{lines}\r\n");
    assert_eq!(proxy.line().await.write(head).await.answer().await.status, 200);
}

#[tokio::test]
async fn a_target_longer_than_any_parser_takes_is_refused_like_the_others() {
    let (_cloudbeds, _, proxy) = scene(Protocols::Both, "client: { max_head_size: 256KiB, max_headers: 1000 }").await;
    for length in [65_000, 65_533, 65_534, 65_535, 65_536, 100_000] {
        let head = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(length - 1));
        let answer = proxy.line().await.write(head).await.answer().await;
        let code = if length <= 65_534 { "property_missing" } else { "headers_too_large" };
        assert_eq!(answer.code(), code, "{length}");
    }
    // What the configuration allows is not cut short by a parser's own limits.
    let lines = format!("X-A: {}\r\n", "b".repeat(100)).repeat(999);
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    proxy.line().await.write(head).await.answer().await.assert_refused("property_missing");
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{}: b\r\n\r\n", "x".repeat(100_000));
    proxy.line().await.write(head).await.answer().await.assert_refused("headers_too_large");
}

#[tokio::test]
async fn no_byte_anywhere_in_a_head_leaves_the_caller_without_a_code() {
    let (_cloudbeds, _, proxy) = scene(Protocols::Both, "").await;
    for byte in 0..=255_u8 {
        let at = [
            [b"GET /".as_slice(), &[byte], b" HTTP/1.1\r\nHost: a\r\n\r\n"],
            [b"GET /?a", &[byte], b"b HTTP/1.1\r\nHost: a\r\n\r\n"],
            [b"GET /?a=\xc3", &[byte], b" HTTP/1.1\r\nHost: a\r\n\r\n"],
            [b"GE", &[byte], b"T / HTTP/1.1\r\nHost: a\r\n\r\n"],
            [b"GET ", &[byte], b" HTTP/1.1\r\nHost: a\r\n\r\n"],
            [b"GET / HTTP/1.1\r\nHost: a", &[byte], b"b\r\n\r\n"],
            [b"GET / HTTP/1.1\r\nHost: a\r\nX-A", &[byte], b": b\r\n\r\n"],
            [b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b", &[byte], b"c\r\n\r\n"],
        ];
        for parts in at {
            let answer = proxy.line().await.write(parts.concat()).await.answer().await;
            assert!(!answer.body.is_empty(), "{:?}", String::from_utf8_lossy(&parts.concat()));
            answer.assert_refused(&answer.code());
        }
    }
}

#[tokio::test]
async fn a_malformed_chunked_body_is_refused_and_what_is_behind_it_is_not_read() {
    for protocols in EITHER {
        let (cloudbeds, _, proxy) = scene(protocols, "").await;
        // The table has the rest, towards HTTP/1.1; a stream of HTTP/2 has another way to say that it is cut.
        for body in ["x\r\nhello\r\n0\r\n\r\n", "5\r\nhelloXX0\r\n\r\n", "5\r\nhello\r\n0\r\nX: y\n\r\n"] {
            check_refused(&proxy, format!("{POST}{CHUNKED}{body}"), "request_invalid").await;
        }
        assert!(targets(&cloudbeds).iter().all(|target| target.ends_with("?post")));
        // Nor did Cloudbeds take any of them for a whole request.
        assert_eq!(proxy.line().await.write(good("after")).await.answer().await.status, 200);
    }
}

#[tokio::test]
async fn a_request_that_breaks_off_is_refused() {
    for protocols in EITHER {
        let (cloudbeds, _, proxy) = scene(protocols, "").await;
        for part in ["G", "GET / HTTP/1.1\r\nHost: a\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r"] {
            let mut line = proxy.line().await;
            line.write(part).await.half_close().await.answer().await.assert_refused("request_invalid");
            line.closed().await;
        }
        for body in
            ["Content-Length: 5\r\n\r\nhell", &format!("{CHUNKED}5\r\nhell"), &format!("{CHUNKED}5\r\nhello\r\n0\r\n")]
        {
            let mut line = proxy.line().await;
            line.write(format!("{POST}{body}"))
                .await
                .half_close()
                .await
                .answer()
                .await
                .assert_refused("request_invalid");
            line.closed().await;
        }
        assert!(targets(&cloudbeds).iter().all(|target| target.ends_with("?post")));
    }
}

#[tokio::test]
async fn a_caller_that_is_too_slow_is_let_go() {
    let (_cloudbeds, _, proxy) = scene(Protocols::Both, "client: { head_timeout: 300ms, idle: 400ms }").await;
    let mut line = proxy.line().await;
    line.write("GET / HT").await.answer().await.assert_refused("request_invalid");
    line.closed().await;
    // Idle, before and after a request: no answer without a question.
    proxy.line().await.closed().await;
    let mut line = proxy.line().await;
    let answer = line.write(good("one")).await.answer().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    line.closed().await;
    // An empty line now and then is no request either.
    let (mut line, started) = (proxy.line().await, Instant::now());
    while !line.is_closed() && started.elapsed() < Duration::from_secs(5) {
        line.write("\r\n").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(started.elapsed() < Duration::from_secs(4), "empty lines keep a connection open for ever");
    // Nor does it keep a connection that is parked by then.
    let (_cloudbeds, _, patient) = scene(Protocols::Both, "client: { idle: 1500ms }").await;
    let (mut parked, started) = (patient.line().await, Instant::now());
    while !parked.is_closed() && started.elapsed() < Duration::from_secs(8) {
        parked.write("\r\n").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(started.elapsed() < Duration::from_secs(6), "empty lines keep a parked connection open for ever");
    // Nor does one byte of a head every so often keep it.
    let (mut line, started) = (proxy.line().await, Instant::now());
    while started.elapsed() < Duration::from_millis(700) {
        line.write("x").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    line.answer().await.assert_refused("request_invalid");
}
