//! Where the process stands in its life, as one value every thread can read for the price of a load.
//!
//! In: the composition root says how far it is. Out: a [`Phase`] for the data plane (close or keep a connection), for
//! the probes, and for whoever waits. A life runs forward only: a late "ready" cannot undo a drain that has begun.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::watch;

/// One stretch of the process's life. The order is the order of time.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Phase {
    /// Configuration, keys and listeners are being set up.
    #[default]
    Starting,
    /// Configured and listening.
    Ready,
    /// Told to end: still accepting, but every answer closes its connection.
    Draining,
    /// No longer accepting: requests in flight end, further ones on open connections are refused.
    Closing,
    /// Nothing is served any more.
    Stopped,
}

impl Phase {
    const ALL: [Self; 5] = [Self::Starting, Self::Ready, Self::Draining, Self::Closing, Self::Stopped];
}

/// The process's one [`Phase`], shared by reference.
#[derive(Debug)]
pub struct PhaseCell {
    // Beside the watch, whose `borrow` takes a lock: the data plane asks on every answer.
    now: AtomicU8,
    waiters: watch::Sender<Phase>,
}

impl PhaseCell {
    /// A life at its beginning: [`Phase::Starting`].
    #[must_use]
    pub fn new() -> Self {
        Self { now: AtomicU8::new(Phase::Starting as u8), waiters: watch::Sender::new(Phase::Starting) }
    }

    /// The phase now: one relaxed load. A core may see a change a moment after the one that made it.
    #[must_use]
    pub fn get(&self) -> Phase {
        let now = usize::from(self.now.load(Ordering::Relaxed));
        Phase::ALL.get(now).copied().unwrap_or(Phase::Stopped)
    }

    /// Moves on to `phase`. An earlier phase than the present one is ignored.
    pub fn set(&self, phase: Phase) {
        self.now.fetch_max(phase as u8, Ordering::Relaxed);
        self.waiters.send_if_modified(|seen| {
            let forward = phase > *seen;
            if forward {
                *seen = phase;
            }
            forward
        });
    }

    /// Waits until the life has come to `phase` or further. Cancel safe.
    pub async fn reached(&self, phase: Phase) {
        // An error would mean that the sender is gone, and `self` holds it.
        let _ = self.waiters.subscribe().wait_for(|seen| *seen >= phase).await;
    }
}

impl Default for PhaseCell {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_life_runs_forward_only() {
        let cell = PhaseCell::new();
        assert_eq!(cell.get(), Phase::Starting);
        cell.set(Phase::Draining); // SIGTERM while still starting …
        cell.set(Phase::Ready); // … and the start that completes afterwards.
        assert_eq!(cell.get(), Phase::Draining);
        for (index, phase) in Phase::ALL.into_iter().enumerate() {
            assert_eq!(phase as usize, index);
        }
    }

    #[tokio::test]
    async fn whoever_waits_for_a_phase_is_woken_by_it_or_by_a_later_one() {
        let cell = Arc::new(PhaseCell::new());
        let waiting = tokio::spawn({
            let cell = Arc::clone(&cell);
            async move { cell.reached(Phase::Draining).await }
        });
        cell.set(Phase::Ready);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        cell.set(Phase::Stopped);
        waiting.await.unwrap();
        cell.reached(Phase::Starting).await;
    }
}
