//! Stage 7: what the caller sees of an answer, with an upstream that hands out every credential it was sent.

use cloudbeds_auth_proxy::sandbox::{Hotel, Protocols, Sandbox};

use crate::harness::{Answer, EITHER, End, Line, Origin, Proxy, cloudbeds};

/// An upstream and a proxy before it.
pub struct Scene {
    pub cloudbeds: Sandbox,
    pub hotels: Vec<Hotel>,
    pub proxy: Proxy,
}

pub async fn scene(protocols: Protocols) -> Scene {
    let (cloudbeds, hotels) = cloudbeds(protocols).await;
    Scene { proxy: Proxy::to(&cloudbeds, &hotels).start().await, cloudbeds, hotels }
}

/// A request on a connection of its own; the line knows how the answer ended.
pub async fn ask(proxy: &Proxy, request_line: &str) -> (Answer, Line) {
    let mut line = proxy.line().await;
    line.write(format!("{request_line}\r\nHost: a\r\nX-Property-Id: 1001\r\n\r\n")).await;
    let answer = line.answer_to(request_line.split(' ').next().unwrap()).await;
    (answer, line)
}

pub async fn get(proxy: &Proxy, target: &str) -> (Answer, Line) {
    ask(proxy, &format!("GET {target} HTTP/1.1")).await
}

fn masked() -> String {
    format!("Bearer cbat_{}", "*".repeat(32))
}

#[tokio::test]
async fn fields_that_carry_credentials_do_not_arrive_and_keys_in_others_are_covered() {
    for protocols in EITHER {
        let scene = scene(protocols).await;
        let (answer, _) = get(&scene.proxy, "/sandbox/echo?hop=1&location=1").await;
        for name in [
            "set-cookie",
            "authorization",
            "x-api-key",
            "authentication-info",
            "proxy-authentication-info",
            "alt-svc",
            "x-hop",
            "keep-alive",
            "connection",
            "trailer",
            "x-proxy-status",
        ] {
            assert!(!answer.headers.contains_key(name), "{name}");
        }
        assert_eq!(answer.header("x-echo-authorization"), Some(&*masked()));
        let stars = "*".repeat(32);
        assert_eq!(answer.header("location"), Some(&*format!("/api/v1.3/getHotels?key=cbat_{stars}")));
        // Cloudbeds' own name for the request passes beside ours.
        let (theirs, ours) = (answer.header("x-request-id").unwrap(), answer.header("x-proxy-request-id").unwrap());
        assert_ne!(theirs, ours);
        let line = scene.proxy.wait_for_access(|line| line["request_id"] == ours).await;
        assert!(line.to_string().contains(theirs), "{line}");
    }
}

#[tokio::test]
async fn a_key_in_a_body_is_covered_wherever_the_chunks_are_cut() {
    for protocols in EITHER {
        let scene = scene(protocols).await;
        let (whole, _) = get(&scene.proxy, "/sandbox/echo").await;
        assert_eq!(whole.header("content-length"), Some(&*whole.body.len().to_string()));
        for size in 1..=40 {
            let (answer, line) = get(&scene.proxy, &format!("/sandbox/echo?chunk={size}")).await;
            assert_eq!(line.end, End::Framed);
            let headers = answer.json()["headers"].clone();
            let header = headers.as_array().unwrap().iter().find(|header| header[0] == "authorization").unwrap();
            assert_eq!(header[1], masked(), "{size}");
            // No byte is held back or added: what the upstream sent apart may arrive together, but never longer.
            assert_eq!(answer.body.len(), whole.body.len() + format!("?chunk={size}").len(), "{size}");
        }
        assert!(scene.proxy.metric("leaks_stopped_total{where=\"body\"}").await >= 41.0);
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_arrives_as_far_as_it_came_and_is_visibly_cut() {
    let origin = Origin::start().await;
    let proxy = origin.proxy().await;
    for (head, body, shown) in [
        ("Content-Length: 10", "", ""),
        ("Content-Length: 10", "abc", "abc"),
        ("Content-Length: 60", "abc cbat_secret", "abc cbat_******"),
        ("Transfer-Encoding: chunked", "", ""),
        ("Transfer-Encoding: chunked", "3\r\nabc\r\n", "abc"),
        ("Transfer-Encoding: chunked", "3\r\nabc\r\nx\r\n", "abc"),
        ("Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\n", "abc"),
    ] {
        for method in ["GET", "POST"] {
            origin.answer(format!("HTTP/1.1 200 OK\r\nconnection: close\r\n{head}\r\n\r\n{body}"));
            let (answer, line) = ask(&proxy, &format!("{method} / HTTP/1.1")).await;
            assert_eq!((answer.status.as_u16(), line.end), (200, End::Cut), "{head} {body:?}");
            assert_eq!(answer.text(), shown, "{head} {body:?}");
        }
    }
    // Each was asked for once: what has begun to be answered is not asked again.
    assert_eq!(origin.requests().len(), 14);
}

#[tokio::test]
async fn status_and_body_of_cloudbeds_are_unchanged() {
    for protocols in EITHER {
        let scene = scene(protocols).await;
        for (target, status, start) in [
            (
                "/sandbox/fail",
                200,
                "{\"message\":\"User who approved this connection is not active anymore\",\"success\":false",
            ),
            ("/sandbox/fail?kind=revoked", 401, "{"),
            ("/sandbox/fail?kind=limit", 429, "{"),
            ("/sandbox/fail?kind=error", 500, "<h1>Server Error</h1>"),
            ("/api/v1.3/nosuch", 404, "<!DOCTYPE html>"),
            ("/sandbox/echo?status=204", 204, ""),
            ("/sandbox/echo?status=304", 304, ""),
            ("/sandbox/echo?status=302&location=https://evil.example/a%3Fb", 302, "{"),
            ("/sandbox/echo?status=418", 418, "{"),
            ("/sandbox/echo?status=503", 503, "{"),
            ("/sandbox/echo?status=599", 599, "{"),
        ] {
            let (answer, mut line) = get(&scene.proxy, target).await;
            assert_eq!((answer.status.as_u16(), line.end), (status, End::Framed), "{target}");
            assert!(answer.text().starts_with(start), "{target}: {}", answer.text());
            assert_ne!(answer.header("content-type"), Some("application/problem+json"), "{target}");
            assert!(!answer.headers.contains_key("proxy-status"), "{target}");
            if status == 302 {
                assert_eq!(answer.header("location"), Some("https://evil.example/a?b"));
            }
            // The connection is good for another request whatever the answer was.
            line.write("GET /sandbox/echo HTTP/1.1\r\nHost: a\r\nX-Property-Id: 1002\r\n\r\n").await;
            assert_eq!(line.answer().await.status, 200, "{target}");
        }
        assert_eq!(scene.cloudbeds.requests().pop().unwrap().header("x-property-id"), [b"1002"]);
        assert_eq!(scene.hotels.len(), 2);
    }
}

#[tokio::test]
async fn nothing_beside_status_fields_and_body_gets_through() {
    let origin = Origin::start().await;
    let proxy = origin.proxy().await;
    // The reason phrase is text like any other.
    for (status, line) in [("418 cbat_secretkey", "HTTP/1.1 418 I'm a teapot"), ("200 Fine", "HTTP/1.1 200 OK")] {
        origin.answer(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(get(&proxy, "/").await.1.status_line, line);
    }
    // Trailers.
    let trailers = "2\r\nok\r\n0\r\nX-Key: cbat_secretkey\r\nContent-Length: 3\r\n\r\n";
    origin.answer(format!("HTTP/1.1 200 OK\r\nTrailer: X-Key\r\nTransfer-Encoding: chunked\r\n\r\n{trailers}"));
    let (answer, line) = get(&proxy, "/").await;
    assert_eq!((answer.text().as_str(), line.trailers, answer.header("trailer")), ("ok", false, None));
    // Interim answers.
    origin.answer(
        "HTTP/1.1 103 Early Hints\r\nLink: cbat_secretkey\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    assert_eq!(get(&proxy, "/").await.0.text(), "ok");
    origin.answer("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n");
    get(&proxy, "/").await.0.assert_refused("upstream_invalid");
    // A key for the name of a field, twins of what is dropped, and claims to be us.
    let lines = "cbat_secretkey: 1\r\nX-cbat_secretkey: 1\r\nSet_Cookie: a\r\nX_Api_Key: a\r\nProxy-Status: us\r\n\
                 X-Proxy-Request-Id: us\r\nKeep-Alive: 5\r\nX-Kept: cbat_secretkey, cbat_other;cbat_\r\n";
    origin.answer(format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: 0\r\n\r\n"));
    let (answer, _) = get(&proxy, "/").await;
    let mut names: Vec<&str> = answer.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "date", "x-kept", "x-proxy-request-id"]);
    assert_eq!(answer.header("x-kept"), Some("cbat_*********, cbat_*****;cbat_"));
    assert_ne!(answer.header("x-proxy-request-id"), Some("us"));
    // Not one of our keys, and covered all the same.
    origin.answer("HTTP/1.1 200 OK\r\nConnection: close\r\nconnection: close\r\n\r\n[\"cbat_ofAnotherHotel\"]");
    assert_eq!(get(&proxy, "/").await.0.text(), "[\"cbat_**************\"]");
}

#[tokio::test]
async fn trailers_of_http_2_are_dropped_too() {
    let scene = scene(Protocols::Http2).await;
    let (answer, line) = get(&scene.proxy, "/sandbox/echo?trailer=1").await;
    assert_eq!((answer.status.as_u16(), line.trailers, line.end), (200, false, End::Framed));
    assert!(!line.chunks.is_empty() && answer.header("trailer").is_none());
}

#[tokio::test]
async fn a_redirect_within_cloudbeds_leads_back_to_the_proxy() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let proxy = Proxy::to(&cloudbeds, &hotels).config("identify: { path_prefix: true }").start().await;
    let base = cloudbeds.base_url();
    for (location, plain, prefixed) in [
        (format!("{base}/a?b#c"), "/a?b#c", "/p/1001/a?b#c"),
        (base.to_uppercase().replace("HTTPS", "https"), "/", "/p/1001/"),
        (format!("{base}?x"), "/?x", "/p/1001/?x"),
        ("/a/b".to_owned(), "/a/b", "/p/1001/a/b"),
        ("https://evil.example/a".to_owned(), "https://evil.example/a", "https://evil.example/a"),
        ("//evil.example/a".to_owned(), "//evil.example/a", "//evil.example/a"),
        ("next".to_owned(), "next", "next"),
    ] {
        let query: String = form_urlencoded::Serializer::new(String::new()).append_pair("location", &location).finish();
        let target = format!("/sandbox/echo?status=307&{query}");
        assert_eq!(get(&proxy, &target).await.0.header("location"), Some(plain), "{location}");
        let mut line = proxy.line().await;
        line.write(format!("GET /p/1001{target} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(line.answer().await.header("location"), Some(prefixed), "{location}");
    }
    // Never followed.
    assert!(cloudbeds.requests().iter().all(|seen| seen.target.starts_with("/sandbox/echo")));
}

#[tokio::test]
async fn a_caller_of_http_1_0_gets_an_answer_it_can_read() {
    for protocols in EITHER {
        let scene = scene(protocols).await;
        let (answer, line) = ask(&scene.proxy, "GET /sandbox/echo?chunk=7 HTTP/1.0").await;
        assert_eq!((answer.status.as_u16(), line.end), (200, End::Closed));
        assert!(line.status_line.starts_with("HTTP/1.0 200") || line.status_line.starts_with("HTTP/1.1 200"));
        assert!(!answer.headers.contains_key("transfer-encoding"));
        assert_eq!(answer.json()["method"], "GET");
        // Its end is the connection's, so a cut must not look like one.
        let (_, line) = ask(&scene.proxy, "GET /sandbox/echo?chunk=7&coding=gzip&pad=100000 HTTP/1.0").await;
        assert_eq!(line.end, End::Cut);
        let (answer, mut line) = ask(&scene.proxy, "GET /sandbox/echo HTTP/1.0\r\nConnection: keep-alive").await;
        assert_eq!((answer.status.as_u16(), line.end), (200, End::Framed));
        line.write("GET /sandbox/echo HTTP/1.0\r\nX-Property-Id: 1001\r\n\r\n").await;
        assert_eq!(line.answer().await.status, 200);
        line.closed().await;
    }
}
