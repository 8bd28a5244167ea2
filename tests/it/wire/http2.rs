//! The cases of HTTP/2, asked frame by frame; every answer is held to RFC 9113.
//!
//! In: a case of a file in `http2/` and a proxy. Out: a failure, or nothing.

pub mod case;

use std::collections::HashMap;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use self::case::{Step, Work, frames};
use super::case::{Case, End};
use super::compare::{self, is_invalid};
use super::judge::said::Form;
use super::judge::show;
use crate::harness::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, frame,
};
use crate::harness::{Answer, Frames, Proxy, Speaker, hpack};

const ACK: u8 = 1;

/// What came back on a stream.
#[derive(Debug, Default)]
struct Heard {
    heads: Vec<Vec<(String, String)>>,
    body: Vec<u8>,
    ended: bool,
    reset: Option<u32>,
}

/// A connection, and what has come back on it.
struct Connection {
    frames: Frames,
    streams: HashMap<u32, Heard>,
    gone: Option<u32>,
    closed: bool,
    secrets: Vec<String>,
}

impl Connection {
    async fn to(proxy: &Proxy, root: &str) -> Self {
        let speaker = Speaker { alpn: &["h2"], ..Speaker::new(root) };
        let frames = Frames::by(&speaker, proxy, &[]).await;
        let (streams, secrets) = (HashMap::new(), proxy.secrets.clone());
        Self { frames, streams, gone: None, closed: false, secrets }
    }

    async fn until(&mut self, so: impl Fn(&Self) -> bool) {
        while !so(self) && !self.closed {
            self.hear().await;
        }
    }

    async fn hear(&mut self) {
        let Some(mut next) = self.frames.next().await else {
            self.closed = true;
            return;
        };
        let code = |at: usize| u32::from_be_bytes(next.payload[at..at + 4].try_into().unwrap());
        match next.kind {
            GOAWAY => self.gone = Some(code(4)),
            SETTINGS if next.flags & ACK == 0 => self.frames.send(&frame(SETTINGS, ACK, 0, &[])).await,
            PING if next.flags & ACK == 0 => {
                self.frames.send(&frame(PING, ACK, 0, &next.payload)).await;
            }
            RST_STREAM => self.streams.entry(next.stream).or_default().reset = Some(code(0)),
            HEADERS => {
                let mut flags = next.flags;
                while flags & END_HEADERS == 0 {
                    let more = self.frames.next().await.expect("the rest of a head");
                    assert_eq!((more.kind, more.stream), (CONTINUATION, next.stream), "RFC 9113 6.10");
                    flags |= more.flags & END_HEADERS;
                    next.payload.extend(more.payload);
                }
                let heard = self.streams.entry(next.stream).or_default();
                assert!(!heard.ended && heard.body.is_empty(), "a head behind the answer's end, or trailers");
                heard.heads.push(hpack::fields(&next.payload));
                heard.ended = next.flags & END_STREAM != 0;
            }
            DATA => {
                let heard = self.streams.entry(next.stream).or_default();
                assert!(!heard.ended && !heard.heads.is_empty(), "DATA where none belongs");
                heard.body.extend(&next.payload);
                heard.ended = next.flags & END_STREAM != 0;
            }
            CONTINUATION => panic!("a CONTINUATION of nothing"),
            _ => {}
        }
    }

    /// The stream's end, however it comes.
    async fn ended(&mut self, stream: u32) {
        self.until(|it| it.streams.get(&stream).is_some_and(|heard| heard.ended || heard.reset.is_some())).await;
    }

    /// One of the stream's heads as an answer, with the body if it is the last.
    fn answer(&self, stream: u32, number: usize, head_only: bool) -> Option<Answer> {
        let heard = self.streams.get(&stream)?;
        let fields = heard.heads.get(number)?;
        let (mut headers, mut status) = (HeaderMap::new(), None);
        for (name, value) in fields {
            if name == ":status" {
                assert!(status.is_none() && headers.is_empty(), "one status, before the fields (RFC 9113 8.3)");
                status = Some(StatusCode::from_bytes(value.as_bytes()).unwrap());
                continue;
            }
            let lower = name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':' && !byte.is_ascii_uppercase());
            assert!(lower, "a name as RFC 9113 8.2.1 has it: {name}");
            let of_the_hop = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
            assert!(!of_the_hop.contains(&&**name), "a connection-specific field (RFC 9113 8.2.2): {name}");
            headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
        }
        let status = status.expect("a status");
        let last = number + 1 == heard.heads.len();
        assert_eq!(status.is_informational(), !last, "only interim answers come before another: {status}");
        let body = if last { heard.body.clone() } else { Vec::new() };
        if head_only || matches!(status.as_u16(), 204 | 304) {
            assert!(body.is_empty(), "an answer without a body has one (RFC 9110 6.4.1)");
        } else if let (Some(length), true) = (headers.get("content-length"), last && heard.reset.is_none()) {
            assert_eq!(length.to_str().unwrap(), body.len().to_string(), "RFC 9113 8.1.1");
        }
        let answer = Answer { status, headers, body };
        answer.assert_clean(&self.secrets);
        Some(answer)
    }

    async fn ask_for_own(&mut self, stream: u32, victim: &str, place: &str) {
        let list = [(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", victim)];
        let list: Vec<_> = list.into_iter().chain([("x-property-id", "1002")]).collect();
        self.frames.head(stream, &list).await;
        self.ended(stream).await;
        let answer = self.answer(stream, 0, false);
        let answer =
            answer.unwrap_or_else(|| panic!("the victim {place}: {:?} {:?}", self.gone, self.streams.get(&stream)));
        assert_eq!((answer.status.as_u16(), answer.text()), (200, format!("{victim} 1002")), "the victim {place}");
    }
}

/// Sends the case, checks what comes back, and lets a victim ask behind it: on the same connection where it stays open,
/// and on one of its own.
pub async fn exchange(proxy: &Proxy, root: &str, case: &Case<Step>, form: Form, victim: &str) {
    let mut connection = Connection::to(proxy, root).await;
    let (work, after) = frames(&case.sends);
    let mut bytes = Vec::new();
    for work in work {
        match work {
            Work::Send { kind, flags, stream, payload } => bytes.extend(frame(kind, flags, stream, &payload)),
            Work::Pause(time) => {
                connection.frames.send(&std::mem::take(&mut bytes)).await;
                tokio::time::sleep(time).await;
            }
            Work::Wait(stream) => {
                connection.frames.send(&std::mem::take(&mut bytes)).await;
                connection.until(|it| it.streams.contains_key(&stream)).await;
            }
        }
    }
    connection.frames.send(&bytes).await;
    let (mut stream, mut head, mut answered) = (1, 0, 0);
    for back in &case.comes_back {
        let place = format!("stream {stream}, head {head}");
        if matches!(case.end, End::Gone(_)) && back.status == 0 && back.reset.is_none() {
            connection.until(|_| false).await;
            continue;
        }
        // A stream that its caller gave up has no end of its own.
        if back.status > 0 || back.reset.is_some() {
            connection.ended(stream).await;
        }
        let heard = connection.streams.get(&stream);
        let last = back.status == 0 || back.status >= 200;
        if last {
            let reset = heard.and_then(|heard| heard.reset);
            // An answer that came before its request was read may ask for no more of it (RFC 9113 8.1).
            let whole = heard.is_some_and(|heard| heard.ended) && reset == Some(0);
            let reset = reset.filter(|_| !whole);
            let cut = form == Form::MalformedBody && reset.is_some();
            assert!(reset == back.reset || cut, "{place}: how the stream ends, {heard:?} {:?}", connection.gone);
        }
        match connection.answer(stream, head, back.head) {
            Some(answer) if form != Form::Sound && is_invalid(&answer) => {}
            Some(answer) if back.status > 0 => {
                compare::answer(&answer, back, answered, case.answers.len() <= answered);
            }
            None if back.status == 0 => {}
            other => panic!("{place}: {:?}, not {}", other.map(|answer| answer.status), back.status),
        }
        if last {
            (stream, head, answered) = (stream + 2, 0, answered + 1);
        } else {
            head += 1;
        }
    }
    match case.end {
        End::Kept => connection.ask_for_own(after, victim, "on the same connection").await,
        End::Gone(code) => {
            connection.until(|_| false).await;
            assert_eq!(connection.gone, Some(code), "how the connection ends; {:?}", connection.streams);
        }
        other => panic!("no end in HTTP/2: {other:?}"),
    }
    let unasked: Vec<_> = connection.streams.keys().filter(|known| **known == 0 || **known > after).collect();
    assert!(unasked.is_empty(), "{unasked:?}: {}", show(victim.as_bytes()));
    Connection::to(proxy, root).await.ask_for_own(1, victim, "on its own connection").await;
}
