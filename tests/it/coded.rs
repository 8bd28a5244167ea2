//! Stage 7 for coded answers: inspected in a decoded copy before they leave, byte for byte the same when they are clean.

use crate::harness::{EITHER, End, Origin};
use crate::sanitize::{ask, get, scene};

#[tokio::test]
async fn a_key_in_a_coded_body_ends_the_stream_before_it_leaves() {
    for protocols in EITHER {
        let scene = scene(protocols).await;
        let mut leaks = 0.0;
        for coding in ["gzip", "deflate", "raw-deflate", "br", "zstd"] {
            for switches in ["", "&chunk=1", "&chunk=7", "&pad=200000&chunk=1000"] {
                let target = format!("/sandbox/echo?coding={coding}{switches}");
                let (answer, line) = get(&scene.proxy, &target).await;
                leaks += 1.0;
                // What is in the first bytes is found before the head is shown; later only a cut is left.
                if answer.status == 502 {
                    answer.assert_refused("upstream_invalid");
                    continue;
                }
                assert!(!switches.is_empty(), "{target}: the whole body came at once");
                assert_eq!((answer.status.as_u16(), line.end), (200, End::Cut), "{target}");
                let name = if coding == "raw-deflate" { "deflate" } else { coding };
                assert_eq!(answer.header("content-encoding"), Some(name));
            }
        }
        assert!((scene.proxy.metric("leaks_stopped_total{where=\"coded\"}").await - leaks).abs() < 0.5);
        let line = scene.proxy.wait_for_access(|line| line["end"] == "cut").await;
        assert_eq!(line["code"], "upstream_invalid", "{line}");
    }
}

#[tokio::test]
async fn a_clean_coded_body_passes_byte_for_byte() {
    use std::io::Read as _;
    for protocols in EITHER {
        let scene = scene(protocols).await;
        let (plain, _) = get(&scene.proxy, "/sandbox/download?bytes=100000").await;
        for coding in ["gzip", "deflate", "raw-deflate", "br", "zstd", "identity"] {
            for switches in ["", "&chunked=1"] {
                let target = format!("/sandbox/download?bytes=100000&coding={coding}{switches}");
                let (answer, line) = get(&scene.proxy, &target).await;
                assert_eq!((answer.status.as_u16(), line.end), (200, End::Framed), "{target}");
                let mut decoded = Vec::new();
                match coding {
                    "gzip" => flate2::read::GzDecoder::new(&*answer.body).read_to_end(&mut decoded),
                    "deflate" => flate2::read::ZlibDecoder::new(&*answer.body).read_to_end(&mut decoded),
                    "raw-deflate" => flate2::read::DeflateDecoder::new(&*answer.body).read_to_end(&mut decoded),
                    "zstd" => ruzstd::decoding::StreamingDecoder::new(&*answer.body).unwrap().read_to_end(&mut decoded),
                    "br" => brotli_decompressor::Decompressor::new(&*answer.body, 4096).read_to_end(&mut decoded),
                    _ => (&*answer.body).read_to_end(&mut decoded),
                }
                .unwrap();
                assert!(decoded == plain.body, "{target}");
            }
        }
        assert!(scene.proxy.metric("leaks_stopped_total{where=\"coded\"}").await < 0.5);
    }
}

#[tokio::test]
async fn a_body_that_nobody_can_inspect_is_refused_or_cut() {
    let origin = Origin::start().await;
    let proxy = origin.proxy().await;
    let answer = |status: &str, lines: &str| {
        origin.answer(format!("HTTP/1.1 {status}\r\n{lines}Content-Length: 24\r\n\r\nnot coded, whatever said"))
    };
    for (status, lines) in [
        ("200 OK", "Content-Encoding: compress\r\n"),
        ("200 OK", "Content-Encoding: aes128gcm\r\n"),
        ("200 OK", "Content-Encoding: gzip, br\r\n"),
        ("200 OK", "Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n"),
        ("200 OK", "Content-Encoding: identity, dcb\r\n"),
        ("200 OK", "Content-Encoding: gzip;q=1\r\n"),
        ("206 Partial Content", "Content-Encoding: gzip\r\nContent-Range: bytes 5-13/20\r\n"),
        ("404 Not Found", "Content-Encoding: compress\r\n"),
    ] {
        answer(status, lines);
        get(&proxy, "/").await.0.assert_refused("upstream_invalid");
    }
    for coding in ["gzip", "br", "deflate", "zstd"] {
        answer("200 OK", &format!("Content-Encoding: {coding}\r\n"));
        get(&proxy, "/").await.0.assert_refused("upstream_invalid");
    }
    for lines in ["", "Content-Encoding: identity\r\n", "Content-Encoding:\r\n", "Content-Encoding: Identity, \r\n"] {
        answer("200 OK", lines);
        assert_eq!(get(&proxy, "/").await.0.text(), "not coded, whatever said", "{lines}");
    }
    // What has no body needs no inspection.
    origin.answer("HTTP/1.1 200 OK\r\nContent-Encoding: compress\r\nContent-Length: 9\r\n\r\n");
    let (head, _) = ask(&proxy, "HEAD / HTTP/1.1").await;
    assert_eq!((head.status.as_u16(), head.header("content-length")), (200, Some("9")));
}

#[tokio::test]
async fn where_it_is_accepted_in_words_an_unknown_coding_passes_and_nothing_else_does() {
    let origin = Origin::start().await;
    let words = "answers that nobody can search for keys may pass";
    let config = format!("policy: {{ unreadable_codings: {words} }}");
    let proxy = origin.builder().config(&config).start().await;
    let key = cloudbeds_auth_proxy::sandbox::random_key();
    let answer = |lines: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: {}\r\n\r\n", body.len());
        origin.answer([head.as_bytes(), body].concat());
    };
    let opaque = b"\xff\x00{\"success\":false} cbat, cbat_ and whatever else";
    for coding in ["compress", "aes128gcm", "identity, dcb", "gzip, dcb", "dcb, gzip"] {
        answer(&format!("Content-Encoding: {coding}\r\nX-Note: {key}\r\n"), opaque);
        let (passed, _) = get(&proxy, "/").await;
        assert_eq!((passed.status.as_u16(), &*passed.body), (200, &opaque[..]), "{coding}");
        assert_eq!(passed.header("content-encoding"), Some(coding));
        // Headers are searched as ever.
        assert_eq!(passed.header("x-note"), Some(&*format!("cbat_{}", "*".repeat(key.len() - 5))));
    }
    // Nor is it coded because its head says so.
    answer("Content-Encoding: compress\r\n", key.as_bytes());
    let (covered, _) = get(&proxy, "/").await;
    assert_eq!(covered.text(), format!("cbat_{}", "*".repeat(key.len() - 5)));
    // What is known and damaged, twice coded, or a part, is no unknown coding.
    for coding in ["gzip", "br", "deflate", "zstd", "gzip, br", "x-gzip, gzip"] {
        answer(&format!("Content-Encoding: {coding}\r\n"), b"not coded, whatever said");
        get(&proxy, "/").await.0.assert_refused("upstream_invalid");
    }
    origin.answer("HTTP/1.1 206 Partial Content\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\n\x1f");
    get(&proxy, "/").await.0.assert_refused("upstream_invalid");
    let (code, said) = origin.builder().config("policy: { unreadable_codings: allow }").refused().await;
    assert_eq!(code, Some(78));
    assert!(said.contains(&format!("write exactly \"{words}\"")), "{said}");
    let log = std::fs::read_to_string(proxy.path("log")).unwrap();
    assert!(
        log.contains("policy.unreadable_codings: answers in a coding that cannot be read pass unsearched"),
        "{log}"
    );
}

#[tokio::test]
async fn a_coded_answer_that_ends_too_soon_passes_and_a_key_in_its_own_bytes_does_not() {
    let origin = Origin::start().await;
    let proxy = origin.proxy().await;
    let answer = |coding: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n", body.len());
        origin.answer([head.as_bytes(), body].concat());
    };
    for (coding, body) in
        [("gzip", &b"\x1f"[..]), ("gzip", b"\x1f\x8b\x08"), ("deflate", b"\x78"), ("br", b"\x8b"), ("gzip", b"")]
    {
        answer(coding, body);
        let (passed, _) = get(&proxy, "/").await;
        assert_eq!((passed.status.as_u16(), &*passed.body), (200, body), "{coding} {body:?}");
    }
    // A gzip header has room for a name (RFC 1952 2.3.1), and a stored block is what it holds.
    let key = cloudbeds_auth_proxy::sandbox::random_key();
    let named = [b"\x1f\x8b\x08\x08\0\0\0\0\0\x03", key.as_bytes()].concat();
    let stored =
        [&b"\x01"[..], &(key.len() as u16).to_le_bytes(), &(!(key.len() as u16)).to_le_bytes(), key.as_bytes()];
    for (coding, body) in [("gzip", named), ("deflate", stored.concat())] {
        answer(coding, &body);
        let (refused, _) = get(&proxy, "/").await;
        refused.assert_refused("upstream_invalid");
        assert!(!refused.text().contains(&key[5..]), "{coding}");
    }
}
