//! What a panic says: where, never what.
//!
//! In: any panic of the process. Out: one line with the place in the source, and a count. The message is left out,
//! since it may quote the data the code tripped over.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};

static PANICS: AtomicU64 = AtomicU64::new(0);

/// Panics since [`install`].
pub(super) fn count() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Replaces the hook that would print the message.
pub fn install() {
    std::panic::set_hook(Box::new(|panic| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        let (file, line) = panic.location().map_or(("unknown place", 0), |place| (place.file(), place.line()));
        if tracing::dispatcher::has_been_set() {
            let thread = std::thread::current();
            let thread = thread.name().unwrap_or_default();
            tracing::error!(file, line, thread, "a task panicked; this is a bug, please report the place");
        } else {
            // Before the log is set up. A standard error that is closed is nothing to panic about once more.
            let _ = writeln!(std::io::stderr(), "cloudbeds-auth-proxy: panicked at {file}:{line}; this is a bug");
        }
    }));
}

/// Panics with a text that is to show nowhere, where a test asks for it: in builds with debug assertions alone, with
/// `CLOUDBEDS_AUTH_PROXY_TEST_PANIC` naming this place. A place in the path of requests is a path.
#[cfg(debug_assertions)]
#[track_caller]
#[allow(clippy::panic, reason = "it is what it is for")]
pub fn if_a_test_asks(place: &str, text: impl FnOnce() -> String) {
    static ASKED: std::sync::OnceLock<Option<std::ffi::OsString>> = std::sync::OnceLock::new();
    let asked = ASKED.get_or_init(|| std::env::var_os("CLOUDBEDS_AUTH_PROXY_TEST_PANIC"));
    if asked.as_ref().is_some_and(|asked| asked == place) {
        std::panic::panic_any(text());
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    /// The hook is the process's, so the panic happens in one of its own: this test binary, told to run `the_child`.
    #[test]
    fn a_panic_says_where_and_never_what() {
        let child = ["--exact", "telemetry::panic::tests::the_child", "--ignored", "--nocapture"];
        let output = Command::new(std::env::current_exe().unwrap()).args(child).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("panicked at src/telemetry/panic.rs:"), "{said}");
        assert!(said.contains("1 counted"), "{said}");
        assert!(!said.contains("blue"), "{said}");
    }

    #[test]
    #[ignore = "run by the test above"]
    fn the_child() {
        super::install();
        let _ = std::panic::catch_unwind(|| panic!("cbat_blue"));
        println!("{} counted", super::count());
    }
}
