//! The beginning of a body, kept in a copy while it may be one of Cloudbeds' failures.
//!
//! In: the bytes of a body as they pass. Out: all of them, once they have passed, if the body begins like a failure of
//! the classic API and is small; of any other body the first bytes are looked at and nothing is kept. Nothing is held
//! back. Successes begin with `success: true`, or with what they carry; failures with `success: false` or with the
//! message.

/// The longest body kept, in bytes. A failure is a sentence.
const MOST: usize = 64 * 1024;

/// Bytes in which what matters has been said, unless there is much white space.
const BEGINNING: usize = 64;

/// What a look at one body has come to.
#[derive(Debug, Default)]
pub struct Peek(State);

#[derive(Debug, Default)]
enum State {
    /// Nothing has passed yet.
    #[default]
    Start,
    /// It may be a failure.
    Keeping(Vec<u8>),
    /// It does not begin like one.
    Other,
    /// It is too large to tell, or nobody wants to know.
    Off,
}

/// What is known of a body once it has passed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Seen<'a> {
    /// It begins like a failure, and this is all of it.
    Failure(&'a [u8]),
    /// It begins like something else.
    Other,
    /// Nothing.
    Nothing,
}

impl Peek {
    /// For a body that nobody wants to know of.
    #[must_use]
    pub const fn off() -> Self {
        Self(State::Off)
    }

    /// The next bytes.
    #[inline]
    pub fn pass(&mut self, bytes: &[u8]) {
        if !matches!(self.0, State::Other | State::Off) {
            self.look(bytes);
        }
    }

    fn look(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Start if bytes.is_empty() => {}
            State::Start if !may_be_a_failure(bytes) => self.0 = State::Other,
            State::Start if bytes.len() <= MOST => self.0 = State::Keeping(bytes.to_vec()),
            State::Keeping(kept) if kept.len() + bytes.len() <= MOST => {
                // Of a beginning that was too short to tell, more is there now.
                let short = kept.len() < BEGINNING;
                kept.extend_from_slice(bytes);
                if short && !may_be_a_failure(kept) {
                    self.0 = State::Other;
                }
            }
            _ => self.0 = State::Off,
        }
    }

    /// What the body so far is.
    #[must_use]
    pub fn seen(&self) -> Seen<'_> {
        match &self.0 {
            State::Keeping(kept) => Seen::Failure(kept),
            State::Other => Seen::Other,
            State::Start | State::Off => Seen::Nothing,
        }
    }
}

/// Whether a body that begins so can be a failure. A beginning too short to tell can.
fn may_be_a_failure(bytes: &[u8]) -> bool {
    fn skip(bytes: &[u8]) -> &[u8] {
        bytes.trim_ascii_start()
    }
    // What is left behind `expected`; nothing when it is something else, and an empty rest where the bytes end first.
    fn after<'a>(bytes: &'a [u8], expected: &[u8]) -> Option<&'a [u8]> {
        let common = bytes.len().min(expected.len());
        (bytes[..common] == expected[..common]).then(|| &bytes[common..])
    }
    let Some(first) = after(skip(bytes), b"{").map(skip) else { return false };
    if let Some(rest) = after(first, b"\"success\"") {
        return after(skip(rest), b":").is_some_and(|value| after(skip(value), b"true").is_none_or(<[u8]>::is_empty));
    }
    after(first, b"\"message\"").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(chunks: &[&str]) -> Option<String> {
        let mut peek = Peek::default();
        chunks.iter().for_each(|chunk| peek.pass(chunk.as_bytes()));
        match peek.seen() {
            Seen::Failure(kept) => Some(String::from_utf8_lossy(kept).into_owned()),
            Seen::Other | Seen::Nothing => None,
        }
    }

    #[test]
    fn a_failure_is_kept_wherever_it_is_cut() {
        for body in [
            r#"{"success":false,"message":"No"}"#,
            r#" { "success" : "false", "message": "No" }"#,
            "{\n  \"message\": \"No\",\n  \"success\": false\n}",
        ] {
            for cut in 0..body.len() {
                assert_eq!(kept(&[&body[..cut], "", &body[cut..]]).as_deref(), Some(body), "{cut}");
            }
        }
    }

    #[test]
    fn of_a_success_nothing_is_kept_but_that_it_is_one() {
        for body in [
            r#"{"success":true,"data":[]}"#,
            r#"{ "success" : true }"#,
            r#"{"data":[],"success":false}"#,
            r#"{"successful":1}"#,
            "[1]",
            "<html>",
            "\u{1f}\u{8b}",
        ] {
            let (mut whole, mut pieces) = (Peek::default(), Peek::default());
            whole.pass(body.as_bytes());
            body.bytes().for_each(|byte| pieces.pass(&[byte]));
            assert_eq!((whole.seen(), pieces.seen()), (Seen::Other, Seen::Other), "{body}");
        }
    }

    #[test]
    fn a_large_body_is_let_go() {
        let start = r#"{"success":false,"message":""#;
        let rest = "a".repeat(MOST - start.len());
        assert!(kept(&[start, &rest]).is_some());
        assert!(kept(&[start, &rest, "a"]).is_none());
        assert!(kept(&[&format!("{start}{rest}a")]).is_none());
        let mut peek = Peek::default();
        peek.pass(format!("{start}{rest}a").as_bytes());
        assert_eq!(peek.seen(), Seen::Nothing, "what it says is not known");
    }
}
