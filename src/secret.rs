//! The secrets this process holds, as types that give them away only by named doors.
//!
//! In: text from a key file. Out: an [`ApiKey`], born as the header it will be sent in, and its name, a
//! [`Fingerprint`]. Nothing of a key can be displayed or serialised, and no error quotes its input: a mistyped key is still a key.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use http::HeaderValue;
use ring::digest::{SHA256, digest};
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

impl ApiKey {
    /// The same value for `inquiry`, which makes calls in our own name (is the key alive, whose is it). A door of its
    /// own, so that a test can tell who sends keys for a caller and who for us.
    pub(crate) fn bearer_for_own_call(&self) -> HeaderValue {
        self.0.clone()
    }

    /// The key's name where the key itself must not stand: in the state file, and in the table of lives.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let token = self.0.as_bytes().strip_prefix(b"Bearer ").unwrap_or_default();
        let first = digest(&SHA256, token).as_ref().iter().take(8).fold(0, |all, byte| all << 8 | u64::from(*byte));
        Fingerprint(first)
    }
}

/// A name for a key that cannot be turned back into it: the first 64 bits of the SHA-256 of its text.
///
/// A key has some 190 random bits, so there is nothing to try through; and among 100,000 keys two share a name once in
/// four billion times.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Fingerprint(u64);

/// The text is not a fingerprint.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a fingerprint: 16 hexadecimal digits in lower case")]
pub struct NotAFingerprint;

impl Fingerprint {
    /// The number itself: evenly spread over the keys, and the same in every process.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:016x}", self.0)
    }
}

impl FromStr for Fingerprint {
    type Err = NotAFingerprint;

    fn from_str(text: &str) -> Result<Self, NotAFingerprint> {
        let digits = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        u64::from_str_radix(text, 16).ok().filter(|_| digits).map(Self).ok_or(NotAFingerprint)
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
    fn a_fingerprint_is_the_same_everywhere_and_has_one_spelling() {
        let shown = ApiKey::parse("cbat_blue").unwrap().fingerprint().to_string();
        // printf %s cbat_blue | sha256sum; state files outlive versions of this program.
        assert_eq!(shown, "947889e232b9e856");
        assert_eq!(shown.parse(), Ok(ApiKey::parse(" cbat_blue\n").unwrap().fingerprint()));
        for bad in ["", "0", &shown.to_uppercase(), &shown[1..], &format!("{shown}0"), "+123456789abcdef"] {
            assert_eq!(bad.parse::<Fingerprint>(), Err(NotAFingerprint), "{bad}");
        }
    }

    #[test]
    fn debug_shows_nothing_of_the_key() {
        assert_eq!(format!("{:?}", ApiKey::parse("cbat_blue").unwrap()), "ApiKey(Sensitive)");
    }
}
