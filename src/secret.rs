//! The secrets this process holds, as types that give them away only by named doors.
//!
//! In: text from a key file, a prompt or a secret's file. Out: an [`ApiKey`], born as the header it will be sent in, or
//! a [`ClientSecret`]. Neither can be displayed or serialised, and no error quotes its input: a mistyped key is still a
//! key. What may be shown of a key is its [`KeyDigest`], or the short form of that.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use http::HeaderValue;
use ring::digest::{Digest, SHA256, digest};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

mod line;

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
///
/// The text lies in one piece of memory, which every clone of the key and of its header shares, and which the last of
/// them wipes: once a key was replaced and the requests that began with it have ended, it is nowhere in here.
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
        // Of `Bytes` it makes a value without a copy.
        let mut bearer = HeaderValue::from_maybe_shared(line::of(token)).map_err(|_| NotAnApiKey)?;
        bearer.set_sensitive(true);
        Ok(Self(bearer))
    }

    /// The `Authorization` value, for `proxy::rewrite`, which puts it on the request to Cloudbeds; a test counts the
    /// callers. The clone shares the bytes; h2's and rustls' own copies of them on the way out cannot be wiped.
    pub(crate) fn bearer(&self) -> HeaderValue {
        self.0.clone()
    }

    /// The same value for calls in our own name (whose key is this, is it alive). A door of its own, so that a test can
    /// tell who sends keys for a caller and who for us.
    pub(crate) fn bearer_for_own_call(&self) -> HeaderValue {
        self.0.clone()
    }

    /// The key as it stands in a key file, for `keys::edit` and `keys::write`, which alone write one. The caller wipes what it
    /// copies it into.
    pub(crate) fn for_key_file(&self) -> &str {
        self.token()
    }

    /// What the key is known by where it must not show.
    #[must_use]
    pub fn digest(&self) -> KeyDigest {
        KeyDigest::of(self.token().as_bytes())
    }

    /// Looks at the memory that the key is in, so that it is soon at hand; tells nothing of the key.
    #[inline]
    pub(crate) fn fetched(&self) -> bool {
        !self.0.as_bytes().starts_with(&[0])
    }

    fn token(&self) -> &str {
        // Made of the scheme and ASCII, so neither step can fail.
        self.0.to_str().ok().and_then(|line| line.strip_prefix(line::SCHEME)).unwrap_or_default()
    }
}

/// SHA-256 of a key's text, `cbat_` included: `printf %s KEY | sha256sum` prints the same.
///
/// It cannot be turned back. Keys of the vendor have 32 random letters and digits, 190 bits, which nobody can try
/// through. Its short form, the first 32 bits, tells the keys of one file apart and says even less.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct KeyDigest([u8; 32]);

/// The text is not a digest: 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a digest: 64 hexadecimal digits")]
pub struct NotADigest;

impl KeyDigest {
    fn of(text: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, text).as_ref());
        Self(bytes)
    }

    fn is(&self, other: &Self) -> bool {
        self.0[..].ct_eq(&other.0[..]).into()
    }

    /// The first 32 bits, as eight hexadecimal digits.
    #[must_use]
    pub fn short(&self) -> String {
        hex(&self.0[..4])
    }
}

impl FromStr for KeyDigest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NotADigest);
        }
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| NotADigest)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for KeyDigest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "KeyDigest({})", self.short())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The longest client secret accepted, in bytes.
pub const CLIENT_SECRET_MAX: usize = 512;

/// The secret of a partner app, which it shows when it exchanges a code for a key. No `Display`, no `Serialize`; wiped
/// when dropped.
#[derive(Clone)]
pub struct ClientSecret(Arc<Zeroizing<String>>);

/// The text is not a client secret. The error does not say what it was.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a client secret: one line of plain characters, at most {CLIENT_SECRET_MAX} bytes")]
pub struct NotAClientSecret;

impl ClientSecret {
    /// The secret from what a file holds; surrounding white space goes.
    ///
    /// # Errors
    /// When nothing is left, or more than one line of visible ASCII; the input is never quoted.
    pub fn parse(text: &str) -> Result<Self, NotAClientSecret> {
        let text = text.trim_ascii();
        if text.is_empty() || text.len() > CLIENT_SECRET_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(NotAClientSecret);
        }
        Ok(Self(Arc::new(Zeroizing::new(text.to_owned()))))
    }

    /// For the exchange of a code for a key, which sends it to the app's `exchange_url`; a test counts the callers.
    #[must_use]
    pub fn for_exchange(&self) -> &str {
        &self.0
    }
}

/// The password of a Redis user. No `Display`, no `Serialize`; wiped when dropped.
#[derive(Clone)]
pub struct RedisPassword(Arc<Zeroizing<String>>);

/// The text is not such a password. The error does not say what it was.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a password: one line of plain characters, at most {CLIENT_SECRET_MAX} bytes")]
pub struct NotARedisPassword;

impl RedisPassword {
    /// The password from what a file holds; surrounding white space goes.
    ///
    /// # Errors
    /// When nothing is left, or more than one line of visible ASCII; the input is never quoted.
    pub fn parse(text: &str) -> Result<Self, NotARedisPassword> {
        let secret = ClientSecret::parse(text).map_err(|_| NotARedisPassword)?;
        Ok(Self(secret.0))
    }

    /// For the greeting of a connection to Redis; a test counts the callers.
    #[must_use]
    pub fn for_login(&self) -> &str {
        &self.0
    }

    /// Whether a text holds it, or its beginning or end: servers cut short what they repeat.
    #[must_use]
    pub fn is_in(&self, text: &str) -> bool {
        let part = self.0.len().min(8);
        text.contains(&self.0[..part]) || text.contains(&self.0[self.0.len() - part..])
    }
}

impl fmt::Debug for RedisPassword {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("RedisPassword(Sensitive)")
    }
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ClientSecret(Sensitive)")
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
    /// The key's name where the key itself must not stand: in the state file, and in the table of lives.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let first = self.digest().0.iter().take(8).fold(0, |all, byte| all << 8 | u64::from(*byte));
        Fingerprint(first)
    }
}

/// A name for a key that cannot be turned back into it: the first 64 bits of its [`KeyDigest`].
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

/// The shortest token accepted, in bytes.
pub const TOKEN_MIN: usize = 16;

/// SHA-256 of a caller's token: `printf %s TOKEN | sha256sum` prints the same. Tokens are random, so there is nothing to
/// try through, and a digest may stand in the configuration.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct TokenDigest(KeyDigest);

impl TokenDigest {
    /// Of what a request shows; nothing where that is shorter than any token may be (16 bytes).
    #[must_use]
    pub fn of(token: &[u8]) -> Option<Self> {
        (token.len() >= TOKEN_MIN).then(|| Self(KeyDigest::of(token)))
    }

    /// Whether both are the same, in a time that does not depend on how much of them is.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.0.is(&other.0)
    }

    /// Whether it is that of nothing, which `sha256sum` prints where a variable is not set.
    #[must_use]
    pub fn is_of_nothing(&self) -> bool {
        self.0 == KeyDigest::of(b"")
    }
}

impl FromStr for TokenDigest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        text.parse().map(Self)
    }
}

/// A secret that others show us: in the webhook's path, or to write keys on the admin listener. Only its digest is held.
#[derive(Clone)]
pub struct Token(Digest);

/// The text is not a token. The error does not say what it was.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a token: 16 to 128 letters, digits, `-`, `.`, `_` or `~`")]
pub struct NotAToken;

impl Token {
    /// The secret from what a file holds; surrounding white space goes.
    ///
    /// # Errors
    /// When it is too short to be one, too long, or would need an encoding in a path; the input is never quoted.
    pub fn parse(text: &str) -> Result<Self, NotAToken> {
        let text = text.trim_ascii();
        if !(TOKEN_MIN..=128).contains(&text.len()) || !text.bytes().all(is_key_byte) {
            return Err(NotAToken);
        }
        Ok(Self(digest(&SHA256, text.as_bytes())))
    }

    /// Whether this is it. Digests are compared, so the time tells nothing of the secret.
    #[must_use]
    pub fn is(&self, shown: &[u8]) -> bool {
        self.0.as_ref() == digest(&SHA256, shown).as_ref()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Token(Sensitive)")
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
        assert_eq!(format!("{:?}", ClientSecret::parse("blue").unwrap()), "ClientSecret(Sensitive)");
    }

    #[test]
    fn a_key_is_known_by_its_sha256() {
        let digest = ApiKey::parse(" cbat_blue\n").unwrap().digest();
        // printf %s cbat_blue | sha256sum
        let text = "947889e232b9e8568416df8db6ace563af192af9bedb58ba751b2eb48c64edbd";
        assert_eq!((digest.to_string().as_str(), digest.short().as_str()), (text, &text[..8]));
        assert_eq!(text.parse(), Ok(digest));
        assert_eq!(format!("{digest:?}"), format!("KeyDigest({})", &text[..8]));
        for bad in ["", &text[1..], "zz", &text.replace('a', "+")] {
            assert_eq!(bad.parse::<KeyDigest>(), Err(NotADigest), "{bad}");
        }
    }

    #[test]
    fn a_token_is_recognised_and_long_enough() {
        let secret = Token::parse("0123456789abcdef\n").unwrap();
        assert!(secret.is(b"0123456789abcdef") && !secret.is(b"0123456789abcdeg") && !secret.is(b""));
        assert_eq!(format!("{secret:?}"), "Token(Sensitive)");
        for bad in ["", "0123456789abcde", "0123456789abcde/", &"a".repeat(129)] {
            assert_eq!(Token::parse(bad).err(), Some(NotAToken), "{bad}");
        }
    }

    #[test]
    fn a_client_secret_is_one_line() {
        assert_eq!(ClientSecret::parse(" a b\n").err(), Some(NotAClientSecret));
        for bad in ["", "\n", "a\nb", "\u{e4}", &"a".repeat(CLIENT_SECRET_MAX + 1)] {
            assert!(ClientSecret::parse(bad).is_err());
        }
        assert_eq!(ClientSecret::parse("s3cret/+=\n").unwrap().for_exchange(), "s3cret/+=");
    }
}
