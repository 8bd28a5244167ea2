//! One core of the data plane: a thread with a runtime, listeners and an upstream pool of its own.
//!
//! In: bound listeners and settings. Out: served connections until the phase says to close. A connection lives and
//! dies on the core that accepted it; nothing here waits for another core.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::LocalOptions;
use tokio::sync::oneshot;
use tokio::task::{JoinSet, spawn_local, unconstrained};

use crate::https::Dialer;
use crate::keys::KeyStore;
use crate::listen::{self, Bound, Listener, Stream};
use crate::origin::Origin;
use crate::phase::{Phase, PhaseCell};
use crate::process;
use crate::proxy::authorize::Policy;
use crate::proxy::connection::{self, Open, encrypted};
use crate::proxy::limit::Limiter;
use crate::proxy::pool::{self, Pool};
use crate::proxy::rewrite::Routes;
use crate::proxy::upstream::{Timeouts, Upstream};
use crate::proxy::verdict::ConnectLinks;
use crate::proxy::{Arrival, Proxy, identify};
use crate::telemetry::{AccessLog, Metrics, RequestIds, Sparing};
use crate::tls::Acceptor;
use crate::wire::gate::Limits;

/// How long accepting pauses when the process is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often the log hears that connections are refused for want of descriptors.
const WARN_PAUSE: Duration = Duration::from_secs(60);

/// How often idle upstream connections are looked at.
const SWEEP: Duration = Duration::from_secs(1);

/// How many connections too many are told so at once; further ones are closed without a word.
const REFUSALS: usize = 256;

/// What all cores have in common; each makes its own parts from it.
pub(super) struct Settings {
    pub(super) policy: Policy,
    pub(super) base_url: Origin,
    pub(super) routes: Vec<(String, Origin)>,
    pub(super) timeouts: Timeouts,
    pub(super) pool: pool::Settings,
    pub(super) limits: Limits,
    pub(super) max_connections: usize,
    /// Beyond this number of its descriptor a connection is one too many as well.
    pub(super) descriptors: Option<i32>,
    pub(super) connect: ConnectLinks,
}

/// A core that has not started yet.
pub(super) struct Worker {
    pub(super) index: usize,
    pub(super) listeners: Vec<(Bound, identify::Settings)>,
    pub(super) settings: Arc<Settings>,
    pub(super) keys: Arc<KeyStore>,
    pub(super) dialer: Dialer,
    pub(super) limiter: Option<Limiter>,
    /// For TCP listeners, where they speak TLS.
    pub(super) acceptor: Option<Acceptor>,
    pub(super) metrics: Metrics,
    pub(super) access: AccessLog,
    pub(super) phase: Arc<PhaseCell>,
    /// Open connections of all cores.
    pub(super) open: Arc<AtomicUsize>,
}

/// Its thread, seen from the control plane.
pub(super) struct Thread {
    pub(super) started: oneshot::Receiver<io::Result<()>>,
    pub(super) ended: oneshot::Receiver<()>,
}

impl Worker {
    /// Starts the thread.
    pub(super) fn start(self) -> io::Result<Thread> {
        let (tell_started, started) = oneshot::channel();
        let (tell_ended, ended) = oneshot::channel();
        std::thread::Builder::new().name(format!("worker-{}", self.index)).spawn(move || {
            // Receivers that are gone mean that the start failed elsewhere.
            match process::runtime().build_local(LocalOptions::default()) {
                Ok(runtime) => {
                    runtime.block_on(self.run(tell_started));
                    // Name resolution runs on threads of its own, and a resolver that is gone must not hold up the end.
                    runtime.shutdown_background();
                }
                Err(error) => drop(tell_started.send(Err(error))),
            }
            let _ = tell_ended.send(());
        })?;
        Ok(Thread { started, ended })
    }

    async fn run(self, tell_started: oneshot::Sender<io::Result<()>>) {
        // For names, which the system's resolver looks up.
        if let Err(error) = process::blocking_thread() {
            return drop(tell_started.send(Err(error)));
        }
        let listeners: io::Result<Vec<_>> = self
            .listeners
            .into_iter()
            .map(|(bound, identify)| bound.into_listener().map(|listener| (listener, identify)))
            .collect();
        let listeners = match listeners {
            Ok(listeners) => listeners,
            Err(error) => return drop(tell_started.send(Err(error))),
        };
        let recorder = Rc::new(self.metrics.recorder());
        let Settings { policy, base_url, routes, timeouts, pool, limits, max_connections, descriptors, connect } =
            &*self.settings;
        let pool = Rc::new(Pool::new(self.dialer, *pool, Rc::clone(&recorder)));
        let lines = Rc::new(self.access.lines());
        let proxy = Rc::new(Proxy {
            policy: policy.clone(),
            routes: Rc::new(Routes::new(base_url.clone(), routes.iter().cloned())),
            keys: RefCell::new(self.keys.reader()),
            limiter: self.limiter,
            upstream: Upstream::new(Rc::clone(&pool), *timeouts),
            timeouts: *timeouts,
            connect: connect.clone(),
            recorder,
            lines: Rc::clone(&lines),
            ids: RequestIds::new(self.index),
            phase: Arc::clone(&self.phase),
            refused_handshakes: Sparing::default(),
        });
        let open = Rc::new(Open::default());
        let mut accepting = JoinSet::new();
        for (listener, identify) in listeners {
            let door = Door {
                acceptor: self.acceptor.clone().filter(|_| matches!(listener, Listener::Tcp(_))),
                listener,
                identify,
                proxy: Rc::clone(&proxy),
                open: Rc::clone(&open),
                everywhere: Arc::clone(&self.open),
                refused: Rc::default(),
                limits: *limits,
                max_connections: *max_connections,
                descriptors: *descriptors,
                warned: Cell::new(None),
            };
            accepting.spawn_local(door.accept());
        }
        let sweeping = spawn_local(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                pool.sweep();
                // A core without requests must not be the one that keeps replaced keys in memory.
                proxy.keys.borrow_mut().load();
            }
        });
        let flushing = spawn_local({
            let lines = Rc::clone(&lines);
            async move { lines.keep_flushing().await }
        });
        let _ = tell_started.send(Ok(()));

        // Listeners end when the phase says so. One that ends before has panicked; without it this core would be deaf,
        // so the thread ends, and the process with it.
        while let Some(ended) = accepting.join_next().await {
            if ended.is_err() {
                return;
            }
        }
        open.close();
        tokio::select! {
            () = open.emptied() => {}
            () = self.phase.reached(Phase::Stopped) => {}
        }
        sweeping.abort();
        flushing.abort();
        lines.flush();
    }
}

/// One listener of a core.
struct Door {
    listener: Listener,
    acceptor: Option<Acceptor>,
    identify: identify::Settings,
    proxy: Rc<Proxy>,
    open: Rc<Open>,
    everywhere: Arc<AtomicUsize>,
    /// Counts, by its clones, the connections that are being told that they are too many.
    refused: Rc<()>,
    limits: Limits,
    max_connections: usize,
    descriptors: Option<i32>,
    /// When the log heard last that descriptors are short.
    warned: Cell<Option<Instant>>,
}

impl Door {
    /// Accepts until the phase says to close, and then what the kernel has accepted already: it would be reset.
    async fn accept(self) {
        let phase = Arc::clone(&self.proxy.phase);
        let mut closing = pin!(phase.reached(Phase::Closing));
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = &mut closing => break,
            };
            match accepted {
                Ok(stream) => self.enter(stream),
                Err(error) => {
                    // Mostly EMFILE: the connections that are open end some time, and until then nothing is lost by
                    // leaving new ones in the backlog.
                    tracing::warn!(%error, "cannot accept connections; trying again shortly");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        for _ in 0..listen::BACKLOG {
            tokio::select! {
                biased;
                accepted = unconstrained(self.listener.accept()) => match accepted {
                    Ok(stream) => self.enter(stream),
                    Err(_) => break,
                },
                () = std::future::ready(()) => break,
            }
        }
    }

    fn enter(&self, stream: Stream) {
        let proxy = Rc::clone(&self.proxy);
        let place = Place::take(&self.everywhere);
        let beyond = self.beyond(&stream);
        if place.number > self.max_connections || beyond > 0 {
            // Its place is free again at once: a flood of refused connections must not keep a good one out, neither
            // by number nor by the descriptors it holds while it reads its refusal.
            let room = self.descriptors.is_none_or(|most| beyond <= most / 6);
            // Without a handshake there are no words.
            if self.acceptor.is_none() && room && Rc::strong_count(&self.refused) <= REFUSALS {
                let refused = Rc::clone(&self.refused);
                spawn_local(async move {
                    connection::refuse(stream, proxy).await;
                    drop(refused);
                });
            }
            return;
        }
        match &self.acceptor {
            None => {
                let arrival = Arrival::plain(self.identify, &stream, &proxy.policy);
                spawn_local(connection::serve(stream, proxy, arrival, self.limits, &self.open, place))
            }
            Some(acceptor) => {
                let acceptor = acceptor.clone();
                let identify = self.identify;
                spawn_local(encrypted::serve(stream, acceptor, proxy, identify, self.limits, &self.open, place))
            }
        };
    }
}

impl Door {
    /// By how much the connection's descriptor is one that callers are not to have, of which few are left; 0 where it is
    /// not. Half of them (an eighth of all) may serve to tell callers so.
    fn beyond(&self, stream: &Stream) -> i32 {
        let Some(most) = self.descriptors.filter(|most| stream.descriptor() >= *most) else { return 0 };
        if self.warned.get().is_none_or(|warned| warned.elapsed() > WARN_PAUSE) {
            self.warned.set(Some(Instant::now()));
            tracing::warn!(
                descriptors = most,
                "connections are refused, since few files can be opened any more; raise the limit of open files \
                 (ulimit -n, LimitNOFILE) or lower client.max_connections"
            );
        }
        stream.descriptor() - most + 1
    }
}

/// One open connection among those of all cores.
struct Place {
    everywhere: Arc<AtomicUsize>,
    number: usize,
}

impl Place {
    fn take(everywhere: &Arc<AtomicUsize>) -> Self {
        let number = everywhere.fetch_add(1, Ordering::Relaxed) + 1;
        Self { everywhere: Arc::clone(everywhere), number }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.everywhere.fetch_sub(1, Ordering::Relaxed);
    }
}
