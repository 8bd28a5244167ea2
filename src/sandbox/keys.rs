//! The text of the sandbox's keys: making it up, and finding it in a request.
//!
//! In: nothing, or a request's headers. Out: a key. These keys open nothing but this process's own made-up data, which is
//! why they may be ordinary strings here.

use std::hash::{BuildHasher, RandomState};

use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::secret::KEY_PREFIX;

/// How many characters follow the prefix in keys seen in the field.
const TAIL: usize = 32;

/// A fresh key of the observed form: `cbat_` and 32 letters and digits.
#[must_use]
pub fn random_key() -> String {
    format!("{KEY_PREFIX}{}", random_token(TAIL))
}

/// That many letters and digits nobody can guess.
pub(super) fn random_token(length: usize) -> String {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut token = String::with_capacity(length);
    while token.len() < length {
        // 248 is the largest multiple of 62 in a byte: without the cut the first letters would be likelier.
        for byte in random_bytes().into_iter().filter(|byte| *byte < 248).take(length - token.len()) {
            token.push(char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]));
        }
    }
    token
}

/// Sixteen bytes from the system. If it has none to give, the hasher's seed will do: the lock is on a doll's house.
pub(super) fn random_bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        for half in bytes.chunks_exact_mut(8) {
            half.copy_from_slice(&RandomState::new().hash_one(TAIL).to_ne_bytes());
        }
    }
    bytes
}

/// The key as sent: `Authorization: Bearer` first, then `x-api-key`, both of which the vendor's descriptions declare.
pub(super) fn sent_key(headers: &HeaderMap) -> Option<&str> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then_some(token.trim());
    }
    headers.get("x-api-key")?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_key_is_accepted_by_the_proxy_and_never_the_same_twice() {
        let (one, two) = (random_key(), random_key());
        assert_eq!(one.len(), 37);
        assert!(crate::secret::ApiKey::parse(&one).is_ok());
        assert_ne!(one, two);
    }
}
