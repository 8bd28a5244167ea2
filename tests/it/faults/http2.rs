//! What an HTTP/2 server does wrong, frame by frame, with the first request it gets; and how that must end.

use std::sync::{Arc, Mutex};

use super::REQUESTS;
use crate::harness::frames::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE, fields, frame, head_frames,
};
use crate::harness::{Caller, HTTP2, Peer, Proxy, Upstream, assert_clean, soon};

/// The first stream of a client.
const FIRST: u32 = 1;

/// What the server does once it has sent its bytes.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// It goes on as if nothing had been.
    Serve,
    Close,
    Reset,
}

/// What the caller sees.
#[derive(Clone, Copy, Debug)]
enum Ends {
    /// 502 with this code and RFC 9209's error type.
    With(&'static str, &'static str),
    /// A head, and a body that is visibly cut.
    Cut,
    /// The whole answer.
    Whole,
}

/// What the server breaks the rules with is no answer.
const INVALID: Ends = Ends::With("upstream_invalid", "http_protocol_error");
/// It ends the exchange, whatever it says about it.
const RESET: Ends = Ends::With("upstream_reset", "connection_terminated");

/// A head of the first stream: status 200 and further fields.
fn head(flags: u8, list: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, FIRST, &[&[0x88], &*fields(list.iter().copied())].concat())
}

fn data(flags: u8, text: &str) -> Vec<u8> {
    frame(DATA, flags, FIRST, text.as_bytes())
}

/// A head of so many fields, in as many frames as it takes.
fn large(count: usize, value: &str) -> Vec<u8> {
    head_frames(END_STREAM, FIRST, &[&[0x88], &*fields((0..count).map(|_| ("x", value)))].concat())
}

/// GOAWAY, with a key where servers give their reasons.
fn goaway(last: u32, code: u32, key: &str) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[&last.to_be_bytes(), &code.to_be_bytes(), key.as_bytes()].concat())
}

/// The faults: all that the server sends, from its first byte on. The key is wherever there is room for it.
fn all(key: &str) -> Vec<(&'static str, Vec<u8>, Then, Ends)> {
    use self::Then::{Close, Reset, Serve};
    const PROTOCOL_ERROR: u32 = 1;
    let settings = || frame(SETTINGS, 0, 0, &[]);
    let after_settings = |rest: &[&[u8]]| [&settings(), &*rest.concat()].concat();
    let part = format!("first {key} ");
    let (length, short) = ((part.len() + 6).to_string(), (part.len() - 1).to_string());
    let with_length = head(0, &[("content-length", &length)]);
    let window = frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes());
    let reset = frame(RST_STREAM, 0, FIRST, &PROTOCOL_ERROR.to_be_bytes());
    vec![
        (
            "an HTTP/1.1 status line",
            format!("HTTP/1.1 400 Bad Request\r\nx: {key}\r\n\r\n").into_bytes(),
            Close,
            INVALID,
        ),
        ("text behind settings", after_settings(&[format!("HTTP/1.1 200 OK\r\n\r\n{key}").as_bytes()]), Close, INVALID),
        (
            "a frame that is too large",
            after_settings(&[&frame(HEADERS, END_HEADERS, FIRST, &[0; 16_385])]),
            Close,
            INVALID,
        ),
        (
            "an index HPACK does not have",
            after_settings(&[&frame(HEADERS, END_HEADERS, FIRST, &[0xff; 6])]),
            Close,
            INVALID,
        ),
        (
            "HPACK that ends too early",
            after_settings(&[&frame(HEADERS, END_HEADERS, FIRST, &[0x88, 0, 9])]),
            Close,
            INVALID,
        ),
        ("one field of a megabyte", after_settings(&[&large(1, &"x".repeat(1 << 20))]), Close, INVALID),
        ("fields of a megabyte", after_settings(&[&large(1000, &"x".repeat(1000))]), Close, INVALID),
        ("fields of 100 kilobytes", after_settings(&[&large(100, &"x".repeat(1000))]), Serve, INVALID),
        ("a body before its head", after_settings(&[&data(0, &part)]), Serve, INVALID),
        (
            "a head without a status",
            after_settings(&[&frame(HEADERS, END_HEADERS, FIRST, &fields([("x", key)]))]),
            Serve,
            INVALID,
        ),
        (
            "a head with a length and no body",
            after_settings(&[&head(END_STREAM, &[("content-length", "20")])]),
            Serve,
            INVALID,
        ),
        ("a window beyond its end", after_settings(&[&window]), Close, INVALID),
        ("half a head, then a close", after_settings(&[&with_length[..12]]), Close, RESET),
        ("half a head, then a reset", after_settings(&[&with_length[..12]]), Reset, RESET),
        ("a stream that the server resets", after_settings(&[&reset]), Serve, RESET),
        ("GOAWAY instead of an answer", after_settings(&[&goaway(FIRST, PROTOCOL_ERROR, key)]), Close, RESET),
        ("the end short of the length", after_settings(&[&with_length, &data(END_STREAM, &part)]), Serve, Ends::Cut),
        (
            "more than the length",
            after_settings(&[&head(0, &[("content-length", &short)]), &data(0, &part)]),
            Serve,
            Ends::Cut,
        ),
        ("more than a frame holds", after_settings(&[&with_length, &data(0, &part), &[0xff; 100]]), Close, Ends::Cut),
        ("half a body, then a close", after_settings(&[&with_length, &data(0, &part)]), Close, Ends::Cut),
        (
            "half a body without a length, then a reset",
            after_settings(&[&head(0, &[]), &data(0, &part)]),
            Reset,
            Ends::Cut,
        ),
        (
            "GOAWAY in a body, then a close",
            after_settings(&[&with_length, &data(0, &part), &goaway(FIRST, 0, key)]),
            Close,
            Ends::Cut,
        ),
        (
            "GOAWAY in a body that it excludes",
            after_settings(&[&with_length, &data(0, &part), &goaway(0, 0, key)]),
            Close,
            Ends::Cut,
        ),
        (
            "GOAWAY in a body that goes on",
            after_settings(&[&with_length, &data(0, &part), &goaway(FIRST, 0, key), &data(END_STREAM, "second")]),
            Close,
            Ends::Whole,
        ),
    ]
}

/// Does so with the first request of the first connection, and serves all others.
async fn misbehave(mut peer: Peer, bytes: Arc<Vec<u8>>, then: Then) {
    if peer.number > 0 {
        peer.begin(&[]).await;
    } else {
        peer.exactly(24).await;
        while peer.silent_frame().await.is_some_and(|frame| !frame.is_last()) {}
        peer.write(&*bytes).await;
        match then {
            Then::Serve => {}
            Then::Close => return peer.linger().await,
            Then::Reset => return peer.reset(),
        }
    }
    while let Some(stream) = peer.asked().await {
        peer.answer_stream(stream).await;
    }
}

/// Each fault has its end, in good time and without the key, and the next request is served.
pub async fn assert_each_ends() {
    let key = crate::harness::key();
    for (what, bytes, then, ends) in all(&key) {
        let bytes = Arc::new(bytes);
        for (method, body) in REQUESTS {
            let what = format!("{method}, {what}");
            let bytes = Arc::clone(&bytes);
            let upstream = Upstream::start(HTTP2, move |peer: Peer| misbehave(peer, Arc::clone(&bytes), then)).await;
            let proxy = Proxy::to_origin(&upstream.base_url(), upstream.root_pem()).key("1001", &key);
            let proxy = proxy.config("workers: 1").start().await;
            if let Ends::With(code, error) = ends {
                let answer = soon(&what, proxy.call(method, "/fault").property("1001").body(body).send()).await;
                answer.assert_failed(502, code, error, &what);
                assert_eq!(upstream.connections(), 1, "{what}: it is not sent again");
            } else {
                soon(&what, assert_body(&proxy, method, body, matches!(ends, Ends::Cut), &key, &what)).await;
            }
            proxy.assert_serves(&what).await;
        }
    }
}

/// The answer is 200, and its body is cut, or whole.
async fn assert_body(proxy: &Proxy, method: &str, body: &str, cut: bool, key: &str, what: &str) {
    let mut caller = Caller::connect(proxy).await;
    caller.head(method, "/fault", &format!("connection: close\r\ncontent-length: {}\r\n", body.len())).await;
    caller.write(body).await;
    let head = caller.answer_head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{what}: {head}");
    let (rest, _) = caller.rest().await;
    assert_clean(what, rest.as_bytes(), &[key.to_owned()]);
    let line = proxy.wait_for_access(|line| line["path"] == "/fault").await;
    if cut {
        assert_eq!((&line["end"], &line["code"]), (&"cut".into(), &"upstream_reset".into()), "{what}: {line}");
        match head.split_once("content-length: ") {
            Some((_, length)) => {
                let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
                assert!(rest.len() < length, "{what}: {rest}");
            }
            None => assert!(!rest.contains("\r\n0\r\n"), "{what}: {rest}"),
        }
    } else {
        assert!(rest.starts_with("first ") && rest.ends_with(" second"), "{what}: {rest}");
    }
}

/// What is to be answered next: a head with anything in it, and a body.
type Next = Arc<Mutex<Option<Vec<u8>>>>;

/// Answers the next request with that head, and all others well.
async fn answer_with(mut peer: Peer, next: Next) {
    peer.begin(&[]).await;
    while let Some(stream) = peer.asked().await {
        let block = next.lock().unwrap().take();
        match block {
            None => peer.answer_stream(stream).await,
            Some(block) => {
                let head = frame(HEADERS, END_HEADERS, stream, &block);
                peer.write([head, frame(DATA, END_STREAM, stream, b"ok")].concat()).await;
            }
        }
    }
}

#[tokio::test]
async fn over_http2_a_malformed_head_is_no_answer_and_costs_no_other_request() {
    let next = Next::default();
    let shared = Arc::clone(&next);
    let upstream = Upstream::start(HTTP2, move |peer: Peer| answer_with(peer, Arc::clone(&shared))).await;
    let proxy = upstream.proxy().config("workers: 1").start().await;
    // RFC 9113 8.1.1: each of these is malformed, by 8.2.1, 8.2.2 or 8.3.
    let heads: [&[(&str, &str)]; 21] = [
        &[(":status", "200"), ("X-A", "b")],
        &[(":status", "200"), ("x-A", "b")],
        &[(":status", "200"), ("x a", "b")],
        &[(":status", "200"), ("x-a:", "b")],
        &[(":status", "200"), ("", "b")],
        &[(":status", "200"), ("x\u{e4}", "b")],
        &[(":status", "200"), ("x-a", "b\0c")],
        &[(":status", "200"), ("x-a", "b\r\nc: d")],
        &[(":status", "200"), ("x-a", "b\nc: d")],
        &[(":status", "200"), ("connection", "close")],
        &[(":status", "200"), ("proxy-connection", "close")],
        &[(":status", "200"), ("keep-alive", "timeout=5")],
        &[(":status", "200"), ("transfer-encoding", "chunked")],
        &[(":status", "200"), ("upgrade", "h2c")],
        &[(":status", "200"), (":x", "y")],
        &[(":status", "200"), (":path", "/")],
        &[(":status", "200"), (":status", "200")],
        &[("x-a", "b"), (":status", "200")],
        &[(":status", "20")],
        &[(":status", "OK")],
        &[(":status", "200"), ("content-length", "2"), ("content-length", "3")],
    ];
    let mut passed = Vec::new();
    for list in heads {
        for (method, body) in REQUESTS {
            let what = format!("{method}, {list:?}");
            *next.lock().unwrap() = Some(fields(list.iter().copied()));
            let answer = soon(&what, proxy.call(method, "/fault").property("1001").body(body).send()).await;
            if answer.status == 502 {
                answer.assert_failed(502, "upstream_invalid", "http_protocol_error", &what);
            } else {
                passed.push(what.clone());
            }
            proxy.assert_serves(&what).await;
        }
    }
    assert!(passed.is_empty(), "{passed:#?}");
}
