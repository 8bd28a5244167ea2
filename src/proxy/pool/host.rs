//! One host's connections: made, found again, and given up.
//!
//! In: a dialled stream. Out: an HTTP/1.1 or HTTP/2 connection that a [`Lease`] can be had on while it is open, young
//! enough and used recently enough for what the request needs.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::Instant;

use super::http1;
use super::http2::{Http2, Stream};
use super::lease::{Carrier, Lease, Place};
use super::{Need, Protocol, Settings};
use crate::flight::Flights;
use crate::https::{Connection, Resolved};
use crate::origin::Origin;
use crate::proxy::error::DialErrorShared;

/// A connection without a request on it counts as fresh for this long: the time it takes whoever waited for it to run.
const FRESH: Duration = Duration::from_secs(1);

/// A host and all that is known of it.
pub(super) struct Host {
    pub(super) origin: Arc<Origin>,
    /// What the last connection negotiated; until one did, nobody knows.
    pub(super) protocol: Cell<Option<Protocol>>,
    pub(super) idle: RefCell<Vec<Idle>>,
    pub(super) shared: RefCell<Vec<Rc<Http2>>>,
    /// The connection attempt that several requests wait for.
    pub(super) dialing: Flights<Result<(), DialErrorShared>>,
    /// The look-up of the host's name, of which several attempts at a time need no more than one: each takes a thread.
    pub(super) resolving: Flights<Resolved>,
}

pub(super) struct Idle {
    pub(super) connection: Box<http1::Connection>,
    pub(super) since: Instant,
}

impl Idle {
    fn is_usable(&mut self, now: Instant, settings: Settings) -> bool {
        now.duration_since(self.since) <= settings.idle && self.connection.is_usable(now, settings)
    }
}

impl Host {
    pub(super) fn new(origin: Arc<Origin>) -> Self {
        Self {
            origin,
            protocol: Cell::new(None),
            idle: RefCell::default(),
            shared: RefCell::default(),
            dialing: Flights::default(),
            resolving: Flights::default(),
        }
    }

    /// Speaks HTTP on a new connection and makes it available.
    pub(super) fn start(&self, connection: Connection) {
        let now = Instant::now();
        if connection.http2 {
            self.protocol.set(Some(Protocol::Http2));
            let (connection, turns) = Http2::new(connection.stream, now);
            drop(spawn_local(turns));
            self.shared.borrow_mut().push(Rc::new(connection));
        } else {
            self.protocol.set(Some(Protocol::Http1));
            let connection = Box::new(http1::Http1::new(connection.stream, now));
            self.idle.borrow_mut().push(Idle { connection, since: now });
        }
    }

    /// A place on an HTTP/2 connection.
    pub(super) fn shared(&self, need: Need, settings: Settings, now: Instant) -> Option<Lease> {
        let mut shared = self.shared.borrow_mut();
        if shared.is_empty() {
            return None;
        }
        shared.retain(|connection| connection.is_usable(now, settings));
        let fits = |connection: &&Rc<Http2>| {
            let idle = now.duration_since(connection.last_used.get());
            connection.in_flight.get() < connection.streams()
                && match need {
                    Need::Any => true,
                    Need::JustUsed if connection.used.get() => {
                        connection.in_flight.get() > 0 || idle <= settings.unsafe_reuse
                    }
                    Need::JustUsed => idle <= FRESH,
                    Need::Since(instant) => connection.opened >= instant,
                    Need::Fresh => !connection.used.get() && idle <= FRESH,
                }
        };
        // The newest that fits: older ones run out of work and are swept.
        let connection = Rc::clone(shared.iter().rev().find(fits)?);
        let reused = connection.used.replace(true);
        Some(Lease { carrier: Carrier::Http2(Place::take(connection), Stream::Idle), reused })
    }

    /// An HTTP/1.1 connection, the one used last first.
    pub(super) fn idle(self: &Rc<Self>, need: Need, settings: Settings, now: Instant) -> Option<Lease> {
        let mut idle = self.idle.borrow_mut();
        let mut at = idle.len();
        while at > 0 {
            at -= 1;
            if !idle[at].is_usable(now, settings) {
                idle.remove(at).connection.close();
                continue;
            }
            let Idle { connection, since } = &idle[at];
            let waited = now.duration_since(*since);
            let fits = match need {
                Need::Any => true,
                Need::JustUsed if connection.used => waited <= settings.unsafe_reuse,
                Need::Since(instant) if connection.opened < instant => false,
                Need::JustUsed | Need::Since(_) | Need::Fresh => !connection.used && waited <= FRESH,
            };
            if fits {
                let mut connection = idle.remove(at).connection;
                let reused = std::mem::replace(&mut connection.used, true);
                return Some(Lease { carrier: Carrier::Http1(connection, Rc::clone(self)), reused });
            }
        }
        None
    }

    /// Closes what is closed already or has been idle for too long. What waits on keeps no key meanwhile.
    pub(super) fn sweep(&self, settings: Settings) {
        let now = Instant::now();
        for spent in self.idle.borrow_mut().extract_if(.., |idle| !idle.is_usable(now, settings)) {
            spent.connection.close();
        }
        self.idle.borrow_mut().iter_mut().for_each(|idle| idle.connection.wipe());
        self.shared.borrow_mut().retain(|connection| {
            connection.rest();
            let idle =
                connection.in_flight.get() == 0 && now.duration_since(connection.last_used.get()) > settings.idle;
            connection.is_usable(now, settings) && !idle
        });
    }
}
