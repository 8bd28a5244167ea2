//! Who may write the key file now.
//!
//! In: where the keys are. Out: a [`Lock`] that only one process and one thread holds at a time, until it is dropped or
//! the process ends in whatever way. It is a file of its own beside the keys, since every writing puts another file in
//! the key file's place. It is never removed: whoever waits for it has it open.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long another writer is waited for. One writing takes milliseconds, or seconds with 100,000 keys.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

const PAUSE: Duration = Duration::from_millis(10);

/// Held while the keys are written.
pub(super) struct Lock {
    _file: File,
}

/// Waits for the lock at `path` and takes it; `TimedOut` when another one keeps it.
pub(super) fn hold(path: &Path) -> io::Result<Lock> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    let until = Instant::now() + PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) if Instant::now() >= until => return Err(io::ErrorKind::TimedOut.into()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}
