//! What the keeper tells other replicas, and hears from them.
//!
//! In: the records of keys here. Out: what others do not know of them yet, in exchanges of which one is under way at a time;
//! and what others know, in force here. How it travels is [`Peers`]' to know.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::rc::Rc;

use tracing::warn;

use super::super::life::Time;
use super::super::peers::{News, Peers};
use super::super::record::Record;
use super::{Answered, Keeper, Vendor};
use crate::secret::Fingerprint;

/// How often other replicas are listened to, and how often everything is looked through for what they should know, in
/// seconds; what is judged is told at once.
const LISTEN: u64 = 2;
const LOOK_THROUGH: u64 = 60;

/// Records told at a time.
const NEWS: usize = 500;

/// What is known of what other replicas know.
pub(super) struct WithPeers {
    pub(super) peers: Rc<dyn Peers>,
    /// Digests of what they know of each key.
    known: HashMap<Fingerprint, u64>,
    /// What was told in the exchange that is under way.
    telling: Vec<(Fingerprint, u64)>,
    exchange: Option<Answered<Option<News>>>,
    listened: Time,
    looked_through: Time,
    /// There is something to tell, or more to hear.
    pub(super) news: bool,
}

impl WithPeers {
    /// Nothing is known so far.
    pub(super) fn new(peers: Rc<dyn Peers>) -> Self {
        Self {
            peers,
            known: HashMap::new(),
            telling: Vec::new(),
            exchange: None,
            listened: Time::default(),
            looked_through: Time::default(),
            news: true,
        }
    }
}

impl<V: Vendor> Keeper<V> {
    /// Begins to tell other replicas what is new, and to hear what is new elsewhere, when it is time.
    pub(super) fn exchange_news(&mut self, now: Time) {
        let Some(with) = &mut self.peers else { return };
        let due = with.news || now.since(with.listened) >= LISTEN || now < with.listened;
        if with.exchange.is_some() || !due {
            return;
        }
        let mut own = Vec::new();
        if with.news || now.since(with.looked_through) >= LOOK_THROUGH || now < with.looked_through {
            for life in self.store.lives().all().iter().filter(|life| life.is_ours()) {
                let (name, record) = (life.fingerprint(), life.snapshot().for_others());
                let digest = digest(&record);
                if with.known.get(&name) != Some(&digest) && own.len() < NEWS {
                    with.telling.push((name, digest));
                    own.push((name, record));
                }
            }
            with.looked_through = now;
            with.news = own.len() == NEWS;
        }
        with.listened = now;
        with.exchange = Some(with.peers.exchange(own, now));
    }

    /// What other replicas know of our keys is known here from now on.
    pub(super) async fn hear_news(&mut self, news: Option<News>) {
        let Some(with) = &mut self.peers else { return };
        let told = std::mem::take(&mut with.telling);
        let Some(news) = news else { return };
        if news.forgotten {
            with.known.clear();
        }
        let mut refused = told.len();
        for (name, digest) in told {
            if news.taken.contains(&name) {
                with.known.insert(name, digest);
                refused -= 1;
            }
        }
        let mut opened = false;
        for (name, record) in news.records {
            // Of keys that are not here nothing is kept. Once they come and are told of, what others know is answered.
            let Some(life) = self.store.lives().get(name).filter(|life| life.is_ours()) else { continue };
            let before = life.snapshot();
            let after = self.store.lives().learn(name, &record);
            with.known.insert(name, digest(&record));
            // We know more than they do: that is news.
            with.news |= digest(&after.for_others()) != digest(&record);
            self.unwritten |= after != before;
            opened |= after.hotels != before.hotels;
            if before.dead().is_none()
                && let Some(blocked) = after.dead()
            {
                let verdict = blocked.verdict.as_str();
                warn!(key.fingerprint = %name, key.verdict = verdict, "another replica has found that a key is dead");
            }
        }
        with.news |= news.forgotten || news.more || refused > 0;
        if opened {
            self.remake().await;
        }
    }
}

/// A digest of what others are told.
fn digest(record: &Record) -> u64 {
    let mut hasher = DefaultHasher::new();
    // A record has no map whose keys are no text, so it can always be written.
    serde_json::to_string(record).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

/// What other replicas have told; never, while nobody is asked.
pub(super) async fn exchanged(with: Option<&mut WithPeers>) -> Option<News> {
    let Some(with) = with else { return std::future::pending().await };
    let Some(exchange) = &mut with.exchange else { return std::future::pending().await };
    let news = exchange.await;
    with.exchange = None;
    news
}
