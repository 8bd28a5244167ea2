//! The connections to Cloudbeds that one core holds.
//!
//! In: an origin and what the request needs of a connection. Out: a [`Lease`] on one that is open, not too old and not
//! idle for too long; or the reason why none could be made. Nothing here is shared with another core, so nothing is
//! locked. HTTP/1.1 connections carry one request at a time, newest first; an HTTP/2 connection carries many.

mod host;
pub(super) mod http1;
pub(super) mod http2;
mod lease;
mod request;
pub(super) mod socket;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::host::Host;
pub use self::lease::{Answered, Failed, Lease};
pub use self::request::Head;
use super::error::{DialErrorShared, ProxyError};
use crate::https::{Dialer, resolve};
use crate::origin::Origin;
use crate::telemetry::metrics::Recorder;

/// How many connections are made for one request that the server closes before it can be sent.
const USELESS_MAX: usize = 3;

/// How long connections are kept.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Unused for longer, a connection is closed; keep it below the server's own limit.
    pub idle: Duration,
    /// Older than this, a connection takes no further requests.
    pub max_age: Duration,
    /// Used within this time, a connection counts as just used and may carry a request that must not be repeated.
    pub unsafe_reuse: Duration,
}

/// What a request needs of its connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Need {
    /// Any open one: should it turn out dead, the request can be repeated.
    Any,
    /// One that is fresh or was just used, so that it is hardly dying.
    JustUsed,
    /// One that was opened at this instant or later, when another one had turned out dead.
    Since(Instant),
    /// One that carried no request yet.
    Fresh,
}

/// All of a core's connections.
pub struct Pool {
    dialer: Dialer,
    settings: Settings,
    recorder: Rc<Recorder>,
    hosts: RefCell<Vec<Rc<Host>>>,
}

/// The version spoken on a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(dialer: Dialer, settings: Settings, recorder: Rc<Recorder>) -> Self {
        Self { dialer, settings, recorder, hosts: RefCell::default() }
    }

    /// A connection that meets the need `now`, if there is one.
    #[must_use]
    pub fn open(&self, origin: &Arc<Origin>, need: Need, now: Instant) -> Option<Lease> {
        self.at_hand(&self.host(origin), need, now)
    }

    /// A connection that meets the need, made now unless another request was faster.
    ///
    /// # Errors
    /// [`ProxyError::Dial`] when none can be made.
    pub async fn make(self: &Rc<Self>, origin: &Arc<Origin>, need: Need) -> Result<Lease, ProxyError> {
        let host = self.host(origin);
        // In a box: the handshake's state is large, and every request would carry room for it.
        Box::pin(self.made_for(&host, need)).await
    }

    fn at_hand(&self, host: &Rc<Host>, need: Need, now: Instant) -> Option<Lease> {
        let lease = host.shared(need, self.settings, now).or_else(|| host.idle(need, self.settings, now))?;
        if lease.reused {
            self.recorder.upstream_reused();
        }
        Some(lease)
    }

    async fn made_for(self: &Rc<Self>, host: &Rc<Host>, need: Need) -> Result<Lease, ProxyError> {
        let mut useless = 0;
        loop {
            if host.protocol.get() == Some(Protocol::Http1) {
                self.dial(host).await?;
            } else {
                self.dial_for_all(host).await?;
            }
            // Another request may have taken it meanwhile.
            if let Some(lease) = self.at_hand(host, need, Instant::now()) {
                return Ok(lease);
            }
            // Of an HTTP/2 connection others may have taken all streams. Everything else that is of no use was closed by
            // the server as soon as it was made.
            useless += usize::from(host.protocol.get() == Some(Protocol::Http1) || host.shared.borrow().is_empty());
            if useless == USELESS_MAX {
                return Err(ProxyError::UpstreamGone);
            }
        }
    }

    async fn dial(&self, host: &Rc<Host>) -> Result<(), DialErrorShared> {
        let resolved = host.resolving.join({
            let host = Rc::clone(host);
            || async move { resolve(&host.origin).await }
        });
        let connection = self.dialer.dial_resolved(&host.origin, resolved).await.map_err(DialErrorShared::new)?;
        self.recorder.upstream_opened();
        host.start(connection);
        Ok(())
    }

    fn host(&self, origin: &Arc<Origin>) -> Rc<Host> {
        let mut hosts = self.hosts.borrow_mut();
        // A handful at most; equal pointers are the usual case.
        let known = hosts.iter().find(|host| Arc::ptr_eq(&host.origin, origin) || host.origin == *origin);
        if let Some(host) = known {
            return Rc::clone(host);
        }
        let host = Rc::new(Host::new(Arc::clone(origin)));
        hosts.push(Rc::clone(&host));
        host
    }

    /// Waits for a connection that other requests may be waiting for too: with HTTP/2 one is enough for all of them.
    async fn dial_for_all(self: &Rc<Self>, host: &Rc<Host>) -> Result<(), ProxyError> {
        let (pool, dialled) = (Rc::clone(self), Rc::clone(host));
        Ok(host.dialing.join(|| async move { pool.dial(&dialled).await }).await?)
    }

    /// Closes what has been idle for too long, and wipes what the rest sent last; to be called every second or so.
    pub fn sweep(&self) {
        for host in self.hosts.borrow().iter() {
            host.sweep(self.settings);
        }
    }
}

impl DialErrorShared {
    fn new(error: crate::https::DialError) -> Self {
        Self(Rc::new(error))
    }
}
