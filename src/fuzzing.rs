//! What fuzzing runs: one function per target, which takes any bytes and panics where a promise is broken.
//!
//! In: bytes of a fuzzer, of a file in `fuzz/corpus/`, or of the mutations in `tests.rs`. Out: nothing, or the end of the
//! process. `fuzz/README.md` says what each target asserts. Each stands beside the code it tries, since it sees what is
//! private there; none of this is compiled into the program: only into tests, and for `fuzz/` by the feature `fuzzing`.

pub use crate::config::fuzzing::config;
pub use crate::https::fuzzing::records;
pub use crate::keys::fuzzing::{key_file, state};
pub use crate::onboarding::fuzzing::{callback, token, webhook};
pub use crate::proxy::fuzzing::{answer, answers, http2, request, views};
pub use crate::shared::fuzzing::redis;
pub use crate::tls::fuzzing::crl;
pub use crate::wire::fuzzing::{inspect, mask};

/// A target by its name, which is that of its folder in `fuzz/corpus/` and of its file in `fuzz/fuzz_targets/`.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 16] = [
    ("request", request),
    ("views", views),
    ("answer", answer),
    ("answers", answers),
    ("http2", http2),
    ("records", records),
    ("mask", mask),
    ("inspect", inspect),
    ("key_file", key_file),
    ("config", config),
    ("callback", callback),
    ("webhook", webhook),
    ("redis", redis),
    ("crl", crl),
    ("state", state),
    ("token", token),
];

#[cfg(test)]
mod tests;
