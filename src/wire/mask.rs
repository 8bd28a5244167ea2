//! Keys in an answer, covered with asterisks where they stand.
//!
//! In: bytes of a header or of a body, cut anywhere. Out: the same number of bytes, with everything behind `cbat_`
//! that can belong to a key replaced by `*`. Lengths stay true and no byte is held back: the first four letters of
//! `cbat_` may have left already when the fifth arrives, so the prefix itself stays readable; it is no secret.

use std::borrow::Cow;
use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use memchr::memmem::Finder;

use super::field::has_underscore;
use crate::secret::{KEY_PREFIX, is_key_byte};

static PREFIX: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(KEY_PREFIX.as_bytes()));

/// Where in a stream the mask stands: how many bytes of `cbat_` are matched, or inside a key.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Mask {
    /// 0..=4: bytes of the prefix matched so far; 5: behind the prefix.
    matched: u8,
    /// Keys of which at least one byte was covered.
    found: u32,
    /// Whether the current key has been counted.
    counted: bool,
}

const BEHIND: u8 = KEY_PREFIX.len() as u8;

impl Mask {
    /// How many keys were covered so far.
    #[must_use]
    pub fn found(&self) -> u32 {
        self.found
    }

    /// The next chunk of the stream, masked. Without a key in it the very same buffer comes back.
    #[must_use]
    pub fn chunk(&mut self, chunk: Bytes) -> Bytes {
        match self.first_cover(&chunk) {
            None => chunk,
            Some(at) => {
                let mut copy = BytesMut::from(&chunk[..]);
                self.cover(&mut copy[at..]);
                copy.freeze()
            }
        }
    }

    /// Follows the next chunk without changing it; tells whether [`found`](Self::found) rose.
    pub fn inspect(&mut self, chunk: &[u8]) -> bool {
        let before = self.found;
        let mut rest = chunk;
        while let Some(at) = self.first_cover(rest) {
            let end = rest[at..].iter().position(|byte| !is_key_byte(*byte)).map_or(rest.len(), |end| at + end);
            self.count();
            rest = &rest[end..];
            if !rest.is_empty() {
                self.matched = 0;
                self.counted = false;
            }
        }
        self.found > before
    }

    /// The index of the first byte to cover, with the state as it is before that byte; without one, the state
    /// behind the chunk.
    fn first_cover(&mut self, chunk: &[u8]) -> Option<usize> {
        let mut at = 0;
        // Only what the last chunk left half matched needs a walk; the rest is a search at memory speed.
        while self.matched > 0 {
            let byte = *chunk.get(at)?;
            if self.matched == BEHIND && is_key_byte(byte) {
                return Some(at);
            }
            self.step(byte);
            at += 1;
        }
        loop {
            let Some(found) = PREFIX.find(&chunk[at..]) else {
                self.matched = prefix_at_end(&chunk[at..]);
                return None;
            };
            at += found + KEY_PREFIX.len();
            self.matched = BEHIND;
            self.counted = false;
            match chunk.get(at) {
                None => return None,
                Some(byte) if is_key_byte(*byte) => return Some(at),
                Some(_) => self.matched = 0,
            }
        }
    }

    /// Covers from a position that [`first_cover`](Self::first_cover) found to the end of the chunk.
    fn cover(&mut self, chunk: &mut [u8]) {
        let mut at = 0;
        while at < chunk.len() {
            while let Some(byte) = chunk.get_mut(at).filter(|byte| is_key_byte(**byte)) {
                self.count();
                *byte = b'*';
                at += 1;
            }
            if at == chunk.len() {
                return;
            }
            self.matched = 0;
            self.counted = false;
            match self.first_cover(&chunk[at..]) {
                Some(next) => at += next,
                None => return,
            }
        }
    }

    fn step(&mut self, byte: u8) {
        let expected = KEY_PREFIX.as_bytes().get(usize::from(self.matched));
        if expected == Some(&byte) {
            self.matched += 1;
        } else {
            // `c` occurs in `cbat_` only at its start, so no longer match can be going on.
            self.matched = u8::from(byte == b'c');
        }
        self.counted = false;
    }

    fn count(&mut self) {
        if !self.counted {
            self.counted = true;
            self.found += 1;
        }
    }
}

/// The length of the longest proper prefix of `cbat_` that the chunk ends with.
fn prefix_at_end(chunk: &[u8]) -> u8 {
    let longest = chunk.len().min(KEY_PREFIX.len() - 1);
    (1..=longest).rev().find(|len| chunk.ends_with(&KEY_PREFIX.as_bytes()[..*len])).map_or(0, |len| len as u8)
}

/// Up to this many bytes a value counts as short.
const SHORT: usize = 64;

/// A whole value, such as a header's; `None` when there is nothing to cover.
#[must_use]
pub fn value(bytes: &[u8]) -> Option<Vec<u8>> {
    // Most values are short and without an underscore, and a look at all their bytes is over before a search has begun.
    if bytes.len() < SHORT && !has_underscore(bytes) {
        return None;
    }
    let mut mask = Mask::default();
    let at = mask.first_cover(bytes)?;
    let mut copy = bytes.to_vec();
    mask.cover(&mut copy[at..]);
    Some(copy)
}

/// The same for text.
#[must_use]
pub fn text(text: &str) -> Cow<'_, str> {
    match value(text.as_bytes()) {
        None => Cow::Borrowed(text),
        // Only ASCII bytes were replaced by ASCII.
        Some(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the mask promises, written the slow way over the whole body.
    fn reference(body: &[u8]) -> (Vec<u8>, u32) {
        let (mut out, mut found, mut at) = (body.to_vec(), 0, 0);
        while at < body.len() {
            if !body[at..].starts_with(b"cbat_") {
                at += 1;
                continue;
            }
            at += 5;
            let start = at;
            while at < body.len() && is_key_byte(body[at]) {
                out[at] = b'*';
                at += 1;
            }
            found += u32::from(at > start);
        }
        (out, found)
    }

    fn chunked(body: &[u8], cuts: &[usize]) -> (Vec<u8>, u32, u32) {
        let (mut mask, mut watcher, mut out, mut at) = (Mask::default(), Mask::default(), Vec::new(), 0);
        let ends = cuts.iter().map(|cut| cut % (body.len() + 1)).chain([body.len()]);
        for end in ends {
            if end >= at {
                watcher.inspect(&body[at..end]);
                out.extend_from_slice(&mask.chunk(Bytes::copy_from_slice(&body[at..end])));
                at = end;
            }
        }
        (out, mask.found(), watcher.found())
    }

    #[test]
    fn a_key_is_covered_and_its_length_stays() {
        let body = br#"{"key":"cbat_9T01SlwIQGq8HC56LYL8kXcBBp","x":"cbat_","y":"ccbat_a"}"#;
        let (out, found, seen) = chunked(body, &[]);
        assert_eq!(out, br#"{"key":"cbat_**************************","x":"cbat_","y":"ccbat_*"}"#);
        assert_eq!((found, seen), (2, 2));
    }

    #[test]
    fn a_chunk_without_a_key_is_not_copied() {
        let chunk = Bytes::from_static(b"nothing here, not even a cba");
        let mut mask = Mask::default();
        assert_eq!(mask.chunk(chunk.clone()).as_ptr(), chunk.as_ptr());
        assert_eq!(mask.chunk(Bytes::from_static(b"t_ABC ")), &b"t_*** "[..]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn chunk_boundaries_do_not_matter(
            // An alphabet that makes prefixes, near misses and keys likely.
            body in proptest::collection::vec(
                prop_oneof![Just(b"cbat_".to_vec()), Just(b"cba".to_vec()), Just(b"c".to_vec()), Just(b"t_".to_vec()),
                    proptest::collection::vec(prop_oneof![Just(b'c'), Just(b'_'), Just(b'"'), Just(b'Z'), any::<u8>()], 0..6)],
                0..24),
            mut cuts in proptest::collection::vec(0usize..160, 0..12),
        ) {
            let body: Vec<u8> = body.concat();
            cuts.sort_unstable_by_key(|cut| cut % (body.len() + 1));
            let (expected, count) = reference(&body);
            let (out, found, seen) = chunked(&body, &cuts);
            prop_assert_eq!(&out, &expected);
            prop_assert_eq!(found, count);
            prop_assert_eq!(seen, count);
            prop_assert_eq!(value(&body).unwrap_or_else(|| body.clone()), expected);
        }
    }
}
