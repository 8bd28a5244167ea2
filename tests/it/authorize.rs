//! Stage 2: which methods and targets are let through, and that those which are arrive byte for byte.

use std::fmt::Write as _;

use cloudbeds_auth_proxy::sandbox::Protocols;

use crate::harness::{Answer, EITHER, Proxy, cloudbeds};

/// One request for property 1001, as bytes, on a connection of its own.
async fn ask(proxy: &Proxy, method: &str, target: impl AsRef<[u8]>, lines: &str) -> Answer {
    let rest = format!(" HTTP/1.1\r\nHost: app\r\nX-Property-Id: 1001\r\n{lines}\r\n");
    let head = [method.as_bytes(), b" ", target.as_ref(), rest.as_bytes()].concat();
    let mut line = proxy.line().await;
    line.write(head).await.answer_to(method).await
}

#[tokio::test]
async fn connect_and_trace_are_refused_and_told_what_is_allowed() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let proxy = Proxy::to(&cloudbeds, &hotels).start().await;
    for (method, target) in
        [("CONNECT", "api.cloudbeds.com:443"), ("CONNECT", "/sandbox/echo"), ("TRACE", "/sandbox/echo"), ("TRACE", "*")]
    {
        let answer = ask(&proxy, method, target, "").await;
        assert_eq!(answer.header("allow"), Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"), "{method} {target}");
        answer.assert_refused("method_refused");
    }
    // A refused CONNECT leaves no tunnel behind: the connection goes on as HTTP.
    let mut line = proxy.line().await;
    line.write("CONNECT a:1 HTTP/1.1\r\nHost: a\r\nX-Property-Id: 1001\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    line.answer().await.assert_refused("method_refused");
    line.answer().await.assert_refused("property_missing");
    assert!(cloudbeds.requests().is_empty());
}

#[tokio::test]
async fn every_other_method_is_forwarded() {
    for protocols in EITHER {
        let (cloudbeds, hotels) = cloudbeds(protocols).await;
        let proxy = Proxy::to(&cloudbeds, &hotels).start().await;
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "get", "connect"] {
            assert_eq!(ask(&proxy, method, "/sandbox/echo", "").await.status, 200, "{method}");
            assert_eq!(cloudbeds.requests().pop().unwrap().method, method);
        }
    }
}

#[tokio::test]
async fn upgrades_are_refused_and_the_connection_goes_on() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let proxy = Proxy::to(&cloudbeds, &hotels).start().await;
    for lines in [
        "Upgrade: websocket\r\nConnection: upgrade\r\n",
        "Upgrade: websocket\r\n",
        "Connection: keep-alive, Upgrade\r\n",
        "Connection: keep-alive\r\nConnection: UPGRADE\r\n",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
    ] {
        ask(&proxy, "GET", "/sandbox/echo", lines).await.assert_refused("upgrade_unsupported");
    }
    let mut line = proxy.line().await;
    let head = "GET /sandbox/echo HTTP/1.1\r\nHost: a\r\nX-Property-Id: 1001\r\n";
    line.write(format!("{head}Upgrade: websocket\r\nConnection: upgrade\r\n\r\n")).await;
    line.answer().await.assert_refused("upgrade_unsupported");
    assert!(cloudbeds.requests().is_empty());
    assert_eq!(line.write(format!("{head}\r\n")).await.answer().await.status, 200);
}

#[tokio::test]
async fn absolute_form_is_accepted_for_this_listener_alone() {
    for protocols in EITHER {
        let (cloudbeds, hotels) = cloudbeds(protocols).await;
        let proxy = Proxy::to(&cloudbeds, &hotels).start().await;
        let port = proxy.address.port();
        for host in ["127.0.0.1", "localhost", "LocalHost"] {
            let answer = ask(&proxy, "GET", format!("http://{host}:{port}/sandbox/echo?a=http://b"), "").await;
            assert_eq!(answer.status, 200, "{host}");
            let seen = cloudbeds.requests().pop().unwrap();
            assert_eq!(seen.target, "/sandbox/echo?a=http://b");
            assert_eq!(seen.authority, cloudbeds.base_url().strip_prefix("https://").unwrap());
        }
        let before = cloudbeds.requests().len();
        for target in [
            format!("https://127.0.0.1:{port}/sandbox/echo"),
            format!("ftp://127.0.0.1:{port}/sandbox/echo"),
            "http://127.0.0.1/sandbox/echo".to_owned(),
            format!("http://127.0.0.2:{port}/sandbox/echo"),
            format!("http://evil.example:{port}/sandbox/echo"),
            format!("http://localhost:{port}@evil.example/sandbox/echo"),
            format!("http://user:secret@localhost:{port}/sandbox/echo"),
            format!("{}/sandbox/echo", cloudbeds.base_url()),
            "http://169.254.169.254/latest/meta-data".to_owned(),
            format!("127.0.0.1:{port}"),
            "sandbox/echo".to_owned(),
            "*".to_owned(),
            "?a".to_owned(),
        ] {
            ask(&proxy, "GET", &target, "").await.assert_refused("path_invalid");
        }
        ask(&proxy, "OPTIONS", "*", "").await.assert_refused("path_invalid");
        assert_eq!(cloudbeds.requests().len(), before);
    }
}

#[tokio::test]
async fn bytes_that_no_target_has_are_refused() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let proxy = Proxy::to(&cloudbeds, &hotels).start().await;
    // The table of `wire` has the paths that can be written; these are the bytes that cannot.
    let mut targets: Vec<Vec<u8>> = [&b"/a`b"[..], b"/a?<", b"/a?>", b"/a?\""].map(<[u8]>::to_vec).to_vec();
    // Overlong and invalid UTF-8, raw and in the query, where valid UTF-8 passes.
    targets.extend([b"/\xc0\xae".to_vec(), b"/a\xff".to_vec(), b"/a?\xff".to_vec(), b"/a?b=M\xfcller".to_vec()]);
    targets
        .extend((1..=31).chain([0x7f]).filter(|byte| !b"\n\r".contains(byte)).map(|byte| vec![b'/', b'a', byte, b'b']));
    for target in targets {
        let shown = String::from_utf8_lossy(&target).into_owned();
        let answer = ask(&proxy, "GET", &target, "").await;
        assert_eq!(answer.status, 400, "{shown}: {}", answer.text());
        assert_eq!(answer.code(), "path_invalid", "{shown}");
        answer.assert_refused("path_invalid");
    }
    assert!(cloudbeds.requests().is_empty());
}

#[tokio::test]
async fn credential_paths_are_refused_unless_the_configuration_lets_them_through() {
    let paths = [
        "/api/v1.1/access_token",
        "/api/v1.3/access_token/",
        "/api/v1.3/Access_Token",
        "/api/v1.3/access%5ftoken",
        "/api/v1.3/%61ccess_token",
        "/api/v1.3/access_token;jsessionid=1",
        "/api/v1.3/access_token?grant_type=refresh_token",
        "/api/v1.2/oauth",
        "/api/v1.2/oauth?client_id=x",
        "/api/v1.2/oauth/authorize",
        "/api/v1.3/postAppState",
        "/api/v1.3/POSTAPPSTATE",
        "/payments/sdk-api/v1/keys",
        "/payments/sdk-api/v1/keys/",
        "/payments/sdk-api/v1/%6beys",
    ];
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let refusing = Proxy::to(&cloudbeds, &hotels).start().await;
    for path in paths {
        for method in ["GET", "POST", "OPTIONS"] {
            ask(&refusing, method, path, "").await.assert_refused("path_refused");
        }
    }
    assert!(cloudbeds.requests().is_empty());
    for (path, status) in [
        ("/api/v1.3/oauth/metadata", 404),
        ("/api/v1.3/getAppState", 200),
        ("/payments/sdk-api/v1/keychain", 404),
        ("/a?access_token", 404),
    ] {
        assert_eq!(ask(&refusing, "GET", path, "").await.status, status, "{path}");
        assert_eq!(cloudbeds.requests().pop().unwrap().target, path);
    }
    let allowing = Proxy::to(&cloudbeds, &hotels).config("policy: { credential_paths: allow }").start().await;
    for path in paths {
        ask(&allowing, "POST", path, "").await;
        assert_eq!(cloudbeds.requests().pop().unwrap().target, path);
    }
}

#[tokio::test]
async fn path_and_query_arrive_byte_for_byte() {
    // Every byte that may stand in a query, raw, in one go; and every other one percent-encoded.
    let mut all = String::from("/sandbox/echo?raw=");
    all.extend((0x21..0x7f_u8).filter(|byte| !b"\"#<>".contains(byte)).map(char::from));
    all.push_str("&encoded=");
    for byte in 0..=255_u8 {
        write!(all, "%{byte:02X}%{byte:02x}").unwrap();
    }
    let targets = [
        "/",
        "/?",
        "/a/",
        "/a?b?c",
        "/api/v1.3/getReservations?rooms%5B0%5D=1&rooms[1]=2&rooms[a][b]=%3A:,;",
        "/api/v1.3/getReservations?a=b&a=b&&=&=c&d",
        "/api/v1.3/getReservations?resultsFrom=2024-01-01+00:00:00&x=%20+%2B",
        "/a?url=https://example.com//x/../y?z=%2F..%2f",
        "/a?b=/../%2e%2e/./%5c\\|^{}`'",
        "/a?name=M\u{fc}ller&emoji=\u{1f3e8}&e=%E2%82%AC",
        "/a;v=1/b,c/d:e@f!$&'()*+=~_-.",
        "/rooms%5B0%5D/a%20b/%C3%BC/100%25/a%3Ab%2Cc%3bd",
        "/a...b/..c/d../.e",
        "/{a}/|/^/\"",
        "/%41%7A%2D",
        &all,
    ];
    for protocols in EITHER {
        let (cloudbeds, hotels) = cloudbeds(protocols).await;
        let proxy = Proxy::to(&cloudbeds, &hotels).start().await;
        for target in targets {
            let answer = ask(&proxy, "GET", target, "").await;
            assert!(matches!(answer.status.as_u16(), 200 | 404), "{target}: {}", answer.text());
            assert_eq!(cloudbeds.requests().pop().unwrap().target, *target, "{protocols:?}");
        }
    }
}
