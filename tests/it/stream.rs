//! A connection as a sequence of requests: pipelining, reuse, `Expect`, uploads in pieces, and callers that half-close.

use cloudbeds_auth_proxy::sandbox::{Protocols, Sandbox};

use crate::harness::{Answer, EITHER, Proxy, cloudbeds};

fn good(target: &str) -> String {
    format!("GET /sandbox/echo?{target} HTTP/1.1\r\nHost: a\r\nX-Property-Id: 1001\r\n\r\n")
}

const POST: &str = "POST /sandbox/echo?post HTTP/1.1\r\nHost: a\r\nX-Property-Id: 1001\r\n";

async fn scene(protocols: Protocols) -> (Sandbox, Proxy) {
    let (cloudbeds, hotels) = cloudbeds(protocols).await;
    let proxy = Proxy::to(&cloudbeds, &hotels).start().await;
    (cloudbeds, proxy)
}

fn target(answer: &Answer) -> String {
    answer.json()["target"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    for protocols in EITHER {
        let (cloudbeds, proxy) = scene(protocols).await;
        let slow = "GET /sandbox/slow?first_byte_ms=200 HTTP/1.1\r\nHost: a\r\nX-Property-Id: 1001\r\n\r\n";
        let chunked = format!("{POST}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        let sized = format!("{POST}Content-Length: 2\r\n\r\nxy");
        let all =
            [slow, &good("two"), &chunked, &sized, &good("five"), "GET / HTTP/1.1\r\nHost: a\r\n\r\n", &good("seven")];
        // In one write, and byte by byte.
        for bytewise in [false, true] {
            let mut line = proxy.line().await;
            let bytes = all.concat();
            if bytewise {
                for byte in bytes.as_bytes() {
                    line.write([*byte]).await;
                }
            } else {
                line.write(&bytes).await;
            }
            assert_eq!(line.answer().await.text(), ".".repeat(48));
            assert_eq!(target(&line.answer().await), "/sandbox/echo?two");
            assert_eq!(line.answer().await.json()["body"], "abc");
            assert_eq!(line.answer().await.json()["body"], "xy");
            assert_eq!(target(&line.answer().await), "/sandbox/echo?five");
            // A refusal that is no framing error does not end the connection.
            line.answer().await.assert_refused("property_missing");
            assert_eq!(target(&line.answer().await), "/sandbox/echo?seven");
        }
        assert_eq!(cloudbeds.requests().len(), 12);
    }
}

#[tokio::test]
async fn a_bad_request_behind_good_ones_is_refused_after_their_answers() {
    for protocols in EITHER {
        let (cloudbeds, proxy) = scene(protocols).await;
        let slow = "GET /sandbox/slow?first_byte_ms=200 HTTP/1.1\r\nHost: a\r\nX-Property-Id: 1001\r\n\r\n";
        let bad = "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
        let mut line = proxy.line().await;
        line.write([slow, &good("two"), bad, &good("smuggled")].concat()).await;
        assert_eq!(line.answer().await.status, 200);
        assert_eq!(target(&line.answer().await), "/sandbox/echo?two");
        line.answer().await.assert_refused("request_invalid");
        line.closed().await;
        assert_eq!(cloudbeds.requests().len(), 2);
    }
}

#[tokio::test]
async fn what_follows_connection_close_is_not_read() {
    let (cloudbeds, proxy) = scene(Protocols::Both).await;
    let mut line = proxy.line().await;
    let last = good("last").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    line.write([&last, &good("smuggled")].map(String::as_str).concat()).await;
    let answer = line.answer().await;
    assert_eq!((target(&answer).as_str(), answer.header("connection")), ("/sandbox/echo?last", Some("close")));
    line.closed().await;
    assert_eq!(cloudbeds.requests().len(), 1);
}

#[tokio::test]
async fn a_connection_serves_one_request_after_another() {
    for protocols in EITHER {
        let (cloudbeds, proxy) = scene(protocols).await;
        let mut line = proxy.line().await;
        for turn in 0..20 {
            // One empty line before a request is forgiven (RFC 9112 2.2).
            let before = if turn % 2 == 0 { "" } else { "\r\n" };
            line.write(format!("{before}{}", good(&turn.to_string()))).await;
            assert_eq!(target(&line.answer().await), format!("/sandbox/echo?{turn}"));
        }
        assert_eq!(cloudbeds.connections(), 1, "the upstream connection is reused too");
    }
}

#[tokio::test]
async fn a_hundred_continue_is_sent_when_the_body_is_wanted_and_not_before() {
    for protocols in EITHER {
        let (cloudbeds, proxy) = scene(protocols).await;
        let mut line = proxy.line().await;
        line.write(format!("{POST}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")).await;
        assert_eq!(line.answer().await.status, 100);
        let answer = line.write("hello").await.answer().await;
        assert_eq!(answer.json()["body"], "hello");
        assert!(cloudbeds.requests()[0].header("expect").is_empty());
        // Whoever does not wait is not told to go on (nor harmed by it).
        let mut line = proxy.line().await;
        line.write(format!("{POST}Expect: 100-Continue\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"))
            .await;
        let mut answer = line.answer().await;
        if answer.status == 100 {
            answer = line.answer().await;
        }
        assert_eq!(answer.json()["body"], "hello");
        // No body, nothing to wait for.
        let mut line = proxy.line().await;
        assert_eq!(
            line.write(good("none").replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n"))
                .await
                .answer()
                .await
                .status,
            200
        );
    }
}

#[tokio::test]
async fn a_refused_request_gets_its_final_status_without_a_hundred_continue() {
    let (cloudbeds, proxy) = scene(Protocols::Both).await;
    for (head, code) in [
        ("POST / HTTP/1.1\r\nHost: a\r\n", "property_missing"),
        ("POST / HTTP/1.1\r\nHost: a\r\nX-Property-Id: 4\r\n", "property_unknown"),
        ("POST /api/v1.1/access_token HTTP/1.1\r\nHost: a\r\nX-Property-Id: 1001\r\n", "path_refused"),
        ("POST / HTTP/1.1\r\nHost: a\r\nHost: b\r\n", "request_invalid"),
    ] {
        for expect in [
            "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n",
            "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            let mut line = proxy.line().await;
            let answer = line.write(format!("{head}{expect}")).await.answer().await;
            answer.assert_refused(code);
            // RFC 9110 10.1.1: what the caller sends next may be the body or a request, so the connection ends here.
            assert_eq!(answer.header("connection"), Some("close"), "{head}");
            line.write(good("smuggled")).await.closed().await;
        }
    }
    for expect in ["101-whatever", "100-continue, x", "", "100-continue\r\nExpect: y"] {
        let mut line = proxy.line().await;
        line.write(format!("{POST}Expect: {expect}\r\nContent-Length: 5\r\n\r\n")).await;
        line.answer().await.assert_refused("request_invalid");
    }
    assert!(cloudbeds.requests().is_empty());
}

#[tokio::test]
async fn the_refusal_of_an_upload_says_that_the_connection_closes_and_can_be_read() {
    let (cloudbeds, proxy) = scene(Protocols::Both).await;
    let mut line = proxy.line().await;
    line.write("POST / HTTP/1.1\r\nHost: a\r\nX-Property-Id: 4\r\nContent-Length: 900000000\r\n\r\n").await;
    // More than the sockets' buffers hold, so that the proxy has to let it pass by.
    line.write(vec![b'x'; 500_000]).await;
    let answer = line.answer().await;
    answer.assert_refused("property_unknown");
    assert_eq!(answer.header("connection"), Some("close"));
    line.closed().await;
    assert!(cloudbeds.requests().is_empty());
}

#[tokio::test]
async fn an_upload_arrives_intact_however_it_is_cut() {
    let body: Vec<u8> = (0..12_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut crc = flate2::Crc::new();
    crc.update(&body);
    let head = "POST /sandbox/upload HTTP/1.1\r\nHost: a\r\nX-Property-Id: 1001\r\n";
    for protocols in EITHER {
        let (cloudbeds, hotels) = cloudbeds(protocols).await;
        // A line per chunk would be most of the work.
        let proxy = Proxy::to(&cloudbeds, &hotels).log("info").start().await;
        for size in [1, 15, 4096, 65_537, body.len()] {
            // Extensions and trailers are read and not passed on.
            let mut chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
            for (index, chunk) in body.chunks(size).enumerate() {
                let extension = if index < 20 { ";a=\"b;c\";d" } else { "" };
                chunked.extend_from_slice(format!("{:0>3X}{extension}\r\n", chunk.len()).as_bytes());
                chunked.extend_from_slice(chunk);
                chunked.extend_from_slice(b"\r\n");
            }
            chunked.extend_from_slice(b"0;last\r\nX-Trailer: y\r\nContent-Length: 3\r\n\r\n");
            let sized = [format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat();
            for bytes in [chunked, sized] {
                let mut line = proxy.line().await;
                for piece in bytes.chunks(size.max(500)) {
                    line.write(piece).await;
                }
                line.write(good("after")).await;
                let answer = line.answer().await.json();
                assert_eq!(answer["bytes"], body.len(), "{size} {answer}");
                assert_eq!(answer["crc32"], format!("{:08x}", crc.sum()), "{size}");
                assert_eq!(target(&line.answer().await), "/sandbox/echo?after");
            }
        }
    }
}

#[tokio::test]
async fn a_caller_that_has_closed_its_side_still_gets_its_answers() {
    for protocols in EITHER {
        let (_cloudbeds, proxy) = scene(protocols).await;
        let slow = "GET /sandbox/slow?first_byte_ms=300&gap_ms=50 HTTP/1.1\r\nHost: a\r\nX-Property-Id: 1001\r\n\r\n";
        let upload = format!("{POST}Content-Length: 2\r\n\r\nxy");
        let mut line = proxy.line().await;
        line.write([slow, &upload, &good("three")].concat()).await.half_close().await;
        assert_eq!(line.answer().await.text(), ".".repeat(48));
        assert_eq!(line.answer().await.json()["body"], "xy");
        assert_eq!(target(&line.answer().await), "/sandbox/echo?three");
        line.closed().await;
    }
}

#[tokio::test]
async fn an_upload_that_cannot_be_forwarded_is_not_asked_for() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let proxy = Proxy::to(&cloudbeds, &hotels).start().await;
    cloudbeds.stop().await;
    let mut line = proxy.line().await;
    line.write(format!("{POST}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")).await;
    let answer = line.answer().await;
    answer.assert_refused("upstream_unreachable");
    assert_eq!(answer.header("connection"), Some("close"));
    line.closed().await;
}

#[tokio::test]
async fn an_answer_that_comes_before_the_upload_has_ended_arrives() {
    for protocols in EITHER {
        let (_cloudbeds, proxy) = scene(protocols).await;
        let mut line = proxy.line().await;
        let head = "POST /sandbox/upload?answer_after=1000 HTTP/1.1\r\nHost: a\r\nX-Property-Id: 1001\r\n";
        line.write(format!("{head}Content-Length: 100000\r\n\r\n")).await;
        line.write([b'x'; 2000]).await;
        let answer = line.answer().await;
        assert_eq!(answer.status, 200, "{protocols:?}: {}", answer.text());
        assert_eq!(answer.json()["success"], true);
        assert_eq!(answer.header("connection"), Some("close"), "the rest is not read");
        line.closed().await;
    }
}
