//! Everything at once, for as long as `CHAOS_SECONDS` says (a quarter of a minute without it; `scripts/chaos` takes ten
//! minutes): servers that are slow, stall, reset, refuse, break off and give a key away, keys that come and go, callers
//! that hang up, in plain HTTP/1.1 and in HTTP/2 over TLS, and an app that may not ask as often as they would.
//! What `docs/promises.md` says holds for each request, and memory and descriptors are back at the end.
//!
//! What happens follows from a seed, printed at the start; `CHAOS_SEED` sets it. When it happens does not.

mod asking;
mod judge;
mod servers;
mod witness;

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use cloudbeds_auth_proxy::secret::ApiKey;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::asking::{Connection, Place, Question, Recent};
use self::judge::{Answered, Fate, Issued, Keys, judge};
use self::servers::{Dice, IDLE, Log, body, over_http1, over_http2};
use self::witness::Witness;
use crate::harness::{Authority, HTTP1, HTTP2, Peer, Proxy, TLS, Upstream, key, until};

const CALLERS: u64 = 12;
const HOTELS: [&str; 4] = ["1001", "1002", "1003", "1004"];

/// So many starts a second are granted, which is about what the callers would like: some wait and some do not.
const RATE: u64 = 150;

/// The longest wait for a turn, in seconds. Nobody is refused one: a pause and whoever tries after it take less.
const MAX_WAIT: u64 = 10;

/// A whole answer is there by then: its turn and what a server takes. The harness has more patience, and says less.
const ANSWER: Duration = Duration::from_secs(MAX_WAIT + 8);

/// How much the process may hold at any time beyond what it held after its first requests, in bytes.
const GROWTH: u64 = 48 << 20;

/// A run of so many seconds is long: how much more the process may hold at rest after it than at rest after its first
/// fifth, in bytes. In a shorter one the allocator is still finding its size.
const LONG: u64 = 60;
const GROWTH_AT_REST: u64 = 6 << 20;

/// So many keys at least are looked for in what callers get: those in force, and those they replaced last.
const RECENT: usize = 6;

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
        } else if let Some(whole) = timeout(ANSWER, connection.ask(&question)).await.unwrap_or_else(|_| {
            panic!("{line} for {property}, caller {number}, {length} bytes: no answer within {ANSWER:?}")
        }) {
            let (ours, status, length) = (whole.ours, whole.status, whole.body.len());
            let start = String::from_utf8_lossy(&whole.body[..length.min(80)]);
            let right = ours || whole.body == body(&line, property, length);
            assert!(right, "{line} for {property} got another body: {status} {length} {start}");
            answer = Some(Answered { ours, status, length });
            if whole.kept {
                open = Some(connection);
            }
        }
        fates.push(Fate { line, property, begun, took: begun.elapsed(), answer });
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
    let mut fates = Vec::new();
    let asked = async {
        // What a caller finds wrong ends the run while the proxy can still be asked about it.
        while let Some(done) = callers.join_next().await {
            fates.extend(done.unwrap_or_else(|failed| resume_unwind(failed.into_panic())));
        }
    };
    tokio::join!(turn_keys(proxy, place, end, keys), asked);
    until("all connections end", async || proxy.metric("connections_open").await <= 0.0).await;
    fates
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
            .config(&format!("limits: {{ requests_per_second: {RATE}, max_wait: {MAX_WAIT}s }}"))
            .log("warn")
            .start()
            .await;
        let _witness = Witness::of(&proxy);
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
        let open = proxy.descriptors();
        let waits = proxy.metric("budget_waits_total{app=\"default\"}").await;
        let pauses = proxy.metric("budget_pauses_total{app=\"default\"}").await;

        let log = log.lock().unwrap();
        let (good, failed) = judge(seed, &log, &fates, &keys);
        let (came, changes) = (log.len(), keys.values().map(Vec::len).sum::<usize>() - HOTELS.len());
        let slowest = fates.iter().map(|fate| fate.took).max().unwrap_or_default();
        println!(
            "to HTTP/2 servers {http2}, from HTTP/2 callers {tls}: {good} answered, {failed} failed or given up, the slowest \
             after {slowest:.1?}, {came} came, {waits} waited for their turn, {pauses} pauses, {changes} new keys; \
             {} KiB more at most and {} at rest, {open} descriptors after {files}",
            grown / 1024,
            at_rest / 1024
        );
        assert!(good > 100 && good > failed, "seed {seed}: {good} {failed}");
    }
}
