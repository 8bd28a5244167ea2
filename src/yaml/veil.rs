//! A text without its keys, for parsers that copy what they read and wipe none of it.
//!
//! In: a text. Out: one of the same length in which a number stands for each key, so that every node keeps its place; and
//! the keys again in whatever a parser has made of a node. A text in which a parser could make a key of something else, or
//! compare two of them (it has escapes, or an anchor's name is a key), stays as it is, and so do keys that leave no room
//! for a number: those of the vendor have 32 characters behind `cbat_`.

use std::fmt::Write as _;
use std::ops::Range;

use zeroize::Zeroizing;

use crate::secret::{KEY_PREFIX, is_key_byte};

/// Digits of the largest number: a file of 256 MiB has fewer keys.
const ROOM: usize = 9;

/// A text, and what parsers see of it.
pub struct Veil<'a> {
    text: &'a str,
    veiled: Option<String>,
    /// Where the key of each number has its place, behind the prefix.
    keys: Vec<usize>,
}

impl<'a> Veil<'a> {
    /// Hides the keys of a text.
    #[must_use]
    pub fn over(text: &'a str) -> Self {
        let count = keys(text).count();
        if count == 0 || text.contains('\\') || names_an_anchor(text) {
            return Self::off(text);
        }
        let (mut veiled, mut places, mut at) = (String::with_capacity(text.len()), Vec::with_capacity(count), 0);
        for key in keys(text) {
            veiled.push_str(&text[at..key.start]);
            // A string takes whatever is written.
            let _ = write!(veiled, "{:01$}", places.len(), key.len());
            places.push(key.start);
            at = key.end;
        }
        veiled.push_str(&text[at..]);
        Self { text, veiled: Some(veiled), keys: places }
    }

    /// Hides nothing.
    #[must_use]
    pub fn off(text: &'a str) -> Self {
        Self { text, veiled: None, keys: Vec::new() }
    }

    /// What to parse.
    #[must_use]
    pub fn text(&self) -> &str {
        self.veiled.as_deref().unwrap_or(self.text)
    }

    /// The text itself; what hid its keys goes.
    #[must_use]
    pub fn taken_off(self) -> &'a str {
        self.text
    }

    /// What the text of a node says, with its keys.
    #[must_use]
    pub fn lift(&self, node: &str) -> Zeroizing<String> {
        let (mut lifted, mut at) = (Zeroizing::new(String::with_capacity(node.len())), 0);
        for number in keys(node).take(self.keys.len()) {
            let place = node[number.clone()].parse().ok().and_then(|number: usize| self.keys.get(number));
            let Some(key) = place.and_then(|start| self.text.get(*start..start + number.len())) else { continue };
            lifted.push_str(&node[at..number.start]);
            lifted.push_str(key);
            at = number.end;
        }
        lifted.push_str(&node[at..]);
        lifted
    }
}

/// Whether a key may be the name of an anchor, for aliases to repeat. It stands in one word with the anchor's `&`.
fn names_an_anchor(text: &str) -> bool {
    let words = || text.split_ascii_whitespace().filter(|word| word.contains('&'));
    text.contains('&') && words().any(|word| word.contains(KEY_PREFIX))
}

/// Where there are keys with room for a number, each behind its prefix.
fn keys(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut at = 0;
    let next = move || {
        let start = at + memchr::memmem::find(&text.as_bytes()[at..], KEY_PREFIX.as_bytes())? + KEY_PREFIX.len();
        let length = text.as_bytes()[start..].iter().take_while(|byte| is_key_byte(**byte)).count();
        at = start + length;
        Some(start..at)
    };
    std::iter::from_fn(next).filter(|key| key.len() >= ROOM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_hidden_in_place_and_comes_back() {
        let text = "\"1001\": cbat_blueblueblue # cbat_short\n1002: { key: 'cbat_redredredred' }\n";
        let veil = Veil::over(text);
        let veiled = "\"1001\": cbat_000000000000 # cbat_short\n1002: { key: 'cbat_000000000001' }\n";
        assert_eq!(veil.text(), veiled);
        assert_eq!(veil.lift(veiled).as_str(), text);
        assert_eq!(veil.lift(" cbat_000000000001\n").as_str(), " cbat_redredredred\n");
        // What is no number of its length is what it is.
        for other in ["1001", "", "cbat_short", "cbat_000000000002", "cbat_x00000000001", "000000000001"] {
            assert_eq!(veil.lift(other).as_str(), other);
        }
    }

    #[test]
    fn where_a_parser_could_change_a_key_nothing_is_hidden() {
        for text in
            ["1001: \"cbat_blueblue\\x41\"", "1001: &cbat_blueblueblue cbat_redredredred", "1001: cbat_blue", ""]
        {
            let veil = Veil::over(text);
            assert_eq!((veil.text(), veil.lift("cbat_000000000").as_str()), (text, "cbat_000000000"));
        }
        let amp = "1001: &a cbat_blueblueblue # Bed & Breakfast\n1002: *a\n";
        assert!(!Veil::over(amp).text().contains("blue"));
    }
}
