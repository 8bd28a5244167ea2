//! 128 random bits that nobody can guess: a state, a browser's cookie.
//!
//! In: the system's random numbers, or text from a stranger. Out: a [`Token`] that is compared in constant time. It has
//! no `Display` and its `Debug` shows nothing: whoever reads one in a log could finish somebody else's connection.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq as _;

/// 128 bits, 22 characters of base64url (RFC 4648 5) on the outside.
#[derive(Clone)]
pub(super) struct Token([u8; 16]);

impl Token {
    /// A fresh one.
    ///
    /// # Errors
    /// When the system has no random numbers, which only happens early in its start.
    pub(super) fn random() -> Result<Self, getrandom::Error> {
        let mut bits = [0; 16];
        getrandom::fill(&mut bits)?;
        Ok(Self(bits))
    }

    /// The token from text; nothing when it cannot be one of ours.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut bits = [0; 18];
        match URL_SAFE_NO_PAD.decode_slice(text, &mut bits) {
            Ok(16) => bits.first_chunk().copied().map(Self),
            _ => None,
        }
    }

    /// For a URL, a cookie, or a nonce, and for nothing else.
    pub(super) fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// Whether both are the same, in a time that does not depend on where they differ.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
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
    fn a_token_survives_the_way_through_a_url_and_nothing_else_is_one() {
        let token = Token::random().unwrap();
        let text = token.text();
        assert_eq!(text.len(), 22);
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{text}");
        assert!(Token::parse(&text).unwrap().is(&token));
        assert!(!Token::random().unwrap().is(&token));
        for bad in ["", "AAAA", &text[1..], &format!("{text}A"), &format!("{text}AA"), "a b", &"A".repeat(500)] {
            assert!(Token::parse(bad).is_none(), "{bad}");
        }
        assert_eq!(format!("{token:?}"), "Token(Sensitive)");
    }
}
