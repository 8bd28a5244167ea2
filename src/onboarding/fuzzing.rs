//! What strangers may send to onboarding; what Cloudbeds may answer it is in `token.rs`.
//!
//! In: the query and the cookies of a redirect, or the body of a webhook. Out: nothing; a broken promise is a panic.
//! Asserted of a redirect: a code is only ever exchanged for the state and the browser it was asked for, or for a code
//! without any state where hotels may start at Cloudbeds, and every other one leads to its own page. Of a webhook: it has
//! its answer, and leads to a look at a key only if it is about a property, and by an app, of ours. Nothing is sent: the
//! pace is used up before, and an exchange that would begin ends there.
#![allow(clippy::expect_used, clippy::panic, reason = "a broken promise is to end the process")]

mod token;

use std::borrow::Cow;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, COOKIE};
use http::{HeaderMap, HeaderValue, Method};
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

pub use self::token::token;
use super::callback::{Back, back};
use super::outcome::Outcome;
use super::state::Asked;
use super::token::Token;
use super::words::Notice;
use super::{App, Codes, Onboarding, Parts, Settings, webhook as hook};
use crate::https::Dialer;
use crate::keys::{KeyStore, fuzzing as keys};
use crate::property::PropertyId;
use crate::secret::ClientSecret;
use crate::telemetry::AccessLog;
use crate::telemetry::metrics::Metrics;

const KEYS: &str = "\"1001\": cbat_FuzzingOne1\n\"9007199254740993\": cbat_FuzzingTwo2\n";
const CLIENT: &str = "live1_fuzzing";

/// What stays the same from one input to the next.
struct World {
    runtime: Runtime,
    keys: Arc<KeyStore>,
    dialer: Dialer,
    metrics: Metrics,
    _directory: TempDir,
}

thread_local! {
    static WORLD: World = World::new();
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("room for a file");
        let path = directory.path().join("keys.yaml");
        let file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path);
        file.and_then(|mut file| std::io::Write::write_all(&mut file, KEYS.as_bytes())).expect("room for a file");
        let keys = KeyStore::open(path).unwrap_or_else(|faults| panic!("{faults:?}"));
        let second = Duration::from_secs(1);
        let (dialer, _) = Dialer::new(None, true, second, second).expect("roots are built in");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.expect("a runtime without sockets needs nothing of the system");
        Self { runtime, keys, dialer, metrics: Metrics::new(1), _directory: directory }
    }

    /// As it is when the process has started, but that it may begin no exchange.
    fn onboarding(&self, marketplace: bool) -> Arc<Onboarding> {
        let url = |text: &str| text.parse().expect("a good address");
        let codes = Codes {
            secret: ClientSecret::parse("fuzzing").expect("a good secret"),
            redirect_uri: url("https://connect.example/api_key"),
            exchange: "https://hotels.example/token".parse().expect("a good address"),
            marketplace,
        };
        let app = App {
            name: "main".to_owned(),
            client_id: CLIENT.to_owned(),
            connect_url: url("https://hotels.example/connect"),
            codes: Some(codes),
        };
        let parts = Parts {
            keys: Arc::clone(&self.keys),
            reload: Arc::new(Notify::new()),
            dialer: self.dialer.clone(),
            budgets: None,
            base_url: "https://api.example".parse().expect("a good origin"),
            metrics: self.metrics.clone(),
            access: AccessLog::off(),
        };
        let onboarding = Onboarding::new(Settings { apps: vec![app], https: true, webhook: None }, parts, 0);
        while onboarding.pace.take() {}
        onboarding
    }
}

/// A redirect: `m` where hotels may start at Cloudbeds or any other byte, the query, and behind a line end the cookies.
/// `STATE` and `BROWSER` stand for the ones that were issued.
pub fn callback(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let Ok(rest) = std::str::from_utf8(rest) else { return };
    WORLD.with(|world| world.runtime.block_on(redirect(world.onboarding(*first == b'm'), *first == b'm', rest)));
}

async fn redirect(onboarding: Arc<Onboarding>, marketplace: bool, text: &str) {
    let about = Asked { property: id("1001"), app: 0 };
    let (state, browser) = onboarding.states.issue(about, None).expect("the system has random numbers");
    let text = text.replace("STATE", &state.text()).replace("BROWSER", &browser.text());
    let (query, cookies) = text.split_once('\n').unwrap_or((&text, ""));
    let mut headers = HeaderMap::new();
    for line in cookies.lines().filter_map(|line| HeaderValue::from_str(line).ok()) {
        headers.append(COOKIE, line);
    }
    let shown = onboarding.jar.shown(&headers).is_some_and(|shown| shown.is(&browser));
    let (expected, again) = expected(query, &state, shown, marketplace);
    for expected in [expected, again] {
        let came = match back(&onboarding, &[0], query, &headers).await {
            Back::Ended(outcome, app) => {
                assert!(app.is_none_or(|app| app == 0));
                Ok(outcome)
            }
            Back::Page(notice) => Err(notice),
        };
        assert_eq!(came, expected, "{query:?} in {}", if shown { "its own browser" } else { "another one" });
    }
}

type End = Result<Outcome, Notice>;

/// What a redirect must lead to, and what the same one after it: `Busy` where an exchange would begin.
fn expected(query: &str, state: &Token, own: bool, marketplace: bool) -> (End, End) {
    let same = |end: End| (end.clone(), end);
    let fields = |name: &str| -> Vec<Cow<'_, str>> {
        let named = form_urlencoded::parse(query.as_bytes()).filter(|(known, _)| known == name);
        named.map(|(_, value)| value).collect()
    };
    let (codes, states, errors) = (fields("code"), fields("state"), fields("error"));
    if codes.len() > 1 || states.len() > 1 || errors.len() > 1 {
        return same(Err(Notice::Incomplete));
    }
    let ours = states.first().is_some_and(|text| **text == state.text());
    if let Some(error) = errors.first() {
        let end = |asked| match &**error {
            "access_denied" => Ok(Outcome::Denied { asked }),
            "server_error" | "temporarily_unavailable" => Ok(Outcome::Unclear { asked }),
            _ => Ok(Outcome::SetUp { asked }),
        };
        // The state has ended with the first.
        return (end((ours && own).then(|| id("1001"))), end(None));
    }
    let good =
        |code: &&Cow<'_, str>| (1..=512).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_graphic());
    if codes.first().filter(good).is_none() {
        return same(Err(Notice::Incomplete));
    }
    same(match (ours, own) {
        (true, true) => Ok(Outcome::Busy { asked: Some(id("1001")) }),
        (true, false) => Err(Notice::OtherBrowser),
        (false, _) if marketplace => Ok(Outcome::Busy { asked: None }),
        (false, _) => Err(Notice::StateUnknown),
    })
}

/// The body of a webhook.
pub fn webhook(data: &[u8]) {
    WORLD.with(|world| {
        let onboarding = world.onboarding(false);
        let length = HeaderValue::from(data.len());
        let headers = HeaderMap::from_iter([(CONTENT_LENGTH, length)]);
        let body = Full::new(Bytes::copy_from_slice(data));
        let (status_given, answer) = world.runtime.block_on(async {
            let (parts, body) = hook::answer(&onboarding, &Method::POST, &headers, body).await.into_parts();
            (parts.status, body.collect().await.expect("it is whole").to_bytes())
        });
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let message = serde_json::from_slice::<Value>(data);
        let status = if data.len() > 64 * 1024 {
            413
        } else if message.is_ok() {
            200
        } else {
            400
        };
        assert_eq!(status_given, status, "{answer}");
        let says = format!("{{\"success\":{}", status == 200);
        assert!(answer.contains(&says) && answer.ends_with("}\n"), "{answer}");
        let property = message.as_ref().ok().and_then(|message| hook::property(&onboarding, message));
        let looked = keys::told(&world.keys);
        assert_eq!(looked, property.map(Some).into_iter().collect::<Vec<_>>(), "{answer}");
        let (Some(property), Ok(message)) = (property, message) else { return };
        // Whatever the spelling, all three are there, and the id is one of the two in the key file, digit by digit.
        let text = message.to_string();
        let all = ["integration/appstate_changed", CLIENT, &property.to_string()];
        assert!(all.iter().all(|word| text.contains(*word)), "{text} leads to a look at {property}");
        assert!(KEYS.contains(&format!("\"{property}\"")), "{property} is not ours");
    });
}

fn id(text: &str) -> PropertyId {
    text.parse().expect("a good id")
}
