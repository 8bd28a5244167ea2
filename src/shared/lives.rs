//! What keepers of keys tell each other through Redis.
//!
//! In: records of keys that are new here. Out: those that are new elsewhere, and whether this replica is the one to do
//! something. Records are kept by the server's clock, since those of replicas may be hours apart. Each is written only
//! over what its writer has read (`lives.lua`), so nothing that one replica knows is lost to another's. Where Redis fails,
//! each keeper goes on by itself, and tells everything once it is back.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use redis::Script;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::link::{Failure, Server, Wire};
use crate::keys::Time;
use crate::keys::keeper::Answered;
use crate::keys::peers::{News, Peers, Task};
use crate::keys::record::Record;
use crate::origin::Origin;
use crate::secret::Fingerprint;

/// For an answer, with the connection where there is none. Nobody's request waits for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// After a failure it is not tried again for so long.
const PAUSE: Duration = Duration::from_secs(5);

/// The most by which the server's clock and ours may differ, in seconds. Hours are a time zone that somebody mistook; of a
/// clock that is weeks off nobody knows since when, nor by which clock the state file was dated.
const APART_MAX: u64 = 24 * 3600;

/// The largest record read, in bytes: ten thousand properties of an organisation take less.
const RECORD_MAX: usize = 256 * 1024;

/// The keepers of other replicas, by way of Redis.
pub struct Lives(Rc<Shared>);

struct Shared {
    server: Arc<Server>,
    script: Script,
    keys: [String; 3],
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    wire: Option<Wire>,
    /// Who answers, which of the cluster's nodes, and when to try again.
    run: String,
    node: Option<Origin>,
    again: Option<Instant>,
    /// How far the changes were read, and the change that was read of each record.
    since: u64,
    changes: HashMap<Fingerprint, u64>,
    /// The server's memory is another one.
    forgotten: bool,
    /// Why there is none, as far as it was told: its clock, or anything else.
    lost: Option<bool>,
    /// Its clock and ours are too far apart.
    apart: bool,
}

impl Lives {
    /// Through this server.
    #[must_use]
    pub fn new(server: Arc<Server>) -> Self {
        let keys = ["records", "changes", "last"].map(|what| format!("{{{}:lives}}:{what}", server.prefix));
        let script = Script::new(include_str!("lives.lua"));
        Self(Rc::new(Shared { server, script, keys, state: RefCell::default() }))
    }
}

impl Peers for Lives {
    fn exchange(&self, own: Vec<(Fingerprint, Record)>, now: Time) -> Answered<Option<News>> {
        let (shared, caller) = (Rc::clone(&self.0), Rc::clone(&self.0));
        Box::pin(async move { shared.within(async move { caller.exchange(own, now).await }).await })
    }

    fn claim(&self, name: Fingerprint, task: Task, seconds: u64) -> Answered<bool> {
        let (shared, caller) = (Rc::clone(&self.0), Rc::clone(&self.0));
        let call = async move { caller.claim(name, task, seconds).await };
        Box::pin(async move { shared.within(call).await.unwrap_or(true) })
    }
}

/// The call as a task of its own: a panic in it is a failure like any other, and does not end the keeper.
async fn by_itself<T: 'static>(call: impl Future<Output = Result<T, Failure>> + 'static) -> Result<T, Failure> {
    let mut running = JoinSet::new();
    running.spawn_local(call);
    match running.join_next().await {
        Some(Ok(done)) => done,
        _ => Err(Failure::Defect),
    }
}

impl Shared {
    /// Nothing where it fails, takes too long, or has failed just now.
    async fn within<T: 'static>(&self, call: impl Future<Output = Result<T, Failure>> + 'static) -> Option<T> {
        if self.state.borrow().again.is_some_and(|again| Instant::now() < again) {
            return None;
        }
        let done = timeout(PATIENCE, by_itself(call)).await.unwrap_or(Err(Failure::Slow));
        let mut state = self.state.borrow_mut();
        match done {
            Ok(done) => {
                state.again = None;
                if state.lost.take().is_some() {
                    tracing::info!("Redis is there: replicas know of each other's keys");
                }
                Some(done)
            }
            Err(Failure::Moved(node)) => {
                (state.wire, state.node) = (None, Some(*node));
                None
            }
            Err(why) => {
                (state.wire, state.node, state.again) = (None, None, Some(Instant::now() + PAUSE));
                let clock = matches!(why, Failure::Clock);
                if state.lost.replace(clock) != Some(clock) {
                    let (why, lost) = (self.server.words(&why), if clock { "" } else { "Redis is lost: " });
                    tracing::warn!("{lost}{why}; what this replica learns of keys it keeps to itself until then");
                }
                None
            }
        }
    }

    /// An open connection, which goes back once it has answered. Two calls at a time have two, of which one is kept.
    async fn wire(&self) -> Result<Wire, Failure> {
        let (wire, node) = {
            let mut state = self.state.borrow_mut();
            (state.wire.take(), state.node.clone())
        };
        if let Some(wire) = wire {
            return Ok(wire);
        }
        let (wire, run) = Wire::open(&self.server, node.as_ref().unwrap_or(&self.server.url.server)).await?;
        let mut state = self.state.borrow_mut();
        if state.run != run {
            state.forgotten |= !state.run.is_empty();
            (state.run, state.since) = (run, 0);
            state.changes.clear();
        }
        Ok(wire)
    }

    async fn exchange(&self, own: Vec<(Fingerprint, Record)>, now: Time) -> Result<News, Failure> {
        let mut wire = self.wire().await?;
        let offset = self.offset(&mut wire, now).await?;
        let mut call = self.script.prepare_invoke();
        for key in &self.keys {
            call.key(key.as_str());
        }
        {
            let state = self.state.borrow();
            call.arg(state.since);
            for (name, record) in own {
                let text = serde_json::to_string(&record.by_another_clock(offset)).map_err(|_| Failure::Nonsense)?;
                call.arg(name.to_string()).arg(state.changes.get(&name).copied().unwrap_or(0)).arg(text);
            }
        }
        let told: (u64, u64, Vec<String>, Vec<String>) = call.invoke_async(&mut wire.connection).await?;
        let (_, read, changed, written) = told;
        let mut state = self.state.borrow_mut();
        let mut news = News { forgotten: std::mem::take(&mut state.forgotten), ..News::default() };
        news.forgotten |= read < state.since;
        if news.forgotten {
            state.changes.clear();
        }
        // The script hands out so many at a time.
        news.more = changed.len() >= 3 * 500;
        state.since = read;
        for [name, change, text] in changed.as_chunks().0 {
            // Another version may have written what this one cannot read; it stays as it is.
            let record: Option<Record> =
                Some(text).filter(|text| text.len() <= RECORD_MAX).and_then(|text| serde_json::from_str(text).ok());
            if let (Ok(name), Ok(change), Some(record)) = (name.parse(), change.parse(), record) {
                state.changes.insert(name, change);
                news.records.push((name, record.by_another_clock(-offset)));
            }
        }
        for [name, change] in written.as_chunks().0 {
            if let (Ok(name), Ok(change)) = (name.parse(), change.parse()) {
                state.changes.insert(name, change);
                news.taken.push(name);
            }
        }
        state.wire = Some(wire);
        Ok(news)
    }

    /// How many seconds the server's clock shows more than ours.
    async fn offset(&self, wire: &mut Wire, now: Time) -> Result<i64, Failure> {
        let (seconds, _): (u64, u64) = redis::cmd("TIME").query_async(&mut wire.connection).await?;
        let (theirs, ours) = (i64::try_from(seconds), i64::try_from(now.0));
        let offset = theirs.ok().zip(ours.ok()).map(|(theirs, ours)| theirs.saturating_sub(ours));
        let offset = offset.ok_or(Failure::Nonsense)?;
        let apart = offset.unsigned_abs() > APART_MAX;
        self.state.borrow_mut().apart = apart;
        match offset {
            _ if apart => Err(Failure::Clock),
            // A second is what rounding makes of two clocks that agree, and would be news each time.
            -2..=2 => Ok(0),
            offset => Ok(offset),
        }
    }

    async fn claim(&self, name: Fingerprint, task: Task, seconds: u64) -> Result<bool, Failure> {
        if self.state.borrow().apart {
            // Whoever does it for others must be able to tell them.
            return Err(Failure::Clock);
        }
        let mut wire = self.wire().await?;
        let key = format!("{{{}:lives}}:{}:{name}", self.server.prefix, task.as_str());
        let mut set = redis::cmd("SET");
        set.arg(key).arg("").arg("NX").arg("EX").arg(seconds);
        let done: Option<String> = set.query_async(&mut wire.connection).await?;
        self.state.borrow_mut().wire = Some(wire);
        Ok(done.is_some())
    }
}
