//! What the project promises, tried through the real binary over real sockets, with TLS to a stand-in upstream.
//!
//! One binary, one file per topic. The harness looks for every key it knows in everything the process emits.

mod harness;
mod main_job;
