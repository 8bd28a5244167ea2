//! An upstream that parses for itself and forgives nothing: it checks every byte of every request against what the proxy
//! promises, and answers with the bytes a case gives it.
//!
//! In: a case's answers. Out: the requests that arrived, and each fault found in them. It shares no parser with the proxy.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::case::Act;
use crate::harness::{Builder, HTTP1, Peer, Proxy, Upstream, key};

/// The judge and the keys it expects to see.
pub struct Judge {
    upstream: Upstream,
    keys: [(&'static str, String); 2],
    bench: Arc<Mutex<Bench>>,
}

/// What lies before the judge.
#[derive(Default)]
struct Bench {
    answers: VecDeque<Vec<Act>>,
    arrived: Vec<Arrived>,
    faults: Vec<String>,
}

/// One request.
#[derive(Debug, Default)]
pub struct Arrived {
    /// Method and target.
    pub line: Vec<u8>,
    pub fields: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    /// Whether its last byte came.
    pub whole: bool,
}

impl Arrived {
    pub fn values(&self, name: &str) -> Vec<Vec<u8>> {
        self.fields.iter().filter(|(other, _)| other == name).map(|(_, value)| value.clone()).collect()
    }
}

impl Judge {
    pub async fn start() -> Self {
        let keys = [("1001", key()), ("1002", key())];
        let bench = Arc::<Mutex<Bench>>::default();
        let shared = (Arc::clone(&bench), keys.clone());
        let upstream = Upstream::start(HTTP1, move |peer| {
            let (bench, keys) = shared.clone();
            async move { hear(peer, &bench, &keys).await }
        })
        .await;
        Self { upstream, keys, bench }
    }

    /// A proxy before it that knows properties 1001 and 1002.
    pub fn proxy(&self) -> Builder {
        let builder = Proxy::to_origin(&self.upstream.base_url(), self.upstream.root_pem());
        self.keys.iter().fold(builder, |builder, (property, key)| builder.key(property, key))
    }

    /// Host and port.
    pub fn authority(&self) -> String {
        self.upstream.base_url().trim_start_matches("https://").to_owned()
    }

    /// The key of property 1001.
    pub fn key(&self) -> &str {
        &self.keys[0].1
    }

    /// Begins a case: the next requests get these answers, each its own.
    pub fn open(&self, answers: &[Vec<Act>]) {
        *self.bench.lock().unwrap() = Bench { answers: answers.iter().cloned().collect(), ..Bench::default() };
    }

    /// Ends it: what arrived, but for the victims' requests, and what was wrong with any.
    pub fn close(&self) -> (Vec<Arrived>, Vec<String>) {
        let mut bench = self.bench.lock().unwrap();
        (std::mem::take(&mut bench.arrived), std::mem::take(&mut bench.faults))
    }
}

async fn hear(mut peer: Peer, bench: &Mutex<Bench>, keys: &[(&str, String)]) {
    loop {
        let Some(head) = peer.until(b"\r\n\r\n").await else {
            if !peer.unread().is_empty() {
                bench.lock().unwrap().faults.push(format!("half a head: {:?}", show(peer.unread())));
            }
            return;
        };
        let (mut arrived, framing, faults) = examine(&head, keys);
        if arrived.line == *b"GET /api/v1.3/userinfo" {
            // Not of any case: after an answer of 401 the proxy itself asks, at its own time, whether the key is dead.
            peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_vec()).await;
            continue;
        }
        bench.lock().unwrap().faults.extend(faults);
        let victim = arrived.line.starts_with(b"GET /victim?");
        let answers = if victim { None } else { bench.lock().unwrap().answers.pop_front() };
        let answers = answers.unwrap_or_else(|| {
            let body = if victim { [&arrived.line[4..], b" 1002"].concat() } else { b"ok".to_vec() };
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            // The answer to HEAD has no body (RFC 9110 9.3.2).
            let body = if arrived.line.starts_with(b"HEAD ") { Vec::new() } else { body };
            vec![Act::Bytes([head.into_bytes(), body].concat())]
        });
        let early = answers.contains(&Act::Early);
        let body = if early { Some(Vec::new()) } else { body(&mut peer, framing, bench).await };
        (arrived.whole, arrived.body) = (body.is_some() && !early, body.unwrap_or_default());
        let whole = arrived.whole;
        if whole && !peer.unread().is_empty() {
            bench.lock().unwrap().faults.push(format!("behind the request: {:?}", show(peer.unread())));
        }
        if victim && !arrived.values("x-property-id").contains(&b"1002".to_vec()) {
            bench.lock().unwrap().faults.push("a victim's request in another one's name".to_owned());
        }
        if !victim {
            bench.lock().unwrap().arrived.push(arrived);
        }
        if !whole && !early {
            return;
        }
        let mut bytewise = false;
        for act in answers {
            match act {
                Act::Bytes(bytes) if bytewise => {
                    for byte in bytes {
                        peer.write([byte]).await;
                        tokio::task::yield_now().await;
                    }
                }
                Act::Bytes(bytes) => peer.write(bytes).await,
                Act::Bytewise => bytewise = true,
                Act::Pause(time) => tokio::time::sleep(time).await,
                Act::Close => return peer.linger().await,
                Act::Reset => return peer.reset(),
                Act::Stop | Act::Early => {}
            }
        }
        if early {
            return peer.drain().await;
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Framing {
    None,
    Length(usize),
    Chunked,
}

/// Takes a head apart and judges it. The grammar is RFC 9112's, the rest what the proxy promises of every request.
fn examine(head: &[u8], keys: &[(&str, String)]) -> (Arrived, Framing, Vec<String>) {
    let mut faults = Vec::new();
    let mut fault = |what: &str, bytes: &[u8]| faults.push(format!("{what}: {:?}", show(bytes)));
    let mut arrived = Arrived::default();
    let mut lines = Vec::new();
    let mut rest = head;
    while let Some(at) = memchr::memmem::find(rest, b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.pop();
    if lines.iter().any(|line| line.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f)) {
        fault("a control byte in the head", head);
    }
    let parts: Vec<&[u8]> = lines[0].split(|byte| *byte == b' ').collect();
    match parts[..] {
        [method, target, b"HTTP/1.1"]
            if is_token(method)
                && target.starts_with(b"/")
                && !target.starts_with(b"//")
                && !target.contains(&b'#') =>
        {
            arrived.line = [method, b" ", target].concat();
        }
        _ => fault("the request line", lines[0]),
    }
    for line in &lines[1..] {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            fault("a line without a colon", line);
            continue;
        };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if !is_token(name) {
            fault("a field name", line);
        }
        arrived.fields.push((String::from_utf8_lossy(name).to_ascii_lowercase(), value.trim_ascii().to_vec()));
    }
    for (name, value) in &arrived.fields {
        let folded = name.replace('_', "-");
        let twin = folded != *name
            && ["host", "authorization", "cookie", "x-property-id", "x-api-key", "content-length", "transfer-encoding"]
                .contains(&&*folded);
        let gone = [
            "connection",
            "keep-alive",
            "proxy-connection",
            "te",
            "trailer",
            "upgrade",
            "http2-settings",
            "expect",
            "cookie",
            "x-api-key",
            "proxy-authorization",
            "forwarded",
            "x-real-ip",
            "range",
        ];
        if twin || gone.contains(&&*folded) || folded.starts_with("x-forwarded") {
            fault("a field that must not travel", &[name.as_bytes(), b": ", value].concat());
        }
    }
    let one = |name: &str| match &arrived.values(name)[..] {
        [value] => Some(value.clone()),
        _ => None,
    };
    let property = one("x-property-id").unwrap_or_default();
    match keys.iter().find(|(known, _)| known.as_bytes() == property) {
        Some((_, key)) if one("authorization") == Some(format!("Bearer {key}").into_bytes()) => {}
        Some(_) => fault("the credential", head),
        None => fault("the property", &property),
    }
    if one("host").is_none_or(|host| !host.starts_with(b"localhost:")) {
        fault("the host", head);
    }
    let (lengths, codings) = (arrived.values("content-length"), arrived.values("transfer-encoding"));
    let framing = match (&lengths[..], &codings[..]) {
        ([], []) => Framing::None,
        ([], [coding]) if coding == b"chunked" => Framing::Chunked,
        ([length], []) if length.iter().all(u8::is_ascii_digit) && (length.len() == 1 || length[0] != b'0') => {
            Framing::Length(String::from_utf8_lossy(length).parse().unwrap_or_default())
        }
        _ => {
            fault("the framing", head);
            Framing::None
        }
    };
    (arrived, framing, faults)
}

/// The body; `None` where the connection ends, or the coding breaks, before it does.
async fn body(peer: &mut Peer, framing: Framing, bench: &Mutex<Bench>) -> Option<Vec<u8>> {
    match framing {
        Framing::None => Some(Vec::new()),
        Framing::Length(length) => peer.exactly(length).await.map(|body| body.to_vec()),
        Framing::Chunked => {
            let mut body = Vec::new();
            loop {
                let line = peer.until(b"\r\n").await?;
                let digits = &line[..line.len() - 2];
                let size = std::str::from_utf8(digits).ok().and_then(|digits| usize::from_str_radix(digits, 16).ok());
                let chunk = match size {
                    Some(size) if digits.iter().all(u8::is_ascii_hexdigit) => peer.exactly(size + 2).await?,
                    _ => bytes::BytesMut::new(),
                };
                if !chunk.ends_with(b"\r\n") {
                    bench.lock().unwrap().faults.push(format!("a chunk: {:?}", show(&line)));
                    return None;
                }
                if size == Some(0) {
                    return Some(body);
                }
                body.extend_from_slice(&chunk[..chunk.len() - 2]);
            }
        }
    }
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// Bytes for a failure's message, at most a few.
pub fn show(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(300)].escape_ascii().to_string()
}
