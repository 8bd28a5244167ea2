//! Replicas that share one budget through a real Redis, on the clock that does not wait.
//!
//! In: how many replicas, and for how long. Out: how well an overload uses the budget, how fairly it is divided, who waits
//! how long, and how many reports that takes, and what each takes the server. Each replica is the code of the proxy, and
//! the script runs in a `redis-server`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum as _;
use cloudbeds_auth_proxy::budget::{Ask, Flow, Limits};
use cloudbeds_auth_proxy::shared::Stand;
use hdrhistogram::Histogram;
use http::{HeaderMap, StatusCode};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, sleep_until};

use crate::books::{jain, most_in_a_second};
use crate::chance::Chance;
use crate::kit::section::Section;
use crate::kit::{Sentence, show};
use crate::options::{By, Options};
use crate::redis::Redis;
use crate::replicas::{Replicas, WARM_UP};

/// Hotels that want more than they can have, calls of each at a time, and hotels that call once a minute.
const HOGS: (u64, u32) = (5, 20);
const CROWD: (u64, u32) = (95, 2);
const DESKS: u64 = 100;

/// All that a call needs.
struct Scene {
    by: By,
    replicas: Replicas,
    begun: Instant,
    /// Starts of each hotel since the warm-up.
    starts: RefCell<Vec<f64>>,
    arrivals: RefCell<Vec<u64>>,
    refused: Cell<u64>,
    crowd: RefCell<Histogram<u64>>,
    desks: RefCell<Histogram<u64>>,
}

/// Plays an overload with each way of calling; whether no second had more than is granted.
pub(crate) fn measure(options: &Options) -> Result<(Section, bool), Sentence> {
    let titles = [
        "replicas",
        "a hotel's calls come",
        "starts",
        "most in a second",
        "use",
        "Jain's index",
        "wait p50, s",
        "p99, s",
        "desk p50, s",
        "p99, s",
        "reports a second",
        "each takes, ms",
    ];
    let mut section =
        Section::new(format!("Replicas that share by Redis, {} minutes of overload", options.minutes), &titles);
    let mut within = true;
    let mut counts = vec![1, 8, options.replicas];
    counts.retain(|count| *count <= options.replicas);
    counts.dedup();
    for replicas in counts {
        for by in By::value_variants() {
            let (row, most) = play(replicas, *by, options)?;
            within &= most <= options.per_second as usize;
            section.row(row);
        }
    }
    Ok((section, within))
}

fn play(replicas: u32, by: By, options: &Options) -> Result<([String; 12], usize), Sentence> {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build_local(LocalOptions::default());
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    runtime.block_on(async {
        let redis = Arc::new(Redis::start(options.way())?);
        let limits = Limits {
            max_wait: Duration::from_mins(2),
            max_waiting: 5_000,
            max_waiting_per_property: 5_000,
            weights: Arc::default(),
        };
        let stand = Arc::clone(&redis) as Arc<dyn Stand>;
        let sharing = Replicas::sharing(replicas, options.per_second as usize, &limits, &stand)?;
        let hotels = HOGS.0 + CROWD.0 + DESKS;
        let histogram = || RefCell::new(Histogram::new_with_bounds(1, 86_400_000, 3).unwrap());
        let scene = Rc::new(Scene {
            by,
            replicas: sharing,
            begun: Instant::now() + WARM_UP,
            starts: RefCell::new(vec![0.0; usize::try_from(hotels).unwrap_or(0)]),
            arrivals: RefCell::default(),
            refused: Cell::new(0),
            crowd: histogram(),
            desks: histogram(),
        });
        for hotel in 0..hotels {
            let at_a_time = match hotel {
                hotel if hotel < HOGS.0 => HOGS.1,
                hotel if hotel < HOGS.0 + CROWD.0 => CROWD.1,
                _ => 1,
            };
            for number in 0..at_a_time {
                spawn_local(Rc::clone(&scene).calls(hotel, Chance::of(7, hotel << 8 | u64::from(number))));
            }
        }
        sleep_until(scene.begun).await;
        let before = redis.reports();
        for minute in 1..=options.minutes {
            sleep_until(scene.begun + Duration::from_mins(minute.into())).await;
            show(&format!("{replicas} replicas: {minute} of {} minutes", options.minutes));
        }
        show("");
        let (reports, spent) = redis.reports();
        Ok(scene.row(replicas, options, (reports - before.0, spent - before.1)))
    })
}

impl Scene {
    /// One call after the other.
    async fn calls(self: Rc<Self>, hotel: u64, mut chance: Chance) {
        let desk = hotel >= HOGS.0 + CROWD.0;
        // Not all at once, and desks when everybody else waits.
        sleep(WARM_UP / 2 + chance.millis(0.0, if desk { 60_000.0 } else { 1_000.0 })).await;
        let Ok(property) = (hotel + 1).to_string().parse() else { return };
        let ask = Ask::normal(Flow::Property(property));
        loop {
            let replica = self.by.replica(hotel, &mut chance);
            let came = Instant::now();
            match self.replicas.budget(replica).take(ask, came).await {
                Ok(mut permit) => {
                    let now = Instant::now();
                    if permit.start(now) {
                        self.started(hotel, desk, now - came, now + chance.millis(10.0, 39.9));
                        sleep(chance.millis(80.0, 400.0)).await;
                        permit.heard(StatusCode::OK, &HeaderMap::new());
                    }
                }
                Err(exhausted) => {
                    self.refused.set(self.refused.get() + 1);
                    sleep(Duration::from_secs(exhausted.retry_after)).await;
                }
            }
            if desk {
                sleep(chance.millis(30_000.0, 90_000.0)).await;
            }
        }
    }

    fn started(&self, hotel: u64, desk: bool, waited: Duration, arrives: Instant) {
        let Some(at) = arrives.checked_duration_since(self.begun) else { return };
        self.arrivals.borrow_mut().push(u64::try_from(at.as_micros()).unwrap_or(u64::MAX));
        if let Some(starts) = self.starts.borrow_mut().get_mut(usize::try_from(hotel).unwrap_or(usize::MAX)) {
            *starts += 1.0;
        }
        let waits = if desk { &self.desks } else { &self.crowd };
        waits.borrow_mut().saturating_record(u64::try_from(waited.as_millis()).unwrap_or(u64::MAX));
    }

    fn row(&self, replicas: u32, options: &Options, (reports, spent): (u64, Duration)) -> ([String; 12], usize) {
        let mut arrivals = self.arrivals.take();
        let most = most_in_a_second(&mut arrivals);
        let seconds = f64::from(options.minutes) * 60.0;
        // The last of them have no second behind them yet.
        let granted = options.per_second as usize;
        let rest = arrivals.len().saturating_sub(granted);
        let time = arrivals.get(rest).zip(arrivals.first()).map_or(0, |(last, first)| last - first);
        let used = rest as f64 / granted as f64 / (time.max(1) as f64 / 1e6);
        let busy = usize::try_from(HOGS.0 + CROWD.0).unwrap_or(0);
        let quantile = |waits: &RefCell<Histogram<u64>>, at: f64| {
            format!("{:.2}", waits.borrow().value_at_quantile(at) as f64 / 1000.0)
        };
        let row = [
            replicas.to_string(),
            self.by.words().to_owned(),
            arrivals.len().to_string(),
            most.to_string(),
            format!("{used:.4}"),
            format!("{:.3}", jain(&self.starts.borrow()[..busy])),
            quantile(&self.crowd, 0.5),
            quantile(&self.crowd, 0.99),
            quantile(&self.desks, 0.5),
            quantile(&self.desks, 0.99),
            format!("{:.0}", reports as f64 / seconds),
            format!("{:.2}", spent.as_secs_f64() * 1000.0 / reports.max(1) as f64),
        ];
        (row, most)
    }
}
