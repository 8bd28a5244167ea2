//! The eye on everything the process emits: no secret in it, in any form a log, an error or an answer could give it.

use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// More secrets than this are looked for in plain only: with a hundred thousand keys the rest would take minutes.
const MOST_CODED: usize = 200;

/// Looks for secrets in what was emitted: plain and in halves, as a line broken in two would show one of them; in hex,
/// percent-encoded, and in base64 at each of its alignments.
pub fn assert_clean(what: &str, emitted: &[u8], secrets: &[String]) {
    if emitted.is_empty() {
        return;
    }
    for secret in secrets {
        for (form, needle) in forms(secret, secrets.len() <= MOST_CODED) {
            assert_without(what, emitted, form, &needle);
        }
    }
}

fn assert_without(what: &str, emitted: &[u8], form: &str, needle: &str) {
    if let Some(at) = memchr::memmem::find(emitted, needle.as_bytes()) {
        let around = &emitted[at.saturating_sub(60)..(at + needle.len() + 20).min(emitted.len())];
        let around = String::from_utf8_lossy(around).replace(needle, "<SECRET>");
        panic!("a secret shows in {what}, {form}: …{around}… (CANARY_SEED={})", super::canary::seed());
    }
}

/// The same for bytes that come one part after another: what is cut in two between parts is seen as well.
#[derive(Clone)]
pub struct Watch {
    forms: Arc<[(&'static str, String)]>,
    /// As much of what came as the longest form may have begun in.
    end: Vec<u8>,
}

impl Watch {
    pub fn for_any(secrets: &[String]) -> Self {
        let all = secrets.iter().flat_map(|secret| forms(secret, secrets.len() <= MOST_CODED));
        Self { forms: all.collect(), end: Vec::new() }
    }

    /// The next part.
    pub fn see(&mut self, what: &str, part: &[u8]) {
        if part.is_empty() || self.forms.is_empty() {
            return;
        }
        self.end.extend_from_slice(part);
        for (form, needle) in self.forms.iter() {
            assert_without(what, &self.end, form, needle);
        }
        let longest = self.forms.iter().map(|(_, needle)| needle.len()).max().unwrap_or_default();
        self.end.drain(..self.end.len().saturating_sub(longest));
    }
}

/// What a secret may look like.
fn forms(secret: &str, coded: bool) -> Vec<(&'static str, String)> {
    // The prefix is no secret, and whatever cuts it off must not hide the rest.
    let tail = secret.strip_prefix("cbat_").unwrap_or(secret);
    let mut forms = vec![("plain", tail.to_owned())];
    if tail.len() < 16 || !tail.is_ascii() {
        return forms;
    }
    let (one, two) = tail.split_at(tail.len() / 2);
    forms = vec![("plain, the first half", one.to_owned()), ("plain, the second half", two.to_owned())];
    if !coded {
        return forms;
    }
    let each = |form: fn(&mut String, u8)| {
        tail.bytes().fold(String::new(), |mut text, byte| {
            form(&mut text, byte);
            text
        })
    };
    forms.push(("hex", each(|text, byte| write!(text, "{byte:02x}").unwrap())));
    forms.push(("hex", each(|text, byte| write!(text, "{byte:02X}").unwrap())));
    forms.push(("percent-encoded", each(|text, byte| write!(text, "%{byte:02x}").unwrap())));
    forms.push(("percent-encoded", each(|text, byte| write!(text, "%{byte:02X}").unwrap())));
    let encoded = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    if !tail.bytes().all(encoded) {
        let part = |text: &mut String, byte: u8| match byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            true => text.push(char::from(byte)),
            false => write!(text, "%{byte:02X}").unwrap(),
        };
        forms.push(("percent-encoded", each(part)));
    }
    for before in 0..3 {
        // Characters that also depend on what stands around it are cut off.
        let bytes = [&[0; 2][..before], tail.as_bytes()].concat();
        let whole = bytes.len() / 3 * 4;
        let first = [0, 2, 3][before];
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            forms.push(("base64", engine.encode(&bytes)[first..whole].to_owned()));
        }
    }
    forms
}

#[test]
fn the_eye_sees_every_form_of_a_secret() {
    let secret = "cbat_QmVzdCBvZiBhbGwga2V5cyBpcyBub25l";
    let tail = &secret[5..];
    let secrets = [secret.to_owned(), "s3cret/of+the=app that shows".to_owned()];
    let seen = |text: &str| std::panic::catch_unwind(|| assert_clean("a test", text.as_bytes(), &secrets)).is_err();
    assert!(!seen("cbat_********************************"));
    for text in [secret, tail, &tail[..20], &tail[12..]] {
        assert!(seen(&format!("x{text}y")), "{text}");
    }
    assert!(seen(&format!("{{\"a\":\"{}", &tail[..17])) && seen(&format!("{}\"}}", &tail[15..])), "a line cut in two");
    for around in ["", "a", "ab", "abc", "Bearer cbat_", "user:"] {
        for after in ["", "x", "xy"] {
            let text = format!("{around}{tail}{after}");
            assert!(seen(&STANDARD_NO_PAD.encode(&text)) && seen(&URL_SAFE_NO_PAD.encode(&text)), "{text}");
        }
    }
    let hex = |text: &str| text.bytes().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    assert!(seen(&hex(secret)) && seen(&hex(secret).to_uppercase()));
    assert!(seen("q=s3cret%2Fof%2Bthe%3Dapp%20that%20shows"));
    // However it is cut into parts.
    for length in [1, 2, 7, 19, 20, 100] {
        let text = format!("{}{}{}", "x".repeat(300), hex(secret), "y".repeat(300));
        let mut watch = Watch::for_any(&secrets);
        let mut all = || text.as_bytes().chunks(length).for_each(|part| watch.see("a test", part));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(&mut all)).is_err(), "{length}");
    }
}
