//! From any bytes of a caller to the bytes that Cloudbeds would get.
//!
//! In: one byte of options, then the bytes of a connection; they pass the gate and the stages up to the
//! connection, as `Proxy::forward` has them, without a budget. Asserted of every request that goes out: it is one request of
//! RFC 9112, with exactly one `Host` and `Authorization`, the property that was asked for and that property's key; method,
//! target, body and all fields that may travel are the caller's, and nothing else is there; it is whole only if the
//! caller's was. No answer, and no words for the operator, hold a key or a caller's token. None of it depends on where bytes are cut.
#![allow(clippy::expect_used, clippy::panic, reason = "a broken promise is to end the process")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::CONNECTION;
use http_body::Body as _;
use http_body_util::Full;

use super::http2::far;
use super::line::{Cut, send, serve};
use super::strict::{Reading, Request, read};
use crate::keys::KeySet;
use crate::proxy::authorize::Policy;
use crate::proxy::callers::{Caller, Callers, KnownBy};
use crate::proxy::error::ProxyError;
use crate::proxy::identify::{self, Settings};
use crate::proxy::rewrite::{self, Outbound, Routes};
use crate::proxy::verdict::ConnectLinks;
use crate::proxy::{Arrival, credential, limit, upstream};
use crate::secret::TokenDigest;
use crate::telemetry::Sparing;
use crate::wire::incoming::Incoming;
use crate::wire::mask;

/// The bits of the first byte, of which `@` has none: `A` looks into queries, `P` calls HTTP/2, and so on.
const QUERY: u8 = 1;
const PREFIX: u8 = 2;
const DEFAULT: u8 = 4;
const CALLERS: u8 = 8;
pub(super) const HTTP2: u8 = 16;

const KEYS: &str = "\
\"1001\": cbat_fuzzing-one\n\
\"1002\": { key: cbat_fuzzing-two, base_url: https://island.example }\n\
keys:\n  \
  - { key: cbat_fuzzing-org, properties: [7, 1003, 1004], organization: acme, add_property_id: true }\n";

/// What `KEYS` says, said once more.
const KEY_OF: [(&str, &str); 5] = [
    ("7", "cbat_fuzzing-org"),
    ("1001", "cbat_fuzzing-one"),
    ("1002", "cbat_fuzzing-two"),
    ("1003", "cbat_fuzzing-org"),
    ("1004", "cbat_fuzzing-org"),
];

/// The token of the one caller, who may not ask for property 1002.
const TOKEN: &str = "fuzzing-token-0123456789";

/// What never travels (RFC 9110 7.6.1; README, what is changed on the way), with underscores read as hyphens.
const STAYS_BEHIND: [&str; 24] = [
    "authorization",
    "connection",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "if-range",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-access-token",
    "x-api-key",
    "x-auth-token",
    "x-original-url",
    "x-property-id",
    "x-real-ip",
    "x-rewrite-url",
];

/// The same by their beginnings.
const FAMILIES: [&str; 2] = ["x-forwarded", "x-proxy-"];

/// What became of one of the caller's requests.
#[derive(Debug)]
pub(super) enum Call {
    Refused(&'static str),
    Sent(Sent),
    /// The caller's body broke off before a byte went out.
    Nothing,
}

/// A request as Cloudbeds sees it.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Sent {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) fields: Vec<(String, Vec<u8>)>,
    /// Nothing where it is not whole.
    pub(super) body: Option<Vec<u8>>,
}

pub(super) struct World {
    open: Policy,
    guarded: Policy,
    routes: Routes,
    keys: KeySet,
    links: ConnectLinks,
}

/// Follows any bytes.
pub fn request(data: &[u8]) {
    thread_local! {
        static WORLD: World = World::new();
    }
    let Some((options, bytes)) = data.split_first() else { return };
    let calls = WORLD.with(|world| {
        let whole = world.calls(*options, bytes, Cut::Whole);
        let pieces = world.calls(*options, bytes, Cut::Pieces);
        for (one, other) in whole.iter().zip(&pieces) {
            same(one, other);
        }
        whole
    });
    let mut rest = bytes;
    for call in &calls {
        let asked = match read(rest) {
            Reading::Request(request) => request,
            other => panic!("{call:?} is this to a strict parser: {other:?}"),
        };
        if let Call::Sent(sent) = call {
            check(sent, &asked, *options);
        }
        rest = asked.rest;
    }
}

impl World {
    pub(super) fn new() -> Self {
        let origin = |host: &str| format!("https://{host}.example").parse().expect("a good origin");
        let caller = Caller {
            name: "fuzzer",
            properties: Some(["1001", "1003"].map(|id| id.parse().expect("a good id")).into()),
            methods: None,
            paths: None,
            refused: Sparing::default(),
        };
        let token = TokenDigest::of(TOKEN.as_bytes()).expect("it is long enough");
        let by = KnownBy { tokens: vec![token], ..KnownBy::default() };
        let callers = Some(Callers::new([(caller, by)]));
        Self {
            open: Policy::default(),
            guarded: Policy { callers, ..Policy::default() },
            routes: Routes::new(origin("base"), [("/vault".to_owned(), origin("vault"))]),
            keys: KeySet::parse("keys", KEYS).expect("a good file"),
            links: Arc::new(|_, property| Some(format!("https://connect.example/{property}"))),
        }
    }

    /// Each request of the connection and what became of it.
    fn calls(&self, options: u8, bytes: &[u8], cut: Cut) -> Vec<Call> {
        let calls = RefCell::new(Vec::new());
        let served = serve(bytes, cut, |request| {
            let calls = &calls;
            async move {
                let more = !request.body().is_end_stream();
                let (call, response) = self.forward(options, request).await;
                // As `Proxy::serve` does it: nobody reads the rest of a body that was not asked for.
                let close = more && !matches!(&call, Call::Sent(sent) if sent.body.is_some());
                calls.borrow_mut().push(call);
                let mut response = response.map(Full::new);
                if close {
                    response.headers_mut().insert(CONNECTION, http::HeaderValue::from_static("close"));
                }
                response
            }
        });
        let mut shown = served.answers;
        if let Some(problem) = served.refusal {
            shown.extend_from_slice(problem.response().body());
        }
        assert_silent(&shown);
        calls.into_inner()
    }

    pub(super) async fn forward(&self, options: u8, request: http::Request<Incoming>) -> (Call, Response<Bytes>) {
        // Nothing here takes an hour.
        let over_http2 = (request.version() == http::Version::HTTP_2).then_some(Duration::from_secs(3600));
        let outbound = match self.outbound(options, request) {
            Ok(outbound) => outbound,
            Err(error) => {
                assert_silent(format!("{error} {error:?}").as_bytes());
                let problem = error.problem();
                return (Call::Refused(problem.code.as_str()), problem.response());
            }
        };
        let origin = outbound.origin.authority().to_string();
        let to = Arc::clone(&outbound.origin);
        let (head, upload) = upstream::first_try(outbound, over_http2);
        let sent = if options & HTTP2 != 0 {
            far::send(&head, upload, &to).await
        } else {
            parsed(&send(&head, upload).await, &origin)
        };
        (sent.map_or(Call::Nothing, Call::Sent), Response::new(Bytes::new()))
    }

    /// The stages, in the order that their types allow.
    fn outbound(&self, options: u8, request: http::Request<Incoming>) -> Result<Outbound, ProxyError> {
        let policy = if options & CALLERS != 0 { &self.guarded } else { &self.open };
        let settings = Settings {
            query: options & QUERY != 0,
            path_prefix: options & PREFIX != 0,
            default: (options & DEFAULT != 0).then(|| "7".parse().expect("a good id")),
        };
        let local = Some(([127, 0, 0, 1], 8080).into());
        let arrival = Arrival { identify: settings, local, encrypted: false, known: None, shown: None };
        let known = policy.who(request.headers(), &arrival, || None)?;
        let identified = identify::property(Box::new(request), arrival.identify)?;
        let authorized = policy.authorize(identified, known, &arrival)?;
        let credentialed = credential::attach(limit::unlimited(authorized), &self.keys, &self.links)?;
        Ok(rewrite::for_cloudbeds(credentialed, &self.routes))
    }
}

/// Neither a key nor a token.
pub(super) fn assert_silent(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    assert!(mask::value(bytes).is_none() && !text.contains(TOKEN), "{text}");
}

/// What went out over HTTP/1.1, read as strictly as what came in.
fn parsed(bytes: &[u8], origin: &str) -> Option<Sent> {
    let request = match read(bytes) {
        Reading::Request(request) => request,
        Reading::Unfinished if bytes.is_empty() => return None,
        other => panic!("{:?} went out, which is {other:?}", String::from_utf8_lossy(bytes)),
    };
    assert_eq!((request.minor, request.rest), (1, &[][..]), "{:?}", String::from_utf8_lossy(bytes));
    let hosts: Vec<_> = request.values("host").collect();
    assert_eq!(hosts, [origin.as_bytes()], "the hosts of {request:?}");
    let fields = request.fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec())).collect();
    let (method, target) = (request.method.to_owned(), String::from_utf8_lossy(request.target).into_owned());
    Some(Sent { method, target, fields, body: request.whole().map(<[u8]>::to_vec) })
}

/// Two outcomes that differ in nothing but where bytes were cut.
fn same(one: &Call, other: &Call) {
    match (one, other) {
        (Call::Refused(one), Call::Refused(other)) => assert_eq!(one, other),
        (Call::Sent(one), Call::Sent(other)) => assert_eq!(one, other),
        // A head leaves at once, or with the first of its body.
        (Call::Sent(sent), Call::Nothing) | (Call::Nothing, Call::Sent(sent)) => assert_eq!(sent.body, None),
        (Call::Nothing, Call::Nothing) => {}
        _ => panic!("it depends on where bytes are cut: {one:?}, {other:?}"),
    }
}

pub(super) fn check(sent: &Sent, asked: &Request<'_>, options: u8) {
    assert_eq!(sent.method, asked.method);
    assert!(!matches!(asked.method, "CONNECT" | "TRACE"), "{asked:?}");
    check_body(sent, asked);
    check_target(sent, asked, options);
    check_subject(sent, asked, options);
    assert_eq!(travelled(sent), travels(asked), "other fields went out than came in: {asked:?}");
    for (_, value) in sent.fields.iter().filter(|(name, _)| name == "accept-encoding") {
        for member in String::from_utf8_lossy(value).split(',') {
            let coding = member.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            assert!(
                ["gzip", "x-gzip", "deflate", "br", "identity"].contains(&coding.as_str()),
                "{coding:?} was asked for"
            );
        }
    }
}

fn check_body(sent: &Sent, asked: &Request<'_>) {
    let length = asked.values("content-length").next().is_some();
    match (sent.body.as_deref(), asked.whole()) {
        (Some(sent), asked) => assert_eq!(Some(sent), asked, "the body"),
        // The chunked coding has limits of ours.
        (None, Some(_)) => assert!(!length, "a whole body did not arrive: {asked:?}"),
        (None, None) => {}
    }
}

fn check_target(sent: &Sent, asked: &Request<'_>, options: u8) {
    let given = String::from_utf8_lossy(asked.target).into_owned();
    let mut expected = given.clone();
    if !given.starts_with('/') {
        let (_, rest) = given.split_once("://").unwrap_or_else(|| panic!("{given} went out"));
        let path = rest.find(['/', '?']).map(|at| &rest[at..]).unwrap_or_default();
        expected = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    }
    if options & PREFIX != 0
        && let Some(rest) = expected.strip_prefix("/p/")
    {
        expected = rest[rest.find('/').unwrap_or_default()..].to_owned();
    }
    let added = sent.target.strip_prefix(&expected);
    let added = added.unwrap_or_else(|| panic!("{given:?} became {:?}", sent.target));
    if !added.is_empty() {
        let name = added.trim_start_matches(['?', '&']).strip_prefix("propertyID=");
        assert!(
            sent.method == "GET" && name.is_some_and(|id| id == value(sent, "x-property-id")),
            "{added:?} was added"
        );
    }
    // However often somebody decodes it, it is a plain path, and none that leads to a credential.
    let mut path = sent.target.split('?').next().unwrap_or_default().as_bytes().to_vec();
    for _ in 0..6 {
        assert!(!path.iter().any(|byte| byte.is_ascii_control() || b"\\#".contains(byte)), "{:?}", sent.target);
        let text = String::from_utf8_lossy(&path).to_ascii_lowercase();
        let (_, segments) = text.split_once('/').unwrap_or_else(|| panic!("{:?}", sent.target));
        let plain = |segment: &str| segment.split(';').next().unwrap_or_default().trim().to_owned();
        let segments: Vec<_> = segments.split('/').map(plain).collect();
        let hollow = segments.iter().rev().skip(1).any(|segment| segment.is_empty());
        let dots = segments.iter().any(|segment| matches!(segment.as_str(), "." | ".."));
        let credential = segments.iter().any(|segment| matches!(segment.as_str(), "access_token" | "postappstate"));
        assert!(!hollow && !dots && !credential, "{:?}", sent.target);
        path = percent_encoding::percent_decode(&path).collect();
    }
}

/// Whose request it is, and whose key it carries.
fn check_subject(sent: &Sent, asked: &Request<'_>, options: u8) {
    let key = value(sent, "authorization");
    let names = |id: &str| KEY_OF.iter().find(|(known, _)| *known == id).map(|(_, key)| format!("Bearer {key}"));
    let given: Vec<_> = asked.values("x-property-id").collect();
    let twin = |name: &str| name.contains('_') && name.replace('_', "-").eq_ignore_ascii_case("x-property-id");
    assert!(given.len() < 2 && !asked.fields.iter().any(|(name, _)| twin(name)), "{asked:?}");
    let list = |text: &str| text.split(',').map(|id| id.trim().to_owned()).collect::<Vec<_>>();
    let told: Vec<_> = sent.fields.iter().filter(|(name, _)| name == "x-property-id").collect();
    if told.is_empty() {
        let organization: Vec<_> = asked.values("x-organization-id").collect();
        assert_eq!((key.as_str(), &organization[..]), ("Bearer cbat_fuzzing-org", &[&b"acme"[..]][..]), "{asked:?}");
        assert!(given.is_empty(), "{asked:?}");
    } else {
        let ids = list(&value(sent, "x-property-id"));
        assert!(ids.iter().all(|id| names(id).as_ref() == Some(&key)), "{ids:?} with another's key");
        match given[..] {
            [given] => assert_eq!(list(&String::from_utf8_lossy(given)), ids),
            _ => assert!(options & (QUERY | PREFIX | DEFAULT) != 0, "nobody asked for {ids:?}: {asked:?}"),
        }
    }
    if options & CALLERS != 0 {
        let token: Vec<_> = asked.values("x-proxy-token").collect();
        assert_eq!(token, [TOKEN.as_bytes()], "a stranger is served");
        let own = |id: &String| matches!(id.as_str(), "1001" | "1003");
        assert!(!told.is_empty() && list(&value(sent, "x-property-id")).iter().all(own), "{asked:?}");
    }
    // Whatever hotel the query names, it is one of this key's, or one that nobody here has a key for.
    let query = sent.target.split_once('?').map(|(_, query)| query).unwrap_or_default();
    for (name, ids) in form_urlencoded::parse(query.as_bytes()) {
        let name = name.split('[').next().unwrap_or_default().to_ascii_lowercase();
        if matches!(name.trim_start(), "propertyid" | "propertyids" | "property_id" | "property_ids") {
            let others = |id: &String| names(id).is_some_and(|other| other != key);
            assert!(!list(&ids).iter().any(others), "{:?} names another's hotel", sent.target);
        }
    }
}

/// The one value of a field.
fn value(sent: &Sent, name: &str) -> String {
    let mut values = sent.fields.iter().filter(|(known, _)| known == name).map(|(_, value)| value);
    let value = values.next().unwrap_or_else(|| panic!("no {name} in {sent:?}"));
    assert!(values.next().is_none(), "more than one {name} in {sent:?}");
    String::from_utf8_lossy(value).into_owned()
}

type Fields = BTreeMap<String, Vec<Vec<u8>>>;

/// The caller's fields that may travel.
fn travels(asked: &Request<'_>) -> Fields {
    let lines = asked.values("connection").map(|line| String::from_utf8_lossy(line).to_ascii_lowercase());
    let nominated: Vec<String> =
        lines.flat_map(|line| line.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>()).collect();
    let mut all = Fields::new();
    for (name, value) in &asked.fields {
        let name = name.to_ascii_lowercase();
        let folded = name.replace('_', "-");
        let behind =
            STAYS_BEHIND.contains(&folded.as_str()) || FAMILIES.iter().any(|family| folded.starts_with(family));
        // Whoever folds it would frame the body by it.
        let length = folded == "content-length";
        if !(behind || length || is_ours(&name) || nominated.contains(&name)) {
            all.entry(name).or_default().push(value.to_vec());
        }
    }
    all
}

/// What went out, but for what is ours to set.
fn travelled(sent: &Sent) -> Fields {
    let mut all = Fields::new();
    for (name, value) in sent.fields.iter().filter(|(name, _)| !is_ours(name)) {
        all.entry(name.clone()).or_default().push(value.clone());
    }
    all
}

/// Checked in other places: who asks, how the body is framed, and which codings are asked for.
fn is_ours(name: &str) -> bool {
    let ours = ["host", "authorization", "x-property-id", "content-length", "transfer-encoding", "accept-encoding"];
    ours.contains(&name)
}
