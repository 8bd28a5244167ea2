//! So many in so much time: what strangers can make this process do at Cloudbeds.
//!
//! In: the wish to do something. Out: whether it is time for it. Nothing is queued: whoever is refused comes back.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// At most `most` in any `span`.
pub(super) struct Pace {
    most: usize,
    span: Duration,
    taken: Mutex<VecDeque<Instant>>,
}

impl Pace {
    pub(super) fn new(most: usize, span: Duration) -> Self {
        Self { most, span, taken: Mutex::default() }
    }

    /// Takes one of them, if one is left.
    pub(super) fn take(&self) -> bool {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        while taken.front().is_some_and(|at| now.duration_since(*at) >= self.span) {
            taken.pop_front();
        }
        let free = taken.len() < self.most;
        if free {
            taken.push_back(now);
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_in_any_span_and_no_more() {
        let pace = Pace::new(2, Duration::from_secs(10));
        assert_eq!([pace.take(), pace.take(), pace.take()], [true, true, false]);
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(!pace.take());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!([pace.take(), pace.take(), pace.take()], [true, true, false]);
    }
}
