//! What a decision costs when many hotels wait.
//!
//! In: how many wait. Out: the time of one decision beside that with ten: somebody's turn comes, is told, starts, and the
//! same hotel queues again. There are no tasks and no wake-ups in it, which would cost more the more tasks there are: the
//! futures are polled here, by hand, in the order in which their turns come.

use std::collections::VecDeque;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use cloudbeds_auth_proxy::budget::{Ask, Budget, Exhausted, Flow, Limits, MARGIN, Permit, Priority, SECOND};
use tokio::runtime::Builder;
use tokio::time::{Instant, advance};

use crate::kit::section::Section;
use crate::kit::{Sentence, median};

/// How many hotels wait.
const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];

/// Decisions that are timed together; no more than the fewest who wait.
const TOGETHER: usize = 10;

type Turn = Pin<Box<dyn Future<Output = Result<Permit, Exhausted>>>>;

/// A budget for which always the same number of hotels wait.
struct Crowd {
    budget: Arc<Budget>,
    waiting: VecDeque<(Ask, Turn)>,
}

fn ask(hotel: usize) -> Ask {
    let flow = (hotel + 1).to_string().parse().map_or(Flow::Own, Flow::Property);
    Ask { flow, priority: Priority::Normal }
}

impl Crowd {
    async fn of(hotels: usize) -> Self {
        let limits = Limits {
            max_wait: Duration::from_hours(1_000),
            max_waiting: 2 * hotels,
            max_waiting_per_property: 2,
            weights: Arc::default(),
        };
        let budget = Arc::new(Budget::new("app", TOGETHER, limits));
        let mut crowd = Self { budget, waiting: VecDeque::new() };
        for _ in 0..TOGETHER {
            let started = crowd
                .budget
                .take(ask(hotels), Instant::now())
                .await
                .is_ok_and(|mut permit| permit.start(Instant::now()));
            assert!(started, "an empty window has room");
        }
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

    /// The time of one decision.
    async fn decide(&mut self, rounds: usize) -> f64 {
        let mut taken = Duration::ZERO;
        let budget = Arc::clone(&self.budget);
        let mut serving = pin!(budget.serve_queue());
        for _ in 0..rounds {
            // The whole window is free again, and filled again.
            advance(SECOND + MARGIN).await;
            let before = std::time::Instant::now();
            let mut context = Context::from_waker(Waker::noop());
            assert!(black_box(serving.as_mut().poll(&mut context)).is_pending(), "it never ends");
            for _ in 0..TOGETHER {
                let Some((ask, mut turn)) = self.waiting.pop_front() else { unreachable!("there are as many") };
                let std::task::Poll::Ready(Ok(mut permit)) = turn.as_mut().poll(&mut context) else {
                    unreachable!("turns come in the order of arrival")
                };
                assert!(permit.start(Instant::now()), "it is as new as can be");
                self.queue(ask);
            }
            taken += before.elapsed();
        }
        taken.as_secs_f64() / (rounds * TOGETHER) as f64
    }
}

/// Times all sizes in turns; the ratios are of the same round.
///
/// # Errors
/// When there can be no runtime.
pub(crate) fn measure(quick: bool) -> Result<(Section, Vec<f64>), Sentence> {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    let (rounds, turns) = if quick { (3, 200) } else { (15, 2_000) };
    let times: Vec<Vec<f64>> = runtime.block_on(async {
        let mut crowds = Vec::new();
        for hotels in SIZES {
            crowds.push(Crowd::of(hotels).await);
        }
        let mut times = vec![Vec::new(); SIZES.len()];
        for _ in 0..rounds {
            for (crowd, times) in crowds.iter_mut().zip(&mut times) {
                times.push(crowd.decide(turns).await);
            }
        }
        times
    });
    let mut section = Section::new(
        "Time of one decision beside that with ten hotels waiting, median of the rounds",
        &["hotels waiting", "ratio"],
    );
    let mut ratios = Vec::new();
    for (hotels, times_of) in SIZES.iter().zip(&times) {
        let beside: Vec<f64> = times_of.iter().zip(&times[0]).map(|(time, ten)| time / ten).collect();
        let ratio = median(&beside).unwrap_or(f64::NAN);
        section.row([hotels.to_string(), format!("{ratio:.2}")]);
        ratios.push(ratio);
    }
    Ok((section, ratios))
}
