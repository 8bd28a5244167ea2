//! The keys of the sandbox: making them up, and telling whose an incoming one is.
//!
//! In: a request's headers. Out: a [`Grant`], the properties its key opens, or why there is none. These keys open
//! nothing but this process's own made-up data, which is why they may be ordinary strings here.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::Hotel;
use crate::property::PropertyId;
use crate::secret::KEY_PREFIX;

/// How many characters follow the prefix in keys seen in the field.
const TAIL: usize = 32;

/// A fresh key of the observed form: `cbat_` and 32 letters and digits.
#[must_use]
pub fn random_key() -> String {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut key = String::from(KEY_PREFIX);
    while key.len() < KEY_PREFIX.len() + TAIL {
        // 248 is the largest multiple of 62 in a byte: without the cut the first letters would be likelier.
        for byte in random_bytes().into_iter().filter(|byte| *byte < 248).take(KEY_PREFIX.len() + TAIL - key.len()) {
            key.push(char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]));
        }
    }
    key
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

/// What a key opens.
#[derive(Clone)]
pub(super) struct Grant {
    /// Never empty, in the order of the settings.
    pub(super) properties: Vec<PropertyId>,
}

/// Why a request opens nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum NoGrant {
    /// It carries no key.
    Missing,
    /// No hotel has this key.
    Invalid,
    /// A hotel had it.
    Revoked,
}

/// All keys and what became of them.
pub(super) struct Keys {
    properties: HashMap<String, Vec<PropertyId>>,
    revoked: Mutex<HashSet<String>>,
}

impl Keys {
    pub(super) fn new(hotels: &[Hotel]) -> Self {
        let mut properties: HashMap<String, Vec<PropertyId>> = HashMap::new();
        for hotel in hotels {
            properties.entry(hotel.key.clone()).or_default().push(hotel.property);
        }
        Self { properties, revoked: Mutex::default() }
    }

    pub(super) fn revoke(&self, key: &str) {
        self.revoked.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned());
    }

    pub(super) fn grant(&self, headers: &HeaderMap) -> Result<Grant, NoGrant> {
        let key = sent_key(headers).ok_or(NoGrant::Missing)?;
        if self.revoked.lock().unwrap_or_else(PoisonError::into_inner).contains(key) {
            return Err(NoGrant::Revoked);
        }
        let properties = self.properties.get(key).ok_or(NoGrant::Invalid)?;
        Ok(Grant { properties: properties.clone() })
    }
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
