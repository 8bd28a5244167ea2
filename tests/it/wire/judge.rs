//! An upstream that parses for itself and forgives nothing: it checks every byte of every request against what the proxy
//! promises, and answers with the bytes a case gives it, or with what they say in HTTP/2.
//!
//! In: a case's answers. Out: the requests that arrived, and each fault found in them. It shares no parser with the proxy.

mod http1;
mod http2;
pub mod said;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::case::Act;
use crate::harness::{Builder, HTTP1, HTTP2, Proxy, Upstream, key};

/// The versions of HTTP that a judge may speak.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    Http1,
    Http2,
}

/// The judge and the keys it expects to see.
pub struct Judge {
    upstream: Upstream,
    keys: Keys,
    bench: Arc<Mutex<Bench>>,
}

/// Properties and their keys.
type Keys = [(&'static str, String); 2];

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
    /// In HTTP/2 `host` stands for `:authority`, as RFC 9113 8.3.1 has it.
    pub fields: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    /// Whether its last byte came.
    pub whole: bool,
}

impl Arrived {
    pub fn values(&self, name: &str) -> Vec<Vec<u8>> {
        self.fields.iter().filter(|(other, _)| other == name).map(|(_, value)| value.clone()).collect()
    }

    fn is_victims(&self) -> bool {
        self.line.starts_with(b"GET /victim?")
    }

    /// Of no case: after an answer of 401 the proxy itself asks, at its own time, whether the key is dead.
    fn is_proxys_own(&self) -> bool {
        self.line == *b"GET /api/v1.3/userinfo"
    }

    /// What is wrong with its fields, whatever version they came in.
    fn faults(&self, keys: &Keys) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |what: &str, bytes: &[u8]| faults.push(format!("{what}: {:?}", show(bytes)));
        for (name, value) in &self.fields {
            let folded = name.replace('_', "-");
            let twin = folded != *name && TWINS.contains(&&*folded);
            if twin || GONE.contains(&&*folded) || folded.starts_with("x-forwarded") {
                fault("a field that must not travel", &[name.as_bytes(), b": ", value].concat());
            }
        }
        let one = |name: &str| match &self.values(name)[..] {
            [value] => Some(value.clone()),
            _ => None,
        };
        let property = one("x-property-id").unwrap_or_default();
        match keys.iter().find(|(known, _)| known.as_bytes() == property) {
            Some((_, key)) if one("authorization") == Some(format!("Bearer {key}").into_bytes()) => {}
            Some(_) => fault("the credential", &self.line),
            None => fault("the property", &property),
        }
        if one("host").is_none_or(|host| !host.starts_with(b"localhost:")) {
            fault("the host", &self.line);
        }
        if self.is_victims() && property != b"1002" {
            fault("a victim's request in another one's name", &property);
        }
        faults
    }
}

/// Names whose underscore twins must not arrive.
const TWINS: [&str; 7] =
    ["host", "authorization", "cookie", "x-property-id", "x-api-key", "content-length", "transfer-encoding"];

/// Fields that must not.
const GONE: [&str; 14] = [
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

impl Judge {
    pub async fn start(version: Version) -> Self {
        let keys = [("1001", key()), ("1002", key())];
        let bench = Arc::<Mutex<Bench>>::default();
        let shared = (Arc::clone(&bench), keys.clone());
        let manner = if version == Version::Http1 { HTTP1 } else { HTTP2 };
        let upstream = Upstream::start(manner, move |peer| {
            let (bench, keys) = shared.clone();
            async move {
                match version {
                    Version::Http1 => http1::hear(peer, &bench, &keys).await,
                    Version::Http2 => http2::hear(peer, &bench, &keys).await,
                }
            }
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

impl Bench {
    /// How a request that has begun is answered.
    fn answer(&mut self, arrived: &Arrived) -> Vec<Act> {
        let body = if arrived.is_proxys_own() {
            b"{}".to_vec()
        } else if arrived.is_victims() {
            [&arrived.line[4..], b" 1002"].concat()
        } else if let Some(answer) = self.answers.pop_front() {
            return answer;
        } else {
            b"ok".to_vec()
        };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        // The answer to HEAD has no body (RFC 9110 9.3.2).
        let body = if arrived.line.starts_with(b"HEAD ") { Vec::new() } else { body };
        vec![Act::Bytes([head.into_bytes(), body].concat())]
    }

    /// Keeps what has come of a request, if it is a case's.
    fn keep(&mut self, arrived: Arrived) {
        if !arrived.is_victims() && !arrived.is_proxys_own() {
            self.arrived.push(arrived);
        }
    }
}

pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// Whether it is a request's target as it should arrive: a path that is whole, and nothing else.
fn is_path(target: &[u8]) -> bool {
    target.starts_with(b"/") && !target.starts_with(b"//") && !target.contains(&b'#')
}

/// A byte that no head may hold, in whatever version.
pub fn is_control(byte: u8) -> bool {
    (byte < b' ' && byte != b'\t') || byte == 0x7f
}

/// Bytes for a failure's message, at most a few.
pub fn show(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(300)].escape_ascii().to_string()
}
