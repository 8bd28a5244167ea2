//! Replicas that share one budget through a real Redis, on the clock that does not wait.
//!
//! In: how many replicas, and for how long. Out: how well an overload uses the budget, how fairly it is divided, who waits
//! how long, and how many reports that takes. Each replica is the code of the proxy (`src/shared/`, `src/budget/`), and the
//! script runs in a `redis-server`; only its clock is ours: the call of TIME is replaced by an argument.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cloudbeds_auth_proxy::budget::{Apart, Ask, Budget, Budgets, Flow, Limits};
use cloudbeds_auth_proxy::https::Dialer;
use cloudbeds_auth_proxy::shared::{self, Answering, Failure, Server, Stand};
use hdrhistogram::Histogram;
use http::{HeaderMap, StatusCode};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, sleep_until};

use crate::books::{jain, most_in_a_second};
use crate::chance::Chance;
use crate::kit::section::Section;
use crate::kit::{Sentence, show};
use crate::options::Options;

/// What a report takes to the server, and an answer back.
const WAY: Duration = Duration::from_millis(1);

/// Until all replicas share, and know of each other.
const WARM_UP: Duration = Duration::from_secs(10);

/// Hotels that want more than they can have, calls of each at a time, and hotels that call once a minute.
const HOGS: (u64, u32) = (5, 20);
const CROWD: (u64, u32) = (95, 2);
const DESKS: u64 = 100;

/// By which replica a hotel's calls come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum By {
    /// Each hotel's by one of its own.
    Its,
    /// Each call by any.
    Any,
}

/// A Redis that runs the script at the time that it is told.
#[derive(Debug)]
struct Redis {
    child: Mutex<Child>,
    connection: Mutex<BufReader<TcpStream>>,
    digests: [String; 2],
    begun: Instant,
    reports: AtomicU64,
    spent: AtomicU64,
}

impl Drop for Redis {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Redis {
    fn start() -> Result<Self, Sentence> {
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let address = address.map_err(|error| format!("no port: {error}"))?;
        let port = address.port().to_string();
        let child = Command::new(std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into()))
            .args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("redis-server is needed (Debian's package): {error}"))?;
        let mut redis = Self {
            child: Mutex::new(child),
            connection: Mutex::new(BufReader::new(connect(address)?)),
            digests: Default::default(),
            begun: Instant::now(),
            reports: AtomicU64::new(0),
            spent: AtomicU64::new(0),
        };
        let load = |script: &str| redis.call(&["SCRIPT", "LOAD", script]).map_err(|error| format!("Redis: {error}"));
        redis.digests = [load(&shared::timed_script())?, load(shared::sign_script())?];
        Ok(redis)
    }

    /// One command that answers with a text. This thread waits for it, so that the paused clock does too.
    fn call(&self, words: &[&str]) -> std::io::Result<String> {
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        connection.get_mut().write_all(command.as_bytes())?;
        let mut line = String::new();
        connection.read_line(&mut line)?;
        let length = line.strip_prefix('$').and_then(|length| length.trim().parse::<usize>().ok());
        let mut text = vec![0; length.ok_or_else(|| std::io::Error::other(line))? + 2];
        connection.read_exact(&mut text)?;
        text.truncate(text.len() - 2);
        String::from_utf8(text).map_err(std::io::Error::other)
    }
}

fn connect(address: SocketAddr) -> Result<TcpStream, Sentence> {
    let begun = std::time::Instant::now();
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) if begun.elapsed() > Duration::from_secs(5) => {
                return Err(format!("redis-server does not listen: {error}"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

impl Stand for Redis {
    fn run(&self) -> &str {
        "simulation"
    }

    fn answer<'a>(&'a self, key: &'a str, argument: &'a str) -> Answering<'a> {
        Box::pin(async move {
            sleep(WAY).await;
            let [seconds, micros] = shared::time(self.begun.elapsed());
            let asked = std::time::Instant::now();
            let answer = self.call(&["EVALSHA", &self.digests[0], "1", key, argument, &seconds, &micros]);
            self.reports.fetch_add(1, Ordering::Relaxed);
            self.spent.fetch_add(u64::try_from(asked.elapsed().as_micros()).unwrap_or(0), Ordering::Relaxed);
            sleep(WAY).await;
            answer.map_err(|error| Failure::Refused(error.to_string()))
        })
    }

    fn sign<'a>(&'a self, key: &'a str) -> Answering<'a> {
        Box::pin(async move {
            sleep(WAY).await;
            let answer = self.call(&["EVALSHA", &self.digests[1], "1", key]);
            sleep(WAY).await;
            answer.map_err(|error| Failure::Refused(error.to_string()))
        })
    }
}

/// All that a call needs.
struct Scene {
    by: By,
    budgets: Vec<Arc<Budget>>,
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
        for by in [By::Its, By::Any] {
            let (row, most) = play(replicas, by, options)?;
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
        let redis = Arc::new(Redis::start()?);
        let (stop, _) = watch::channel(false);
        let mut budgets = Vec::new();
        for replica in 0..replicas {
            let budget = join(&redis, replica, options.per_second as usize, stop.subscribe())?;
            let serving = Arc::clone(&budget);
            spawn_local(async move { serving.serve_queue().await });
            budgets.push(budget);
        }
        let hotels = HOGS.0 + CROWD.0 + DESKS;
        let histogram = || RefCell::new(Histogram::new_with_bounds(1, 86_400_000, 3).unwrap());
        let scene = Rc::new(Scene {
            by,
            budgets,
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
        let before = (redis.reports.load(Ordering::Relaxed), redis.spent.load(Ordering::Relaxed));
        for minute in 1..=options.minutes {
            sleep_until(scene.begun + Duration::from_mins(minute.into())).await;
            show(&format!("{replicas} replicas: {minute} of {} minutes", options.minutes));
        }
        show("");
        let reports = redis.reports.load(Ordering::Relaxed) - before.0;
        let spent = redis.spent.load(Ordering::Relaxed) - before.1;
        Ok(scene.row(replicas, options, reports, spent))
    })
}

/// One replica, as the proxy starts it.
fn join(
    redis: &Arc<Redis>,
    replica: u32,
    granted: usize,
    stop: watch::Receiver<bool>,
) -> Result<Arc<Budget>, Sentence> {
    let limits = Limits {
        max_wait: Duration::from_mins(2),
        max_waiting: 5_000,
        max_waiting_per_property: 5_000,
        weights: Arc::default(),
    };
    let budgets = Arc::new(Budgets::shared(vec![("app".to_owned(), granted)], &limits, |_| Apart::default()));
    let budget = Arc::clone(budgets.of(None).ok_or("no budget")?);
    let limit = Duration::from_secs(1);
    let server = Arc::new(Server {
        url: "redis://127.0.0.1:1".parse().map_err(|_| "no URL")?,
        user: None,
        password: None,
        name: format!("replica {replica}"),
        prefix: "bench".to_owned(),
        clients: HashMap::new(),
        dialer: Dialer::without_http(None, limit, limit).map_err(|error| format!("no dialer: {error}"))?,
        stand: Some(Arc::clone(redis) as Arc<dyn Stand>),
    });
    spawn_local(shared::serve(server, budgets, stop));
    Ok(budget)
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
            let replica = match self.by {
                By::Its => usize::try_from(hotel).unwrap_or(0),
                By::Any => chance.below(1 << 20),
            };
            let came = Instant::now();
            match self.budgets[replica % self.budgets.len()].take(ask, came).await {
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

    fn row(&self, replicas: u32, options: &Options, reports: u64, spent: u64) -> ([String; 12], usize) {
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
            if self.by == By::Its { "by one" } else { "by any" }.to_owned(),
            arrivals.len().to_string(),
            most.to_string(),
            format!("{used:.4}"),
            format!("{:.3}", jain(&self.starts.borrow()[..busy])),
            quantile(&self.crowd, 0.5),
            quantile(&self.crowd, 0.99),
            quantile(&self.desks, 0.5),
            quantile(&self.desks, 0.99),
            format!("{:.0}", reports as f64 / seconds),
            format!("{:.2}", spent as f64 / 1000.0 / reports.max(1) as f64),
        ];
        (row, most)
    }
}
