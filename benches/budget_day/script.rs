//! The script of shared budgets, run in this process: as a Redis whose clock is the paused one.
//!
//! In: what replicas send. Out: what `src/shared/budget.lua` answers, which is not changed for it. LuaJIT runs it, which
//! speaks the Lua 5.1 that Redis has; the commands and the JSON that the script uses are `redis.lua`. That a real
//! Redis answers the same is tested (`tests/bench_budget_day.rs`).

use std::fmt::{self, Debug, Formatter};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cloudbeds_auth_proxy::shared::{self, Answering, Failure, Stand};
use mlua::{Function, Lua, LuaString, Table, Value};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use tokio::time::{Instant, sleep};

use crate::kit::Sentence;

/// The scripts, as Redis has them.
const BUDGET: &str = include_str!("../../src/shared/budget.lua");
const SIGN: &str = include_str!("../../src/shared/sign.lua");

/// What it finds in Redis.
const REDIS: &str = include_str!("redis.lua");

/// The script and what it keeps.
pub(crate) struct Script {
    run: Function,
    sign: Function,
    /// Held, since nothing runs without it.
    _lua: Lua,
    /// What a report takes to get here, and an answer back.
    way: Duration,
    begun: Instant,
    reports: AtomicU64,
    /// In nanoseconds.
    spent: AtomicU64,
    /// What the script failed with first.
    failed: Mutex<Option<String>>,
}

impl Debug for Script {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.write_str("Script")
    }
}

impl Script {
    /// With nothing kept, and so far away.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub(crate) fn new(way: Duration) -> Result<Self, Sentence> {
        let lua = Lua::new();
        let (run, sign) = load(&lua).map_err(|error| format!("the script cannot be loaded: {error}"))?;
        let (reports, spent, failed) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::default());
        Ok(Self { run, sign, _lua: lua, way, begun: Instant::now(), reports, spent, failed })
    }

    /// What the script answers, so long after the beginning.
    ///
    /// # Errors
    /// When it fails.
    pub(crate) fn ask(&self, key: &str, argument: &str, since: Duration) -> Result<String, Failure> {
        let [seconds, micros] = shared::time(since);
        let asked = std::time::Instant::now();
        let answer = self.run.call::<String>((key, argument, seconds, micros));
        self.reports.fetch_add(1, Ordering::Relaxed);
        self.spent.fetch_add(u64::try_from(asked.elapsed().as_nanos()).unwrap_or(0), Ordering::Relaxed);
        answer.map_err(|error| {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            Failure::Refused(failed.get_or_insert(error.to_string()).clone())
        })
    }

    /// What it answers to a look whether it is there.
    ///
    /// # Errors
    /// When it fails, as it does before the first report.
    pub(crate) fn look(&self, key: &str) -> Result<String, Failure> {
        self.sign.call::<String>(key).map_err(|error| Failure::Refused(error.to_string()))
    }

    /// How many reports there were, and what they took.
    pub(crate) fn reports(&self) -> (u64, Duration) {
        (self.reports.load(Ordering::Relaxed), Duration::from_nanos(self.spent.load(Ordering::Relaxed)))
    }

    /// Whether it has answered each time.
    ///
    /// # Errors
    /// What it failed with first.
    pub(crate) fn is_well(&self) -> Result<(), Sentence> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.as_ref().map_or(Ok(()), |why| Err(format!("the script failed: {why}")))
    }
}

impl Stand for Script {
    fn run(&self) -> &str {
        "simulation"
    }

    fn answer<'a>(&'a self, key: &'a str, argument: &'a str) -> Answering<'a> {
        Box::pin(async move {
            sleep(self.way).await;
            let answer = self.ask(key, argument, self.begun.elapsed());
            sleep(self.way).await;
            answer
        })
    }

    fn sign<'a>(&'a self, key: &'a str) -> Answering<'a> {
        Box::pin(async move {
            sleep(self.way).await;
            let answer = self.look(key);
            sleep(self.way).await;
            answer
        })
    }
}

/// What runs the script, and what asks for a sign of life.
fn load(lua: &Lua) -> mlua::Result<(Function, Function)> {
    let read = lua.create_function(|lua, text: LuaString| {
        Json(lua)
            .deserialize(&mut serde_json::Deserializer::from_slice(&text.as_bytes()))
            .map_err(mlua::Error::external)
    })?;
    let script = lua.load(BUDGET).set_name("budget.lua").into_function()?;
    let sign = lua.load(SIGN).set_name("sign.lua").into_function()?;
    lua.load(REDIS).set_name("redis.lua").call((read, script, sign))
}

/// Makes JSON a value of Lua.
struct Json<'a>(&'a Lua);

impl<'de> DeserializeSeed<'de> for Json<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Json<'_> {
    type Value = Value;

    fn expecting(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.write_str("what a report holds")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Boolean(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        // As all numbers of Lua 5.1.
        Ok(Value::Number(value as f64))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.0.create_string(value).map(Value::String).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Value, A::Error> {
        let list = self.0.create_table().map_err(A::Error::custom)?;
        while let Some(value) = all.next_element_seed(Json(self.0))? {
            list.raw_push(value).map_err(A::Error::custom)?;
        }
        Ok(Value::Table(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<Value, A::Error> {
        let table: Table = self.0.create_table_with_capacity(0, 32).map_err(A::Error::custom)?;
        while let Some(name) = all.next_key::<&str>()? {
            table.raw_set(name, all.next_value_seed(Json(self.0))?).map_err(A::Error::custom)?;
        }
        Ok(Value::Table(table))
    }
}
