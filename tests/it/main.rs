//! What the project promises, tried through the real binary over real sockets, with TLS to a stand-in upstream.
//!
//! One binary, one file per topic. The harness looks for every key it knows in everything the process emits.

#![allow(unreachable_pub, reason = "a test binary has no outside")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may end itself"
)]
#![allow(missing_docs, reason = "the tests' names are their documentation")]

mod authorize;
mod browser;
mod budgets;
mod callers;
mod canary;
mod certificates;
mod chaos;
mod clock_jumps;
mod coded;
mod demo;
mod disk;
mod disk_faults;
mod doctor;
mod exhausted;
mod faults;
mod harness;
mod http2;
mod http2_callers;
mod http2_unprocessed;
mod identify;
mod keys;
mod keys_cli;
mod life;
mod life_state;
mod lifecycle;
mod main_job;
mod names;
mod observe;
mod onboarding;
mod onboarding_kill;
mod onboarding_pages;
mod onboarding_webhook;
mod pages;
mod paste;
mod pool;
mod races;
mod replay;
mod revocation;
mod rewrite;
mod sanitize;
mod shared;
mod shared_clock;
mod shared_lives;
mod shared_model;
mod shared_secrets;
mod shared_trial;
mod start;
mod stream;
mod streaming;
mod syscalls;
mod tls;
mod unreachable;
mod uploads;
mod wiped;
mod wire;
mod writer_kill;
