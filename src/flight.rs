//! One piece of work that several wait for.
//!
//! In: work, from whoever needs its result first. Out: that result, to everybody who came before it was there. The work
//! is a task of its own, so that it does not end when the one who started it gives up. All of it stays on one core.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::rc::Rc;

use tokio::sync::Notify;
use tokio::task::spawn_local;

/// The place where one piece of work at a time is under way.
pub struct Flights<T>(Rc<RefCell<Option<Rc<Flight<T>>>>>);

struct Flight<T> {
    done: RefCell<Option<T>>,
    landed: Notify,
}

impl<T: Clone + 'static> Flights<T> {
    /// The result of what is under way, or else of `work`, started now.
    pub async fn join<F: Future<Output = T> + 'static>(&self, work: impl FnOnce() -> F) -> T {
        let under_way = self.0.borrow().clone();
        let flight = under_way.unwrap_or_else(|| self.start(work()));
        loop {
            let landed = flight.landed.notified();
            if let Some(done) = flight.done.borrow().clone() {
                return done;
            }
            landed.await;
        }
    }

    fn start(&self, work: impl Future<Output = T> + 'static) -> Rc<Flight<T>> {
        let flight = Rc::new(Flight { done: RefCell::new(None), landed: Notify::new() });
        *self.0.borrow_mut() = Some(Rc::clone(&flight));
        let (slot, landing) = (Rc::clone(&self.0), Rc::clone(&flight));
        spawn_local(async move {
            // Also when the work panics: those who wait for it meet their deadlines, and others are not to.
            let clear = Clear(slot);
            let done = work.await;
            // Whoever comes from now on wants a newer result.
            drop(clear);
            *landing.done.borrow_mut() = Some(done);
            landing.landed.notify_waiters();
        });
        flight
    }
}

/// Makes room for the next piece of work.
struct Clear<T>(Rc<RefCell<Option<Rc<Flight<T>>>>>);

impl<T> Drop for Clear<T> {
    fn drop(&mut self) {
        *self.0.borrow_mut() = None;
    }
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self(Rc::default())
    }
}

impl<T> fmt::Debug for Flights<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Flights(under way: {})", self.0.borrow().is_some())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::task::{LocalSet, yield_now};

    use super::*;

    #[tokio::test]
    async fn work_that_panics_is_in_nobodys_way() {
        let local = LocalSet::new();
        local
            .run_until(async {
                let flights = Flights::<u8>::default();
                tokio::select! {
                    _ = flights.join(|| async { panic!("the work fails") }) => unreachable!("there is no result"),
                    () = async { for _ in 0..5 { yield_now().await } } => {}
                }
                assert_eq!(flights.join(|| async { 7 }).await, 7);
            })
            .await;
    }

    #[tokio::test]
    async fn everybody_gets_the_one_result_also_when_the_first_to_ask_gives_up() {
        let local = LocalSet::new();
        local
            .run_until(async {
                let (flights, started) = (Flights::default(), Rc::new(Cell::new(0)));
                let ask = || {
                    let started = Rc::clone(&started);
                    flights.join(move || async move {
                        started.set(started.get() + 1);
                        yield_now().await;
                        yield_now().await;
                        started.get()
                    })
                };
                tokio::select! {
                    biased;
                    _ = ask() => unreachable!("nothing has landed yet"),
                    () = yield_now() => {}
                }
                assert_eq!(tokio::join!(ask(), ask()), (1, 1));
                assert_eq!(ask().await, 2, "what has landed is not handed out again");
            })
            .await;
    }
}
