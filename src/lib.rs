//! An authenticating reverse proxy for the Cloudbeds API: applications call it without a credential, it looks the key
//! of the property up and sends the request on.
//!
//! Modules in reading order; imports point down this list only (`tests/tidy.rs` holds that).
#![deny(unsafe_code)]

pub mod cli;

pub mod app;
pub mod config;

pub mod admin;
pub mod onboarding;
pub mod proxy;
pub mod sandbox;

pub mod inquiry;

pub mod cloudbeds;
pub mod shared;

pub mod budget;
pub mod https;
pub mod keys;
pub mod listen;
pub mod tls;

pub mod telemetry;

pub mod redis_url;
pub mod web;
pub mod wire;

pub mod address;
pub mod fault;
pub mod flight;
pub mod log_filter;
pub mod origin;
pub mod phase;
pub mod process;
pub mod property;
pub mod secret;
pub mod yaml;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
