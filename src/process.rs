//! What the process asks of the kernel for itself, before it holds a key.
//!
//! In: nothing. Out: no core dump, no debugger, as many sockets as the system allows, and a [`Warning`] for each of
//! these that could not be had. None of them stops the start: a sandbox that forbids `prctl` still wants its proxy. And
//! runtimes that do not depend on a thread that may not be had later.

use std::io;
use std::time::Duration;

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// Something the kernel did not grant. The text says what follows from it.
#[derive(Debug, thiserror::Error)]
pub enum Warning {
    /// The core size limit stays as it was.
    #[error("core dumps could not be limited to nothing: a crash may write keys to disk")]
    CoreLimit(#[source] rustix::io::Errno),
    /// The process stays dumpable.
    #[error("the process could not be made undumpable: a crash handler or a debugger of the same user may read keys")]
    Dumpable(#[source] rustix::io::Errno),
    /// The limit of open files stays as it was.
    #[error("the limit of open files could not be raised: many connections at once may be refused")]
    OpenFiles(#[source] rustix::io::Errno),
}

/// Keeps keys out of core files, and other processes of the same user out of this one's memory.
///
/// Files that are opened through `/proc/self` (such as `/dev/stdout`) belong to root afterwards: a process without
/// privileges must open them before.
#[must_use]
pub fn harden() -> Vec<Warning> {
    let mut warnings = Vec::new();
    let nothing = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, nothing) {
        warnings.push(Warning::CoreLimit(error));
    }
    // The limit alone is not enough: Linux does not heed it where core_pattern is a pipe (core(5)), as it is under
    // systemd-coredump.
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        warnings.push(Warning::Dumpable(error));
    }
    warnings
}

/// Raises the soft limit of open files to the hard one: every connection takes one on each side, and the usual soft
/// limit of 1,024 is there for programs that still call `select`.
#[must_use]
pub fn raise_open_files() -> Option<Warning> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return None;
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).err().map(Warning::OpenFiles)
}

/// The highest number that the descriptor of a caller's connection may have: three quarters of all. The lowest free
/// number is given out first, so one beyond that says that few are left, which connections to Cloudbeds, files and the
/// admin listener need. `None` where there is no limit.
#[must_use]
pub fn descriptors_for_callers() -> Option<i32> {
    let limit = getrlimit(Resource::Nofile).current?;
    i32::try_from(limit - limit / 4).ok()
}

/// A runtime of one thread, whose second one, for work that blocks (files, names), stays for good once it is there.
#[must_use]
pub fn runtime() -> tokio::runtime::Builder {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    // Ten years.
    builder.enable_all().thread_keep_alive(Duration::from_secs(10 * 365 * 24 * 60 * 60));
    builder
}

/// Whether the system has another thread to give, asked before a library that would panic.
///
/// # Errors
/// When it has none.
pub fn another_thread() -> io::Result<()> {
    std::thread::Builder::new().spawn(|| ()).map(drop).map_err(|error| {
        let words = "no thread can be started; raise the limit of threads (ulimit -u, pids.max)";
        io::Error::new(error.kind(), format!("{words}: {error}"))
    })
}

/// Starts that second thread. tokio panics where work that blocks finds none and none can be had; when the process runs
/// out of threads later, such work waits for this one.
///
/// # Errors
/// When the system has no thread to give.
pub fn blocking_thread() -> io::Result<()> {
    another_thread()?;
    drop(tokio::task::spawn_blocking(|| ()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::process::dumpable_behavior;

    use super::*;

    #[test]
    fn a_hardened_process_leaves_no_core_behind() {
        assert!(harden().is_empty());
        let core = getrlimit(Resource::Core);
        assert_eq!((core.current, core.maximum), (Some(0), Some(0)));
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        assert!(harden().is_empty(), "and may be hardened again");
    }

    #[test]
    fn as_many_files_may_be_open_as_the_system_allows() {
        assert!(raise_open_files().is_none());
        let files = getrlimit(Resource::Nofile);
        assert_eq!(files.current, files.maximum);
    }
}
