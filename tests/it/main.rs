//! What the project promises, tried through the real binary over real sockets, with TLS to a stand-in upstream.
//!
//! One binary, one file per topic. The harness looks for every key it knows in everything the process emits.

#![allow(unreachable_pub, reason = "a test binary has no outside")]
#![allow(missing_docs, reason = "the tests' names are their documentation")]

mod faults;
mod harness;
mod main_job;
mod pool;
mod streaming;
