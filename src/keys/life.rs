//! The life of one key: from its first sight to its end, whatever happens to the file in between.
//!
//! In: from the request path, that Cloudbeds accepted the key or that something looks wrong; from the keeper, its
//! verdict. Out: whether a request may go up with it. A [`Life`] belongs to the key's text, not to a row of the file: a
//! reload that keeps the key keeps its life, and a new key of the same property begins anew. The request path only
//! touches atomics, relaxed, and writes to them when something changes; the record is the control plane's.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::complaints::Complaints;
use super::kept::Kept;
use super::record::Record;
use super::verdict::{Blocked, Sign, Verdict};
use super::{Key, KeySet};
use crate::property::PropertyId;
use crate::secret::Fingerprint;

/// A moment: seconds since 1970, UTC.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Time(pub u64);

impl Time {
    /// The system's clock.
    #[must_use]
    pub fn now() -> Self {
        Self(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()))
    }

    /// Seconds from `earlier` until this moment; 0 when it is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This many seconds later.
    #[must_use]
    pub const fn plus(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds))
    }
}

/// What the request path knows of a key, and what the control plane has written down about it.
///
/// What every request looks at comes first and stays together: with many keys each cache line of one is a wait for memory.
#[repr(C)]
pub struct Life {
    /// 0 lets requests pass. Otherwise the verdict in the upper byte and the end of the cool-down below it, or
    /// [`SOME_PROPERTIES`].
    gate: AtomicU64,
    /// [`USED`] since the keeper looked last, [`COMPLAINED`], and above those bits the 401s in a row.
    signs: AtomicU32,
    /// Whether a sign is with the keeper, which need not hear of the next one.
    told: AtomicBool,
    fingerprint: Fingerprint,
    /// The properties of a shared key that are dead while the key is not.
    dead_properties: ArcSwapOption<Vec<(PropertyId, Blocked)>>,
    inbox: Arc<Inbox>,
    record: Mutex<Kept>,
}

/// The gate of a key of which some properties are dead.
const SOME_PROPERTIES: u64 = u64::MAX;

const VERDICT_SHIFT: u32 = 56;
const USED: u32 = 1;
/// Something is held against the key among the [`Complaints`].
const COMPLAINED: u32 = 2;
const STRIKE: u32 = 4;

impl Life {
    fn new(fingerprint: Fingerprint, inbox: Arc<Inbox>, record: Record) -> Self {
        let life = Self {
            fingerprint,
            gate: AtomicU64::new(0),
            signs: AtomicU32::new(0),
            told: AtomicBool::new(false),
            dead_properties: ArcSwapOption::empty(),
            inbox,
            record: Mutex::new(Record::default().into()),
        };
        life.change(|own| *own = record);
        life
    }

    /// The key's name.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Whether a call would be useless: one relaxed load for a key in order.
    #[inline]
    #[must_use]
    pub fn blocked(&self, property: Option<PropertyId>) -> Option<Blocked> {
        match self.gate.load(Ordering::Relaxed) {
            0 => None,
            gate => self.blocked_by(gate, property),
        }
    }

    #[cold]
    fn blocked_by(&self, gate: u64, property: Option<PropertyId>) -> Option<Blocked> {
        if gate != SOME_PROPERTIES {
            let verdict = Verdict::from_number((gate >> VERDICT_SHIFT) as u8)?;
            return Some(Blocked { verdict, until: Time(gate & !(0xff << VERDICT_SHIFT)) });
        }
        let dead = self.dead_properties.load();
        let found = dead.as_deref()?.iter().find(|(dead, _)| Some(*dead) == property)?;
        Some(found.1)
    }

    /// The verdict on the key itself.
    pub(super) fn is_blocked(&self) -> bool {
        self.gate.load(Ordering::Relaxed) != 0
    }

    /// Cloudbeds answered with success: one relaxed load while nothing is new. The keeper puts the time to it, so the
    /// request path need not look at a clock.
    #[inline]
    pub fn used(&self) {
        if self.signs.load(Ordering::Relaxed) & !COMPLAINED != USED {
            self.signs.fetch_and(USED | COMPLAINED, Ordering::Relaxed);
            self.signs.fetch_or(USED, Ordering::Relaxed);
        }
    }

    /// Not only the head of an answer said success: one relaxed load where nothing is held against the key.
    #[inline]
    pub fn succeeded(&self, property: Option<PropertyId>) {
        if self.signs.load(Ordering::Relaxed) & COMPLAINED != 0 {
            self.inbox.complaints.succeeded(self.fingerprint, property, || self.clear_complained());
        }
    }

    fn clear_complained(&self) {
        self.signs.fetch_and(!COMPLAINED, Ordering::Relaxed);
    }

    /// One more sign without a success in between.
    fn count(&self, property: Option<PropertyId>, sign: Sign) {
        match sign {
            Sign::Unauthorized => {
                self.signs.fetch_add(STRIKE, Ordering::Relaxed);
            }
            Sign::UserLeft | Sign::PropertyLeft => {
                let mark = || {
                    self.signs.fetch_or(COMPLAINED, Ordering::Relaxed);
                };
                self.inbox.complaints.add(self.fingerprint, sign, property, mark);
            }
            Sign::Foreign | Sign::Hinted => {}
        }
    }

    /// Whether it has been used since this was asked last.
    pub(super) fn take_use(&self) -> bool {
        // Most keys of a large file have not been: they are only read.
        self.signs.load(Ordering::Relaxed) & USED != 0 && self.signs.fetch_and(!USED, Ordering::Relaxed) & USED != 0
    }

    /// How often this sign was seen since the last success.
    pub(super) fn times(&self, sign: Sign, property: Option<PropertyId>) -> u32 {
        match sign {
            Sign::Unauthorized => self.signs.load(Ordering::Relaxed) / STRIKE,
            _ => self.inbox.complaints.count(self.fingerprint, sign, property),
        }
    }

    /// How often the most frequent of all signs was seen since the last success.
    pub(super) fn most(&self) -> u32 {
        let signs = self.signs.load(Ordering::Relaxed);
        let complaints = if signs & COMPLAINED == 0 { 0 } else { self.inbox.complaints.most(self.fingerprint) };
        complaints.max(signs / STRIKE)
    }

    /// The signs so far are forgotten: Cloudbeds accepts the key.
    pub(super) fn forgive(&self) {
        self.signs.fetch_and(USED | COMPLAINED, Ordering::Relaxed);
        self.inbox.complaints.forget(self.fingerprint, || self.clear_complained());
    }

    /// From now on a sign reaches the keeper again.
    pub(super) fn listen(&self) {
        self.told.store(false, Ordering::Relaxed);
    }

    /// Changes the record and lets the request path know what follows from it.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Record) -> T) -> T {
        let mut kept = self.record();
        let mut record = kept.unfold();
        let done = change(&mut record);
        self.set_gate(&record);
        *kept = record.into();
        done
    }

    /// What is written down about the key.
    #[must_use]
    pub fn snapshot(&self) -> Record {
        self.record().unfold()
    }

    /// Whether the key is or was in force in this process.
    pub(super) fn is_ours(&self) -> bool {
        self.record().is_ours()
    }

    fn set_gate(&self, record: &Record) {
        let dead: Vec<_> = record.dead_properties().collect();
        let some = !dead.is_empty();
        self.dead_properties.store(some.then(|| Arc::new(dead)));
        let gate = match record.dead() {
            Some(Blocked { verdict, until }) => (verdict as u64) << VERDICT_SHIFT | until.0 & !(0xff << VERDICT_SHIFT),
            None if some => SOME_PROPERTIES,
            None => 0,
        };
        self.gate.store(gate, Ordering::Relaxed);
    }

    /// A record is put back whole or not at all, so a poisoned lock is as good as any.
    fn record(&self) -> MutexGuard<'_, Kept> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Life {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Life({})", self.fingerprint)
    }
}

/// A sign on its way to the keeper.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) key: Arc<Key>,
    pub(super) property: Option<PropertyId>,
    pub(super) sign: Sign,
}

/// Where the cores leave signs for the keeper.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    waiting: Mutex<Vec<Told>>,
    bell: Notify,
    complaints: Complaints,
}

impl Inbox {
    fn waiting(&self) -> MutexGuard<'_, Vec<Told>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next sign. Cancel safe.
    pub(super) async fn rung(&self) {
        self.bell.notified().await;
    }

    pub(super) fn take(&self) -> Vec<Told> {
        std::mem::take(&mut *self.waiting())
    }
}

/// Tells the keeper that something may be wrong with a key; what it has heard already costs a load.
pub fn tell(key: &Arc<Key>, property: Option<PropertyId>, sign: Sign) {
    let life = key.life();
    life.count(property, sign);
    if life.told.load(Ordering::Relaxed) || life.told.swap(true, Ordering::Relaxed) {
        return;
    }
    life.inbox.waiting().push(Told { key: Arc::clone(key), property, sign });
    life.inbox.bell.notify_one();
}

/// Tells the time. The system's clock, but for tests.
pub type Clock = Arc<dyn Fn() -> Time + Send + Sync>;

/// All lives this process knows, of keys in force and of keys that were.
pub struct Lives {
    table: Mutex<HashMap<Fingerprint, Arc<Life>>>,
    inbox: Arc<Inbox>,
    clock: Clock,
    /// By how many seconds the clock was set back since the file was written.
    set_back: AtomicU64,
}

impl Default for Lives {
    fn default() -> Self {
        let set_back = AtomicU64::new(0);
        Self { table: Mutex::default(), inbox: Arc::default(), clock: Arc::new(Time::now), set_back }
    }
}

impl fmt::Debug for Lives {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Lives")
    }
}

impl Lives {
    /// Lives that go on where the records end.
    #[must_use]
    pub fn resume(records: impl IntoIterator<Item = (Fingerprint, Record)>, clock: Clock) -> Arc<Self> {
        let lives = Self { clock, ..Self::default() };
        records.into_iter().for_each(|(fingerprint, record)| lives.remember(fingerprint, record));
        Arc::new(lives)
    }

    /// Goes on with a life where a record ends; before the keys are read.
    pub fn remember(&self, fingerprint: Fingerprint, mut record: Record) {
        record.no_later_than(self.now());
        let life = Life::new(fingerprint, Arc::clone(&self.inbox), record);
        self.table().insert(fingerprint, Arc::new(life));
    }

    pub(super) fn now(&self) -> Time {
        (self.clock)()
    }

    /// Notes which keys are in force from now on, and for whom.
    pub(super) fn follow(&self, set: &KeySet) {
        let now = self.now();
        // One list for all keys: a small one for each would be as many holes in the heap afterwards.
        let rows = set.iter().map(|(property, key)| (key.life.fingerprint, Some(property)));
        let mut held: Vec<_> = rows.chain(set.auto().iter().map(|key| (key.life.fingerprint, None))).collect();
        held.sort_unstable();
        for life in self.all() {
            let own = &held[held.partition_point(|(name, _)| *name < life.fingerprint)..];
            let own = &own[..own.partition_point(|(name, _)| *name == life.fingerprint)];
            match own {
                [] => life.change(|record| record.not_in_force(now, |property| set.contains(property))),
                own => {
                    let properties = own.iter().filter_map(|(_, property)| *property).collect();
                    life.change(|record| record.in_force(properties, now));
                }
            }
        }
        // A file that was refused has left lives of keys that never were in force.
        self.table().retain(|_, life| Arc::strong_count(life) > 1 || life.snapshot().first_seen != Time::default());
    }

    /// The keys whose records are worth keeping: those that are or were in force in this process.
    pub(super) fn ours(&self) -> Vec<Fingerprint> {
        self.all().into_iter().filter(|life| life.is_ours()).map(|life| life.fingerprint).collect()
    }

    /// Takes over what others have written down about a key, and returns what is known of it then. Which keys are in
    /// force here, and for whom, this process knows best.
    pub(super) fn learn(&self, fingerprint: Fingerprint, other: &Record) -> Record {
        let now = self.now();
        self.of(fingerprint).change(|record| {
            match record.ours {
                true => record.merge(other),
                false => record.clone_from(other),
            }
            record.no_later_than(now);
            record.clone()
        })
    }

    /// The clock was set back by so many seconds: what is dated by what it showed before is dated anew.
    pub(super) fn set_back(&self, seconds: u64) {
        let now = self.now();
        self.set_back.fetch_max(seconds, Ordering::Relaxed);
        self.all().iter().for_each(|life| life.change(|record| record.set_back(seconds, now)));
    }

    /// A record of the file, dated by the clock as it is. Where replicas share the file and another's clock is still ahead,
    /// what that one writes later is taken for now.
    pub(super) fn dated_anew(&self, mut record: Record) -> Record {
        record.set_back(self.set_back.load(Ordering::Relaxed), self.now());
        record
    }

    /// The file has been written: what it holds is dated by the clock as it is.
    pub(super) fn written(&self) {
        self.set_back.store(0, Ordering::Relaxed);
    }

    /// The life of a key that has one.
    pub(super) fn get(&self, fingerprint: Fingerprint) -> Option<Arc<Life>> {
        self.table().get(&fingerprint).map(Arc::clone)
    }

    /// The life of a key; a new one if it has none yet.
    pub(super) fn of(&self, fingerprint: Fingerprint) -> Arc<Life> {
        let new = || Arc::new(Life::new(fingerprint, Arc::clone(&self.inbox), Record::default()));
        Arc::clone(self.table().entry(fingerprint).or_insert_with(new))
    }

    pub(super) fn inbox(&self) -> Arc<Inbox> {
        Arc::clone(&self.inbox)
    }

    pub(super) fn all(&self) -> Vec<Arc<Life>> {
        self.table().values().map(Arc::clone).collect()
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Fingerprint, Arc<Life>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
