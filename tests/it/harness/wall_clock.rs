//! A wall clock of a process's own, by Debian's `libfaketime`: what the process takes for the date is off by as much as the
//! test says, from its start or all at once. Its monotonic clock is everybody's.
//!
//! In: the offset, in the library's notation (`+5h`, `-40d`). Out: a [`WallClock`], whose [`words`](WallClock::words) start
//! a program with it, or nothing where it is not installed: with `CI=true` that is a failure, else the test says that it skips.

use std::path::PathBuf;

/// A clock that the test sets. The processes that have it must end before it.
pub struct WallClock {
    library: PathBuf,
    directory: tempfile::TempDir,
}

impl WallClock {
    /// One that is off by so much.
    pub fn off_by(offset: &str) -> Option<Self> {
        let Some(library) = library() else {
            super::skipped("no libfaketime; install Debian's faketime");
            return None;
        };
        let clock = Self { library, directory: tempfile::tempdir().unwrap() };
        clock.set(offset);
        Some(clock)
    }

    /// Sets it, for every process that has it, at once.
    pub fn set(&self, offset: &str) {
        let new = self.directory.path().join("new");
        std::fs::write(&new, offset).unwrap();
        std::fs::rename(new, self.file()).unwrap();
    }

    /// What comes before a program and its arguments.
    pub fn words(&self) -> Vec<String> {
        let set = |name: &str, value: String| format!("{name}={value}");
        vec![
            "env".to_owned(),
            set("LD_PRELOAD", self.library.display().to_string()),
            set("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string()),
            set("FAKETIME_NO_CACHE", "1".to_owned()),
            set("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("offset")
    }
}

/// The library for programs of several threads, where Debian has it: in a directory named after the architecture.
fn library() -> Option<PathBuf> {
    let directories = std::fs::read_dir("/usr/lib").ok()?;
    directories.flatten().map(|entry| entry.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists())
}
