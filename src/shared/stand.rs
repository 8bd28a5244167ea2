//! Who answers for budgets in place of a Redis: a simulation, which has the scripts run at a time of its own.
//!
//! In: what a replica would send. Out: what the script says to it. The script is the one that Redis runs, but for its
//! clock, which is told with each call.

use std::fmt::Debug;
use std::pin::Pin;
use std::time::Duration;

use super::link::Failure;
use super::script::{BUDGET, SIGN};

/// How the script asks for the time, and what it has instead.
const CLOCK: (&str, &str) = ("redis.call('TIME')", "{ ARGV[2], ARGV[3] }");

/// When a simulation begins, in seconds since 1970.
const BEGINNING: u64 = 1_800_000_000;

/// Whoever runs the script.
pub trait Stand: Send + Sync + Debug {
    /// The server's own name for its present life.
    fn run(&self) -> &str;

    /// What the script answers to this argument about this key.
    fn answer<'a>(&'a self, key: &'a str, argument: &'a str) -> Answering<'a>;

    /// What the script of [`sign_script`] answers about this key.
    fn sign<'a>(&'a self, key: &'a str) -> Answering<'a>;
}

/// An answer that takes its time.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Result<String, Failure>> + Send + 'a>>;

/// The script with a clock that is told: behind its argument come the words of [`time`].
#[must_use]
pub fn timed_script() -> String {
    BUDGET.replace(CLOCK.0, CLOCK.1)
}

/// The script that is asked between two reports whether the server is there. It needs no clock.
#[must_use]
pub fn sign_script() -> &'static str {
    SIGN
}

/// The script's time, so long after the beginning: seconds and microseconds, as Redis' TIME has them.
#[must_use]
pub fn time(since: Duration) -> [String; 2] {
    [(BEGINNING + since.as_secs()).to_string(), since.subsec_micros().to_string()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_asks_for_the_time_once_and_a_simulation_tells_it() {
        assert_eq!(BUDGET.matches(CLOCK.0).count(), 1);
        assert_eq!(time(Duration::from_micros(61_000_007)), ["1800000061", "7"]);
    }
}
