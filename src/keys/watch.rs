//! Notices when the key file changes.
//!
//! In: a [`KeyStore`], an interval, a signal. Out: reloads, each told to an observer and, when it matters, to the log.
//! Three things lead to a look at the file: the system's notice (inotify), the interval, and SIGHUP. It is the directory
//! that is watched: a watch on a file ends with the first replacement, which is how Kubernetes and every careful writer
//! change one. New content counts once two looks in a row found the same, so a write is not read half done; a path that
//! vanished is given a moment to come back. Whatever a look finds, the next one happens.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

use super::read::directory_of;
use super::store::{KeyStore, Look, Reload};
use crate::fault::Fault;

/// Between two looks at content that is new. Longer than the gaps of one `write` after the other.
const SETTLE: Duration = Duration::from_millis(50);

/// How long content may be missing or keep changing before a look ends without it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Reloads `store` whenever its file changes, until dropped. Runs on the control plane's runtime.
///
/// The content is compared every `poll` in any case; `reload_now` (SIGHUP; use `notify_one`, which is not lost while a
/// look is under way) asks for a look at once. `observer` hears of every look, also those that found nothing new.
pub async fn watch(store: Arc<KeyStore>, poll: Duration, reload_now: Arc<Notify>, observer: impl Fn(&Reload)) {
    let changed = Arc::new(Notify::new());
    let mut armed = None;
    let (mut warned, mut refused) = (false, false);
    warn_if_mounted_alone(store.path());
    let mut ticks = interval(poll.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                armed = arm(armed, &store, &changed, &mut warned).await;
            }
            () = changed.notified() => sleep(SETTLE).await,
            () = reload_now.notified() => {}
        }
        let reload = patiently(&store).await;
        report(&store, &reload, refused);
        refused = matches!(reload, Reload::Refused(_));
        observer(&reload);
    }
}

/// One look, and the reload it leads to.
async fn patiently(store: &Arc<KeyStore>) -> Reload {
    let (until, mut before) = (Instant::now() + PATIENCE, None);
    loop {
        let here = Arc::clone(store);
        let gone = match spawn_blocking(move || here.look()).await {
            Ok(Look::Settled(reload)) => return reload,
            Ok(Look::Gone(faults)) => Some(faults),
            Ok(Look::New(snapshot)) if before == Some(snapshot.hash) => {
                let here = Arc::clone(store);
                let reload = spawn_blocking(move || here.accept(&snapshot)).await;
                return reload.unwrap_or_else(|_| broken(store));
            }
            Ok(Look::New(snapshot)) => {
                before = Some(snapshot.hash);
                None
            }
            Err(_) => return broken(store),
        };
        if Instant::now() >= until {
            // Whoever writes for longer than this is looked at again at the next notice or poll.
            return Reload::Refused(gone.unwrap_or_else(|| fault(store, "keeps changing", "replace it in one step")));
        }
        sleep(SETTLE).await;
    }
}

fn fault(store: &KeyStore, message: &str, hint: &str) -> Vec<Fault> {
    vec![Fault::new(store.path().display().to_string(), message, hint)]
}

/// For a panic while reading, which should not be possible, but must not end the reloads if it is.
fn broken(store: &KeyStore) -> Reload {
    Reload::Refused(fault(store, "could not be read for an unknown reason", "please report this"))
}

fn report(store: &KeyStore, reload: &Reload, was_refused: bool) {
    let file = store.path().display();
    match reload {
        Reload::Swapped { properties, keys } => {
            info!(keys.file = %file, keys.properties = properties, keys.keys = keys, "new keys are in force");
        }
        Reload::Refused(faults) => {
            let first = faults.first().map(ToString::to_string).unwrap_or_default();
            warn!(keys.file = %file, keys.faults = faults.len(), "keys not reloaded, the last good ones stay: {first}");
        }
        Reload::Unchanged if was_refused => info!(keys.file = %file, "the key file holds the keys in force again"),
        Reload::Unchanged => {}
    }
}

/// A watch on a directory, and which directory that was: one that replaced it under the same name is another.
struct Armed {
    _watcher: RecommendedWatcher,
    identity: (u64, u64),
}

fn identity(directory: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(directory).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Sees to it that the directory is watched; without a watch the interval is all there is.
async fn arm(armed: Option<Armed>, store: &Arc<KeyStore>, changed: &Arc<Notify>, warned: &mut bool) -> Option<Armed> {
    let (path, changed) = (store.path().to_owned(), Arc::clone(changed));
    let attempt = spawn_blocking(move || {
        let directory = directory_of(&path);
        let Some(identity) = identity(&directory) else { return Ok(None) }; // Gone: the look that follows says so.
        if armed.as_ref().is_some_and(|armed| armed.identity == identity) {
            return Ok(armed);
        }
        // In a directory of keys every name counts; beside a key file there may be a log that is written all the time.
        let file = if directory == path { None } else { path.file_name().map(OsStr::to_owned) };
        let heard = move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| concerns(&event, file.as_ref())) {
                changed.notify_one();
            }
        };
        let mut watcher = notify::recommended_watcher(heard)?;
        watcher.watch(&directory, RecursiveMode::NonRecursive)?;
        Ok::<_, notify::Error>(Some(Armed { _watcher: watcher, identity }))
    });
    match attempt.await {
        Ok(Ok(armed)) => armed,
        Ok(Err(_)) | Err(_) if *warned => None,
        Ok(Err(error)) => {
            *warned = true;
            let file = store.path().display();
            warn!(keys.file = %file, "the system does not tell about changes, comparing at intervals only: {error}");
            None
        }
        Err(_) => None,
    }
}

/// Whether an event can mean new keys. Reading the file causes events too, which must not lead to the next reading.
fn concerns(event: &notify::Event, file: Option<&OsString>) -> bool {
    if matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write)) {
        return false;
    }
    let Some(file) = file else { return true };
    let kubernetes = |name: &OsStr| name.as_encoded_bytes().starts_with(b"..");
    event.paths.is_empty()
        || event.paths.iter().filter_map(|path| path.file_name()).any(|name| name == file || kubernetes(name))
}

/// Whether a key file is a mount of its own (`subPath`).
#[must_use]
pub fn mounted_alone(path: &Path) -> bool {
    let Ok(real) = path.canonicalize() else { return false };
    let Ok(mounts) = std::fs::read_to_string("/proc/self/mountinfo") else { return false };
    let point = real.to_string_lossy();
    real.is_file() && mounts.lines().any(|mount| mount.split(' ').nth(4) == Some(&*point))
}

/// A Secret's file mounted alone (`subPath`) keeps its first content for ever, which nothing else would show.
fn warn_if_mounted_alone(path: &Path) {
    if mounted_alone(path) {
        let file = path.display();
        warn!(keys.file = %file, "the key file is mounted alone (subPath): it will not change; mount its directory");
    }
}
