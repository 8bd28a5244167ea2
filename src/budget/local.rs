//! A budget that this process owns alone.
//!
//! In: requests of all cores. Out: permits. All cores meet under one lock, for some tens of nanoseconds where nobody has
//! to wait: one look at the window, one date. Whoever must wait stands in the queue, and one task per app gives the
//! permits out at their times. No code that could panic, and no waker, runs under the lock.

mod sharing;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::pause::{Gate, Pace, Trial};
use super::permit::Permit;
use super::places::{Leases, Places, Room};
use super::queue::{Place, Queue};
use super::shared::{ALL_FROM, Apart, PATIENCE, Sharing};
use super::tally::{Account, Tally};
use super::window::{self, Window};
use super::{Ask, Exhausted, Flow, Left, Limits, Priority, Why};
use crate::property::PropertyId;

/// One app's budget.
#[derive(Debug)]
pub(super) struct Local {
    name: Box<str>,
    granted: usize,
    limits: Limits,
    state: Mutex<State>,
    /// Rung when the task that gives permits out should look again.
    bell: Notify,
    /// Rung when somebody may want more than is leased.
    ask: Notify,
    apart: Apart,
    shared: bool,
    /// Apart from the state: a scrape copies thousands of rows.
    tally: Mutex<Tally>,
}

#[derive(Debug)]
struct State {
    window: Window,
    places: Places,
    pace: Pace,
    queue: Queue<Waiter>,
    pauses: u64,
}

/// Somebody who waits.
#[derive(Debug)]
struct Waiter {
    ask: Ask,
    permit: oneshot::Sender<Permit>,
}

/// What becomes of a request that comes.
enum Entered {
    /// When, whether to try, and whether it is time to ask for more.
    Start(Instant, Option<Trial>, bool),
    Wait(oneshot::Receiver<Permit>, Place),
    Refused(Exhausted),
}

/// When the next permit can be given out.
enum Next {
    At(Instant),
    WhenRung,
    WhenGranted,
}

/// A place in the queue, given back when its owner is dropped.
struct Standing<'a>(&'a Local, Option<Place>);

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.1.take() {
            // The waiter is dropped behind the lock.
            let left = self.0.state().queue.remove(place);
            drop(left);
        }
    }
}

impl Local {
    pub(super) fn new(name: &str, granted: usize, limits: Limits) -> Self {
        Self::of(name, granted, limits, Places::Own, Apart::default())
    }

    pub(super) fn leased(name: &str, granted: usize, limits: Limits, apart: Apart) -> Self {
        let now = Instant::now();
        let leases = Leases::new(granted, apart, now + ALL_FROM, now);
        Self::of(name, granted, limits, Places::Leased(leases), apart)
    }

    fn of(name: &str, granted: usize, limits: Limits, places: Places, apart: Apart) -> Self {
        let shared = matches!(places, Places::Leased(_));
        let (window, pace) = (Window::new(granted), Pace::new(granted));
        let state = State { window, places, pace, queue: Queue::default(), pauses: 0 };
        Self {
            name: name.into(),
            granted,
            limits,
            state: Mutex::new(state),
            bell: Notify::new(),
            ask: Notify::new(),
            apart,
            shared,
            tally: Mutex::default(),
        }
    }

    /// `spent` is what it has waited for before; the permit has it with what comes on top.
    pub(super) async fn take(self: &Arc<Self>, ask: Ask, now: Instant, spent: Duration) -> Result<Permit, Exhausted> {
        match self.enter(ask, now, spent) {
            Entered::Start(at, trial, low) => {
                if low {
                    self.ask.notify_one();
                }
                Ok(Permit::dated(Arc::clone(self), ask, at, trial).after(spent))
            }
            Entered::Refused(exhausted) => Err(self.no_turn(ask, exhausted)),
            // In a box: whoever starts at once carries no room for it.
            Entered::Wait(permit, place) => Box::pin(self.wait(ask, permit, place, (now, spent))).await,
        }
    }

    fn enter(&self, ask: Ask, now: Instant, spent: Duration) -> Entered {
        let mut state = self.state();
        let State { window, places, pace, queue, .. } = &mut *state;
        window.pass(now);
        let (allowed, gate) = (pace.allowed(now), pace.gate(now));
        let room = places.room(window, allowed, now);
        // Nobody overtakes those who wait.
        if queue.lets_pass(ask.flow) && room == Room::Now && matches!(gate, Gate::Open | Gate::Trial) {
            let trial = (gate == Gate::Trial).then(|| pace.try_one(now));
            let low = places.take(now);
            return Entered::Start(window.start(now), trial, low);
        }
        let Limits { max_waiting, max_waiting_per_property, .. } = self.limits;
        let (left, max_wait) = (self.max_wait(spent), self.max_wait(Duration::ZERO));
        let weight = self.weight(ask);
        let turn = state.turn(ask, weight, now);
        let queue = &mut state.queue;
        let why = if queue.len() >= max_waiting {
            Why::Full
        } else if queue.len_of(ask.flow) >= max_waiting_per_property {
            Why::PropertyFull
        } else if turn > now + left {
            if matches!(gate, Gate::Shut(until) if until > now + max_wait) { Why::Paused } else { Why::TooLong }
        } else {
            let (sender, permit) = oneshot::channel();
            // Also where others of whom nobody may go are there already.
            let first = queue.is_empty() || queue.holds();
            let place = queue.push(ask.flow, ask.priority, weight, Waiter { ask, permit: sender });
            drop(state);
            if first {
                self.bell.notify_one();
            }
            return Entered::Wait(permit, place);
        };
        Entered::Refused(state.exhausted(why, ask, weight, max_wait, now))
    }

    async fn wait(
        self: &Arc<Self>,
        ask: Ask,
        permit: oneshot::Receiver<Permit>,
        place: Place,
        (since, spent): (Instant, Duration),
    ) -> Result<Permit, Exhausted> {
        let mut standing = Standing(self, Some(place));
        let waited = timeout_at(since + self.max_wait(spent), permit).await;
        let now = Instant::now();
        if let Ok(Ok(permit)) = waited {
            standing.1 = None;
            let time = now.saturating_duration_since(since);
            self.tally().waited(ask.flow, time);
            return Ok(permit.after(spent + time));
        }
        // A permit that came this very moment has gone back with its receiver.
        drop(standing);
        let mut state = self.state();
        // A new one may wait for all of it.
        let max_wait = self.max_wait(Duration::ZERO);
        let exhausted = state.exhausted(Why::TooLong, ask, self.weight(ask), max_wait, now);
        drop(state);
        Err(self.no_turn(ask, Exhausted { waited: now.saturating_duration_since(since), ..exhausted }))
    }

    /// Whoever leases places may have to ask for the first one.
    fn max_wait(&self, spent: Duration) -> Duration {
        let left = self.limits.max_wait.saturating_sub(spent);
        if self.shared && spent.is_zero() { left.max(PATIENCE) } else { left }
    }

    fn no_turn(&self, ask: Ask, exhausted: Exhausted) -> Exhausted {
        self.tally().refused(ask.flow, exhausted.why);
        exhausted
    }

    fn weight(&self, ask: Ask) -> usize {
        if self.limits.weights.is_empty() {
            return 1;
        }
        ask.flow.property().and_then(|property| self.limits.weights.get(&property).copied()).unwrap_or(1)
    }

    /// Gives permits out to those who wait.
    pub(super) async fn serve_queue(self: &Arc<Self>) {
        loop {
            match self.give_out() {
                Next::WhenRung => self.bell.notified().await,
                Next::WhenGranted => {
                    self.ask.notify_one();
                    self.bell.notified().await;
                }
                Next::At(at) => tokio::select! {
                    () = sleep_until(at) => {}
                    () = self.bell.notified() => {}
                },
            }
        }
    }

    /// Gives out what there is now.
    fn give_out(self: &Arc<Self>) -> Next {
        let mut out = Vec::new();
        let next = self.next(&mut out);
        for (waiting, permit) in out {
            // Who is gone by now gives it back, and the bell rings.
            drop(waiting.send(permit));
        }
        next
    }

    /// Takes those out of the queue whose turn it is, each with a permit: whatever becomes of it, its place comes back.
    fn next(self: &Arc<Self>, out: &mut Vec<(oneshot::Sender<Permit>, Permit)>) -> Next {
        let now = Instant::now();
        let mut state = self.state();
        let State { window, places, pace, queue, .. } = &mut *state;
        window.pass(now);
        while !queue.is_empty() {
            let allowed = pace.allowed(now);
            match places.room(window, allowed, now) {
                Room::Now => {}
                // Or earlier, when a kept place is given back.
                Room::At(at) => return Next::At(at),
                Room::Asked => return Next::WhenGranted,
            }
            let gate = pace.gate(now);
            match gate {
                Gate::Open | Gate::Trial => {}
                Gate::Shut(until) => return Next::At(until),
                Gate::Asked => return Next::WhenGranted,
            }
            // It rings when the others may go on.
            let Some(waiter) = queue.pop() else { break };
            let trial = (gate == Gate::Trial).then(|| pace.try_one(now));
            places.take(now);
            window.keep();
            // Those behind it may find a connection where it has to make one, and would arrive before it. Where nobody
            // waits, nobody has to for that; and low priority holds up nobody.
            let Ask { is_unsafe, priority, .. } = waiter.ask;
            let holds = is_unsafe && priority == Priority::Normal && !self.limits.max_wait.is_zero();
            if holds {
                queue.hold(waiter.ask.flow);
            }
            out.push((waiter.permit, Permit::kept(Arc::clone(self), waiter.ask, holds, trial)));
        }
        Next::WhenRung
    }

    pub(super) fn keep(&self, at: Instant) -> bool {
        self.state().window.unstart(at)
    }

    pub(super) fn date_anew(&self, at: Instant, now: Instant) -> bool {
        let mut state = self.state();
        let State { window, places, .. } = &mut *state;
        if matches!(places, Places::Leased(_)) {
            // What counts no longer is no more ours than any other place.
            window.pass(now);
        }
        if !places.may_date_anew(at, window, now) {
            window.forget(at);
            self.ring(state);
            return false;
        }
        let counts = window.unstart(at);
        if counts {
            window.start_kept(now);
        }
        counts
    }

    /// `held` is the hotel of which others had to let this one start first.
    pub(super) fn start_kept(&self, now: Instant, held: Option<Flow>) -> bool {
        let mut state = self.state();
        let State { window, places, queue, .. } = &mut *state;
        window.pass(now);
        if let Some(flow) = held {
            queue.release(flow);
        }
        let may = places.may_start_kept(window, now);
        if may {
            window.start_kept(now);
        } else {
            window.forget_kept();
        }
        // Only now is it known when its place is free again.
        self.ring(state);
        may
    }

    /// The place of a permit that was not used.
    pub(super) fn give_back(&self, dated: Option<Instant>, held: Option<Flow>, trial: Option<Trial>) {
        let mut state = self.state();
        if let Some(flow) = held {
            state.queue.release(flow);
        }
        match dated {
            Some(at) => drop(state.window.forget(at)),
            None => {
                state.window.forget_kept();
                state.places.kept_gone();
            }
        }
        if let Some(trial) = trial {
            state.pace.trial_over(trial);
        }
        self.ring(state);
        if trial.is_some() {
            self.tell();
        }
    }

    pub(super) fn trial_over(&self, trial: Trial) {
        let mut state = self.state();
        state.pace.trial_over(trial);
        self.ring(state);
        self.tell();
    }

    pub(super) fn welcome(&self, trial: Trial) {
        let mut state = self.state();
        let over = state.pace.welcome(trial);
        self.ring(state);
        self.tell();
        if !over {
            return;
        }
        tracing::info!(app = &*self.name, "Cloudbeds takes requests of the app {} again", self.name);
    }

    pub(super) fn refused(&self, trial: Option<Trial>, asked: Option<Duration>) {
        let mut state = self.state();
        let news = state.pace.refused(trial, asked, Instant::now());
        state.pauses += u64::from(news.is_some());
        self.ring(state);
        self.tell();
        if let Some((pause, allowed)) = news {
            tracing::warn!(
                app = &*self.name,
                pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                requests_per_second = allowed,
                "Cloudbeds answers 429: the app's requests pause, and then go on more slowly; if this comes back, lower \
                 its requests_per_second, and look for others who use its client id"
            );
        }
    }

    /// What became of a pause is news for other replicas.
    fn tell(&self) {
        if self.shared {
            self.ask.notify_one();
        }
    }

    fn ring(&self, state: MutexGuard<'_, State>) {
        let waiting = !state.queue.is_empty();
        drop(state);
        if waiting {
            self.bell.notify_one();
        }
    }

    pub(super) fn account(&self, now: Instant) -> Account {
        let mut state = self.state();
        state.window.pass(now);
        let mut account = Account {
            app: self.name.to_string(),
            granted: self.granted,
            allowed: state.pace.allowed(now),
            used: state.window.used(),
            waiting: state.queue.len(),
            paused: state.pace.paused(now).map(|until| until - now).unwrap_or_default(),
            pauses: state.pauses,
            sharing: match &state.places {
                Places::Own => None,
                Places::Leased(leases) => Some(Sharing {
                    up: !leases.is_alone(),
                    share: leases.share(now),
                    members: leases.members,
                    losses: leases.losses,
                }),
            },
            ..Account::default()
        };
        let mut waiting: HashMap<PropertyId, usize> = HashMap::new();
        for (flow, count) in state.queue.lines() {
            if let Some(property) = flow.property() {
                *waiting.entry(property).or_default() += count;
            }
        }
        drop(state);
        let tally = self.tally();
        (account.waits, account.waited, account.refused) = (tally.waits, tally.waited, tally.refused);
        account.hotels = tally.hotels(&waiting);
        account
    }

    pub(super) fn left(&self, now: Instant) -> Left {
        let mut state = self.state();
        let State { window, places, pace, queue, .. } = &mut *state;
        window.pass(now);
        let allowed = pace.allowed(now);
        let free = places.left(allowed.saturating_sub(window.used() + queue.len()), window, now);
        let paused = pace.paused(now);
        let remaining = if paused.is_some() { 0 } else { free };
        let next = window.when(free, allowed, now).max(paused.unwrap_or(now));
        Left { allowed, remaining, reset: next.saturating_duration_since(now) }
    }

    /// No code that could panic runs under the locks, so a poisoned one is as good as any.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// When a request that comes now would have its turn.
    fn turn(&mut self, ask: Ask, weight: usize, now: Instant) -> Instant {
        let ahead = self.queue.ahead(ask.flow, ask.priority, weight);
        self.when(ahead, now)
    }

    /// When the start behind so many others would be.
    fn when(&mut self, ahead: usize, now: Instant) -> Instant {
        let allowed = self.places.hoped(self.pace.allowed(now), now);
        let turn = self.window.when(ahead, allowed, now);
        match self.pace.gate(now) {
            // Behind a pause the window is empty, but for the one that tries.
            Gate::Shut(until) => turn.max(until + window::rounds(ahead, allowed)),
            Gate::Open | Gate::Trial | Gate::Asked => turn,
        }
    }

    fn exhausted(&mut self, why: Why, ask: Ask, weight: usize, max_wait: Duration, now: Instant) -> Exhausted {
        let fit = window::starts_within(max_wait, self.pace.allowed(now)).saturating_sub(1);
        let ahead = self.queue.ahead_later(ask.flow, ask.priority, weight, fit);
        let earliest = self.places.earliest(now).unwrap_or(now);
        let turn = self.when(ahead, now).max(earliest).checked_sub(max_wait).unwrap_or(now);
        let place = match why {
            // There is one as soon as anybody starts, or one of the hotel's own.
            Why::Full => self.when(0, now),
            Why::PropertyFull => {
                let round = self.queue.round(ask.priority);
                self.when(round.saturating_sub(1), now)
            }
            Why::TooLong | Why::Paused => now,
        };
        let paused = self.pace.paused(now).unwrap_or(now);
        let wait = turn.max(place).max(paused).saturating_duration_since(now);
        let waited = Duration::ZERO;
        Exhausted { why, waited, retry_after: (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1) }
    }
}
