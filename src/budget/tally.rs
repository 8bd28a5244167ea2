//! What became of those who had to wait, counted.
//!
//! In: waits and refusals; whoever starts at once is not counted here and costs nothing. Out: an [`Account`] for metrics.

use std::collections::HashMap;
use std::time::Duration;

use super::shared::Sharing;
use super::{Flow, Why};
use crate::property::PropertyId;

/// One app's numbers at one moment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Account {
    /// The app's name.
    pub app: String,
    /// Starts a second, as configured.
    pub granted: usize,
    /// Starts a second now, after what Cloudbeds refused.
    pub allowed: usize,
    /// Starts that count now.
    pub used: usize,
    /// Requests that wait now.
    pub waiting: usize,
    /// How much longer Cloudbeds wants us to wait.
    pub paused: Duration,
    /// Requests that waited and got their turn, and how long they waited together.
    pub waits: u64,
    /// See there.
    pub waited: Duration,
    /// Requests that got none, by [`Why::ALL`].
    pub refused: [u64; Why::ALL.len()],
    /// 429s of Cloudbeds.
    pub pauses: u64,
    /// How it is shared, if it is.
    pub sharing: Option<Sharing>,
    /// Hotels of which a request ever waited.
    pub hotels: Vec<Hotel>,
}

/// One hotel's part of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hotel {
    /// Which.
    pub property: PropertyId,
    /// Requests that wait now.
    pub waiting: usize,
    /// How long those waited that got their turn.
    pub waited: Duration,
    /// Requests that got none.
    pub refused: u64,
}

/// The counts of one app.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) waits: u64,
    pub(super) waited: Duration,
    pub(super) refused: [u64; Why::ALL.len()],
    hotels: HashMap<PropertyId, (Duration, u64)>,
}

impl Tally {
    pub(super) fn waited(&mut self, flow: Flow, time: Duration) {
        self.waits += 1;
        self.waited += time;
        if let Some(property) = flow.property() {
            self.hotels.entry(property).or_default().0 += time;
        }
    }

    pub(super) fn refused(&mut self, flow: Flow, why: Why) {
        self.refused[why as usize] += 1;
        if let Some(property) = flow.property() {
            self.hotels.entry(property).or_default().1 += 1;
        }
    }

    /// The hotels' counts, with those that wait now.
    pub(super) fn hotels(&self, waiting: &HashMap<PropertyId, usize>) -> Vec<Hotel> {
        let known = self.hotels.iter().map(|(property, (waited, refused))| Hotel {
            property: *property,
            waiting: waiting.get(property).copied().unwrap_or_default(),
            waited: *waited,
            refused: *refused,
        });
        let new = waiting.iter().filter(|(property, _)| !self.hotels.contains_key(property));
        let new = new.map(|(property, waiting)| Hotel {
            property: *property,
            waiting: *waiting,
            waited: Duration::ZERO,
            refused: 0,
        });
        known.chain(new).collect()
    }
}
