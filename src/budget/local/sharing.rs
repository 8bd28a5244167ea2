//! The side of a budget that leases its places: what it reports, and what it does with a grant.
//!
//! In: answers, or the news that there are none. Out: reports, and permits for those who waited for a place.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Gate, Local, State};
use crate::budget::places::{self, Places};
use crate::budget::shared::{Fallback, Grant, Report};

impl Local {
    pub(in crate::budget) fn report(&self, lost: bool, now: Instant) -> Report {
        let mut state = self.state();
        let State { window, places, pace, queue, .. } = &mut *state;
        window.pass(now);
        let (allowed, waiting) = (pace.allowed(now), queue.ready());
        let word = pace.report(now);
        let (kept, (flows, low)) = (window.kept(), queue.flows());
        // In steps that leave a report of a thousand starts short; an age that is too low counts for longer.
        let step = (self.granted as u64 / 100).max(1);
        let mut starts: Vec<u64> = Vec::new();
        for age in window.ages(now) {
            let age = millis(age) / step * step;
            match starts.last_chunk_mut::<2>() {
                Some([last, count]) if *last == age => *count += 1,
                _ => starts.extend([age, 1]),
            }
        }
        let fallback = self.apart.fallback.unwrap_or(Fallback { share: 0, parts: 0 });
        let mut report = Report {
            granted: self.granted,
            allowed,
            block: places::block(self.granted),
            share: 0,
            promised: 0,
            cap: 0,
            kept,
            pool: 0,
            want: waiting,
            idle: false,
            waiting: if waiting > 0 { flows.max(1) } else { 0 },
            low,
            pause: millis(word.left),
            paused: word.paused,
            number: word.number,
            lifted: word.lifted,
            told: word.heard,
            trying: millis(word.trying),
            starts,
            fallback: fallback.share,
            parts: fallback.parts,
            gone: millis(self.apart.gone),
        };
        if let Places::Leased(leases) = places {
            (report.share, report.promised) = (leases.share(now), leases.promised(now));
            report.cap = if lost || leases.is_alone() { report.share } else { 0 };
            report.pool = leases.pool(now);
            if waiting == 0 {
                (report.want, report.idle) = (leases.ahead(now), leases.is_idle(now));
            }
            leases.report(now);
        }
        report
    }

    pub(in crate::budget) fn granted(self: &Arc<Self>, grant: &Grant, sent: Instant, now: Instant) {
        let mut state = self.state();
        let State { window, places, pace, .. } = &mut *state;
        window.pass(now);
        pace.told(grant.common_pause(), sent, now);
        if let Places::Leased(leases) = places {
            leases.granted(grant, sent, window, now);
            if leases.is_alone() {
                pace.alone();
            }
        }
        drop(state);
        self.give_out();
        // There may be a moment to wait for now.
        self.bell.notify_one();
    }

    pub(in crate::budget) fn leave(self: &Arc<Self>, now: Instant) -> usize {
        let mut state = self.state();
        let State { window, places, pace, .. } = &mut *state;
        window.pass(now);
        let Places::Leased(leases) = places else { return 0 };
        leases.leave(window, now);
        pace.alone();
        let share = leases.share(now);
        drop(state);
        self.give_out();
        self.bell.notify_one();
        share
    }

    pub(in crate::budget) fn asks(&self, at: Instant) {
        if let Places::Leased(leases) = &mut self.state().places {
            leases.asks(at);
        }
    }

    pub(in crate::budget) fn close(&self, now: Instant) {
        if let Places::Leased(leases) = &mut self.state().places {
            leases.close(now);
        }
    }

    pub(in crate::budget) fn is_over(&self, now: Instant) -> bool {
        matches!(&self.state().places, Places::Leased(leases) if leases.is_over(now))
    }

    pub(in crate::budget) fn hungry(&self, now: Instant) -> bool {
        let state = self.state();
        match &state.places {
            Places::Own => false,
            Places::Leased(leases) => {
                let waiting = state.queue.ready();
                leases.hungry(waiting, now) || (waiting > 0 && state.pace.gate(now) == Gate::Asked)
            }
        }
    }

    pub(in crate::budget) async fn asked(&self) {
        self.ask.notified().await;
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
