//! A deadline that is moved often and reached hardly ever.
//!
//! In: the instant something is due, asked again at every poll. Out: whether it has passed. Moving it later costs
//! nothing: the timer is only touched when it fires too early or would fire too late.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// A reusable timer; without one armed it holds no memory on the heap.
#[derive(Debug, Default)]
pub struct Deadline(Option<Pin<Box<Sleep>>>);

impl Deadline {
    /// Whether `due` has passed; if not, the task of `cx` is woken when it has.
    pub fn passed(&mut self, due: Instant, cx: &mut Context<'_>) -> bool {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if sleep.deadline() > due {
            sleep.as_mut().reset(due);
        }
        while sleep.as_mut().poll(cx) == Poll::Ready(()) {
            if Instant::now() >= due {
                return true;
            }
            sleep.as_mut().reset(due);
        }
        false
    }
}
