//! Files that are read again while the process runs.
//!
//! In: how to read them, and what to do with what is new. Out: nothing but lines in the log. New content counts once
//! two looks in a row found the same, since several files are seldom replaced in one step; what cannot be used leaves
//! what is in force where it is, and is told once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::fault::Fault;

/// Between two looks at content that is new.
const SETTLE: Duration = Duration::from_millis(100);

/// What the log says.
pub(super) struct Words {
    /// It cannot be used; what is wrong follows.
    pub(super) kept: &'static str,
    /// The files hold again what is in force.
    pub(super) again: &'static str,
}

/// What was read, and a number that is the same for the same content.
pub(super) type Read<T> = Result<(T, u64), Vec<Fault>>;

/// New content is in force.
pub(super) struct Renewed {
    /// What is new, as the log says it.
    pub(super) words: String,
    /// What is wrong with it all the same.
    pub(super) but: Vec<Fault>,
}

/// Looks every `poll` and whenever `look_now` says so, until dropped. `in_force` is the number of what is.
///
/// `look_now` wakes all who wait (SIGHUP); one that is lost because a look is under way is made up for by the
/// interval.
pub(super) async fn watch<T: Send + 'static>(
    (poll, look_now): (Duration, Arc<Notify>),
    words: Words,
    mut in_force: u64,
    read: impl Fn() -> Read<T> + Clone + Send + 'static,
    mut accept: impl FnMut(T) -> Result<Renewed, Vec<Fault>>,
) {
    let mut ticks = interval(poll);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut candidate, mut refused) = (None, None);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = look_now.notified() => {}
        }
        loop {
            // A panic while reading, which should not be possible, must not end the looks.
            let Ok(found) = spawn_blocking(read.clone()).await else { break };
            let outcome = match found {
                Ok((_, found)) if found == in_force => {
                    candidate = None;
                    if refused.take().is_some() {
                        tracing::info!("{}", words.again);
                    }
                    break;
                }
                Ok((_, found)) if candidate != Some(found) => {
                    candidate = Some(found);
                    sleep(SETTLE).await;
                    continue;
                }
                Ok((new, found)) => accept(new).map(|renewed| (found, renewed)),
                Err(faults) => Err(faults),
            };
            match outcome {
                Ok((found, Renewed { words, but })) => {
                    (in_force, refused) = (found, None);
                    if but.is_empty() {
                        tracing::info!("{words}");
                    }
                    for fault in but {
                        tracing::warn!("{words}, but {fault}");
                    }
                }
                Err(faults) => {
                    let told = faults.first().map(ToString::to_string).unwrap_or_default();
                    if refused.as_ref() != Some(&told) {
                        tracing::warn!("{}: {told}", words.kept);
                        refused = Some(told);
                    }
                }
            }
            break;
        }
    }
}
