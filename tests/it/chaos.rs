//! Everything at once, for as long as `CHAOS_SECONDS` says (a quarter of a minute without it; `scripts/chaos` takes ten
//! minutes): servers that are slow, stall, reset, refuse, break off and give a key away, keys that come and go, callers
//! that hang up, in plain HTTP/1.1 and in HTTP/2 over TLS. What `docs/promises.md` says holds for each request, and memory and descriptors are back at the end.
//!
//! What happens follows from a seed, printed at the start; `CHAOS_SEED` sets it. When it happens does not.

mod asking;
mod servers;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use cloudbeds_auth_proxy::secret::ApiKey;
use tokio::task::JoinSet;
use tokio::time::sleep;

use self::asking::{Connection, Place, Question, Recent};
use self::servers::{Came, Dice, IDLE, Log, body, over_http1, over_http2};
use crate::harness::{Authority, HTTP1, HTTP2, Peer, Proxy, TLS, Upstream, key, until};

const CALLERS: u64 = 12;
const HOTELS: [&str; 4] = ["1001", "1002", "1003", "1004"];

/// How much the process may hold at any time beyond what it held after its first requests, in bytes.
const GROWTH: u64 = 48 << 20;

/// A run of so many seconds is long: how much more the process may hold at rest after it than at rest after its first
/// fifth, in bytes. In a shorter one the allocator is still finding its size.
const LONG: u64 = 60;
const GROWTH_AT_REST: u64 = 6 << 20;

/// So many keys at least are looked for in what callers get: those in force, and those they replaced last.
const RECENT: usize = 6;

/// What a caller saw of a request; no answer where it hung up or the answer was cut.
struct Fate {
    line: String,
    property: &'static str,
    begun: Instant,
    answer: Option<Answered>,
}

/// Whose answer it was, its status and the length of its body.
struct Answered {
    ours: bool,
    status: u16,
    length: usize,
}

/// A key that a hotel had, and since when no request may begin with it any more.
struct Issued {
    key: String,
    over: Option<Instant>,
}

type Keys = BTreeMap<&'static str, Vec<Issued>>;

/// One caller: asks until the time is over, on connections it sometimes breaks.
async fn calls(place: Place, number: u64, end: Instant) -> Vec<Fate> {
    let mut dice = Dice(place.seed.wrapping_mul(31).wrapping_add(number));
    let mut fates = Vec::new();
    let mut open: Option<Connection> = None;
    for turn in 0.. {
        if Instant::now() >= end {
            break;
        }
        let property = HOTELS[dice.throw(4) as usize];
        let method = ["GET", "POST", "GET", "PUT", "DELETE"][dice.throw(5) as usize];
        let path = format!("/{number}/{turn}");
        let line = format!("{method} {path}");
        let length = if method == "GET" { 0 } else { [0, 20, 40_000][dice.throw(3) as usize] };
        let question = Question { method, path, property, length };
        let mut connection = match open.take() {
            Some(connection) => connection,
            None => Connection::to(&place).await,
        };
        let (begun, manner) = (Instant::now(), dice.throw(25));
        let mut answer = None;
        if manner < 3 {
            connection.hang_up(&question, manner, Duration::from_millis(dice.throw(8))).await;
        } else if let Some(whole) = connection.ask(&question).await {
            let (ours, status, length) = (whole.ours, whole.status, whole.body.len());
            let start = String::from_utf8_lossy(&whole.body[..length.min(80)]);
            let right = ours || whole.body == body(&line, property, length);
            assert!(right, "{line} for {property} got another body: {status} {length} {start}");
            answer = Some(Answered { ours, status, length });
            if whole.kept {
                open = Some(connection);
            }
        }
        fates.push(Fate { line, property, begun, answer });
    }
    fates
}

/// Changes the key file again and again, and notes which keys are over once the proxy shows others.
async fn turn_keys(proxy: &Proxy, place: &Place, end: Instant, all: &mut Keys) {
    let mut dice = Dice(place.seed ^ 0x6b65_7973);
    let newest = |keys: &[Issued]| keys.last().filter(|issued| issued.over.is_none()).map(|issued| issued.key.clone());
    let mut now: BTreeMap<&str, String> =
        all.iter().filter_map(|(hotel, keys)| Some((*hotel, newest(keys)?))).collect();
    loop {
        let last = Instant::now() >= end;
        match dice.throw(4) {
            // Something that is no key file.
            0 => proxy.write_keys("\"1001\": cbat_unfinis\n\"10"),
            1 => drop(now.remove("1004")),
            _ => {
                let hotel = HOTELS[2 + dice.throw(2) as usize];
                let new = key();
                all.get_mut(hotel).unwrap().push(Issued { key: new.clone(), over: None });
                now.insert(hotel, new);
            }
        }
        let rows: Vec<_> = now.iter().map(|(hotel, key)| format!("\"{hotel}\": {key}\n")).collect();
        {
            let mut recent = place.recent.lock().unwrap();
            recent.retain(|key| !now.values().any(|now| now == key));
            recent.extend(now.values().cloned());
            let many = recent.len().saturating_sub(RECENT);
            recent.drain(..many);
        }
        proxy.write_keys(&rows.concat());
        // Some changes follow each other faster than the file is looked at.
        if last || dice.throw(2) == 0 {
            until("the new keys are in force", async || in_force(proxy).await == names(&now)).await;
            let over = Some(Instant::now());
            for (hotel, keys) in all.iter_mut() {
                let old = |issued: &&mut Issued| issued.over.is_none() && now.get(hotel) != Some(&issued.key);
                keys.iter_mut().filter(old).for_each(|issued| issued.over = over);
            }
        }
        if last {
            return;
        }
        sleep(Duration::from_millis(50 + dice.throw(300))).await;
    }
}

/// Hotels, and what stands for their keys.
fn names(keys: &BTreeMap<&str, String>) -> BTreeMap<String, String> {
    let name = |key: &str| ApiKey::parse(key).unwrap().fingerprint().to_string();
    keys.iter().map(|(hotel, key)| ((*hotel).to_owned(), name(key))).collect()
}

/// The same as the proxy shows it.
async fn in_force(proxy: &Proxy) -> BTreeMap<String, String> {
    sleep(Duration::from_millis(20)).await;
    let shown = proxy.admin("/api/keys").await.json();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    shown["keys"].as_array().unwrap().iter().map(|row| (text(&row["property"]), text(&row["fingerprint"]))).collect()
}

/// Callers and changes of keys for so long, and then rest: nobody is connected, and what was open for them is closed.
async fn everything(proxy: &Proxy, place: &Place, from: u64, time: Duration, keys: &mut Keys) -> Vec<Fate> {
    let end = Instant::now() + time;
    let mut callers = JoinSet::new();
    for number in from..from + CALLERS {
        callers.spawn(calls(place.clone(), number, end));
    }
    turn_keys(proxy, place, end, keys).await;
    let fates = callers.join_all().await.into_iter().flatten().collect();
    until("all connections end", async || proxy.metric("connections_open").await <= 0.0).await;
    fates
}

/// Holds what came to the servers against what the callers asked for and got: how many were answered, and how many not.
fn judge(seed: u64, log: &[Came], fates: &[Fate], keys: &Keys) -> (usize, usize) {
    let asked: HashMap<&str, &Fate> = fates.iter().map(|fate| (&*fate.line, fate)).collect();
    let mut all: HashMap<&str, Vec<&Came>> = HashMap::new();
    for came in log {
        all.entry(&came.line).or_default().push(came);
        let (line, fate) = (&came.line, asked[&*came.line]);
        assert_eq!(came.property, fate.property, "seed {seed}: {line}");
        let key = came.key.strip_prefix("Bearer ").unwrap_or_default();
        let issued = keys[fate.property].iter().find(|issued| issued.key == key);
        let issued =
            issued.unwrap_or_else(|| panic!("seed {seed}: {line} for {} came with another's key", came.property));
        if let Some(late) = issued.over.and_then(|over| fate.begun.checked_duration_since(over)) {
            panic!("seed {seed}: {line} for {} came with a key that was over {late:?} before", came.property);
        }
    }
    let (mut good, mut failed) = (0, 0);
    for fate in fates {
        let came = all.get(&*fate.line).map(Vec::as_slice).unwrap_or_default();
        let most = if fate.line.starts_with("GET") { 2 } else { 1 };
        assert!(came.len() <= most, "seed {seed}: {} was acted on {} times", fate.line, came.len());
        match fate.answer {
            Some(Answered { ours: false, status, length }) => {
                good += 1;
                let sent = came.last().map(|came| came.sent);
                assert_eq!(sent, Some(Some((status, length))), "seed {seed}: what was sent for {}", fate.line);
            }
            Some(Answered { status: 502..=504 | 403, .. }) | None => failed += 1,
            Some(Answered { status, .. }) => panic!("seed {seed}: {} got {status} of ours", fate.line),
        }
    }
    (good, failed)
}

#[tokio::test]
async fn whatever_happens_at_once_the_promises_hold() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = number("CHAOS_SEED").unwrap_or(clock.as_nanos() as u64);
    let seconds = number("CHAOS_SECONDS").unwrap_or(18);
    println!("CHAOS_SEED={seed} CHAOS_SECONDS={seconds}");
    for (http2, tls) in [(false, false), (true, false), (true, true)] {
        let log = Log::default();
        let came = Arc::clone(&log);
        let upstream = Upstream::start(if http2 { HTTP2 } else { HTTP1 }, move |peer: Peer| {
            let log = Arc::clone(&came);
            async move {
                match http2 {
                    true => over_http2(peer, seed, log).await,
                    false => over_http1(peer, seed, log).await,
                }
            }
        })
        .await;
        let mut builder = Proxy::to_origin(&upstream.base_url(), upstream.root_pem());
        let authority = Authority::new();
        if tls {
            builder = builder.config(TLS).listener(&authority);
        }
        let mut keys = Keys::new();
        for hotel in HOTELS {
            let key = key();
            builder = builder.key(hotel, &key);
            keys.insert(hotel, vec![Issued { key, over: None }]);
        }
        let mut proxy = builder
            .env("UPSTREAM__POOL__IDLE", "2s")
            .env("UPSTREAM__TIMEOUTS__FIRST_BYTE", &format!("{IDLE}ms"))
            .env("UPSTREAM__TIMEOUTS__IDLE", &format!("{IDLE}ms"))
            .config("limits: { requests_per_second: 100000, max_wait: 1m }")
            .log("warn")
            .start()
            .await;
        let recent = Recent::new(Mutex::new(proxy.secrets.clone()));
        let place = Place { address: proxy.address, root: tls.then(|| authority.pem()), recent, seed };

        // What every process needs once is there.
        let (time, long) = (Duration::from_secs(seconds) / 3, seconds >= LONG);
        let first = if long { time / 5 } else { Duration::from_millis(500) };
        let mut fates = everything(&proxy, &place, 1000, first, &mut keys).await;
        let (memory, files) = (proxy.memory().0, proxy.descriptors());
        proxy.forget_peak_memory();
        fates.extend(everything(&proxy, &place, 0, time.saturating_sub(first), &mut keys).await);
        proxy.secrets.extend(keys.values().flatten().map(|issued| issued.key.clone()));

        // Nothing is left over: no connection, no descriptor, no memory.
        until("all descriptors are free", async || proxy.descriptors() <= files + 4).await;
        let (now, most) = proxy.memory();
        let [grown, at_rest] = [most, now].map(|bytes| bytes.saturating_sub(memory));
        assert!(grown < GROWTH, "seed {seed}: grown by {} KiB", grown / 1024);
        assert!(!long || at_rest < GROWTH_AT_REST, "seed {seed}: grown by {} KiB at rest", at_rest / 1024);
        assert_eq!(proxy.metric("panics_total").await, 0.0, "seed {seed}");

        let log = log.lock().unwrap();
        let (good, failed) = judge(seed, &log, &fates, &keys);
        let (came, changes) = (log.len(), keys.values().map(Vec::len).sum::<usize>() - HOTELS.len());
        println!(
            "to HTTP/2 servers {http2}, from HTTP/2 callers {tls}: {good} answered, {failed} failed or given up, {came} came, {changes} new keys; \
             {} KiB more at most and {} at rest",
            grown / 1024,
            at_rest / 1024
        );
        assert!(good > 100 && good > failed, "seed {seed}: {good} {failed}");
    }
}
