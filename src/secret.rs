//! The secrets this process holds, as types that give them away only by named doors.
//!
//! In: text from a key file. Out: an [`ApiKey`], born as the header it will be sent in. Nothing here can be
//! displayed or serialised, and no error quotes its input: a mistyped key is still a key.

use std::fmt;
use std::hash::{Hash, Hasher};

use http::HeaderValue;
use zeroize::Zeroizing;

/// How every Cloudbeds API key starts (API Keys Authentication Guide for Technology Partners).
pub const KEY_PREFIX: &str = "cbat_";

/// The longest key accepted, in bytes. Those seen in the field have 37; a header line must still hold it.
pub const KEY_MAX: usize = 512;

/// Whether a byte can be part of a key behind `cbat_`.
///
/// RFC 3986's unreserved characters, and nothing else: no encoding (JSON, URL, HTML) writes them in another way, so
/// the mask of stage 7 recognises any key we hold wherever an answer might repeat it.
#[must_use]
pub const fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// A Cloudbeds API key. No `Display`, no `Serialize`; `Debug` prints `ApiKey(Sensitive)`.
#[derive(Clone)]
pub struct ApiKey(HeaderValue);

/// The text is not an API key. The error does not say what it was.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not an API key: `cbat_` followed by letters, digits, `-`, `.`, `_` or `~`, at most {KEY_MAX} bytes in all")]
pub struct NotAnApiKey;

impl ApiKey {
    /// The key from what a file or an e-mail holds; surrounding white space goes.
    ///
    /// # Errors
    /// When the text is not `cbat_` and at least one of the characters of [`is_key_byte`]; the input is never quoted.
    pub fn parse(text: &str) -> Result<Self, NotAnApiKey> {
        let token = text.trim_ascii(); // Keys arrive by e-mail, and copying brings the newline along.
        let tail = token.strip_prefix(KEY_PREFIX).ok_or(NotAnApiKey)?;
        if tail.is_empty() || token.len() > KEY_MAX || !tail.bytes().all(is_key_byte) {
            return Err(NotAnApiKey);
        }
        let line = Zeroizing::new(format!("Bearer {token}"));
        let mut bearer = HeaderValue::from_str(&line).map_err(|_| NotAnApiKey)?;
        bearer.set_sensitive(true);
        Ok(Self(bearer))
    }

    /// The `Authorization` value, for `proxy::rewrite`, which puts it on the request to Cloudbeds; a test counts the
    /// callers. The clone shares the bytes: hyper's own copies of them on the way out cannot be wiped.
    pub(crate) fn bearer(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ApiKey(Sensitive)")
    }
}

/// Equality tells whether two rows of a key file name the same key. It is not for checking what a caller sent.
impl PartialEq for ApiKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes() == other.0.as_bytes()
    }
}

impl Eq for ApiKey {}

impl Hash for ApiKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_bytes().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_trimmed_and_becomes_the_header_it_is_sent_in() {
        let key = ApiKey::parse(" cbat_Ab0-._~\r\n").unwrap();
        assert_eq!(key.bearer().as_bytes(), b"Bearer cbat_Ab0-._~");
        assert!(key.bearer().is_sensitive());
    }

    #[test]
    fn what_is_not_a_key_is_refused() {
        let long = format!("cbat_{}", "a".repeat(KEY_MAX));
        for bad in ["", "cbat_", "cbat", "Cbat_abc", "cbat_a b", "cbat_a\"", "cbat_ä", "xcbat_abc", "cbat_a/b", &long]
        {
            assert_eq!(ApiKey::parse(bad).err(), Some(NotAnApiKey), "{bad:?}");
        }
    }

    #[test]
    fn debug_shows_nothing_of_the_key() {
        assert_eq!(format!("{:?}", ApiKey::parse("cbat_blue").unwrap()), "ApiKey(Sensitive)");
    }
}
