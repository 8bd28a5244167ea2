//! A key as it comes out of an e-mail, a web page or a spreadsheet.
//!
//! In: what was pasted, piped or read from a cell. Out: the one key in it. What mail programs and people add is taken
//! off; anything else is refused, since guessing which part of a text is the key would be guessing a credential. No
//! error repeats the text.

use zeroize::Zeroizing;

use crate::secret::{ApiKey, KEY_PREFIX, is_key_byte};

/// The longest text looked at, in bytes.
pub const PASTE_MAX: usize = 64 * 1024;

/// Why no key was found in a text.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotOneKey {
    /// Nothing but white space.
    #[error("nothing was entered")]
    Nothing,
    /// No `cbat_` in it.
    #[error("there is no key in what was entered: a Cloudbeds API key starts with `{KEY_PREFIX}`")]
    NoKey,
    /// Two different ones.
    #[error("there are two different keys in what was entered; enter the one that is meant")]
    Several,
    /// Something beside the key.
    #[error("there is more than a key in what was entered; enter the key alone, on one line")]
    More,
    /// The key is broken off or too long.
    #[error("the key in what was entered is not whole; copy it again")]
    Broken,
}

/// The one key of a text.
///
/// # Errors
/// When there is none, more than one, or more than that; the text is never quoted.
pub fn key(text: &str) -> Result<ApiKey, NotOneKey> {
    if text.len() > PASTE_MAX {
        return Err(NotOneKey::More);
    }
    // Quoted-printable breaks a line in the middle of a key, and writes the break as `=` at its end.
    let joined = Zeroizing::new(text.replace("=\r\n", "").replace("=\n", ""));
    let plain: Zeroizing<String> = Zeroizing::new(joined.chars().filter(|letter| !is_invisible(*letter)).collect());
    if plain.trim().is_empty() {
        return Err(NotOneKey::Nothing);
    }
    let (mut found, mut rest, mut other): (Option<&str>, &str, bool) = (None, &plain, false);
    while let Some(at) = rest.find(KEY_PREFIX) {
        other |= !is_wrapping(&rest[..at]);
        let end = rest[at..].bytes().position(|byte| !is_key_byte(byte)).map_or(rest.len(), |length| at + length);
        // A full stop may be part of a key, but none seen ends with one, and sentences do.
        let token = rest[at..end].trim_end_matches('.');
        if found.is_some_and(|found| found != token) {
            return Err(NotOneKey::Several);
        }
        found = Some(token);
        rest = &rest[end..];
    }
    let token = found.ok_or(NotOneKey::NoKey)?;
    if other || !is_wrapping(rest) {
        return Err(NotOneKey::More);
    }
    ApiKey::parse(token).map_err(|_| NotOneKey::Broken)
}

/// Characters that are not seen and travel along when text is copied.
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

/// Whether a text is only what stands around a key: white space, quotes, brackets, the name of a header.
fn is_wrapping(text: &str) -> bool {
    let mark = |letter: char| letter.is_whitespace() || "\"'`´‘’‚“”„«»‹›<>()[]{}*,;:.".contains(letter);
    let word = |word: &str| ["authorization", "bearer", "x-api-key"].contains(&word.to_ascii_lowercase().as_str());
    text.split(mark).filter(|part| !part.is_empty()).all(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mail_programs_add_is_taken_off() {
        for text in [
            "cbat_Blue7",
            "  cbat_Blue7\r\n\r\n",
            "\"cbat_Blue7\"",
            "“cbat_Blue7”.",
            "\u{feff}cbat_\u{200b}Blue7\u{a0}",
            "cbat_Bl\u{ad}ue7",
            "Bearer cbat_Blue7",
            "Authorization: Bearer cbat_Blue7.",
            "X-Api-Key: cbat_Blue7;",
            "<cbat_Blue7>",
            "*cbat_Blue7*",
            "cbat_Bl=\r\nue7",
            "cbat_Blue7 <cbat_Blue7>",
        ] {
            assert_eq!(key(text), Ok(ApiKey::parse("cbat_Blue7").unwrap()), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_one_key_is_refused() {
        for (text, why) in [
            ("", NotOneKey::Nothing),
            (" \u{200b}\n", NotOneKey::Nothing),
            ("Blue7", NotOneKey::NoKey),
            ("CBAT_Blue7", NotOneKey::NoKey),
            ("cbat_Blue7 cbat_Red7", NotOneKey::Several),
            ("cbat_Blue cbat_Blue7", NotOneKey::Several),
            ("Your key is cbat_Blue7", NotOneKey::More),
            ("cbat_Blue7 Kind regards", NotOneKey::More),
            ("cbat_Bl ue7", NotOneKey::More),
            ("cbat_Blue7/x", NotOneKey::More),
            ("xcbat_Blue7", NotOneKey::More),
            ("cbat_", NotOneKey::Broken),
            (&format!("cbat_{}", "a".repeat(600)), NotOneKey::Broken),
            (&"x".repeat(PASTE_MAX + 1), NotOneKey::More),
        ] {
            assert_eq!(key(text).err(), Some(why), "{text:?}");
            assert!(!why.to_string().contains("Blue"));
        }
    }
}
