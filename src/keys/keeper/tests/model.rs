//! Random lives of keys against a simple model.
//!
//! In: histories in which hotels connect, are used or not, reset and revoke their keys, and the process is restarted and
//! killed in between. Out: no key of the file is lost, no call carries another hotel's or an older key, none idles to
//! death while keep-alive is on, and a dead one is called no more often than the cool-down allows.

use proptest::prelude::*;

use super::*;

const HOTELS: usize = 3;

/// One event of a history; hotels are numbered from 0.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The app calls once a second, this often.
    Use(usize, u64),
    /// Nobody does anything for so many minutes, or days.
    Minutes(u64),
    Days(u64),
    /// The hotel connects again, and the new key is delivered at once.
    Connect(usize),
    /// The hotel resets its key: the old one is dead, the new one is on its way.
    Reset(usize),
    /// What is on its way arrives.
    Deliver(usize),
    Revoke(usize),
    /// A single 401 that means nothing.
    Odd(usize),
    /// Cloudbeds does not answer our own calls, or does again.
    Away(bool),
    Restart,
    Kill,
}

fn event() -> impl Strategy<Value = Event> {
    let hotel = || 0..HOTELS;
    prop_oneof![
        6 => (hotel(), 1..200u64).prop_map(|(hotel, times)| Event::Use(hotel, times)),
        3 => (1..300u64).prop_map(Event::Minutes),
        2 => (1..12u64).prop_map(Event::Days),
        1 => hotel().prop_map(Event::Connect),
        2 => hotel().prop_map(Event::Reset),
        2 => hotel().prop_map(Event::Deliver),
        2 => hotel().prop_map(Event::Revoke),
        2 => hotel().prop_map(Event::Odd),
        1 => any::<bool>().prop_map(Event::Away),
        1 => Just(Event::Restart),
        1 => Just(Event::Kill),
    ]
}

/// What ought to be.
struct Hotel {
    /// The key in the file.
    key: String,
    /// The key that is not in the file yet.
    on_its_way: Option<String>,
    /// Since when the key in the file is dead at Cloudbeds.
    dead: Option<Time>,
    /// When Cloudbeds last saw a call with the key.
    seen: Time,
    /// Calls with the key since it is dead.
    spent: u64,
    /// What may have cost some of them: kills, restarts, odd answers, absences.
    excuses: u64,
}

impl Hotel {
    fn with(key: String, dead: Option<Time>) -> Self {
        Self { key, on_its_way: None, dead, seen: clock()(), spent: 0, excuses: 0 }
    }
}

struct Scene {
    directory: tempfile::TempDir,
    cloudbeds: Cloudbeds,
    process: Option<Process>,
    hotels: Vec<Hotel>,
    keys_made: u64,
    away: bool,
}

impl Scene {
    fn settings(&self) -> Settings {
        Settings { keep_alive: true, ..settings(self.directory.path()) }
    }

    fn process(&self) -> &Process {
        self.process.as_ref().unwrap()
    }

    fn fresh_key(&mut self) -> String {
        self.keys_made += 1;
        let key = format!("cbat_{}", self.keys_made);
        self.cloudbeds.set(&key, Standing::Good);
        key
    }

    fn write_keys(&self) {
        let rows =
            self.hotels.iter().enumerate().map(|(hotel, Hotel { key, .. })| format!("\"{}\": {key}\n", hotel + 1));
        write(&self.directory.path().join("keys.yaml"), &rows.collect::<String>());
    }

    fn deliver(&mut self, hotel: usize, key: String) {
        self.hotels[hotel] = Hotel::with(key, None);
        self.write_keys();
        self.process().store.reload();
    }

    fn end_key(&mut self, hotel: usize) {
        let hotel = &mut self.hotels[hotel];
        hotel.dead = hotel.dead.or(Some(clock()()));
        self.cloudbeds.set(&hotel.key, Standing::Revoked);
    }

    fn start(&mut self) {
        self.process = Some(Process::start(self.directory.path(), &self.cloudbeds, self.settings()));
    }

    async fn apply(&mut self, event: Event) {
        match event {
            Event::Use(hotel, times) => {
                for _ in 0..times {
                    let _ = self.process().call(hotel as u64 + 1);
                    sleep(Duration::from_secs(1)).await;
                }
            }
            Event::Minutes(minutes) => {
                for _ in 0..minutes {
                    tokio::time::advance(Duration::from_secs(58)).await;
                    sleep(Duration::from_secs(2)).await;
                }
            }
            Event::Days(count) => days(count).await,
            Event::Connect(hotel) => {
                let key = self.fresh_key();
                self.end_key(hotel);
                self.deliver(hotel, key);
            }
            Event::Reset(hotel) => {
                let key = self.fresh_key();
                if let Some(older) = self.hotels[hotel].on_its_way.replace(key) {
                    self.cloudbeds.set(&older, Standing::Revoked);
                }
                self.end_key(hotel);
            }
            Event::Deliver(hotel) => {
                if let Some(key) = self.hotels[hotel].on_its_way.take() {
                    self.deliver(hotel, key);
                }
            }
            Event::Revoke(hotel) => self.end_key(hotel),
            Event::Odd(hotel) => {
                let id = hotel as u64 + 1;
                if self.process().call(id).is_ok() {
                    self.process().odd_call(id);
                }
            }
            Event::Away(away) => {
                self.away |= away;
                self.cloudbeds.away(away);
            }
            Event::Restart => {
                self.process.take().unwrap().stop().await;
                self.start();
            }
            Event::Kill => {
                self.process.take().unwrap().kill().await;
                self.start();
            }
        }
        if matches!(event, Event::Odd(_) | Event::Away(_) | Event::Restart | Event::Kill) {
            self.hotels.iter_mut().for_each(|hotel| hotel.excuses += 1);
        }
        settle().await;
    }

    fn check(&mut self, event: Event) {
        let now = clock()();
        let calls = std::mem::take(&mut self.cloudbeds.0.lock().unwrap().calls);
        for (_, key, asked) in &calls {
            let current = self.hotels.iter().any(|hotel| name(&hotel.key) == *key);
            assert!(current || *asked != Asked::App, "{event:?}: an old key was sent");
        }
        let set = self.process.as_ref().unwrap().store.current();
        for (index, hotel) in self.hotels.iter_mut().enumerate() {
            let id = index as u64 + 1;
            let key = set.get(property(id)).unwrap_or_else(|| panic!("{event:?}: the key of {id} is lost"));
            assert_eq!(key.life().fingerprint(), name(&hotel.key), "{event:?}: {id} has another key");

            let own: Vec<Time> =
                calls.iter().filter(|(_, key, _)| *key == name(&hotel.key)).map(|(at, ..)| *at).collect();
            hotel.seen = hotel.seen.max(own.last().copied().unwrap_or_default());
            if hotel.dead.is_none() && now.since(hotel.seen) >= 30 * DAY {
                // What Cloudbeds does, and what keep-alive is there to prevent.
                assert!(self.away, "{event:?}: {id} idled to death");
                hotel.dead = Some(now);
                self.cloudbeds.set(&hotel.key, Standing::Revoked);
            }
            let Some(dead) = hotel.dead else { continue };
            hotel.spent += own.iter().filter(|at| **at > dead).count() as u64;
            // For each beginning the app's calls in a minute of doubt and the first cool-downs; then one an hour.
            let allowed = (1 + hotel.excuses) * (75 + 7) + now.since(dead) / HOUR;
            assert!(hotel.spent <= allowed, "{event:?}: {} calls with a dead key, {allowed} are allowed", hotel.spent);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_no_key_is_lost_or_mistaken_and_no_dead_one_is_called_for_long(
        events in proptest::collection::vec(event(), 1..30)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(scene("", |directory, cloudbeds| async move {
            let mut scene = Scene { directory, cloudbeds, process: None, hotels: Vec::new(), keys_made: 0, away: false };
            for _ in 0..HOTELS {
                let key = scene.fresh_key();
                scene.hotels.push(Hotel::with(key, None));
            }
            scene.write_keys();
            scene.start();
            settle().await;
            for event in events {
                scene.apply(event).await;
                scene.check(event);
            }
        }));
    }
}
