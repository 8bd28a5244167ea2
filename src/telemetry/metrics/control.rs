//! The counters of the control plane: reloads, lost lines, the start.
//!
//! In: events that come once in a while, from any thread. Out: numbers for the scrape.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::telemetry::sink::LostLines;

/// What is counted beside the requests.
#[derive(Debug)]
pub struct Control {
    reloads_ok: AtomicU64,
    reloads_refused: AtomicU64,
    key_file_good: AtomicBool,
    revocation_lists_due: AtomicU64,
    lost_lines: OnceLock<LostLines>,
    started: SystemTime,
}

impl Control {
    pub(super) fn new() -> Self {
        Self {
            reloads_ok: AtomicU64::new(0),
            reloads_refused: AtomicU64::new(0),
            key_file_good: AtomicBool::new(false),
            revocation_lists_due: AtomicU64::new(0),
            lost_lines: OnceLock::new(),
            started: SystemTime::now(),
        }
    }

    /// Whether the keys were good when last read. Until this is said the gauge is 0.
    pub fn set_key_file_good(&self, good: bool) {
        self.key_file_good.store(good, Ordering::Relaxed);
    }

    /// New keys are being served; the gauge goes to 1.
    pub fn reload_succeeded(&self) {
        self.reloads_ok.fetch_add(1, Ordering::Relaxed);
        self.set_key_file_good(true);
    }

    /// New keys were refused and the last good ones stay; the gauge goes to 0.
    pub fn reload_refused(&self) {
        self.reloads_refused.fetch_add(1, Ordering::Relaxed);
        self.set_key_file_good(false);
    }

    /// How many revocation lists let nobody in, since they are missing or out of date.
    pub fn set_revocation_lists_due(&self, lists: usize) {
        self.revocation_lists_due.store(lists as u64, Ordering::Relaxed);
    }

    /// From now on the log's lost lines are counted here too. The first log given is the one that counts.
    pub fn watch_log(&self, lost_lines: LostLines) {
        let _ = self.lost_lines.set(lost_lines);
    }

    pub(super) fn reloads_ok(&self) -> u64 {
        self.reloads_ok.load(Ordering::Relaxed)
    }

    pub(super) fn reloads_refused(&self) -> u64 {
        self.reloads_refused.load(Ordering::Relaxed)
    }

    pub(super) fn key_file_good(&self) -> bool {
        self.key_file_good.load(Ordering::Relaxed)
    }

    pub(super) fn revocation_lists_due(&self) -> u64 {
        self.revocation_lists_due.load(Ordering::Relaxed)
    }

    pub(super) fn lines_lost(&self) -> u64 {
        self.lost_lines.get().map_or(0, LostLines::count)
    }

    /// Seconds since 1970.
    pub(super) fn started(&self) -> f64 {
        self.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
    }
}
