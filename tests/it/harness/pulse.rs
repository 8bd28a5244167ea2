//! Whether this machine kept time.
//!
//! In: nothing. Out: the moments at which a thread that sleeps for two milliseconds woke up too late. A judge that counts
//! arrivals is a process like any other: where it, or the proxy between its clock and its socket, stands still for longer
//! than the budget's margin, two requests arrive closer together than they were sent, and nobody sent too many.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// As long as the margin of a budget's window, less what a network on loopback takes of it.
const LATE: Duration = Duration::from_millis(30);

/// A thread that watches the clock until it is dropped.
pub struct Pulse {
    stood_still: Arc<Mutex<Vec<(Instant, Duration)>>>,
    over: Arc<AtomicBool>,
}

impl Pulse {
    pub fn start() -> Self {
        let (stood_still, over) = (Arc::<Mutex<Vec<_>>>::default(), Arc::new(AtomicBool::new(false)));
        std::thread::spawn({
            let (stood_still, over) = (Arc::clone(&stood_still), Arc::clone(&over));
            move || {
                while !over.load(Ordering::Relaxed) {
                    let before = Instant::now();
                    std::thread::sleep(Duration::from_millis(2));
                    let slept = before.elapsed();
                    if slept > LATE {
                        stood_still.lock().unwrap().push((before, slept));
                    }
                }
            }
        });
        Self { stood_still, over }
    }

    /// The longest that it stood still between two moments, if it did.
    pub fn stood_still(&self, from: Instant, until: Instant) -> Option<Duration> {
        let stood_still = self.stood_still.lock().unwrap();
        stood_still.iter().filter(|(at, long)| *at < until && *at + *long > from).map(|(_, long)| *long).max()
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
