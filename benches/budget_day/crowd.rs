//! A crowd of hotels that wait for one budget, and always as many of them.
//!
//! In: how many. Out: decisions, one window of them at a time: somebody's turn comes, is told, starts, and the same hotel
//! queues again. There are no tasks and no wake-ups in it, which would cost more the more tasks there are: the futures
//! are polled here, by hand, in the order in which their turns come.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use cloudbeds_auth_proxy::budget::{Ask, Budget, Exhausted, Flow, Limits, MARGIN, Permit, SECOND};
use tokio::time::{Instant, advance};

/// How many decisions there are in a window; no more than the fewest who wait.
pub(crate) const TOGETHER: usize = 10;

type Turn = Pin<Box<dyn Future<Output = Result<Permit, Exhausted>>>>;

/// A budget for which always the same number of hotels wait.
pub(crate) struct Crowd {
    budget: Arc<Budget>,
    serving: Pin<Box<dyn Future<Output = ()>>>,
    waiting: VecDeque<(Ask, Turn)>,
}

fn ask(hotel: usize) -> Ask {
    let flow = (hotel + 1).to_string().parse().map_or(Flow::Own, Flow::Property);
    Ask::normal(flow)
}

impl Crowd {
    /// To be made, and used, on a paused clock.
    pub(crate) async fn of(hotels: usize) -> Self {
        let limits = Limits {
            max_wait: Duration::from_hours(1_000),
            max_waiting: 2 * hotels,
            max_waiting_per_property: 2,
            weights: Arc::default(),
        };
        let budget = Arc::new(Budget::new("app", TOGETHER, limits));
        for _ in 0..TOGETHER {
            let permit = budget.take(ask(hotels), Instant::now()).await;
            assert!(permit.is_ok_and(|mut permit| permit.start(Instant::now())), "an empty window has room");
        }
        let served = Arc::clone(&budget);
        let serving = Box::pin(async move { served.serve_queue().await });
        let mut crowd = Self { budget, serving, waiting: VecDeque::new() };
        (0..hotels).for_each(|hotel| crowd.queue(ask(hotel)));
        crowd
    }

    /// A hotel that waits.
    fn queue(&mut self, ask: Ask) {
        let budget = Arc::clone(&self.budget);
        let mut turn: Turn = Box::pin(async move { budget.take(ask, Instant::now()).await });
        assert!(turn.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending(), "the window is full");
        self.waiting.push_back((ask, turn));
    }

    /// Until the whole window is free again.
    pub(crate) async fn window_passes(&self) {
        advance(SECOND + MARGIN).await;
    }

    /// Fills the window.
    pub(crate) fn decide(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        assert!(self.serving.as_mut().poll(&mut context).is_pending(), "it never ends");
        for _ in 0..TOGETHER {
            let Some((ask, mut turn)) = self.waiting.pop_front() else { unreachable!("there are as many") };
            let Poll::Ready(Ok(mut permit)) = turn.as_mut().poll(&mut context) else {
                unreachable!("turns come in the order of arrival")
            };
            assert!(permit.start(Instant::now()), "it is as new as can be");
            self.queue(ask);
        }
    }
}
