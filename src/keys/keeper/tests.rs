//! Whole lives of keys with the clock paused: a keeper, a store with its file, and a Cloudbeds made of a table.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::*;
use crate::keys::{Lives, life};
use crate::secret::ApiKey;

mod model;
mod peers;

/// When the tests begin.
const START: u64 = 1_800_000_000;

/// How long the stand-in takes for an answer.
const LATENCY: Duration = Duration::from_millis(100);

/// What Cloudbeds thinks of a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Standing {
    Good,
    Revoked,
    UserLeft,
    /// The property is no longer there.
    Left(PropertyId),
}

/// What was asked, of either side.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Asked {
    /// An app's call.
    App,
    Probe,
    Hotels,
}

#[derive(Default)]
struct World {
    keys: HashMap<Fingerprint, Standing>,
    hotels: Vec<PropertyId>,
    /// Questions of our own get no answer.
    away: bool,
    calls: Vec<(Time, Fingerprint, Asked)>,
}

/// A Cloudbeds; clones share it.
#[derive(Clone, Default)]
struct Cloudbeds(Arc<Mutex<World>>);

impl Cloudbeds {
    fn set(&self, key: &str, standing: Standing) {
        self.0.lock().unwrap().keys.insert(name(key), standing);
    }

    fn away(&self, away: bool) {
        self.0.lock().unwrap().away = away;
    }

    fn calls(&self, asked: Asked) -> usize {
        self.0.lock().unwrap().calls.iter().filter(|(_, _, kind)| *kind == asked).count()
    }

    fn forget_calls(&self) {
        self.0.lock().unwrap().calls.clear();
    }

    fn note(&self, now: Time, key: &Key, asked: Asked) -> Standing {
        let (mut world, name) = (self.0.lock().unwrap(), key.life().fingerprint());
        world.calls.push((now, name, asked));
        world.keys.get(&name).copied().unwrap_or(Standing::Revoked)
    }
}

/// What Cloudbeds answers a call about a property.
fn sign_of(standing: Standing, property: Option<PropertyId>) -> Option<Sign> {
    match standing {
        Standing::Revoked => Some(Sign::Unauthorized),
        Standing::UserLeft => Some(Sign::UserLeft),
        Standing::Left(left) if property == Some(left) => Some(Sign::PropertyLeft),
        Standing::Left(_) | Standing::Good => None,
    }
}

impl Vendor for Cloudbeds {
    fn probe(&self, key: Arc<Key>, property: Option<PropertyId>, sign: Option<Sign>) -> Answered<Probe> {
        let here = self.clone();
        Box::pin(async move {
            sleep(LATENCY).await;
            let standing = here.note(clock()(), &key, Asked::Probe);
            // `/userinfo` knows nothing of properties.
            let property = property.filter(|_| sign == Some(Sign::PropertyLeft));
            match sign_of(standing, property).and_then(Sign::verdict) {
                _ if here.0.lock().unwrap().away => Probe::Unclear,
                Some(verdict) => Probe::Dead(verdict),
                None => Probe::Good,
            }
        })
    }

    fn hotels(&self, key: Arc<Key>) -> Answered<Option<Vec<PropertyId>>> {
        let here = self.clone();
        Box::pin(async move {
            sleep(LATENCY).await;
            let standing = here.note(clock()(), &key, Asked::Hotels);
            let world = here.0.lock().unwrap();
            (!world.away && standing != Standing::Revoked).then(|| world.hotels.clone())
        })
    }
}

thread_local! {
    static EPOCH: std::cell::Cell<Option<Instant>> = const { std::cell::Cell::new(None) };
    /// By how many seconds the clock is ahead.
    static AHEAD: Arc<AtomicU64> = Arc::default();
}

/// The paused clock, as seconds since 1970. It runs on from process to process of one test.
fn clock() -> life::Clock {
    let (epoch, ahead) = (EPOCH.get().unwrap_or_else(Instant::now), AHEAD.with(Arc::clone));
    EPOCH.set(Some(epoch));
    Arc::new(move || Time(START + epoch.elapsed().as_secs() + ahead.load(Ordering::Relaxed)))
}

/// Sets the clock, which was right at first.
fn set_clock(ahead: u64) {
    AHEAD.with(|clock| clock.store(ahead, Ordering::Relaxed));
}

fn name(key: &str) -> Fingerprint {
    ApiKey::parse(key).unwrap().fingerprint()
}

fn property(id: u64) -> PropertyId {
    id.to_string().parse().unwrap()
}

/// Replaces a key file at once.
fn write(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// A proxy without its sockets: store and keeper.
struct Process {
    store: Arc<KeyStore>,
    cloudbeds: Cloudbeds,
    stop: oneshot::Sender<()>,
    keeper: tokio::task::JoinHandle<()>,
}

fn settings(directory: &Path) -> Settings {
    Settings {
        state_file: Some(directory.join("keys.state.json")),
        keep_alive: false,
        limits: IdleDays::default(),
        cool_down: (60, 3600),
    }
}

impl Process {
    /// Starts on `keys.yaml` in the directory; in a `LocalSet`.
    fn start(directory: &Path, cloudbeds: &Cloudbeds, settings: Settings) -> Self {
        Self::started(directory, cloudbeds, settings, |keeper| keeper)
    }

    /// The same, with something more to the keeper.
    fn started(
        directory: &Path,
        cloudbeds: &Cloudbeds,
        settings: Settings,
        more: impl FnOnce(Keeper<Cloudbeds>) -> Keeper<Cloudbeds>,
    ) -> Self {
        let mut records = Vec::new();
        if let Some(path) = &settings.state_file {
            state::each(path, |name, record| records.push((name, record))).unwrap();
        }
        let store = KeyStore::resume(directory.join("keys.yaml"), None, Lives::resume(records, clock())).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let keeper = more(Keeper::new(Arc::clone(&store), cloudbeds.clone(), settings));
        let keeper = tokio::task::spawn_local(keeper.run(async move { drop(stopped.await) }));
        Self { store, cloudbeds: cloudbeds.clone(), stop, keeper }
    }

    /// The orderly end.
    async fn stop(self) {
        drop(self.stop);
        self.keeper.await.unwrap();
    }

    /// SIGKILL.
    async fn kill(self) {
        self.keeper.abort();
        assert!(self.keeper.await.is_err());
    }

    /// An app's call, as the request path makes it; the verdict it is refused with.
    fn call(&self, id: u64) -> Result<(), Verdict> {
        let (set, property) = (self.store.current(), Some(property(id)));
        let key = set.get(property.unwrap()).unwrap();
        if let Some(blocked) = key.life().blocked(property) {
            return Err(blocked.verdict);
        }
        let standing = self.cloudbeds.note(clock()(), key, Asked::App);
        let sign = sign_of(standing, property);
        // All but a 401 is said under a head that says success.
        if sign != Some(Sign::Unauthorized) {
            key.life().used();
        }
        match sign {
            Some(sign) => life::tell(key, property, sign),
            None => key.life().succeeded(property),
        }
        Ok(())
    }

    /// A call that Cloudbeds answers 401 although nothing is wrong with the key.
    fn odd_call(&self, id: u64) {
        let set = self.store.current();
        let key = set.get(property(id)).unwrap();
        self.cloudbeds.note(clock()(), key, Asked::App);
        life::tell(key, Some(property(id)), Sign::Unauthorized);
    }

    fn verdict(&self, id: u64) -> Verdict {
        let rows = report::rows(&self.store, IdleDays::default());
        rows.iter().find(|row| row.property == property(id)).unwrap().verdict
    }
}

/// Runs a scene on `LocalSet`, in a directory with this key file.
async fn scene<F: Future<Output = ()>>(keys: &str, act: impl FnOnce(tempfile::TempDir, Cloudbeds) -> F) {
    EPOCH.set(None);
    clock();
    let directory = tempfile::tempdir().unwrap();
    write(&directory.path().join("keys.yaml"), keys);
    tokio::task::LocalSet::new().run_until(act(directory, Cloudbeds::default())).await;
}

/// Long enough for signs to be heard and answered, and for uses to be collected.
async fn settle() {
    sleep(Duration::from_secs(12)).await;
}

/// Lets days pass, an hour at a time.
async fn days(days: u64) {
    for _ in 0..days * 24 {
        tokio::time::advance(Duration::from_secs(HOUR - 2)).await;
        sleep(Duration::from_secs(2)).await;
    }
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_hotel_costs_a_few_dozen_calls_a_day_however_often_its_app_tries() {
    scene("\"1001\": cbat_a\n", |directory, cloudbeds| async move {
        let process = Process::start(directory.path(), &cloudbeds, settings(directory.path()));
        for second in 0..24 * 60 * 60 {
            // Mostly refused at once; some wait for the verdict.
            let refused = process.call(1001);
            assert!(second < 5 || refused == Err(Verdict::Rejected), "in second {second}");
            sleep(Duration::from_secs(1)).await;
        }
        let (app, own) = (cloudbeds.calls(Asked::App), cloudbeds.calls(Asked::Probe));
        assert!(app <= 3, "{app} calls of the app reached Cloudbeds");
        // The first probe, and then 1, 2, 4, … 60, 60, … minutes, each up to a fifth longer.
        assert!((22..=30).contains(&own), "{own} calls of our own");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_hotel_costs_little_too_where_our_own_calls_come_to_nothing() {
    scene("\"1001\": cbat_a\n", |directory, cloudbeds| async move {
        cloudbeds.away(true);
        let process = Process::start(directory.path(), &cloudbeds, settings(directory.path()));
        for _ in 0..24 * 60 * 60 {
            let _ = process.call(1001);
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(process.call(1001), Err(Verdict::Rejected));
        let all = cloudbeds.calls(Asked::App) + cloudbeds.calls(Asked::Probe);
        // Until ten 401s are enough, and then as often as where the refusal is confirmed.
        assert!(all <= 50, "{all} calls");
        // As soon as it is clear that the key works, it is used again.
        cloudbeds.away(false);
        cloudbeds.set("cbat_a", Standing::Good);
        sleep(Duration::from_secs(2 * HOUR)).await;
        assert_eq!(process.call(1001), Ok(()));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_left_costs_little_too_where_our_own_calls_come_to_nothing() {
    for (standing, verdict) in
        [(Standing::UserLeft, Verdict::UserLeft), (Standing::Left(property(1001)), Verdict::PropertyLeft)]
    {
        let keys = "\"1003\": cbat_b\nkeys:\n  - { key: cbat_a, properties: [1001, 1002] }\n";
        scene(keys, |directory, cloudbeds| async move {
            cloudbeds.away(true);
            cloudbeds.set("cbat_a", standing);
            cloudbeds.set("cbat_b", Standing::Good);
            let process = Process::start(directory.path(), &cloudbeds, settings(directory.path()));
            for _ in 0..24 * 60 * 60 {
                let _ = process.call(1001);
                sleep(Duration::from_secs(1)).await;
            }
            assert_eq!(process.call(1001), Err(verdict));
            let all = cloudbeds.calls(Asked::App) + cloudbeds.calls(Asked::Probe);
            assert!(all <= 50, "{all} calls although {standing:?}");
            // The property beside it is dead with its key, and only with its key.
            let beside = if verdict == Verdict::UserLeft { Err(verdict) } else { Ok(()) };
            assert_eq!((process.call(1002), process.call(1003)), (beside, Ok(())));
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_said_now_and_then_between_successes_is_not_believed_without_a_call_of_our_own() {
    scene("\"1001\": cbat_a\n", |directory, cloudbeds| async move {
        cloudbeds.away(true);
        let process = Process::start(directory.path(), &cloudbeds, settings(directory.path()));
        for standing in [Standing::UserLeft, Standing::Left(property(1001))] {
            for _ in 0..100 {
                for _ in 0..STRIKES - 1 {
                    cloudbeds.set("cbat_a", standing);
                    assert_eq!(process.call(1001), Ok(()));
                }
                cloudbeds.set("cbat_a", Standing::Good);
                assert_eq!(process.call(1001), Ok(()));
                sleep(Duration::from_secs(60)).await;
            }
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn answers_to_calls_that_were_under_way_when_the_key_was_found_dead_are_no_reason_to_ask_again() {
    scene("\"1001\": cbat_a\n", |directory, cloudbeds| async move {
        let process = Process::start(directory.path(), &cloudbeds, settings(directory.path()));
        process.call(1001).unwrap();
        sleep(Duration::from_secs(1)).await;
        assert_eq!((process.call(1001), cloudbeds.calls(Asked::Probe)), (Err(Verdict::Rejected), 1));
        for _ in 0..20 {
            process.odd_call(1001);
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(cloudbeds.calls(Asked::Probe), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn cool_downs_grow_as_well_where_our_own_calls_come_to_nothing() {
    scene("\"1001\": cbat_a\n", |directory, cloudbeds| async move {
        let mut process = Process::start(directory.path(), &cloudbeds, settings(directory.path()));
        cloudbeds.away(true);
        for _ in 0..18 {
            let _ = process.call(1001);
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(process.call(1001), Err(Verdict::Rejected));
        cloudbeds.forget_calls();
        sleep(Duration::from_secs(272 * 60)).await;
        // After 1, 2, 4, 8, 16, 32, 60, 60, … minutes, each up to a fifth longer.
        let probes = cloudbeds.calls(Asked::Probe);
        assert!((7..=9).contains(&probes), "{probes} calls of our own in 272 minutes");
        // A restart does not begin anew, and neither does the answer, when it comes and is the expected one.
        process.stop().await;
        process = Process::start(directory.path(), &cloudbeds, settings(directory.path()));
        cloudbeds.away(false);
        cloudbeds.forget_calls();
        sleep(Duration::from_secs(24 * HOUR)).await;
        let probes = cloudbeds.calls(Asked::Probe);
        assert!((20..=24).contains(&probes), "{probes} calls of our own in a day");
        assert_eq!((process.call(1001), cloudbeds.calls(Asked::App)), (Err(Verdict::Rejected), 0));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_odd_401_is_no_verdict_and_many_of_them_are_asked_about_ever_less_often() {
    scene("\"1001\": cbat_a\n", |directory, cloudbeds| async move {
        cloudbeds.set("cbat_a", Standing::Good);
        let process = Process::start(directory.path(), &cloudbeds, settings(directory.path()));
        process.odd_call(1001);
        settle().await;
        assert_eq!((cloudbeds.calls(Asked::Probe), process.call(1001)), (1, Ok(())));
        // A scope that is missing: every other call is refused, for a day.
        for _ in 0..12 * 60 * 60 {
            process.odd_call(1001);
            sleep(Duration::from_secs(1)).await;
            assert_eq!(process.call(1001), Ok(()));
            sleep(Duration::from_secs(1)).await;
        }
        let probes = cloudbeds.calls(Asked::Probe);
        assert!((10..50).contains(&probes), "{probes} probes");
        // It dies after all, and that is noticed within a minute or so, not at the end of an hour of doubt.
        cloudbeds.set("cbat_a", Standing::Revoked);
        cloudbeds.forget_calls();
        for _ in 0..120 {
            let _ = process.call(1001);
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(process.call(1001), Err(Verdict::Rejected));
        assert!(cloudbeds.calls(Asked::App) <= 75);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_was_learnt_by_a_clock_that_was_ahead_does_not_hold_once_it_is_right() {
    for in_file in [true, false] {
        scene("\"1001\": cbat_a\n\"1002\": cbat_b\n\"1003\": cbat_c\n", |directory, cloudbeds| async move {
            for key in ["cbat_a", "cbat_b", "cbat_c"] {
                cloudbeds.set(key, Standing::Good);
            }
            let settings = settings(directory.path());
            let state_file = settings.state_file.clone().filter(|_| in_file);
            let process = Process::start(directory.path(), &cloudbeds, Settings { state_file, ..settings });
            settle().await;
            set_clock(40 * DAY);
            settle().await;
            assert_eq!(process.verdict(1003), Verdict::Expiring);
            assert_eq!((process.call(1001), process.call(1002)), (Ok(()), Ok(())));
            settle().await;
            // For some seconds after this nothing more is heard of the key.
            process.odd_call(1002);
            sleep(Duration::from_secs(1)).await;
            set_clock(0);
            settle().await;
            // It dies, and that is noticed at once.
            cloudbeds.set("cbat_b", Standing::Revoked);
            for _ in 0..10 {
                let _ = process.call(1002);
                sleep(Duration::from_secs(1)).await;
            }
            assert_eq!(process.call(1002), Err(Verdict::Rejected));
            // Another one is not used any more, and a third one never was.
            days(19).await;
            assert_eq!((process.verdict(1001), process.verdict(1003)), (Verdict::Active, Verdict::Pending));
            days(1).await;
            assert_eq!((process.verdict(1001), process.verdict(1003)), (Verdict::Idle, Verdict::Idle));
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_is_as_idle_as_before_when_the_clock_is_set_back() {
    for in_file in [true, false] {
        scene("\"1001\": cbat_a\n", |directory, cloudbeds| async move {
            cloudbeds.set("cbat_a", Standing::Good);
            set_clock(100 * DAY);
            let settings = settings(directory.path());
            let state_file = settings.state_file.clone().filter(|_| in_file);
            let process = Process::start(directory.path(), &cloudbeds, Settings { state_file, ..settings });
            assert_eq!(process.call(1001), Ok(()));
            settle().await;
            days(15).await;
            set_clock(60 * DAY);
            settle().await;
            days(4).await;
            assert_eq!(process.verdict(1001), Verdict::Active);
            days(1).await;
            assert_eq!(process.verdict(1001), Verdict::Idle);
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_key_ends_the_cool_down_at_once_and_the_old_one_is_replaced() {
    scene("\"1001\": cbat_a\n\"1002\": cbat_c\n", |directory, cloudbeds| async move {
        let process = Process::start(directory.path(), &cloudbeds, settings(directory.path()));
        cloudbeds.set("cbat_b", Standing::Good);
        process.call(1001).unwrap();
        settle().await;
        assert_eq!(process.call(1001), Err(Verdict::Rejected));
        let old = Arc::clone(process.store.current().get(property(1001)).unwrap());
        write(&directory.path().join("keys.yaml"), "\"1001\": cbat_b\n\"1002\": cbat_c\n");
        process.store.reload();
        assert_eq!((process.verdict(1001), process.call(1001)), (Verdict::Pending, Ok(())));
        assert_eq!(old.life().snapshot().verdict(clock()(), IdleDays::default()), Verdict::Replaced);
        settle().await;
        assert_eq!(process.verdict(1001), Verdict::Active);
        // What was under way with the old key says nothing about either.
        cloudbeds.forget_calls();
        life::tell(&old, Some(property(1001)), Sign::Unauthorized);
        settle().await;
        assert_eq!((cloudbeds.calls(Asked::Probe), process.verdict(1001)), (0, Verdict::Active));
        // The dead key back in the file is still dead.
        write(&directory.path().join("keys.yaml"), "\"1001\": cbat_a\n\"1002\": cbat_c\n");
        process.store.reload();
        assert_eq!(process.call(1001), Err(Verdict::Rejected));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_keeps_a_key_keeps_its_life() {
    scene("\"1001\": cbat_a\n", |directory, cloudbeds| async move {
        let process = Process::start(directory.path(), &cloudbeds, settings(directory.path()));
        process.call(1001).unwrap();
        settle().await;
        write(
            &directory.path().join("keys.yaml"),
            "\"1002\": cbat_b\nkeys: [{ key: cbat_a, properties: [1001, 1003] }]\n",
        );
        process.store.reload();
        assert_eq!((process.call(1001), process.call(1003)), (Err(Verdict::Rejected), Err(Verdict::Rejected)));
        assert_eq!(cloudbeds.calls(Asked::App), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn restarts_and_kills_do_not_end_a_cool_down() {
    scene("\"1001\": cbat_a\n", |directory, cloudbeds| async move {
        let mut process = Process::start(directory.path(), &cloudbeds, settings(directory.path()));
        process.call(1001).unwrap();
        // Written within a minute of the verdict, so a kill after that loses nothing.
        sleep(Duration::from_secs(WRITE + SWEEP + 2)).await;
        for kill in [false, true, false, true] {
            if kill {
                process.kill().await
            } else {
                process.stop().await
            }
            process = Process::start(directory.path(), &cloudbeds, settings(directory.path()));
            assert_eq!(process.call(1001), Err(Verdict::Rejected));
            settle().await;
        }
        assert_eq!(cloudbeds.calls(Asked::App), 1);
        assert!(cloudbeds.calls(Asked::Probe) <= 3);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_user_who_left_ends_the_key_and_a_property_that_left_ends_only_itself() {
    let keys = "\"1001\": cbat_a\n\"1002\": cbat_b\nkeys: [{ key: cbat_c, properties: [1003, 1004] }]\n";
    scene(keys, |directory, cloudbeds| async move {
        let process = Process::start(directory.path(), &cloudbeds, settings(directory.path()));
        cloudbeds.set("cbat_a", Standing::UserLeft);
        cloudbeds.set("cbat_b", Standing::Left(property(1002)));
        cloudbeds.set("cbat_c", Standing::Left(property(1003)));
        for id in 1001..=1004 {
            process.call(id).unwrap();
        }
        settle().await;
        let left = Err(Verdict::PropertyLeft);
        let refused: Vec<_> = (1001..=1004).map(|id| process.call(id)).collect();
        assert_eq!(refused, [Err(Verdict::UserLeft), left, left, Ok(())]);
        assert_eq!((process.verdict(1003), process.verdict(1004)), (Verdict::PropertyLeft, Verdict::Active));
        // Asked again about the very thing it died of.
        sleep(Duration::from_secs(HOUR)).await;
        assert_eq!((process.call(1002), process.call(1003), process.call(1004)), (left, left, Ok(())));
        for key in ["cbat_a", "cbat_b", "cbat_c"] {
            cloudbeds.set(key, Standing::Good);
        }
        sleep(Duration::from_secs(2 * HOUR)).await;
        assert!((1001..=1004).all(|id| process.call(id) == Ok(())));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_unused_key_is_warned_of_and_a_use_ends_that() {
    scene("\"1001\": cbat_a\n", |directory, cloudbeds| async move {
        cloudbeds.set("cbat_a", Standing::Good);
        let process = Process::start(directory.path(), &cloudbeds, settings(directory.path()));
        let warned =
            |process: &Process| process.store.current().get(property(1001)).unwrap().life().snapshot().warned_days;
        days(19).await;
        assert_eq!((process.verdict(1001), warned(&process)), (Verdict::Pending, 0));
        days(1).await;
        assert_eq!((process.verdict(1001), warned(&process)), (Verdict::Idle, 20));
        days(5).await;
        assert_eq!((process.verdict(1001), warned(&process)), (Verdict::Expiring, 25));
        process.call(1001).unwrap();
        settle().await;
        assert_eq!((process.verdict(1001), warned(&process)), (Verdict::Active, 0));
        assert_eq!(cloudbeds.calls(Asked::Probe), 0, "keep_alive is off");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn keep_alive_uses_an_idle_key_once_whatever_the_number_of_replicas() {
    scene("\"1001\": cbat_a\n\"1002\": cbat_b\n", |directory, cloudbeds| async move {
        cloudbeds.set("cbat_a", Standing::Good);
        cloudbeds.set("cbat_b", Standing::Good);
        let settings = Settings { keep_alive: true, ..settings(directory.path()) };
        let replicas: Vec<_> = (0..3).map(|_| Process::start(directory.path(), &cloudbeds, settings.clone())).collect();
        // One replica is busy with 1002 every day, the others never are.
        for _ in 0..63 {
            replicas[1].call(1002).unwrap();
            days(1).await;
        }
        let world = cloudbeds.0.lock().unwrap();
        let probes: Vec<_> = world.calls.iter().filter(|(_, _, asked)| *asked == Asked::Probe).collect();
        assert!(probes.iter().all(|(_, key, _)| *key == name("cbat_a")), "1002 is used: {probes:?}");
        assert_eq!(probes.len(), 3, "once in 20 days and a part of one: {probes:?}");
        let gaps = probes.windows(2).map(|two| two[1].0.since(two[0].0) / DAY);
        assert!(gaps.into_iter().all(|gap| (20..22).contains(&gap)), "{probes:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn uses_are_written_at_most_once_a_minute_and_survive_a_kill_after_it() {
    scene("\"1001\": cbat_a\n", |directory, cloudbeds| async move {
        use std::os::unix::fs::MetadataExt;
        cloudbeds.set("cbat_a", Standing::Good);
        let process = Process::start(directory.path(), &cloudbeds, settings(directory.path()));
        let file = directory.path().join("keys.state.json");
        let mut written = std::collections::BTreeSet::new();
        for _ in 0..600 {
            process.call(1001).unwrap();
            sleep(Duration::from_secs(1)).await;
            // Each writing is a new file.
            written.extend(std::fs::metadata(&file).ok().map(|file| (file.ino(), file.mtime_nsec())));
        }
        assert!((8..=11).contains(&written.len()), "written {} times in ten minutes", written.len());
        let end = clock()();
        process.kill().await;
        let used = state::read(&file).unwrap().get(name("cbat_a")).unwrap().last_used.unwrap();
        assert!(end.since(used) <= WRITE + SWEEP, "{} seconds are lost", end.since(used));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_organisations_properties_come_from_cloudbeds_and_outlive_its_absence() {
    let keys = "\"1002\": cbat_b\nkeys: [{ key: cbat_a, properties: auto, organization: acme }]\n";
    scene(keys, |directory, cloudbeds| async move {
        cloudbeds.set("cbat_a", Standing::Good);
        cloudbeds.0.lock().unwrap().hotels = vec![property(1001), property(1002)];
        let process = Process::start(directory.path(), &cloudbeds, settings(directory.path()));
        assert!(!process.store.current().contains(property(1001)));
        settle().await;
        let set = process.store.current();
        let organization = set.of_organization("acme").unwrap();
        assert!(Arc::ptr_eq(set.get(property(1001)).unwrap(), organization));
        assert!(!Arc::ptr_eq(set.get(property(1002)).unwrap(), organization), "a row of its own comes first");
        // A hotel is added: noticed within a day, or at the first answer that says so.
        cloudbeds.0.lock().unwrap().hotels.push(property(1003));
        days(1).await;
        settle().await;
        assert!(process.store.current().contains(property(1003)));
        cloudbeds.0.lock().unwrap().hotels.retain(|hotel| *hotel != property(1001));
        let asked = cloudbeds.calls(Asked::Hotels);
        for _ in 0..100 {
            let set = process.store.current();
            if let Some(key) = set.get(property(1001)) {
                life::tell(key, Some(property(1001)), Sign::Foreign);
            }
            sleep(Duration::from_secs(10)).await;
        }
        assert!(!process.store.current().contains(property(1001)));
        assert_eq!(cloudbeds.calls(Asked::Hotels), asked + 1);
        process.stop().await;
        cloudbeds.away(true);
        let process = Process::start(directory.path(), &cloudbeds, settings(directory.path()));
        assert!(process.store.current().contains(property(1003)));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_organisations_dead_key_costs_as_little_as_a_hotels() {
    let keys = "\"1002\": cbat_b\nkeys: [{ key: cbat_a, properties: auto, organization: acme }]\n";
    scene(keys, |directory, cloudbeds| async move {
        let process = Process::start(directory.path(), &cloudbeds, settings(directory.path()));
        // It opens nothing, so no app's call can show that it is dead.
        sleep(Duration::from_secs(DAY)).await;
        let all = cloudbeds.calls(Asked::Hotels) + cloudbeds.calls(Asked::Probe);
        assert!((22..=40).contains(&all), "{all} calls with a dead key in a day");
        // Connected again, and back without a restart.
        cloudbeds.set("cbat_a", Standing::Good);
        cloudbeds.0.lock().unwrap().hotels = vec![property(1001)];
        sleep(Duration::from_secs(2 * HOUR)).await;
        assert!(process.store.current().contains(property(1001)));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_organisations_properties_are_asked_for_ever_less_often_while_no_answer_comes() {
    let keys = "\"1002\": cbat_b\nkeys: [{ key: cbat_a, properties: auto, organization: acme }]\n";
    scene(keys, |directory, cloudbeds| async move {
        cloudbeds.away(true);
        cloudbeds.set("cbat_a", Standing::Good);
        cloudbeds.0.lock().unwrap().hotels = vec![property(1001)];
        let process = Process::start(directory.path(), &cloudbeds, settings(directory.path()));
        sleep(Duration::from_secs(DAY)).await;
        let all = cloudbeds.calls(Asked::Hotels) + cloudbeds.calls(Asked::Probe);
        assert!(all <= 80, "{all} calls in a day");
        cloudbeds.away(false);
        sleep(Duration::from_secs(HOUR + 60)).await;
        assert!(process.store.current().contains(property(1001)));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn without_a_place_for_the_state_the_keys_are_kept_all_the_same() {
    scene("\"1001\": cbat_a\n", |directory, cloudbeds| async move {
        for state_file in [None, Some(PathBuf::from("/proc/no/such/place.json"))] {
            let settings = Settings { state_file, keep_alive: true, ..settings(directory.path()) };
            let store = KeyStore::resume(directory.path().join("keys.yaml"), None, Lives::resume([], clock())).unwrap();
            let (_stop, stopped) = oneshot::channel::<()>();
            let keeper = Keeper::new(Arc::clone(&store), cloudbeds.clone(), settings);
            let keeper = tokio::task::spawn_local(keeper.run(async move { drop(stopped.await) }));
            let process = Process { store, cloudbeds: cloudbeds.clone(), stop: _stop, keeper };
            process.call(1001).unwrap();
            settle().await;
            assert_eq!(process.call(1001), Err(Verdict::Rejected));
            process.stop().await;
        }
    })
    .await;
}
