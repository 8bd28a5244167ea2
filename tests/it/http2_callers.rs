//! HTTP/2 from callers: streams that share a connection, and floods that end where they began. The questions of one
//! message each, with which HTTP/2 is held to the rules of HTTP/1.1 and to RFC 9113, are in `wire/http2/`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cloudbeds_auth_proxy::sandbox::{Hotel, Protocols, Sandbox};
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::Signal;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use crate::harness::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, fields,
    frame, get,
};
use crate::harness::{
    Answer, Authority, EITHER, Frames, HTTP1, Origin, Outcome, Peer, Proxy, Speaker, TLS, Upstream, cloudbeds, in_time,
    together, until,
};

const DETAILS: &str = "/api/v1.3/getHotelDetails";
const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

struct Scene {
    cloudbeds: Sandbox,
    hotels: Vec<Hotel>,
    root: String,
    proxy: Proxy,
}

async fn scene_with(protocols: Protocols, environment: &[(&str, &str)]) -> Scene {
    new_scene(protocols, environment, "trace,mio=info,polling=info").await
}

async fn new_scene(protocols: Protocols, environment: &[(&str, &str)], filter: &str) -> Scene {
    let (cloudbeds, hotels) = cloudbeds(protocols).await;
    let authority = Authority::new();
    let root = authority.pem();
    let mut builder = Proxy::to(&cloudbeds, &hotels).config(TLS).listener(&authority).log(filter);
    for (name, value) in environment {
        builder = builder.env(name, value);
    }
    let proxy = builder.start().await;
    Scene { cloudbeds, hotels, root, proxy }
}

async fn scene(environment: &[(&str, &str)]) -> Scene {
    scene_with(Protocols::Both, environment).await
}

/// A client library's end of a connection.
struct Client(http2::SendRequest<Full<Bytes>>, Vec<String>);

impl Scene {
    async fn client(&self) -> Client {
        let stream = Speaker { alpn: &["h2"], ..Speaker::new(&self.root) }.connect(self.proxy.address).await.unwrap();
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Client(sender, self.proxy.secrets.clone())
    }

    async fn frames(&self) -> Frames {
        Frames::to(&self.proxy, &self.root).await
    }

    /// Whether somebody else is still served.
    async fn still_serves(&self) {
        assert_eq!(self.client().await.get(DETAILS, "1001").await.status, StatusCode::OK);
    }
}

impl Client {
    async fn send(&self, request: http::request::Builder, body: impl Into<Bytes>) -> Answer {
        let request = request.body(Full::new(body.into())).unwrap();
        let answer = async {
            let (parts, body) = self.0.clone().send_request(request).await.unwrap().into_parts();
            assert_eq!(parts.version, Version::HTTP_2);
            Answer {
                status: parts.status,
                headers: parts.headers,
                body: body.collect().await.unwrap().to_bytes().to_vec(),
            }
        };
        let answer = in_time(answer).await;
        answer.assert_clean(&self.1);
        for name in ["connection", "keep-alive", "transfer-encoding", "upgrade", "proxy-connection"] {
            assert_eq!(answer.header(name), None, "RFC 9113 8.2.2");
        }
        answer
    }

    async fn get(&self, path: &str, property: &str) -> Answer {
        self.send(Request::get(format!("https://localhost{path}")).header("x-property-id", property), "").await
    }
}

#[tokio::test]
async fn requests_share_a_connection_and_each_has_its_own_answer() {
    for protocols in EITHER {
        let scene = scene_with(protocols, &[]).await;
        let client = scene.client().await;
        let calls = (0..60).map(|at| {
            let (client, hotel) = (&client, &scene.hotels[at % 2]);
            async move {
                let answer = client.get(&format!("{DETAILS}?n={at}"), &hotel.property.to_string()).await;
                assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
                assert_eq!(answer.json()["data"]["propertyID"], hotel.property.to_string());
            }
        });
        together(calls).await;
        let body = vec![b'x'; 1 << 20];
        let upload = Request::post("https://localhost/sandbox/upload").header("x-property-id", "1001");
        let answer = client.send(upload, body.clone()).await;
        assert_eq!((answer.status, &answer.json()["bytes"]), (StatusCode::OK, &body.len().into()));
        let answer = client.get("/sandbox/download?bytes=3000000", "1002").await;
        assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 3_000_000));
        let head = Request::head(format!("https://localhost{DETAILS}")).header("x-property-id", "1001");
        let answer = client.send(head, "").await;
        assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 0));
        // A failure of our own has no body there either.
        let answer = client.send(Request::head("https://localhost/"), "").await;
        assert_eq!((answer.status, answer.body.len()), (StatusCode::BAD_REQUEST, 0));
    }
}

#[tokio::test]
async fn failures_are_said_as_in_http1() {
    let scene = scene(&[]).await;
    let client = scene.client().await;
    client.send(Request::get("https://localhost/"), "").await.assert_refused("property_missing");
    client.get(DETAILS, "9").await.assert_refused("property_unknown");
    client.get("/api/v1.3/access_token", "1001").await.assert_refused("path_refused");
    let trace = Request::builder().method("TRACE").uri("https://localhost/").header("x-property-id", "1001");
    client.send(trace, "").await.assert_refused("method_refused");
    let expecting = Request::get("https://localhost/").header("x-property-id", "1001").header("expect", "a cake");
    assert_eq!(client.send(expecting, "").await.status.as_u16() / 100, 4);
    let line = scene.proxy.wait_for_access(|line| line["code"] == "property_unknown").await;
    assert_eq!(line["status"], 403);
    assert!(scene.cloudbeds.requests().is_empty());
}

#[tokio::test]
async fn a_body_of_another_length_than_announced_is_no_request() {
    let scene = scene(&[]).await;
    let mut frames = scene.frames().await;
    for (stream, length, sent) in [(1, "5", &b"abcdef"[..]), (3, "5", b"abcd")] {
        let list = [(":method", "POST"), (":scheme", "https"), (":authority", "a"), (":path", "/sandbox/upload")];
        let list = list.into_iter().chain([("x-property-id", "1001"), ("content-length", length)]);
        frames.send(&frame(HEADERS, END_HEADERS, stream, &fields(list))).await;
        frames.send(&frame(0, 1, stream, sent)).await;
        match frames.outcome(stream).await {
            Outcome::Reset(PROTOCOL_ERROR) => {}
            Outcome::Answered(body) => assert!(body.contains("request_invalid"), "{body}"),
            other => panic!("{other:?}"),
        }
    }
    scene.still_serves().await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let scene = scene(&[("CLIENT__MAX_HEAD_SIZE", "4KiB")]).await;
    let mut frames = scene.frames().await;
    let (some, long, huge) = ("x".repeat(3000), "x".repeat(5000), "x".repeat(15_000));
    for (stream, value, refused) in [(1, &some, false), (3, &long, true), (5, &huge, true)] {
        let mut list = get(DETAILS);
        list.push(("x-long", value));
        frames.head(stream, &list).await;
        match frames.outcome(stream).await {
            Outcome::Answered(body) if refused => assert!(body.contains("headers_too_large"), "{body}"),
            Outcome::Answered(body) => assert!(body.contains("\"success\":true"), "{body}"),
            other => panic!("{stream}: {other:?}"),
        }
    }
    // The largest are refused by h2, which has no words for it.
    let piece = ["x".repeat(8000), "y".repeat(8000), "z".repeat(8000)];
    frames.send(&frame(HEADERS, END_STREAM, 7, &fields(get(DETAILS)))).await;
    frames.send(&frame(CONTINUATION, 0, 7, &fields([("x-a", &*piece[0])]))).await;
    frames.send(&frame(CONTINUATION, 0, 7, &fields([("x-b", &*piece[1])]))).await;
    frames.send(&frame(CONTINUATION, END_HEADERS, 7, &fields([("x-c", &*piece[2])]))).await;
    match frames.outcome(7).await {
        Outcome::Answered(body) => assert_eq!(body, ""),
        Outcome::Reset(_) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(scene.cloudbeds.requests().len(), 1);
    scene.still_serves().await;
}

#[tokio::test]
async fn a_body_whose_stream_is_given_up_never_arrives_whole() {
    let ended = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ended);
    let upstream = Upstream::start(HTTP1, move |mut peer: Peer| {
        let count = Arc::clone(&count);
        async move {
            peer.log_all().await;
            count.fetch_add(1, Ordering::Relaxed);
        }
    })
    .await;
    let authority = Authority::new();
    let proxy = upstream.proxy().config(TLS).listener(&authority).start().await;
    let mut post = get(DETAILS);
    post[0] = (":method", "POST");
    let arrived = || upstream.received().last().cloned().unwrap_or_default();
    // NO_ERROR and CANCEL too: only END_STREAM is an end (RFC 9113 8.1).
    for (at, code) in [0, 2, 8].into_iter().enumerate() {
        let mut frames = Frames::to(&proxy, &authority.pem()).await;
        frames.send(&frame(HEADERS, END_HEADERS, 1, &fields(post.clone()))).await;
        frames.send(&frame(DATA, 0, 1, b"half")).await;
        until("half of it arrives", async || upstream.connections() == at + 1 && arrived().contains("half")).await;
        frames.send(&frame(RST_STREAM, 0, 1, &[0, 0, 0, code])).await;
        until("Cloudbeds is told", async || ended.load(Ordering::Relaxed) == at + 1).await;
        assert!(arrived().ends_with("\r\n4\r\nhalf\r\n"), "{code}: {}", arrived());
    }
    let mut frames = Frames::to(&proxy, &authority.pem()).await;
    frames.send(&frame(HEADERS, END_HEADERS, 1, &fields(post.clone()))).await;
    frames.send(&frame(DATA, END_STREAM, 1, b"half")).await;
    until("all of it arrives", async || arrived().ends_with("\r\n4\r\nhalf\r\n0\r\n\r\n")).await;
}

#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let scene = scene(&[]).await;
    // All at once (CVE-2023-44487).
    let mut frames = scene.frames().await;
    let head = fields(get("/sandbox/slow?first_byte_ms=60000"));
    let mut flood = Vec::new();
    for at in 0..2000 {
        flood.extend(frame(HEADERS, END_HEADERS | 1, 2 * at + 1, &head));
        flood.extend(frame(RST_STREAM, 0, 2 * at + 1, &[0, 0, 0, 8]));
    }
    frames.send(&flood).await;
    assert_eq!(frames.outcome(1).await, Outcome::Gone(ENHANCE_YOUR_CALM));
    // One after the other, each given time to start.
    let mut frames = scene.frames().await;
    let mut ended = false;
    for at in 0..400 {
        frames.send(&frame(HEADERS, END_HEADERS | 1, 2 * at + 1, &head)).await;
        frames.send(&frame(PING, 0, 0, &[0; 8])).await;
        loop {
            match frames.next().await {
                Some(answer) if answer.kind == PING && answer.flags == 1 => break,
                Some(answer) if answer.kind != GOAWAY => {}
                _ => {
                    ended = true;
                    break;
                }
            }
        }
        if ended {
            break;
        }
        frames.send(&frame(RST_STREAM, 0, 2 * at + 1, &[0, 0, 0, 8])).await;
    }
    assert!(ended);
    assert!(scene.cloudbeds.requests().len() < 350, "{}", scene.cloudbeds.requests().len());
    scene.still_serves().await;
}

#[tokio::test]
async fn a_flood_of_resets_that_overlooks_its_end_is_cut_off() {
    let scene = scene(&[]).await;
    let mut frames = scene.frames().await;
    let head = fields(get("/sandbox/slow?first_byte_ms=60000"));
    let flood = async {
        for at in 0.. {
            frames.send(&frame(HEADERS, END_HEADERS | 1, 2 * at + 1, &head)).await;
            // Each is given time to start.
            frames.send(&frame(PING, 0, 0, &[0; 8])).await;
            loop {
                match frames.next().await {
                    Some(answer) if answer.kind == PING && answer.flags == 1 => break,
                    Some(_) => {}
                    None => return,
                }
            }
            frames.send(&frame(RST_STREAM, 0, 2 * at + 1, &[0, 0, 0, 8])).await;
            if at > 100 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    in_time(flood).await;
    // What came after the end was announced went no further.
    assert!(scene.cloudbeds.requests().len() < 150, "{}", scene.cloudbeds.requests().len());
    scene.still_serves().await;
}

#[tokio::test]
async fn a_caller_that_overlooks_the_end_is_refused_further_requests_and_let_go() {
    let scene = scene(&[("CLIENT__IDLE", "400ms")]).await;
    let mut frames = scene.frames().await;
    // The PING that would let h2 take no further streams is left unanswered.
    assert_eq!(frames.outcome(0).await, Outcome::Gone(0));
    let mut outcomes = Vec::new();
    let asking = async {
        for at in 0.. {
            frames.head(2 * at + 1, &get(DETAILS)).await;
            let outcome = frames.outcome(2 * at + 1).await;
            if matches!(outcome, Outcome::Gone(_) | Outcome::Closed) {
                return;
            }
            outcomes.push(outcome);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    in_time(asking).await;
    const REFUSED_STREAM: u32 = 7;
    assert!(matches!(&outcomes[0], Outcome::Answered(body) if body.contains("\"success\":true")), "{outcomes:?}");
    assert_eq!(outcomes.last(), Some(&Outcome::Reset(REFUSED_STREAM)));
    scene.proxy.wait_for_metric("connections_open", |open| open == 0.0).await;
}

#[tokio::test]
async fn a_head_that_never_ends_ends_the_connection() {
    let scene = scene(&[]).await;
    // CVE-2024-27316 and its kin.
    for (first, more) in [(fields(get(DETAILS)), fields([("x-more", "y")])), (fields(get(DETAILS)), Vec::new())] {
        let before = scene.proxy.memory().0;
        let mut frames = scene.frames().await;
        frames.send(&frame(HEADERS, 0, 1, &first)).await;
        let flood: Vec<u8> = std::iter::repeat_n(frame(CONTINUATION, 0, 1, &more), 20_000).flatten().collect();
        frames.send(&flood).await;
        assert_eq!(frames.outcome(1).await, Outcome::Gone(ENHANCE_YOUR_CALM));
        assert!(scene.proxy.memory().0 < before + (20 << 20));
    }
    assert!(scene.cloudbeds.requests().is_empty());
    scene.still_serves().await;
}

#[tokio::test]
async fn pings_and_settings_that_nobody_waits_for_take_no_memory_and_no_connection() {
    let scene = new_scene(Protocols::Both, &[("CLIENT__IDLE", "400ms")], "info").await;
    for flood in [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, &[])] {
        let mut frames = scene.frames().await;
        let before = scene.proxy.memory().0;
        let block: Vec<u8> = std::iter::repeat_n(flood, 5_000).flatten().collect();
        for _ in 0..100 {
            // The proxy stops reading where its own answers are not read: that is the bound.
            let sent = tokio::io::AsyncWriteExt::write_all(&mut frames.writer, &block);
            match tokio::time::timeout(Duration::from_millis(300), sent).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => break,
            }
        }
        let after = scene.proxy.memory().0;
        assert!(after < before + (20 << 20), "{before} {after}");
        scene.still_serves().await;
        // The end that nobody reads is not waited for either, while the caller keeps its side open.
        scene.proxy.wait_for_metric("connections_open", |open| open == 0.0).await;
        drop(frames);
    }
}

#[tokio::test]
async fn more_streams_than_announced_are_refused_and_windows_are_kept() {
    let scene = scene(&[]).await;
    let mut frames = scene.frames().await;
    let head = fields(get("/sandbox/slow?first_byte_ms=60000"));
    for at in 0..101 {
        frames.send(&frame(HEADERS, END_HEADERS | 1, 2 * at + 1, &head)).await;
    }
    const REFUSED_STREAM: u32 = 7;
    assert_eq!(frames.outcome(201).await, Outcome::Reset(REFUSED_STREAM));
    // More of a body than the window allows is a fault of the connection or the stream.
    const FLOW_CONTROL_ERROR: u32 = 3;
    let mut frames = scene.frames().await;
    let list =
        [(":method", "POST"), (":scheme", "https"), (":authority", "a"), (":path", "/sandbox/upload?hang_after=1")];
    let list = list.into_iter().chain([("x-property-id", "1001")]);
    frames.send(&frame(HEADERS, END_HEADERS, 1, &fields(list))).await;
    let flood: Vec<u8> = std::iter::repeat_n(frame(0, 0, 1, &[0; 16_000]), 400).flatten().collect();
    frames.send(&flood).await;
    let outcome = frames.outcome(1).await;
    assert!(matches!(outcome, Outcome::Reset(FLOW_CONTROL_ERROR) | Outcome::Gone(FLOW_CONTROL_ERROR)), "{outcome:?}");
    scene.still_serves().await;
}

#[tokio::test]
async fn a_connection_with_nothing_to_do_ends_however_much_it_pings() {
    let scene = scene(&[("CLIENT__IDLE", "400ms")]).await;
    let mut quiet = scene.frames().await;
    assert_eq!(quiet.outcome(0).await, Outcome::Gone(0));
    let mut lively = scene.frames().await;
    let pinging = async {
        loop {
            lively.send(&frame(PING, 0, 0, &[0; 8])).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            let mut gone = false;
            while let Ok(next) = tokio::time::timeout(Duration::from_millis(1), lively.next()).await {
                gone |= next.is_none();
                if gone {
                    return;
                }
            }
        }
    };
    in_time(pinging).await;
    // One that has a request under way is not idle.
    let mut busy = scene.frames().await;
    busy.head(1, &get("/sandbox/slow?first_byte_ms=1200")).await;
    assert!(matches!(busy.outcome(1).await, Outcome::Answered(_)));
    scene.proxy.wait_for_metric("connections_open", |open| open == 0.0).await;
}

#[tokio::test]
async fn a_connection_without_a_first_head_ends_when_the_time_for_one_is_over() {
    let scene = scene(&[("CLIENT__HEAD_TIMEOUT", "1s")]).await;
    let mut asking = scene.frames().await;
    asking.head(1, &get(DETAILS)).await;
    assert!(matches!(asking.outcome(1).await, Outcome::Answered(_)));
    let mut silent = scene.frames().await;
    let mut halfway = scene.frames().await;
    halfway.send(&frame(HEADERS, 0, 1, &fields(get(DETAILS)))).await;
    assert_eq!(silent.outcome(0).await, Outcome::Gone(0));
    assert_eq!(halfway.outcome(0).await, Outcome::Gone(0));
    // Who has asked once has client.idle for the next.
    asking.head(3, &get(DETAILS)).await;
    assert!(matches!(asking.outcome(3).await, Outcome::Answered(body) if body.contains("\"success\":true")));
}

#[tokio::test]
async fn a_slow_reader_that_goes_on_reading_gets_its_whole_answer() {
    let origin = Origin::start().await;
    // What is coded so leaves in one piece, once all of it was searched.
    let body = compress_to_vec(&vec![b'x'; 1_000_000][..], CompressionLevel::Uncompressed);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: zstd\r\nContent-Length: {}\r\n\r\n", body.len());
    origin.answer([head.as_bytes(), &body].concat());
    let authority = Authority::new();
    let root = authority.pem();
    // A connection with an answer under way is not idle, nor is the answer unread.
    let builder = origin.builder().config(TLS).listener(&authority);
    let proxy = builder.env("CLIENT__IDLE", "400ms").env("UPSTREAM__TIMEOUTS__IDLE", "1500ms").start().await;
    let mut frames = Frames::to(&proxy, &root).await;
    frames.send(&frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes())).await;
    frames.head(1, &get(DETAILS)).await;
    // In four seconds 160 KB beyond the first window, and then the rest.
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        frames.send(&frame(WINDOW_UPDATE, 0, 1, &4096_u32.to_be_bytes())).await;
    }
    frames.send(&frame(WINDOW_UPDATE, 0, 1, &(1_u32 << 30).to_be_bytes())).await;
    match frames.outcome(1).await {
        Outcome::Answered(read) => assert_eq!(read, String::from_utf8_lossy(&body)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_let_go_and_its_neighbours_are_not() {
    let scene = scene(&[("UPSTREAM__TIMEOUTS__IDLE", "600ms")]).await;
    let mut frames = scene.frames().await;
    // Room for the neighbours on the connection; none for the stream beyond its first window.
    frames.send(&frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 20).to_be_bytes())).await;
    frames.head(1, &get("/sandbox/download?bytes=50000000")).await;
    scene.proxy.wait_for_access(|line| line["path"] == "/sandbox/download" && line["status"] == 200).await;
    frames.head(3, &get(DETAILS)).await;
    assert!(matches!(frames.outcome(3).await, Outcome::Answered(body) if body.contains("\"success\":true")));
    // Its caller comes back too late.
    frames.send(&frame(WINDOW_UPDATE, 0, 1, &(1_u32 << 20).to_be_bytes())).await;
    assert!(matches!(frames.outcome(1).await, Outcome::Reset(_)));
}

#[tokio::test]
async fn a_body_that_stalls_is_answered_within_its_deadline() {
    let scene = scene(&[("UPSTREAM__TIMEOUTS__IDLE", "400ms")]).await;
    let mut frames = scene.frames().await;
    let list = [(":method", "POST"), (":scheme", "https"), (":authority", "a"), (":path", "/sandbox/upload")];
    let list: Vec<_> = list.into_iter().chain([("x-property-id", "1001"), ("content-length", "10")]).collect();
    frames.send(&frame(HEADERS, END_HEADERS, 1, &fields(list.clone()))).await;
    frames.send(&frame(0, 0, 1, b"abc")).await;
    assert!(matches!(frames.outcome(1).await, Outcome::Answered(body) if body.contains("request_invalid")));
    // So is one whose caller waits for a 100, which is not sent in HTTP/2.
    frames.send(&frame(HEADERS, END_HEADERS, 3, &fields(list.into_iter().chain([("expect", "100-continue")])))).await;
    assert!(matches!(frames.outcome(3).await, Outcome::Answered(body) if body.contains("request_invalid")));
    frames.head(5, &get(DETAILS)).await;
    assert!(matches!(frames.outcome(5).await, Outcome::Answered(body) if body.contains("\"success\":true")));
}

#[tokio::test]
async fn a_process_that_ends_says_goaway_and_finishes_what_is_under_way() {
    let mut scene = scene(&[]).await;
    let mut idle = scene.frames().await;
    let mut busy = scene.frames().await;
    busy.head(1, &get("/sandbox/slow?first_byte_ms=1500")).await;
    until("the request is under way", async || scene.cloudbeds.requests().len() == 1).await;
    scene.proxy.signal(Signal::TERM);
    assert_eq!(idle.outcome(0).await, Outcome::Gone(0));
    assert!(matches!(busy.outcome(1).await, Outcome::Answered(_)));
    drop((idle, busy));
    assert!(in_time(scene.proxy.ended()).await.success());
}

#[tokio::test]
async fn http2_is_offered_unless_it_is_switched_off() {
    let scene = scene(&[("TLS__HTTP2", "false")]).await;
    let both = Speaker { alpn: &["h2", "http/1.1"], ..Speaker::new(&scene.root) };
    let stream = both.connect(scene.proxy.address).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert!(Speaker { alpn: &["h2"], ..Speaker::new(&scene.root) }.connect(scene.proxy.address).await.is_err());
}
