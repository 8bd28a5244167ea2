//! A day through the real budget.
//!
//! In: a setting and the hotels. Out: [`Books`] of all that happened. The runtime's clock is paused: it jumps to the next
//! moment at which anything happens, so that a day takes seconds, and `src/budget/` runs as it does in the proxy. What
//! is made up is the traffic alone, and how long a connection, the way and an answer take.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use cloudbeds_auth_proxy::budget::{Ask, Exhausted, Flow, Permit, Priority};
use cloudbeds_auth_proxy::shared::Stand;
use http::{HeaderMap, StatusCode};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, sleep_until};

use crate::books::Books;
use crate::chance::Chance;
use crate::kit::{Sentence, show};
use crate::options::{By, Options, Setting};
use crate::replicas::{Replicas, WARM_UP};
use crate::script::Script;
use crate::traffic::{Hotel, Job, Kind};

/// How many calls in a hundred need a new connection.
const DIALS: f64 = 5.0;

/// The longest a job waits before it comes back, whatever the proxy says; it waits twice as long each time.
const PATIENCE: Duration = Duration::from_secs(30);

/// All that a call needs.
struct Scene {
    setting: Setting,
    by: By,
    replicas: Replicas,
    begun: Instant,
    /// Which moment of the day that was.
    from: Duration,
    books: RefCell<Books>,
}

/// Plays a day.
///
/// # Errors
/// When there can be no runtime.
pub(crate) fn play(setting: Setting, options: &Options) -> Result<Books, Sentence> {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build_local(LocalOptions::default());
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    runtime.block_on(async {
        let per_second = options.per_second as usize;
        let several = options.replicas > 1;
        let script = several.then(|| Script::new(options.way()).map(Arc::new)).transpose()?;
        let replicas = match &script {
            None => Replicas::alone(per_second, setting.limits()),
            Some(script) => {
                let stand = Arc::clone(script) as Arc<dyn Stand>;
                let replicas = Replicas::sharing(options.replicas, per_second, &setting.limits(), &stand)?;
                sleep(WARM_UP).await;
                replicas
            }
        };
        let (from, minutes) = options.time();
        let until = from + Duration::from_mins(minutes.into());
        let books = RefCell::new(Books::new(options.hotels as usize, per_second));
        let scene = Rc::new(Scene { setting, by: options.by, replicas, begun: Instant::now(), from, books });
        for number in 0..options.hotels {
            let hotel = Hotel::of(number, options.hotels);
            for (index, job) in hotel.jobs.iter().enumerate() {
                // An audit that has begun before is done.
                if job.begins >= from || job.calls.is_none() {
                    spawn_local(Rc::clone(&scene).job(number, *job, index));
                }
            }
            scene.books.borrow_mut().knows(&hotel, from..until);
            spawn_local(Rc::clone(&scene).front_desk(hotel));
        }
        let counted = || script.as_ref().map(|script| script.reports()).unwrap_or_default();
        let (first, mut last) = (counted(), counted());
        for minute in 1..=minutes {
            sleep_until(scene.begun + Duration::from_mins(minute.into())).await;
            script.as_ref().map_or(Ok(()), |script| script.is_well())?;
            let reports = counted();
            scene.books.borrow_mut().minute(scene.now(), scene.replicas.waiting(), reports.0 - last.0);
            last = reports;
            if minute % 10 == 0 {
                show(&format!("{}: {minute} of {minutes} minutes", setting.title()));
            }
        }
        show("");
        scene.replicas.goodbye();
        let mut books = scene.books.take();
        books.reports = (last.0 - first.0, last.1 - first.1);
        books.losses = scene.replicas.losses();
        Ok(books)
    })
}

impl Scene {
    /// The moment of the day.
    fn now(&self) -> Duration {
        self.from + self.begun.elapsed()
    }

    async fn front_desk(self: Rc<Self>, hotel: Hotel) {
        let mut chance = Chance::of(2, hotel.number.into());
        for number in 0.. {
            match hotel.next_call(self.now(), &mut chance) {
                Err(rest) => sleep(rest).await,
                Ok(gap) => {
                    sleep(gap).await;
                    self.books.borrow_mut().wanted(hotel.number, self.now());
                    let scene = Rc::clone(&self);
                    let mut chance = Chance::of(3 + u64::from(hotel.number), number);
                    spawn_local(async move {
                        if scene.call(hotel.number, Kind::Desk, &mut chance).await.is_err() {
                            scene.books.borrow_mut().gave_up(Kind::Desk);
                        }
                    });
                }
            }
        }
    }

    async fn job(self: Rc<Self>, hotel: u32, job: Job, index: usize) {
        sleep_until(self.begun + job.begins.saturating_sub(self.from)).await;
        if self.now() >= job.ends {
            return;
        }
        let left = Rc::new(Cell::new(job.calls.unwrap_or(u32::MAX)));
        let workers = (0..job.workers).map(|worker| {
            let chance = Chance::of(100_000 + u64::from(hotel), (index as u64) << 8 | u64::from(worker));
            spawn_local(Rc::clone(&self).worker(hotel, job, Rc::clone(&left), chance))
        });
        for worker in workers.collect::<Vec<_>>() {
            // One that panicked has said so.
            let _ = worker.await;
        }
        self.books.borrow_mut().job_over(job.kind, job.begins, self.now());
    }

    async fn worker(self: Rc<Self>, hotel: u32, job: Job, left: Rc<Cell<u32>>, mut chance: Chance) {
        while left.get() > 0 {
            left.set(left.get() - 1);
            let mut patience = Duration::from_secs(1);
            while let Err(exhausted) = self.call(hotel, job.kind, &mut chance).await {
                // It comes back when it was told, or later and later, and not all at once.
                let told = Duration::from_secs(exhausted.retry_after).max(patience);
                sleep(told.mul_f64(1.0 + chance.unit() / 2.0)).await;
                patience = (patience * 2).min(PATIENCE);
                if self.now() >= job.ends {
                    self.books.borrow_mut().gave_up(job.kind);
                    return;
                }
            }
            if job.pause > 0.0 {
                sleep(chance.millis(0.0, job.pause)).await;
            }
            if self.now() >= job.ends {
                return;
            }
        }
    }

    /// One call, by way of any replica, until its answer is there.
    async fn call(&self, hotel: u32, kind: Kind, chance: &mut Chance) -> Result<(), Exhausted> {
        let replica = self.by.replica(hotel.into(), chance);
        let mut permit = self.turn(replica, self.ask(hotel, kind), kind).await?;
        if chance.unit() * 100.0 < DIALS {
            permit.keep();
            sleep(chance.millis(40.0, 200.0)).await;
        }
        while !permit.start(Instant::now()) {
            permit = permit.again().await?;
        }
        // What the way there takes may differ by less than the budget's margin.
        let arrives = self.now() + chance.millis(10.0, 49.9);
        self.books.borrow_mut().started(hotel, kind, permit.waited(), self.now(), arrives);
        sleep(chance.millis(80.0, 400.0)).await;
        permit.heard(StatusCode::OK, &HeaderMap::new());
        Ok(())
    }

    async fn turn(&self, replica: usize, ask: Ask, kind: Kind) -> Result<Permit, Exhausted> {
        let taken = self.replicas.budget(replica).take(ask, Instant::now()).await;
        self.books.borrow_mut().asked(kind, taken.is_err());
        taken
    }

    fn ask(&self, hotel: u32, kind: Kind) -> Ask {
        let jobs = matches!(kind, Kind::Audit | Kind::Sync) && self.setting.is_polite();
        let low = kind == Kind::Report || jobs;
        // Ids start at 1.
        let property = (hotel + 1).to_string().parse();
        let flow = match property {
            Ok(property) if !self.setting.is_one_line() => Flow::Property(property),
            _ => Flow::Own,
        };
        Ask { priority: if low { Priority::Low } else { Priority::Normal }, ..Ask::normal(flow) }
    }
}
