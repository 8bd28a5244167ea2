//! Files that a writer did not live to finish.
//!
//! In: a directory, and how such files are named. Out: they are gone, as far as the system lets them. Every writer clears
//! its own kind away before or while it writes, so that kills, however many, do not fill a disk.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// How unfinished files end.
pub(super) const END: &str = ".new";

/// No writing takes as long, so whatever is older has lost its writer.
pub(super) const NO_LONGER_WRITTEN: Duration = Duration::from_secs(60);

/// Removes files whose names begin so and end in [`END`], and that have been as they are for so long; zero where a lock
/// says that nobody writes any.
pub(super) fn clear(directory: &Path, begin: &str, age: Duration) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if !name.starts_with(begin.as_bytes()) || !name.ends_with(END.as_bytes()) {
            continue;
        }
        let old = |modified: SystemTime| modified.elapsed().is_ok_and(|so_far| so_far > age);
        if age.is_zero() || entry.metadata().and_then(|metadata| metadata.modified()).is_ok_and(old) {
            // It may hold a key, so it should not stay; where it must, it is as private as the keys.
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_may_be_writing_stays() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["keys.yaml", ".key-a.new", ".key-a", ".keys-a.new", "x.key-a.new"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let count = || fs::read_dir(directory.path()).unwrap().count();
        clear(directory.path(), ".key-", NO_LONGER_WRITTEN);
        assert_eq!(count(), 5);
        clear(directory.path(), ".key-", Duration::ZERO);
        assert!(count() == 4 && !directory.path().join(".key-a.new").exists());
    }
}
