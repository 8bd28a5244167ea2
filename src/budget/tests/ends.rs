//! Requests that end where nobody expects it: dropped, or unwound by a panic, between any two polls of their lives.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker};

use super::*;

/// All that a request does with permits: a wait, a dial, a start, a further try that waits too, its answer.
async fn life(budget: Arc<Budget>) {
    let booking = Ask { is_unsafe: true, ..hotel(1) };
    let mut first = budget.take(booking, Instant::now()).await.unwrap();
    first.keep();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(first.start(Instant::now()));
    tokio::task::yield_now().await;
    let mut second = first.again().await.unwrap();
    tokio::task::yield_now().await;
    assert!(second.start(Instant::now()));
    first.heard(StatusCode::OK, &HeaderMap::new());
    tokio::task::yield_now().await;
    second.heard(StatusCode::TOO_MANY_REQUESTS, &headers(&[(RETRY_AFTER, "1")]));
    drop((first, second));
    // The one that tries whether the pause is over.
    let mut trial = budget.take(hotel(1), Instant::now()).await.unwrap();
    tokio::task::yield_now().await;
    assert!(trial.start(Instant::now()));
    tokio::task::yield_now().await;
    trial.heard(StatusCode::OK, &HeaderMap::new());
}

/// Polls so many times, each time when it asked for it; whether that was the end.
async fn polled(mut life: Pin<&mut impl Future<Output = ()>>, times: usize) -> bool {
    let mut left = times;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(false);
        }
        left -= 1;
        match life.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            // The last poll's wish is not granted.
            Poll::Pending if left == 0 => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// What must hold whatever became of a life.
async fn assert_nothing_lost(scene: &Scene, what: &str) {
    // A pause that it left behind, and the windows of what it had sent.
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(scene.idle(), "{what}: {:?}", scene.budget.account());
    let ended = all(scene.many(hotel(2), 3)).await;
    assert!(ended.iter().all(Result::is_ok), "{what}: {ended:?}");
    tokio::time::sleep(SECOND + MARGIN).await;
    assert!(scene.idle(), "{what}: {:?}", scene.budget.account());
    assert_eq!(scene.most(), 1, "{what}");
}

/// Ends a life after each number of polls, in either way; how many polls a whole life takes.
async fn ended_after_each_poll(panicking: bool) -> usize {
    for polls in 0.. {
        let scene = Scene::new(1, limits(100));
        // It has to wait.
        scene.request(hotel(2), Duration::ZERO).await.unwrap().unwrap();
        let budget = Arc::clone(&scene.budget);
        let task = tokio::spawn(async move {
            let mut life = Box::pin(life(budget));
            let over = polled(life.as_mut(), polls).await;
            if panicking && !over {
                // The life is dropped while the stack unwinds.
                std::panic::resume_unwind(Box::new(()));
            }
            over
        });
        let over = match task.await {
            Ok(over) => over,
            Err(error) => !error.is_panic(),
        };
        assert_nothing_lost(&scene, &format!("{polls} polls")).await;
        if over {
            return polls;
        }
    }
    unreachable!("a life ends")
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_between_any_two_polls_gives_back_what_it_had() {
    let polls = ended_after_each_poll(false).await;
    // Three waits, a dial and five pauses for others.
    assert!(polls >= 9, "{polls}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_panics_between_any_two_polls_gives_back_what_it_had() {
    assert!(ended_after_each_poll(true).await >= 9);
}

#[tokio::test(start_paused = true)]
async fn whoever_serves_the_queue_may_be_stopped_and_replaced_at_any_time() {
    let scene = Scene::new(3, limits(100));
    scene.serving.abort();
    let requests = scene.many(hotel(1), 20);
    for millis in (0..40).map(|round| 37 * round % 400) {
        let budget = Arc::clone(&scene.budget);
        let serving = tokio::spawn(async move { budget.serve_queue().await });
        tokio::time::sleep(Duration::from_millis(millis)).await;
        serving.abort();
    }
    let ended = all(requests).await;
    assert!(ended.iter().all(Result::is_ok), "{ended:?}");
    assert_eq!(scene.most(), 3);
    tokio::time::sleep(SECOND + MARGIN).await;
    assert!(scene.idle());
}

/// A waiter whose waker panics.
struct Bomb;

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        std::panic::resume_unwind(Box::new(()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_turns_are_given_out_loses_none() {
    let scene = Scene::new(3, limits(100));
    scene.serving.abort();
    assert!(all(scene.many(hotel(2), 3)).await.iter().all(Result::is_ok));
    let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(scene.budget.take(hotel(1), Instant::now()))).collect();
    let bomb = Waker::from(Arc::new(Bomb));
    for (request, waker) in waiting.iter_mut().zip([&bomb, Waker::noop(), Waker::noop()]) {
        assert!(request.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
    }
    let budget = Arc::clone(&scene.budget);
    let serving = tokio::spawn(async move { budget.serve_queue().await });
    assert!(serving.await.unwrap_err().is_panic());
    assert_eq!(scene.budget.account().used, 1, "the one that was told has it still");
    drop(waiting);
    assert!(scene.idle(), "{:?}", scene.budget.account());
}
