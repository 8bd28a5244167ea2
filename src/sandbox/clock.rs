//! The sandbox's own clock: it runs like any other, and can be moved forward.
//!
//! In: how far to move it. Out: what time it is here, and waits that end when that time comes, however it came. It never
//! runs backwards, so nothing that has expired comes back. It follows the runtime's clock, which a test may pause.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;

/// The furthest it is moved in all: a century, so that no sum of times overflows.
const FURTHEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The time of day in the sandbox.
pub(super) struct Clock {
    started: SystemTime,
    since: Instant,
    /// How long it ran before it was stopped.
    stopped: OnceLock<Duration>,
    moved: watch::Sender<Duration>,
}

impl Clock {
    /// A clock that shows the real time until it is moved.
    pub(super) fn new() -> Self {
        let moved = watch::Sender::new(Duration::ZERO);
        Self { started: SystemTime::now(), since: Instant::now(), stopped: OnceLock::new(), moved }
    }

    pub(super) fn now(&self) -> SystemTime {
        let ran = self.stopped.get().copied().unwrap_or_else(|| self.since.elapsed());
        self.started + ran + *self.moved.borrow()
    }

    /// From now on it only goes when it is moved.
    pub(super) fn stop(&self) {
        self.stopped.get_or_init(|| self.since.elapsed());
    }

    /// How far it has been moved so far.
    pub(super) fn moved(&self) -> Duration {
        *self.moved.borrow()
    }

    pub(super) fn advance(&self, by: Duration) {
        self.moved.send_modify(|moved| *moved = moved.saturating_add(by).min(FURTHEST));
    }

    /// Returns at that time, at once when it is past.
    pub(super) async fn reaches(&self, time: SystemTime) {
        let mut moved = self.moved.subscribe();
        while let Ok(left) = time.duration_since(self.now()) {
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                // The sender is this clock's own.
                _ = moved.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_when_the_clock_gets_there_by_itself_or_by_hand() {
        let clock = std::sync::Arc::new(Clock::new());
        let begun = clock.now();
        clock.reaches(begun + Duration::from_secs(60)).await;
        assert!(clock.now() >= begun + Duration::from_secs(60));
        let day = begun + Duration::from_secs(86_400);
        let waiting = tokio::spawn({
            let clock = std::sync::Arc::clone(&clock);
            async move { clock.reaches(day).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        clock.advance(Duration::from_secs(86_400));
        waiting.await.unwrap();
        assert!(clock.now() >= day);
        clock.stop();
        let stopped = clock.now();
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(clock.now(), stopped);
        clock.advance(Duration::MAX);
        assert_eq!(clock.moved(), FURTHEST);
    }
}
