//! A secret that has a file of its own: an app's client secret, the secret part of the webhook's path, the admin
//! token, the password of Redis.
//!
//! In: a path. Out: the secret, or what is wrong with the file. It is held to the same rules as a key file: nobody but
//! the owner and one group may read it. No fault quotes it.

use std::path::Path;

use zeroize::Zeroizing;

use super::read::{ONE_MAX, Unread, bytes};
use crate::fault::Fault;
use crate::secret::{ClientSecret, RedisPassword, Token};

/// An app's client secret from its file.
///
/// # Errors
/// When the file is not there, may be read by others, or holds something else.
pub fn client_secret(path: &Path, option: &str) -> Result<ClientSecret, Vec<Fault>> {
    secret(path, option, "copy the secret again from the app's details page at Cloudbeds", ClientSecret::parse)
}

/// A secret that others show us, from its file.
///
/// # Errors
/// When the file is not there, may be read by others, or holds something else.
pub fn token(path: &Path, option: &str) -> Result<Token, Vec<Fault>> {
    secret(path, option, "make one with: head -c 24 /dev/urandom | base64 | tr '+/' '-_'", Token::parse)
}

/// The bytes of a file that only its owner and one group may read, such as a certificate's private key.
///
/// # Errors
/// When the file is not there, may be read by others, or is larger than 64 KiB.
pub fn private_file(path: &Path, option: &str) -> Result<Zeroizing<Vec<u8>>, Vec<Fault>> {
    bytes(path, ONE_MAX).map_err(|unread| match unread {
        Unread::Gone(_) => {
            let hint = "put the file there, or correct the option";
            vec![Fault::new(path.display().to_string(), "is not there", hint).about(option)]
        }
        Unread::Bad(faults) => {
            let told = |fault: Fault| Fault { message: fault.message.replace("the keys", "it"), ..fault.about(option) };
            faults.into_iter().map(told).collect()
        }
    })
}

/// The password of a Redis user from its file.
///
/// # Errors
/// When the file is not there, may be read by others, or holds something else.
pub fn redis_password(path: &Path, option: &str) -> Result<RedisPassword, Vec<Fault>> {
    secret(path, option, "write the password into it, and nothing else", RedisPassword::parse)
}

fn secret<T, E: std::error::Error>(
    path: &Path,
    option: &str,
    hint: &str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<T, Vec<Fault>> {
    let fault = |message: String, hint: &str| vec![Fault::new(path.display().to_string(), message, hint).about(option)];
    let bytes = private_file(path, option)?;
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    parse(text).map_err(|error| fault(error.to_string(), hint))
}
