//! Looks after the keys on the control plane.
//!
//! In: signs from the request path, the time. Out: verdicts, each confirmed by one call of our own; cool-downs that end
//! with one more; keep-alive calls; the properties of organisations; the state file. One keeper runs per process, and
//! it asks about a key at most once at a time. What Cloudbeds answers is [`Vendor`]'s to know; what happens to a request
//! is the request path's.

mod news;

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use self::news::{WithPeers, exchanged};
use super::life::{Life, Time, Told};
use super::peers::{Peers, Task};
use super::record::{DAY, Dead, Hotels, IdleDays, Judgement, Record};
use super::state::{self, StateError};
use super::store::{KeyStore, Reload};
use super::verdict::{Sign, Verdict};
use super::{Key, report};
use crate::property::PropertyId;
use crate::secret::Fingerprint;

/// How often due things are looked for.
const TICK: Duration = Duration::from_secs(1);

/// How often uses are collected from the keys, which is also how exact the time of a use is.
const SWEEP: u64 = 10;

/// The state is written at most this often, in seconds.
const WRITE: u64 = 60;

/// A clock that is set back by as many seconds was wrong; less is what a clock is corrected by in passing.
const SET_BACK: u64 = 60;

/// Calls of our own under way at once.
const CALLS: usize = 4;

/// After a call that settled nothing, the next one about the same key waits this long, in seconds; each further one
/// twice as long, up to an hour.
const DOUBT: u64 = 5;

/// Signs of one kind without a success in between that are believed although the calls of our own come to nothing.
const STRIKES: u32 = 10;

/// Who has taken a keep-alive call upon itself is given this long before another replica tries, in seconds.
const CLAIM: u64 = 6 * 60 * 60;

/// While a replica asks Cloudbeds about a key, others do not, for so many seconds at most.
const ASKING: u64 = 30;

/// A key that works for nothing is in doubt for this long at most, in seconds.
const USELESS: u64 = 60;

/// How often an organisation's properties are asked for at least, and after foreign-property answers at most. Pauses
/// after questions in vain double from the second, or from a minute where none are known, up to an hour.
const HOTELS_AGE: u64 = DAY;
const HOTELS_PAUSE: u64 = 10 * 60;

const HOUR: u64 = 60 * 60;

/// What came of asking Cloudbeds about a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Probe {
    /// It accepts the key.
    Good,
    /// It refuses it, and says why.
    Dead(Verdict),
    /// No answer, or one that says nothing about the key.
    Unclear,
}

/// An answer on its way. It stays on the keeper's thread.
pub type Answered<T> = Pin<Box<dyn Future<Output = T>>>;

/// Cloudbeds, asked in our own name. Every call has its deadline.
pub trait Vendor {
    /// Whether the key works; about `property` where the sign was about one. `sign` is what led to the question.
    fn probe(&self, key: Arc<Key>, property: Option<PropertyId>, sign: Option<Sign>) -> Answered<Probe>;

    /// All properties the key opens; nothing when there was no clear answer.
    fn hotels(&self, key: Arc<Key>) -> Answered<Option<Vec<PropertyId>>>;
}

/// What the operator chose.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Where the state is kept; nothing keeps it in memory.
    pub state_file: Option<PathBuf>,
    /// Whether idle keys are used in our own name.
    pub keep_alive: bool,
    /// When an unused key is worth a warning.
    pub limits: IdleDays,
    /// The first cool-down of a dead key, in seconds, and the longest: it doubles.
    pub cool_down: (u64, u64),
}

/// Why a call is made.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Why {
    /// A sign was seen.
    Sign(Sign),
    /// A cool-down has ended: of the key, or of one of its properties.
    CoolDown(Option<PropertyId>),
    KeepAlive,
    Hotels,
}

/// A call to make, and the property to name in it.
struct Call {
    key: Arc<Key>,
    property: Option<PropertyId>,
    why: Why,
}

impl Call {
    /// Whose judgement is in question: nothing for the key's own.
    fn about(&self) -> Option<PropertyId> {
        if let Why::CoolDown(about) = self.why { about } else { None }
    }
}

enum Outcome {
    Probe(Probe),
    /// Another replica does it, and what comes of it will be heard.
    Elsewhere,
    Hotels(Option<Vec<PropertyId>>),
}

/// After a call that settled nothing: when the next one may be made, and how long the pause was.
struct Doubt {
    since: Time,
    until: Time,
    pause: u64,
    life: Arc<Life>,
}

/// The keeper of a store's keys.
pub struct Keeper<V> {
    store: Arc<KeyStore>,
    vendor: V,
    settings: Settings,
    waiting: VecDeque<Call>,
    under_way: Vec<(Call, Answered<Outcome>)>,
    /// Keys that calls are waiting or under way for.
    asked: HashSet<Fingerprint>,
    doubts: HashMap<Fingerprint, Doubt>,
    /// Those that may be in cool-down.
    dead: Vec<(Arc<Key>, Option<PropertyId>)>,
    /// When an organisation's properties were asked for last, and how often in vain since the last answer.
    hotels_asked: HashMap<Fingerprint, (Time, u32)>,
    /// When uses were collected last, by either clock.
    swept: (Time, Instant),
    written: Option<Time>,
    unwritten: bool,
    /// What the file said last, so that each trouble is told once.
    trouble: Option<String>,
    peers: Option<WithPeers>,
}

impl<V: Vendor> Keeper<V> {
    /// A keeper that has not begun.
    pub fn new(store: Arc<KeyStore>, vendor: V, settings: Settings) -> Self {
        Self {
            store,
            vendor,
            settings,
            waiting: VecDeque::new(),
            under_way: Vec::new(),
            asked: HashSet::new(),
            doubts: HashMap::new(),
            dead: Vec::new(),
            hotels_asked: HashMap::new(),
            swept: (Time::default(), Instant::now()),
            written: None,
            unwritten: true,
            trouble: None,
            peers: None,
        }
    }

    /// The same, among other replicas.
    #[must_use]
    pub fn among(mut self, peers: Rc<dyn Peers>) -> Self {
        self.peers = Some(WithPeers::new(peers));
        self
    }

    /// Keeps the keys until `stop`, and then writes down what is new.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let inbox = self.store.lives().inbox();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                () = inbox.rung() => inbox.take().into_iter().for_each(|told| self.hear(told)),
                (call, outcome) = next(&mut self.under_way) => self.learn(&call, outcome).await,
                news = exchanged(self.peers.as_mut()) => self.hear_news(news).await,
                _ = ticks.tick() => self.tick().await,
            }
            self.start();
        }
        self.sweep();
        if self.unwritten {
            self.write(Vec::new()).await;
        }
    }

    fn now(&self) -> Time {
        self.store.lives().now()
    }

    /// Whether the key still is one of those in force.
    fn in_force(&self, key: &Key) -> bool {
        let record = key.life().snapshot();
        record.ours && record.gone.is_none()
    }

    /// A sign from the request path.
    fn hear(&mut self, told: Told) {
        let Told { key, property, sign } = told;
        let (life, now) = (Arc::clone(key.life()), self.now());
        // In doubt it is heard again later: the key told of it stays deaf until then.
        if let Some(doubt) = self.doubts.get(&life.fingerprint())
            && doubt.until > now
        {
            return;
        }
        // Of a dead key's calls some were under way when it was found dead, and say nothing new.
        if !self.in_force(&key) || sign != Sign::Hinted && life.blocked(property).is_some() {
            return life.listen();
        }
        if sign == Sign::Foreign {
            self.foreign(&key, property, now);
            return self.doubt(&life, now);
        }
        self.ask(Call { key, property, why: Why::Sign(sign) });
    }

    /// The key is not the property's.
    fn foreign(&mut self, key: &Arc<Key>, property: Option<PropertyId>, now: Time) {
        let name = key.life().fingerprint();
        if !key.auto {
            let property = property.map(PropertyId::get);
            warn!(
                property,
                key.fingerprint = %name,
                "Cloudbeds says that the key does not open this property; correct its row in the key file"
            );
        } else if self.hotels_asked.get(&name).is_none_or(|(asked, _)| now.since(*asked) >= HOTELS_PAUSE) {
            self.ask(Call { key: Arc::clone(key), property: None, why: Why::Hotels });
        }
    }

    /// Queues a call, unless one about the key is on its way.
    fn ask(&mut self, call: Call) {
        if self.asked.insert(call.key.life().fingerprint()) {
            self.waiting.push_back(call);
        }
    }

    /// Starts what there is room for.
    fn start(&mut self) {
        while self.under_way.len() < CALLS
            && let Some(call) = self.waiting.pop_front()
        {
            let (key, property) = (Arc::clone(&call.key), call.property);
            let answered: Answered<Outcome> = match call.why {
                Why::Hotels => {
                    let now = self.now();
                    self.hotels_asked.entry(key.life().fingerprint()).or_default().0 = now;
                    let hotels = self.vendor.hotels(key);
                    Box::pin(async move { Outcome::Hotels(hotels.await) })
                }
                why => {
                    let sign = match why {
                        Why::Sign(sign) => Some(sign),
                        // What it died of is what is asked about again.
                        Why::CoolDown(about) => key.life().change(|record| record.judgement_mut(about).sign()),
                        _ => None,
                    };
                    let claim = self.peers.as_ref().map(|with| {
                        let (task, seconds) =
                            if why == Why::KeepAlive { (Task::KeepAlive, CLAIM) } else { (Task::Probe, ASKING) };
                        with.peers.claim(key.life().fingerprint(), task, seconds)
                    });
                    let probe = self.vendor.probe(key, property, sign);
                    Box::pin(async move {
                        if let Some(claim) = claim
                            && !claim.await
                        {
                            return Outcome::Elsewhere;
                        }
                        Outcome::Probe(probe.await)
                    })
                }
            };
            self.under_way.push((call, answered));
        }
    }

    /// An answer has come.
    async fn learn(&mut self, call: &Call, outcome: Outcome) {
        let life = Arc::clone(call.key.life());
        self.asked.remove(&life.fingerprint());
        let now = self.now();
        match outcome {
            Outcome::Probe(probe) => self.judge(call, &life, probe, now),
            Outcome::Elsewhere if matches!(call.why, Why::Sign(_)) => self.doubt(&life, now),
            Outcome::Elsewhere => {}
            Outcome::Hotels(Some(properties)) if !properties.is_empty() => {
                self.hotels_asked.insert(life.fingerprint(), (now, 0));
                self.hotels(&life, properties, now).await;
            }
            Outcome::Hotels(_) => {
                warn!(key.fingerprint = %life.fingerprint(), "Cloudbeds does not say which properties the key opens");
                let (_, in_vain) = self.hotels_asked.entry(life.fingerprint()).or_default();
                *in_vain = in_vain.saturating_add(1);
                // It may be dead, and while it opens nothing no app's call would show that.
                if !life.is_blocked() {
                    self.ask(Call { key: Arc::clone(&call.key), property: None, why: Why::Sign(Sign::Hinted) });
                }
            }
        }
        if self.doubts.get(&life.fingerprint()).is_none_or(|doubt| doubt.until <= now) {
            life.listen();
        }
    }

    fn judge(&mut self, call: &Call, life: &Arc<Life>, probe: Probe, now: Time) {
        self.changed();
        match probe {
            Probe::Dead(verdict) if verdict.is_dead() => self.bury(call, life, verdict, now),
            Probe::Good | Probe::Dead(_) => {
                let was = life.change(|record| {
                    record.accepted = record.accepted.max(Some(now));
                    if call.why == Why::KeepAlive {
                        record.used(now);
                    }
                    std::mem::replace(record.judgement_mut(call.about()), Judgement { judged: now, dead: None }).dead
                });
                if was.is_some() {
                    info!(property = call.property.map(PropertyId::get), "Cloudbeds accepts the key again");
                }
                life.forgive();
                if matches!(call.why, Why::Sign(_)) {
                    self.doubt(life, now);
                }
            }
            Probe::Unclear => match call.why {
                Why::Sign(sign) => match sign.verdict() {
                    Some(verdict) if life.times(sign, call.property) >= STRIKES => {
                        self.bury(call, life, verdict, now);
                    }
                    _ => self.doubt(life, now),
                },
                Why::CoolDown(about) => {
                    // In vain too. It says nothing about the key, so the judgement stays as old as it is.
                    let limits = self.settings.cool_down;
                    life.change(|record| {
                        if let Some(dead) = &mut record.judgement_mut(about).dead {
                            dead.step = dead.step.saturating_add(1);
                            dead.until = now.plus(cool_down(limits, dead.step));
                        }
                    });
                }
                Why::KeepAlive | Why::Hotels => {}
            },
        }
    }

    /// The key, or one of its properties, is dead: for the first time or still.
    fn bury(&mut self, call: &Call, life: &Arc<Life>, verdict: Verdict, now: Time) {
        let limits = self.settings.cool_down;
        let first = life.change(|record| {
            // A property that left does not end the others that the key serves.
            let shared = record.properties.len() > 1 || call.key.auto;
            let about = call.property.filter(|_| shared && verdict == Verdict::PropertyLeft);
            if about != call.about() {
                *record.judgement_mut(call.about()) = Judgement { judged: now, dead: None };
            }
            let judgement = record.judgement_mut(about);
            let (since, step) = match judgement.dead {
                Some(dead) if matches!(call.why, Why::CoolDown(_)) => (dead.since, dead.step.saturating_add(1)),
                Some(dead) => (dead.since, dead.step),
                None => (now, 0),
            };
            let first = judgement.dead.is_none();
            let dead = Dead { verdict, since, until: now.plus(cool_down(limits, step)), step };
            *judgement = Judgement { judged: now, dead: Some(dead) };
            first
        });
        self.doubts.remove(&life.fingerprint());
        if first {
            self.dead.push((Arc::clone(&call.key), call.property));
            warn!(
                property = call.property.map(PropertyId::get),
                key.fingerprint = %life.fingerprint(),
                key.verdict = verdict.as_str(),
                "calls are answered 424 from now on: {}",
                verdict.advice()
            );
        }
    }

    /// Nothing was settled; the next sign is heard after a pause.
    fn doubt(&mut self, life: &Arc<Life>, now: Time) {
        let before = self.doubts.get(&life.fingerprint()).filter(|doubt| now.since(doubt.until) < 2 * doubt.pause);
        let pause = before.map_or(DOUBT, |doubt| (doubt.pause * 2).min(HOUR));
        self.doubts
            .insert(life.fingerprint(), Doubt { since: now, until: now.plus(pause), pause, life: Arc::clone(life) });
    }

    /// Something is new that should be written down, and told.
    fn changed(&mut self) {
        self.unwritten = true;
        if let Some(with) = &mut self.peers {
            with.news = true;
        }
    }

    async fn hotels(&mut self, life: &Arc<Life>, properties: Vec<PropertyId>, now: Time) {
        self.changed();
        let changed = life.change(|record| {
            record.accepted = record.accepted.max(Some(now));
            let before = record.hotels.replace(Hotels { at: now, properties });
            before.map(|hotels| hotels.properties) != record.hotels.as_ref().map(|hotels| hotels.properties.clone())
        });
        if changed {
            self.remake().await;
        }
    }

    /// What a key opens is another list of properties now.
    async fn remake(&self) {
        let store = Arc::clone(&self.store);
        match spawn_blocking(move || store.remake()).await {
            Ok(Reload::Swapped { properties, keys }) => {
                info!(
                    keys.properties = properties,
                    keys.keys = keys,
                    "Cloudbeds has told which properties a key opens; they are in force"
                );
            }
            _ => warn!("the properties of an organisation have changed, but the key file cannot be read to use them"),
        }
    }

    async fn tick(&mut self) {
        let now = self.now();
        let (swept, at) = self.swept;
        let back = swept.plus(at.elapsed().as_secs()).since(now);
        if back >= SET_BACK {
            self.set_back(back, now);
        }
        self.hear_again(now);
        self.end_cool_downs(now);
        self.exchange_news(now);
        // Backwards too: a clock that was set back must not stop the collecting.
        if now.since(swept) >= SWEEP || now < swept || back >= SET_BACK {
            self.swept = (now, Instant::now());
            self.sweep();
            let due = self.care(now);
            self.unwritten |= !due.is_empty();
            let may = self.written.is_none_or(|written| now.since(written) >= WRITE || now < written);
            if self.unwritten && may {
                self.write(due).await;
            }
        }
    }

    /// The clock was set back. What was learnt by it would hold until its times come: uses, so that a key that nobody uses
    /// would be thought in use until Cloudbeds deletes it, and pauses, so that nothing would be heard of it.
    fn set_back(&mut self, seconds: u64, now: Time) {
        info!(seconds, "the clock was set back: times of keys that have not come yet are set back with it");
        self.store.lives().set_back(seconds);
        self.unwritten = true;
        self.doubts.drain().for_each(|(_, doubt)| doubt.life.listen());
        for (asked, _) in self.hotels_asked.values_mut() {
            *asked = (*asked).min(now);
        }
    }

    /// Ends the pauses of doubt, those of a key that has not worked since at the latest after a minute. Those long past
    /// are forgotten, and with them how long they had become.
    fn hear_again(&mut self, now: Time) {
        self.doubts.retain(|_, doubt| {
            let useless = doubt.life.most() >= STRIKES;
            if useless && now.since(doubt.since) >= USELESS {
                doubt.until = doubt.until.min(now);
            }
            if doubt.until <= now {
                doubt.life.listen();
            }
            now.since(doubt.until) < 2 * doubt.pause
        });
    }

    /// Asks about every key, and every property, whose cool-down is over.
    fn end_cool_downs(&mut self, now: Time) {
        // No cool-down is longer; a time further ahead is from a clock that was wrong.
        let longest = self.settings.cool_down.1.saturating_mul(2);
        let over = |until: Time| until <= now || until.since(now) > longest;
        let mut due = Vec::new();
        for (key, property) in &self.dead {
            let record = key.life().snapshot();
            if !key.life().is_blocked() || record.gone.is_some() {
                continue;
            }
            let own = record.dead().filter(|blocked| over(blocked.until)).map(|_| (*property, None));
            let mut others = record.dead_properties().filter(|(_, blocked)| over(blocked.until));
            // One at a time: the next is asked about once this one is answered.
            let next = own.or_else(|| others.next().map(|(property, _)| (Some(property), Some(property))));
            due.extend(next.map(|(property, about)| Call {
                key: Arc::clone(key),
                property,
                why: Why::CoolDown(about),
            }));
        }
        due.into_iter().for_each(|call| self.ask(call));
    }

    /// Puts the time to the uses since the last sweep.
    fn sweep(&mut self) {
        let now = self.now();
        for life in self.store.lives().all() {
            if life.take_use() {
                life.change(|record| record.used(now));
                self.unwritten = true;
            }
        }
    }

    /// Warns of idle keys, asks for organisations' properties, and says which keys want a keep-alive call.
    fn care(&mut self, now: Time) -> Vec<(Arc<Key>, Option<PropertyId>)> {
        let IdleDays { idle_days, expiring_days } = self.settings.limits;
        let mut due = Vec::new();
        self.dead.clear();
        for (key, property) in report::lives(&self.store) {
            let life = key.life();
            let record = life.snapshot();
            if life.is_blocked() {
                self.dead.push((Arc::clone(&key), property));
            }
            if record.dead().is_some() {
                continue;
            }
            let days = record.idle_days(now);
            let level = [expiring_days, idle_days].into_iter().find(|level| days >= *level).unwrap_or(0);
            if level > record.warned_days {
                life.change(|record| record.warned_days = level);
                self.unwritten = true;
                let advice = if level == expiring_days { Verdict::Expiring.advice() } else { Verdict::Idle.advice() };
                warn!(
                    property = property.map(PropertyId::get),
                    key.fingerprint = %life.fingerprint(),
                    key.idle_days = days,
                    "a key has not been used for {days} days: {advice}"
                );
            }
            if self.settings.keep_alive && wants_use(life.fingerprint(), &record, now, self.settings.limits) {
                due.push((Arc::clone(&key), property));
            }
            let age = record.hotels.as_ref().map_or(u64::MAX, |hotels| now.since(hotels.at));
            let (asked, in_vain) = self.hotels_asked.get(&life.fingerprint()).copied().unwrap_or_default();
            let pause = if record.hotels.is_some() { HOTELS_PAUSE } else { WRITE };
            let pause = pause.saturating_mul(1 << in_vain.saturating_sub(1).min(6)).min(HOUR);
            if key.auto && age >= HOTELS_AGE && now.since(asked) >= pause {
                self.ask(Call { key, property: None, why: Why::Hotels });
            }
        }
        due
    }

    /// Writes the state, learns what others wrote, and makes those of the keep-alive calls that nobody else makes.
    async fn write(&mut self, due: Vec<(Arc<Key>, Option<PropertyId>)>) {
        let now = self.now();
        let limits = self.settings.limits;
        let wanted: HashSet<Fingerprint> = due.iter().map(|(key, _)| key.life().fingerprint()).collect();
        self.written = Some(now);
        let done = match self.settings.state_file.clone() {
            Some(path) => {
                let lives = Arc::clone(self.store.lives());
                let update = spawn_blocking(move || {
                    let mut mine = HashSet::new();
                    state::update(&path, &lives.ours(), now, |name, other| {
                        let mut record = match other {
                            Some(other) => lives.learn(name, &lives.dated_anew(other)),
                            None => lives.of(name).snapshot(),
                        };
                        if wanted.contains(&name) && wants_use(name, &record, now, limits) {
                            // Not in the life as well: nobody may rely on it before it is written.
                            record.kept_alive = Some(now);
                            mine.insert(name);
                        }
                        record
                    })
                    .map(|()| mine)
                });
                // The lock has its own limit; this one is for a disk that hangs.
                timeout(Duration::from_secs(15), update).await.ok().and_then(Result::ok)
            }
            None => Some(Ok(wanted)),
        };
        let mine = match done {
            Some(Ok(mine)) => {
                for (key, _) in due.iter().filter(|(key, _)| mine.contains(&key.life().fingerprint())) {
                    key.life().change(|record| record.kept_alive = record.kept_alive.max(Some(now)));
                }
                self.unwritten = false;
                self.store.lives().written();
                if self.trouble.take().is_some() {
                    info!("the state file is written again");
                }
                mine
            }
            Some(Err(error)) => self.troubled(&error),
            None => HashSet::new(),
        };
        for (key, property) in due {
            if mine.contains(&key.life().fingerprint()) {
                self.ask(Call { key, property, why: Why::KeepAlive });
            }
        }
    }

    /// Without the file nobody knows what other replicas do, so no keep-alive call is claimed. Told once per trouble.
    fn troubled(&mut self, error: &StateError) -> HashSet<Fingerprint> {
        let words = error.to_string();
        if self.trouble.as_ref() != Some(&words) {
            warn!("last uses and verdicts are kept in memory only and are lost at the end: {words}");
            self.trouble = Some(words);
        }
        HashSet::new()
    }
}

/// Whether a keep-alive call is due. Each key has its own hour of the day that follows, by its name, which all replicas
/// agree on, so that the keys of one start do not all become due at once.
fn wants_use(name: Fingerprint, record: &Record, now: Time, limits: IdleDays) -> bool {
    let since = record.last_used.unwrap_or_default().max(record.first_seen);
    let claimed = record.kept_alive.is_some_and(|claim| now.since(claim) < CLAIM);
    let due = limits.idle_days * DAY + name.get() % DAY;
    !claimed && record.dead().is_none() && since != Time::default() && now.since(since) >= due
}

/// Doubles from the first to the longest, and up to a fifth is added, so that many keys that died at once are not all
/// asked about at once.
fn cool_down((first, longest): (u64, u64), step: u32) -> u64 {
    let seconds = first.saturating_mul(1u64.checked_shl(step).unwrap_or(u64::MAX)).min(longest);
    let mut random = [0; 8];
    // Without a random number there is no jitter, which does no harm.
    let _ = getrandom::fill(&mut random);
    seconds + u64::from_ne_bytes(random) % (seconds / 5 + 1)
}

/// The first call under way to be answered; never, while there is none.
async fn next(under_way: &mut Vec<(Call, Answered<Outcome>)>) -> (Call, Outcome) {
    std::future::poll_fn(|cx| {
        for at in 0..under_way.len() {
            if let Poll::Ready(outcome) = under_way[at].1.as_mut().poll(cx) {
                return Poll::Ready((under_way.swap_remove(at).0, outcome));
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests;
