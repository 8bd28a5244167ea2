//! The keeper's thread.
//!
//! In: the keys and the way to Cloudbeds. Out: a thread that looks after the keys until it is told to stop. It has a
//! runtime of its own, since it waits for disks and locks, and so that neither a core nor the admin listener ever does.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::LocalOptions;
use tokio::sync::oneshot;

use crate::inquiry::Inquiry;
use crate::keys::KeyStore;
use crate::keys::keeper::{Keeper, Settings};
use crate::process;
use crate::shared::{Lives, Server};

/// How long the end of the process waits for the state to be written.
const PATIENCE: Duration = Duration::from_secs(3);

/// The thread, seen from the control plane.
pub(super) struct Keeping {
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl Keeping {
    /// Starts the thread.
    pub(super) fn start(
        store: Arc<KeyStore>,
        inquiry: Inquiry,
        settings: Settings,
        redis: Option<Arc<Server>>,
    ) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell_ended, ended) = oneshot::channel();
        std::thread::Builder::new().name("keeper".to_owned()).spawn(move || {
            match process::runtime().build_local(LocalOptions::default()) {
                Ok(runtime) => {
                    // For the state file.
                    if let Err(error) = runtime.block_on(async { process::blocking_thread() }) {
                        tracing::error!(%error, "the state file cannot be written");
                    }
                    let mut keeper = Keeper::new(store, inquiry, settings);
                    if let Some(server) = redis {
                        keeper = keeper.among(Rc::new(Lives::new(server)));
                    }
                    // A sender that is gone means the same as a word from it.
                    runtime.block_on(keeper.run(async move { drop(stopped.await) }));
                    runtime.shutdown_background();
                }
                Err(error) => tracing::error!(%error, "no one looks after the keys: verdicts and uses are not kept"),
            }
            let _ = tell_ended.send(());
        })?;
        Ok(Self { stop, ended })
    }

    /// Tells it to stop, and waits until what it knows is written down.
    pub(super) async fn stop(self) {
        drop(self.stop);
        if tokio::time::timeout(PATIENCE, self.ended).await.is_err() {
            tracing::warn!("the state file could not be written in time; the last minute's uses are lost");
        }
    }
}
