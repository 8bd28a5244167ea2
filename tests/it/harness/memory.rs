//! What a process holds in memory: every page that it can write to, seen through `/proc/PID/mem`.
//!
//! In: a process that is not dumpable, so only root may look. Out: where a secret lies in it, or nothing where this
//! process may not look: with `CI=true` that is a failure, else the test says that it skips.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;

/// The memory of a process at one moment.
pub struct Memory(Vec<Area>);

struct Area {
    name: String,
    bytes: Vec<u8>,
}

impl Memory {
    pub fn of(process: u32) -> Option<Self> {
        let opened = File::open(format!("/proc/{process}/mem"));
        let memory = match opened {
            Ok(memory) => memory,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                super::skipped("another process's memory cannot be read; run the tests as root");
                return None;
            }
            Err(error) => panic!("/proc/{process}/mem: {error}"),
        };
        let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
        Some(Self(maps.lines().filter_map(|line| area(&memory, line)).collect()))
    }

    /// Where a secret lies, or half of it: the allocator writes over the first bytes of what is given back to it.
    pub fn places(&self, secret: &str) -> Vec<String> {
        let tail = secret.strip_prefix("cbat_").unwrap_or(secret);
        assert!(tail.len() >= 16, "too short to be found by accident only");
        let halves = <[&str; 2]>::from(tail.split_at(tail.len() / 2));
        let within = |area: &Area| {
            let found = halves.iter().flat_map(|half| memchr::memmem::find_iter(&area.bytes, half.as_bytes()));
            found.map(|at| format!("{} at {at:#x}", area.name)).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(within).collect()
    }
}

/// `7f0c00000000-7f0c00021000 rw-p 00000000 00:00 0    [heap]`, as far as it can be read.
fn area(memory: &File, line: &str) -> Option<Area> {
    let mut words = line.split_ascii_whitespace();
    let (range, rights) = (words.next()?, words.next()?);
    if !rights.starts_with("rw") {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let [start, end] = [start, end].map(|number| u64::from_str_radix(number, 16).unwrap());
    let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
    // A stack's guard, or a mapping of a device.
    let read = memory.read_at(&mut bytes, start).unwrap_or_default();
    bytes.truncate(read);
    Some(Area { name: format!("{range} {}", words.nth(3).unwrap_or("anonymous")), bytes })
}
