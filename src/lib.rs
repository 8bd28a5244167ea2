//! An authenticating reverse proxy for the Cloudbeds API: applications call it without a credential, it looks the key
//! of the property up and sends the request on.
//!
//! Modules in reading order; imports point down this list only (`tests/tidy.rs` holds that).
#![forbid(unsafe_code)]

pub mod address;
pub mod config;
pub mod fault;
pub mod keys;
pub mod origin;
pub mod property;
pub mod secret;
pub mod wire;
pub mod yaml;
