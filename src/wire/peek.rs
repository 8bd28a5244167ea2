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
    /// It is none, or nobody wants to know.
    Off,
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
        if !matches!(self.0, State::Off) {
            self.look(bytes);
        }
    }

    fn look(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Start if bytes.is_empty() => {}
            State::Start if bytes.len() <= MOST && may_be_a_failure(bytes) => self.0 = State::Keeping(bytes.to_vec()),
            State::Keeping(kept) if kept.len() + bytes.len() <= MOST => {
                // Of a beginning that was too short to tell, more is there now.
                let short = kept.len() < BEGINNING;
                kept.extend_from_slice(bytes);
                if short && !may_be_a_failure(kept) {
                    self.0 = State::Off;
                }
            }
            _ => self.0 = State::Off,
        }
    }

    /// The body so far, if it is one of those.
    #[must_use]
    pub fn kept(&self) -> Option<&[u8]> {
        if let State::Keeping(kept) = &self.0 { Some(kept) } else { None }
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
        peek.kept().map(|kept| String::from_utf8_lossy(kept).into_owned())
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
    fn of_a_success_nothing_is_kept() {
        for body in [
            r#"{"success":true,"data":[]}"#,
            r#"{ "success" : true }"#,
            r#"{"data":[],"success":false}"#,
            r#"{"successful":1}"#,
            "[1]",
            "<html>",
            "\u{1f}\u{8b}",
        ] {
            assert_eq!(kept(&[body]), None, "{body}");
            let pieces: Vec<String> = body.chars().map(String::from).collect();
            assert_eq!(kept(&pieces.iter().map(String::as_str).collect::<Vec<_>>()), None, "{body} in pieces");
        }
    }

    #[test]
    fn a_large_body_is_let_go() {
        let start = r#"{"success":false,"message":""#;
        let rest = "a".repeat(MOST - start.len());
        assert!(kept(&[start, &rest]).is_some());
        assert!(kept(&[start, &rest, "a"]).is_none());
        assert!(kept(&[&format!("{start}{rest}a")]).is_none());
    }
}
