//! How far a command is that asks Cloudbeds many times.

use std::io::{IsTerminal as _, Write as _};

/// How far it is, on a terminal only.
pub(super) struct Progress {
    total: usize,
    done: usize,
    shown: bool,
}

impl Progress {
    pub(super) fn new(total: usize) -> Self {
        Self { total, done: 0, shown: std::io::stderr().is_terminal() }
    }

    pub(super) fn step(&mut self, bad: usize) {
        const WIDTH: usize = 30;
        self.done += 1;
        if self.shown {
            let full = self.done * WIDTH / self.total.max(1);
            let (bar, rest) = ("#".repeat(full), " ".repeat(WIDTH - full.min(WIDTH)));
            let _ = write!(std::io::stderr(), "\r[{bar}{rest}] {} of {} looked up, {bad} bad", self.done, self.total);
        }
    }

    pub(super) fn done(&self) {
        if self.shown && self.done > 0 {
            let _ = writeln!(std::io::stderr());
        }
    }
}
