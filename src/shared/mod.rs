//! Budgets that replicas share through one Redis.
//!
//! In: the budgets, and where Redis is. Out: for each app a task that carries reports there and grants back, on its beat
//! and whenever somebody waits, and looks in between whether Redis is there. No request ever waits for this module but by its place in the queue, and where Redis
//! fails, the budget is told that it is alone, 150 ms after what has no answer.
//!
//! What is decided is decided in `budget.lua`, in one step at the server; what a replica may do until its next answer is
//! `budget/places.rs`.

mod course;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod link;
mod lives;
mod script;
mod stand;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::course::Course;
use self::link::Link;
pub use self::link::{Failure, Server};
pub use self::lives::Lives;
use self::script::Answer;
pub use self::stand::{Answering, Stand, sign_script, time, timed_script};
use crate::budget::{BEAT, Budget, Budgets, GRACE, Grant, PATIENCE, Report, SIGN, SILENT, beat};
use crate::origin::Origin;

/// Between two reports of a replica that waits for more.
const PACE: Duration = Duration::from_millis(1);

/// The longest that a replica with waiting requests goes without asking: somebody may have given places back.
const LOOK: Duration = Duration::from_millis(25);

/// How many reports in a row may be read too late.
const LATE_MAX: usize = 3;

/// For so long another process by our name may be our predecessor, which has died just now. After that it is alive.
const TAKEN: Duration = SILENT.saturating_add(Duration::from_millis(150));

/// The first pause before Redis is dialled again, and the longest.
const AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// A loss that follows the last one within this time is not worth another line in the log.
const QUIET_LOG: Duration = Duration::from_secs(60);

/// Shares all budgets until `stop` says so, and says goodbye then.
pub async fn serve(server: Arc<Server>, budgets: Arc<Budgets>, stop: watch::Receiver<bool>) {
    let mut apps = JoinSet::new();
    for budget in budgets.iter() {
        let (server, budget, stop) = (Arc::clone(&server), Arc::clone(budget), stop.clone());
        apps.spawn(async move {
            let life = script::fresh_id();
            let member = || Member::new(Arc::clone(&server), Arc::clone(&budget), life.clone()).serve(stop.clone());
            carry_on(&budget, member).await;
        });
    }
    while apps.join_next().await.is_some() {}
}

/// Runs a task, and once more for as long as it panics: nobody else tells the budget that it is alone.
async fn carry_on<T>(budget: &Budget, task: impl Fn() -> T)
where
    T: Future<Output = ()> + Send + 'static,
{
    let mut running = JoinSet::new();
    loop {
        running.spawn(task());
        match running.join_next().await {
            Some(Err(ended)) if ended.is_panic() => {}
            _ => return,
        }
        // Until then Redis may still act on the last report.
        sleep(PATIENCE + GRACE).await;
        let share = budget.leave();
        tracing::error!(
            app = budget.name(),
            share,
            "the task that shares the budget failed, which is a defect of this program; it starts again, and until then \
             this replica goes on with its own share of requests a second"
        );
        sleep(AGAIN.1).await;
    }
}

/// This replica's part in one budget.
struct Member {
    server: Arc<Server>,
    budget: Arc<Budget>,
    /// What stands for its name, and for this process.
    id: String,
    life: String,
    /// When to go on alone, unless an answer comes before.
    alone_at: Option<Instant>,
    alone: bool,
    /// Whether Redis was ever heard, and when its loss was last told.
    heard: bool,
    told: Option<Instant>,
    /// Whether it was told that nothing starts any more.
    over: bool,
    why: String,
    /// The node of the cluster that has the keys, if the server said so.
    node: Option<Box<Origin>>,
    /// The life of the server that was last heard, and how its clock goes.
    course: Option<(String, Course)>,
}

impl Member {
    fn new(server: Arc<Server>, budget: Arc<Budget>, life: String) -> Self {
        let id = script::id_of(&server.name);
        Self {
            server,
            budget,
            id,
            life,
            alone_at: None,
            alone: true,
            heard: false,
            told: None,
            over: false,
            why: String::new(),
            node: None,
            course: None,
        }
    }

    async fn serve(mut self, mut stop: watch::Receiver<bool>) {
        let mut link = None;
        let stopped = async move {
            // A sender that is gone means the same as a word from it.
            let _ = stop.wait_for(|stop| *stop).await;
        };
        tokio::select! {
            () = self.share(&mut link) => {}
            () = stopped => {}
        }
        self.budget.close();
        if let Some(mut link) = link {
            let sent = Instant::now();
            let report = self.budget.report(false, sent);
            // Whatever comes of it: without it, the share is kept for a while.
            let _ = link.call((&self.id, &self.life), &report, sent, true).await;
        }
    }

    /// Reports for ever, by as many connections as it takes.
    async fn share(&mut self, link: &mut Option<Link>) {
        let mut pause = AGAIN.0;
        loop {
            let ended = self.session(link).await;
            self.course = link.take().and_then(Link::into_course).or(self.course.take());
            self.why = self.server.words(&ended.why);
            self.lost(ended.sent);
            // From another node the way leads back to the server that the configuration names.
            let before = self.node.take();
            if let Failure::Moved(node) = ended.why {
                self.node = Some(node).filter(|node| before.as_ref() != Some(node));
            }
            if !self.heard && self.told.is_none() && self.node.is_none() {
                self.told = Some(Instant::now());
                let why = &self.why;
                tracing::warn!(app = self.budget.name(), "Redis cannot be used: {why}; nothing is shared until it can");
            }
            self.is_over();
            pause = if ended.answered { AGAIN.0 } else { (pause * 2).min(AGAIN.1) };
            let again = Instant::now() + pause;
            self.budget.asks(again);
            self.meanwhile(sleep_until(again)).await;
        }
    }

    /// Reports until that fails.
    async fn session(&mut self, link: &mut Option<Link>) -> Ended {
        let (server, budget, node) = (Arc::clone(&self.server), Arc::clone(&self.budget), self.node.clone());
        let opened = match self.meanwhile(Link::open(&server, node.as_deref(), budget.name())).await {
            Ok(opened) => link.insert(opened),
            Err(why) => return Ended { why, sent: None, answered: false },
        };
        opened.remember(self.course.take());
        let (mut id, life) = (self.id.clone(), self.life.clone());
        let (mut answered, mut late, mut taken) = (false, 0, None);
        loop {
            let sent = Instant::now();
            let report = budget.report(self.alone_at.is_some(), sent);
            let grant = match self.meanwhile(opened.call((&id, &life), &report, sent, false)).await {
                Ok(Answer::Granted(grant)) => grant,
                // The first one only tells the time. More mean that its clock jumps about.
                Ok(Answer::Late) if late < LATE_MAX => {
                    late += 1;
                    continue;
                }
                Ok(Answer::Taken) => {
                    if *taken.get_or_insert(sent) + TAKEN > sent {
                        self.meanwhile(sleep(LOOK)).await;
                        continue;
                    }
                    // As where two processes share a port. This one is called otherwise, until it is started again.
                    id = script::fresh_id();
                    self.id.clone_from(&id);
                    taken = None;
                    continue;
                }
                Ok(Answer::Late) => return Ended { why: Failure::Slow, sent: Some(sent), answered },
                Err(why) => return Ended { why, sent: Some(sent), answered },
            };
            (answered, late, taken) = (true, 0, None);
            self.alone_at = None;
            budget.granted(&grant, sent);
            self.found(grant.quiet);
            if let Err((why, sent)) = self.rest(opened, sent, &report, &grant).await {
                return Ended { why, sent: Some(sent), answered };
            }
        }
    }

    /// Until the next report, with a look now and then at whether the server is still there; and since when it is not.
    async fn rest(
        &self,
        link: &mut Link,
        sent: Instant,
        report: &Report,
        grant: &Grant,
    ) -> Result<(), (Failure, Instant)> {
        let mut next = std::pin::pin!(self.until_next(sent, report, grant));
        let mut looked = sent;
        loop {
            // Where answers take longer than that, what comes next is a report, if it is due soon.
            let look = (looked + SIGN).max(Instant::now() + LOOK);
            tokio::select! {
                biased;
                () = &mut next => return Ok(()),
                () = sleep_until(look) => {}
            }
            looked = Instant::now();
            // Also a report that has become due waits for the answer, or it could be read after we are alone.
            link.sign(looked).await.map_err(|why| (why, looked))?;
        }
    }

    async fn until_next(&self, sent: Instant, report: &Report, grant: &Grant) {
        if grant.lease < report.pool {
            // Others can have what we gave back once we say that we have not used it meanwhile.
            return sleep_until(sent + PACE).await;
        }
        if report.waiting > 0 && self.budget.hungry() {
            // The more ask, the more seldom each.
            let members = u32::try_from(grant.members).unwrap_or(u32::MAX).min(100);
            let look = LOOK.max(Duration::from_millis(2) * members).min(BEAT);
            return sleep(Duration::from_millis(grant.soon).clamp(PACE, look)).await;
        }
        let beat = sent + if grant.quiet > 0 { LOOK } else { beat(grant.members) };
        tokio::select! {
            () = sleep_until(beat) => {}
            () = self.budget.asked() => sleep_until(sent + PACE).await,
        }
    }

    /// Does something, and goes on alone meanwhile when it is time.
    async fn meanwhile<T>(&mut self, something: impl Future<Output = T>) -> T {
        let mut something = std::pin::pin!(something);
        loop {
            tokio::select! {
                biased;
                done = &mut something => return done,
                () = self.time_is_up() => self.go_on_alone(),
            }
        }
    }

    /// The last report has no answer.
    fn lost(&mut self, sent: Option<Instant>) {
        if self.alone_at.is_none() && !self.alone {
            // Until then Redis may still act on the report, and lets our places run out by the clock.
            self.alone_at = Some(sent.unwrap_or_else(Instant::now) + PATIENCE + GRACE);
        }
    }

    /// Ends when this replica is to go on alone.
    async fn time_is_up(&self) {
        match self.alone_at {
            Some(at) if !self.alone => sleep_until(at).await,
            _ => std::future::pending().await,
        }
    }

    fn go_on_alone(&mut self) {
        self.alone = true;
        let share = self.budget.leave();
        let now = Instant::now();
        if self.told.is_none_or(|told| now >= told + QUIET_LOG) {
            self.told = Some(now);
            let why = &self.why;
            tracing::warn!(
                app = self.budget.name(),
                share,
                "Redis is lost: {why}; this replica goes on with its own share of requests a second, and never with more"
            );
        }
    }

    /// Says it once when nobody keeps our share free any more.
    fn is_over(&mut self) {
        if !std::mem::replace(&mut self.over, self.budget.is_over()) && self.over {
            let why = &self.why;
            tracing::error!(
                app = self.budget.name(),
                "Redis has been lost for as long as `shared.cut_off` says: {why}; other replicas may use this one's share by \
                 now, so nothing starts here until Redis is back"
            );
        }
    }

    fn found(&mut self, quiet: u64) {
        self.over = false;
        if quiet > 0 {
            self.alone = true;
        } else if std::mem::take(&mut self.alone) {
            self.heard = true;
            tracing::info!(app = self.budget.name(), "Redis is there: the budget is shared by all replicas");
        }
    }
}

/// How a session ended.
struct Ended {
    why: Failure,
    /// When the report was sent that has no answer.
    sent: Option<Instant>,
    answered: bool,
}

/// Ends within the time an answer has.
async fn in_time<T>(sent: Instant, answer: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    timeout(PATIENCE.saturating_sub(sent.elapsed()), answer).await.unwrap_or(Err(Failure::Slow))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::budget::{Apart, Limits, Sharing};

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_leaves_the_budget_alone_and_is_started_again() {
        let limits =
            Limits { max_wait: Duration::ZERO, max_waiting: 0, max_waiting_per_property: 0, weights: Arc::default() };
        let budget = Arc::new(Budget::shared("main", 10, limits, Apart::default()));
        let up = |budget: &Budget| budget.account().sharing.map(|Sharing { up, share, .. }| (up, share));
        let seen: Arc<Mutex<Vec<_>>> = Arc::default();
        let task = || {
            let (seen, budget) = (Arc::clone(&seen), Arc::clone(&budget));
            async move {
                let first = {
                    let mut seen = seen.lock().unwrap();
                    seen.push(up(&budget));
                    seen.len() == 1
                };
                if first {
                    let sent = Instant::now();
                    let _ = budget.report(false, sent);
                    budget.granted(&Grant { lease: 2, share: 4, ..Grant::default() }, sent);
                    assert!(up(&budget) != Some((true, 4)), "as a defect would");
                }
            }
        };
        carry_on(&budget, task).await;
        assert_eq!(*seen.lock().unwrap(), [Some((false, 0)), Some((false, 4))]);
    }
}
