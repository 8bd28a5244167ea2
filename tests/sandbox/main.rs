//! The stand-in Cloudbeds over real sockets, without a proxy before it.
#![allow(clippy::unwrap_used)] // Clippy knows a test by its attribute, not its helpers.

#[path = "../client/mod.rs"]
mod client;

mod api;
mod books;
mod connect;
mod control;
mod exchange;
mod fates;
mod partner;
mod webhooks;
