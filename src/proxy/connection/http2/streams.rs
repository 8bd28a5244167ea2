//! What the streams of an HTTP/2 connection have in common: how many there are, since when there is none, what their caller
//! has given up, and the answers that may wait for their reader too long.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::super::LINGER;

/// A caller that gives up so many more requests than it lets finish loses its connection: each cost a start at Cloudbeds.
const GIVEN_UP: u64 = 100;

/// An answer under way that may have to end before its reader has it.
pub(super) trait Waiting {
    /// Since when nobody has asked for more of it.
    fn handed(&self) -> Option<Instant>;

    /// Drops what is left of it, and what that holds.
    fn let_go(&self);
}

/// What the streams of a connection have in common.
pub(super) struct Streams {
    /// Requests that are not answered yet and whose answer is being read.
    pub(super) open: Cell<usize>,
    /// Since when there is none; only of use while there is none.
    pub(super) empty_since: Cell<Instant>,
    /// Whether there was one yet.
    pub(super) asked: Cell<bool>,
    /// Since when the caller knows, or should, that the connection ends.
    pub(super) told: Cell<Option<Instant>>,
    given_up: Cell<u64>,
    finished: Cell<u64>,
    /// An answer said that the process is ending.
    pub(super) ending: Cell<bool>,
    pub(super) answers: RefCell<Vec<Rc<dyn Waiting>>>,
    pub(super) waker: RefCell<Option<Waker>>,
}

impl Streams {
    /// Of a connection that begins now.
    pub(super) fn new() -> Self {
        Self {
            open: Cell::new(0),
            empty_since: Cell::new(Instant::now()),
            asked: Cell::default(),
            told: Cell::default(),
            given_up: Cell::new(0),
            finished: Cell::new(0),
            ending: Cell::new(false),
            answers: RefCell::default(),
            waker: RefCell::default(),
        }
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    pub(super) fn flooded(&self) -> bool {
        self.given_up.get() > GIVEN_UP + self.finished.get()
    }

    /// Whether a request comes too late. One that was on its way when the caller was told is served still (RFC 9113 6.8);
    /// but h2 takes new ones for as long as the caller leaves the PING after the GOAWAY unanswered.
    pub(super) fn late(&self) -> bool {
        self.told.get().is_some_and(|told| self.flooded() || Instant::now() >= told + LINGER)
    }

    /// Ends answers that nobody has read on for `limit`: what they hold of Cloudbeds' connections is let go. The stream
    /// itself ends when its caller comes back to it, or with the connection.
    pub(super) fn sweep(&self, now: Instant, limit: Duration) {
        self.answers.borrow_mut().retain(|answer| {
            if answer.handed().is_some_and(|handed| now >= handed + limit) {
                answer.let_go();
            }
            Rc::strong_count(answer) > 1
        });
    }
}

/// One request's place among the streams.
pub(super) struct Turn {
    pub(super) streams: Rc<Streams>,
    counted: Cell<bool>,
    pub(super) finished: Cell<bool>,
}

impl Turn {
    pub(super) fn new(streams: &Rc<Streams>) -> Self {
        streams.open.set(streams.open.get() + 1);
        streams.asked.set(true);
        Self { streams: Rc::clone(streams), counted: Cell::new(true), finished: Cell::new(false) }
    }

    pub(super) fn release(&self) {
        if self.counted.replace(false) {
            let open = self.streams.open.get() - 1;
            self.streams.open.set(open);
            if open == 0 {
                self.streams.empty_since.set(Instant::now());
            }
            self.streams.wake();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let count = if self.finished.get() { &self.streams.finished } else { &self.streams.given_up };
        count.set(count.get() + 1);
        self.release();
    }
}
