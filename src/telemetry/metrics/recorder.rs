//! One worker's counters, and the only hand that may move them.
//!
//! In: what happened on this worker. Out: nothing, until a scrape reads along. No lock but at the first request of a
//! property; no cache line that another worker writes to.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use super::Metrics;
use super::histogram::Histogram;
use super::outcome::{Counter, Outcome, Outcomes, PropertyOutcomes};
use crate::property::{IdHasher, PropertyId};
use crate::telemetry::access::{End, Finished};

/// Where in an answer a key was found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Leak {
    /// In a header; it was masked.
    Header,
    /// In a plain body; it was masked.
    Body,
    /// In a coded body; the stream was ended.
    Coded,
}

impl Leak {
    pub(super) const ALL: [Self; 3] = [Self::Header, Self::Body, Self::Coded];

    /// The label `where`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Body => "body",
            Self::Coded => "coded",
        }
    }
}

/// What one worker counts besides its properties. Aligned to two cache lines: adjacent ones are fetched together on
/// x86-64, and Apple's cores have lines of 128 bytes.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Cells {
    pub(super) without_property: Outcomes,
    pub(super) duration: Histogram,
    pub(super) upstream_duration: Histogram,
    pub(super) bytes_up: Counter,
    pub(super) bytes_down: Counter,
    pub(super) cut: Counter,
    pub(super) client_gone: Counter,
    pub(super) connections_opened: Counter,
    pub(super) connections_closed: Counter,
    pub(super) upstream_opened: Counter,
    pub(super) upstream_reused: Counter,
    pub(super) leaks: [Counter; Leak::ALL.len()],
}

/// A worker's right to count. It may be handed to the worker's thread, but neither cloned nor shared between threads:
/// its counters take one writer.
pub struct Recorder {
    metrics: Metrics,
    cells: Arc<Cells>,
    properties: RefCell<HashMap<PropertyId, Arc<PropertyOutcomes>, BuildHasherDefault<IdHasher>>>,
}

impl Recorder {
    pub(super) fn new(metrics: Metrics, cells: Arc<Cells>) -> Self {
        Self { metrics, cells, properties: RefCell::default() }
    }

    /// Has the property's counters on their way into this core's caches while what is needed of the key is too: a request is
    /// counted only at its end, and would wait for memory once more.
    #[inline]
    pub fn fetch(&self, property: PropertyId) {
        std::hint::black_box(self.properties.borrow().get(&property).map(|outcomes| outcomes.fetched()));
    }

    /// A request has ended, whichever way. Its property must be one that has a key: each costs memory once.
    pub fn finished(&self, request: &Finished<'_>) {
        let cells = &*self.cells;
        let outcome = Outcome::new(request.status, request.code);
        match request.property {
            Some(property) => self.count_for(property, outcome),
            None => cells.without_property.count(outcome),
        }
        cells.duration.observe(request.total);
        if let Some(upstream) = request.upstream {
            cells.upstream_duration.observe(upstream);
        }
        cells.bytes_up.add(request.bytes_up);
        cells.bytes_down.add(request.bytes_down);
        match request.end {
            End::Complete => {}
            End::Cut => cells.cut.add(1),
            End::ClientGone => cells.client_gone.add(1),
        }
    }

    fn count_for(&self, property: PropertyId, outcome: Outcome) {
        let mut properties = self.properties.borrow_mut();
        properties.entry(property).or_insert_with(|| self.metrics.register(property, outcome)).count(outcome);
    }

    /// An app's connection was accepted.
    pub fn connection_opened(&self) {
        self.cells.connections_opened.add(1);
    }

    /// An app's connection has ended.
    pub fn connection_closed(&self) {
        self.cells.connections_closed.add(1);
    }

    /// A connection to the upstream was made.
    pub fn upstream_opened(&self) {
        self.cells.upstream_opened.add(1);
    }

    /// A request goes out on a connection that was there already.
    pub fn upstream_reused(&self) {
        self.cells.upstream_reused.add(1);
    }

    /// An answer held a key, and did not get through with it.
    pub fn leak_stopped(&self, place: Leak) {
        self.cells.leaks[place as usize].add(1);
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Recorder").finish_non_exhaustive()
    }
}
