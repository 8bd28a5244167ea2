//! Stage 5: what Cloudbeds sees of a request. One credential, ours; nothing of the hop before; the rest byte for byte.

use cloudbeds_auth_proxy::sandbox::{Hotel, Protocols, Sandbox, Seen};

use crate::harness::{Answer, EITHER, Origin, Proxy, cloudbeds};

struct Scene {
    cloudbeds: Sandbox,
    hotels: Vec<Hotel>,
    proxy: Proxy,
}

async fn scene(protocols: Protocols) -> Scene {
    let (cloudbeds, hotels) = cloudbeds(protocols).await;
    Scene { proxy: Proxy::to(&cloudbeds, &hotels).start().await, cloudbeds, hotels }
}

impl Scene {
    /// Sends a request with these header lines and this body, and returns what Cloudbeds saw, after checking what holds
    /// for every request: exactly one credential, one property and one host, all of them right.
    async fn sees(&self, request_line: &str, lines: &str, body: impl AsRef<[u8]>) -> (Seen, Answer) {
        let before = self.cloudbeds.requests().len();
        let head = format!("{request_line}\r\nX-Property-Id: 1001\r\nHost: app.test\r\n{lines}\r\n");
        let mut line = self.proxy.line().await;
        let method = request_line.split(' ').next().unwrap();
        let answer = line.write([head.as_bytes(), body.as_ref()].concat()).await.answer_to(method).await;
        let seen = self.cloudbeds.requests().split_off(before);
        assert_eq!(seen.len(), 1, "{lines}: {}", answer.text());
        let seen = seen.into_iter().next().unwrap();
        assert_eq!(seen.header("authorization"), [format!("Bearer {}", self.hotels[0].key).as_bytes()], "{lines}");
        assert_eq!(seen.header("x-property-id"), [b"1001"], "{lines}");
        assert_eq!(seen.authority, self.cloudbeds.base_url().strip_prefix("https://").unwrap(), "{lines}");
        assert_eq!(seen.header("host").len(), usize::from(seen.version < http::Version::HTTP_2), "{lines}");
        (seen, answer)
    }

    async fn never_sees(&self, lines: &str, marks: &[&str]) {
        let (seen, answer) = self.sees("GET /sandbox/echo HTTP/1.1", lines, "").await;
        assert_eq!(answer.status, 200, "{lines}");
        for (name, value) in &seen.headers {
            let value = String::from_utf8_lossy(value);
            assert!(!marks.iter().any(|mark| name.contains(mark) || value.contains(mark)), "{lines} → {name}: {value}");
        }
    }
}

#[tokio::test]
async fn no_credential_of_the_caller_travels_in_any_spelling() {
    for protocols in EITHER {
        let scene = scene(protocols).await;
        for name in [
            "Authorization",
            "AUTHORIZATION",
            "authorization",
            "X-Api-Key",
            "X_Api_Key",
            "x_api-key",
            "X-API_KEY",
            "Cookie",
            "COOKIE",
            "Proxy-Authorization",
            "Proxy_Authorization",
            "X-Access-Token",
            "X_Access_Token",
            "X-Auth-Token",
        ] {
            let again = format!("{name}: leaked-one\r\n{name}: leaked-two\r\n");
            scene.never_sees(&again, &["leaked"]).await;
        }
        // All at once, as a browser behind a careless gateway sends them.
        let all = "Authorization: Basic leaked\r\nCookie: a=leaked\r\nCookie: b=leaked\r\nX-Api-Key: leaked\r\n";
        scene.never_sees(all, &["leaked"]).await;
    }
}

#[tokio::test]
async fn a_real_key_that_the_caller_sends_shows_nowhere() {
    // As an application does whose old configuration is still in place. The harness searches log, pages and answers.
    for protocols in EITHER {
        let scene = scene(protocols).await;
        let key = &scene.hotels[1].key;
        let lines = format!(
            "Authorization: Bearer {key}\r\nX-Api-Key: {key}\r\nCookie: {key}\r\nX-Custom: {key}\r\nX-{key}: a\r\n\
             Referer: https://a.test/?key={key}\r\nContent-Length: {}\r\n",
            key.len()
        );
        let (seen, answer) = scene.sees(&format!("POST /sandbox/echo?access_token={key} HTTP/1.1"), &lines, key).await;
        assert_eq!(answer.status, 200);
        assert!(seen.header("x-api-key").is_empty() && seen.header("cookie").is_empty());
        let (_, answer) = scene.sees(&format!("GET /{key}/{key}?{key} HTTP/1.1"), "", "").await;
        assert_eq!(answer.status, 404);
        for bad in [
            format!("GET /{key} HTTP/1.1\nHost: a\n\n"),
            format!("{key} / HTTP/1.1\r\nHost: a\r\n\r\n"),
            format!("GET /{key}/../x?{key} HTTP/1.1\r\nHost: a\r\nX-Property-Id: 1001\r\n\r\n"),
            format!("GET http://{key}:{key}@evil/{key} HTTP/1.1\r\nHost: {key}\r\nX-Property-Id: 1001\r\n\r\n"),
            format!("GET / HTTP/1.1\r\nHost: a\r\nX-Property-Id: {key}\r\n\r\n"),
            format!("GET /{key} HTTP/1.1\r\nHost: a\r\nContent-Length: {key}\r\n\r\n"),
            format!("GET /?propertyID={key} HTTP/1.1\r\nHost: a\r\nX-Property-Id: 1001\r\n\r\n"),
        ] {
            let answer = scene.proxy.line().await.write(bad).await.answer().await;
            assert_eq!(answer.status, 400);
        }
        scene.proxy.admin("/metrics").await;
        scene.proxy.wait_for_access(|line| line["status"] == 404).await;
    }
}

#[tokio::test]
async fn what_belongs_to_one_hop_or_is_nominated_stays_behind() {
    for protocols in EITHER {
        let scene = scene(protocols).await;
        for (lines, marks) in [
            ("Connection: close\r\n", &["connection", "close"][..]),
            ("Keep-Alive: timeout=5, max=stays\r\nConnection: keep-alive\r\n", &["keep-alive", "stays"]),
            ("Proxy-Connection: keep-alive\r\n", &["proxy-connection"]),
            ("TE: trailers, deflate\r\nTrailer: X-Checksum\r\n", &["trailer", "x-checksum"]),
            ("HTTP2-Settings: AAMAAABk\r\n", &["http2-settings"]),
            ("Connection: x-hop-one, X-Hop-TWO\r\nX-Hop-One: mark\r\nx-hop-two: mark\r\n", &["x-hop", "mark"]),
            ("X-Late: mark\r\nConnection: close\r\nConnection: ,x-late,\r\n", &["x-late", "mark"]),
            ("X-Many: mark\r\nX-Many: mark\r\nConnection:x-many\r\n", &["x-many", "mark"]),
            ("Expect: 100-continue\r\n", &["expect"]),
            // None of these may take away what we put on; `sees` checks that all of it is there, once.
            ("Connection: authorization\r\nAuthorization: mark\r\n", &["mark"]),
            ("Connection: authorization, x-property-id, host, :authority\r\n", &["mark"]),
            ("connection: Host\r\n", &["app.test"]),
            ("Connection: X-Property-Id\r\n", &["mark"]),
            ("Connection: close, content-type\r\nContent-Type: mark\r\n", &["mark"]),
        ] {
            scene.never_sees(lines, marks).await;
        }
    }
}

#[tokio::test]
async fn a_body_keeps_its_length_even_when_connection_nominates_it() {
    for protocols in EITHER {
        let scene = scene(protocols).await;
        let lines = "Connection: content-length, transfer-encoding\r\nContent-Length: 5\r\n";
        let (seen, answer) = scene.sees("POST /sandbox/echo HTTP/1.1", lines, "hello").await;
        assert_eq!(seen.header("content-length"), [b"5"]);
        assert_eq!(answer.json()["body"], "hello");
    }
}

#[tokio::test]
async fn where_the_caller_sits_is_nobodys_business() {
    for protocols in EITHER {
        let scene = scene(protocols).await;
        for name in [
            "Forwarded",
            "X-Forwarded-For",
            "X-Forwarded-Host",
            "X-Forwarded-Proto",
            "X-Forwarded-Port",
            "X-Forwarded",
            "X-Forwarded-Prefix",
            "X-Real-IP",
            "X_Forwarded_For",
            "X-Forwarded_Host",
            "x_real_ip",
            "x-real_ip",
            "X-Proxy-Request-Id",
            "X_Proxy_Request_Id",
        ] {
            scene.never_sees(&format!("{name}: mark.example\r\n"), &["mark"]).await;
        }
        // Nor do we add any of our own.
        let (seen, _) = scene.sees("GET / HTTP/1.1", "User-Agent: app/1\r\n", "").await;
        let mut names: Vec<&str> =
            seen.headers.iter().map(|(name, _)| name.as_str()).filter(|name| *name != "host").collect();
        names.sort_unstable();
        assert_eq!(names, ["authorization", "user-agent", "x-property-id"]);
    }
}

#[tokio::test]
async fn everything_else_arrives_byte_for_byte() {
    let lines = [
        ("accept", "application/json;q=0.9, */*;q=0.1"),
        ("accept-encoding", "gzip;q=1.0,  deflate, br;q=0.5, identity"),
        ("accept-language", "de-CH, fr;q=0.7"),
        ("content-type", "multipart/form-data; boundary=\"--=_a:b c/d\""),
        ("idempotency-key", "\"8e03978e-40d5-43dd-bc93-6894a57f9324\""),
        ("if-none-match", "W/\"x\", \"y\""),
        ("user-agent", "Ünïcode/1.0 (x; y)"),
        ("x-custom_name", "a\tb"),
        ("x-empty", ""),
        ("x-organization-id", "77,  88"),
        ("x-repeated", "one"),
        ("x-repeated", "two, three"),
        ("x-repeated", "one"),
        ("x-request-id", "from-the-app"),
    ];
    let text: String = lines.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    for protocols in EITHER {
        let scene = scene(protocols).await;
        let (seen, _) = scene.sees("POST /sandbox/echo HTTP/1.1", &format!("{text}Content-Length: 2\r\n"), "{}").await;
        let own = ["authorization", "x-property-id", "host", "content-length"];
        let arrived: Vec<_> = seen.headers.iter().filter(|(name, _)| !own.contains(&name.as_str())).collect();
        let mut sent: Vec<(String, Vec<u8>)> =
            lines.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
        // Between names the order is HTTP's to choose, within one it is not.
        let mut arrived: Vec<(String, Vec<u8>)> = arrived.into_iter().cloned().collect();
        sent.sort_by(|one, other| one.0.cmp(&other.0));
        arrived.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(arrived, sent);
    }
}

#[tokio::test]
async fn only_codings_that_can_be_inspected_are_asked_for() {
    let scene = scene(Protocols::Both).await;
    for (sent, seen) in [
        ("gzip, deflate, br", Some("gzip, deflate, br")),
        ("gzip, deflate, br, zstd", Some("gzip, deflate, br")),
        ("zstd;q=1, gzip;q=0.5", Some("gzip;q=0.5")),
        ("GZIP", Some("GZIP")),
        ("gzip, compress, dcb, dcz", Some("gzip")),
        ("identity;q=1, *;q=0", Some("identity;q=1")),
        // Without the field any coding would do (RFC 9110 12.5.3), and nothing else is left to ask for.
        ("zstd", Some("identity")),
        ("*", Some("identity")),
        ("", Some("identity")),
    ] {
        let (request, _) = scene.sees("GET / HTTP/1.1", &format!("Accept-Encoding: {sent}\r\n"), "").await;
        let expected: Vec<&[u8]> = seen.iter().map(|seen: &&str| seen.as_bytes()).collect();
        assert_eq!(request.header("accept-encoding"), expected, "{sent}");
    }
    let (request, _) = scene.sees("GET / HTTP/1.1", "", "").await;
    assert!(request.header("accept-encoding").is_empty());
}

#[tokio::test]
async fn a_body_passes_with_any_method_and_any_framing() {
    for protocols in EITHER {
        let scene = scene(protocols).await;
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let line = format!("{method} /sandbox/echo HTTP/1.1");
            let (seen, answer) = scene.sees(&line, "Content-Length: 8\r\n", "a=1&b=\0\u{1}").await;
            assert_eq!(answer.json()["body"], "a=1&b=\0\u{1}", "{method}");
            assert_eq!(seen.header("content-length"), [b"8"], "{method}");
            let chunked = "3\r\na=1\r\n5;x=\"y\"\r\n&b=\0\u{1}\r\n0\r\n\r\n";
            let (seen, answer) = scene.sees(&line, "Transfer-Encoding: chunked\r\n", chunked).await;
            assert_eq!(answer.json()["body"], "a=1&b=\0\u{1}", "{method}");
            assert!(seen.header("content-length").is_empty(), "{method}");
        }
        for (method, length) in [("GET", 0), ("HEAD", 0), ("DELETE", 0), ("POST", 1), ("PUT", 1)] {
            let (seen, answer) = scene.sees(&format!("{method} /sandbox/echo HTTP/1.1"), "", "").await;
            assert_eq!(answer.status, 200, "{method}");
            assert!(seen.header("content-length").len() <= length, "{method}");
            assert!(seen.header("transfer-encoding").is_empty(), "{method}");
        }
        let (_, answer) = scene.sees("HEAD /sandbox/echo HTTP/1.1", "", "").await;
        assert!(answer.header("content-length").unwrap().parse::<u64>().unwrap() > 100);
        let (_, answer) = scene.sees("OPTIONS /sandbox/echo HTTP/1.1", "Origin: https://a.test\r\n", "").await;
        assert_eq!(answer.json()["method"], "OPTIONS");
    }
}

#[tokio::test]
async fn a_request_of_http_1_0_is_forwarded_as_the_upstreams_version() {
    for protocols in EITHER {
        let scene = scene(protocols).await;
        let (seen, answer) = scene.sees("GET /sandbox/echo HTTP/1.0", "", "").await;
        assert_eq!(answer.status, 200);
        assert_eq!(
            seen.version,
            if protocols == Protocols::Http1 { http::Version::HTTP_11 } else { http::Version::HTTP_2 }
        );
    }
}

#[tokio::test]
async fn trailers_of_a_request_are_dropped() {
    let body = "5\r\nhello\r\n0\r\nAuthorization: Bearer trailer\r\nX-Property-Id: 1002\r\n\r\n";
    let lines = "Transfer-Encoding: chunked\r\nTrailer: Authorization\r\n";
    for protocols in EITHER {
        let scene = scene(protocols).await;
        let (seen, answer) = scene.sees("POST /sandbox/echo HTTP/1.1", lines, body).await;
        assert_eq!(answer.json()["body"], "hello");
        assert!(!seen.trailers);
    }
    let origin = Origin::start().await;
    origin.answer("HTTP/1.1 204 No Content\r\n\r\n");
    let proxy = origin.proxy().await;
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nX-Property-Id: 1001\r\n{lines}\r\n{body}");
    assert_eq!(proxy.line().await.write(head).await.answer().await.status, 204);
    let request = origin.requests().pop().unwrap();
    assert!(request.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), "{request}");
}
