//! An authenticating reverse proxy for the Cloudbeds API: applications call it without a credential, it looks the key
//! of the property up and sends the request on.
//!
//! Modules in reading order; imports point down this list only (`tests/tidy.rs` holds that).
#![forbid(unsafe_code)]

pub mod origin;
pub mod property;
pub mod sandbox;
pub mod secret;
pub mod wire;
