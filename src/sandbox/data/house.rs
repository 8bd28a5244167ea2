//! What follows from a hotel's data: what a stay costs, what is owed, what is free.
//!
//! In: a [`House`]. Out: sums and counts. Nothing here changes anything.

use super::{House, Kind, Stay};
use crate::sandbox::calendar::Day;

/// How a day looks from the front desk.
pub(in crate::sandbox) struct DayCount {
    pub(in crate::sandbox) occupied: usize,
    pub(in crate::sandbox) arrivals: usize,
    pub(in crate::sandbox) departures: usize,
    pub(in crate::sandbox) staying: usize,
}

impl Stay {
    /// Whether it takes rooms.
    pub(in crate::sandbox) fn holds(&self) -> bool {
        !matches!(self.status, "canceled" | "no_show")
    }

    fn covers(&self, day: Day) -> bool {
        self.start <= day && day < self.end
    }

    /// What its nights cost.
    pub(in crate::sandbox) fn total(&self) -> i64 {
        self.rooms.iter().map(|booked| booked.prices.iter().sum::<i64>()).sum()
    }

    /// What is still owed; below zero where more was paid.
    pub(in crate::sandbox) fn balance(&self) -> i64 {
        if self.holds() { self.total() + self.extras - self.paid } else { -self.paid }
    }
}

impl House {
    pub(in crate::sandbox) fn kind(&self, id: &str) -> Option<usize> {
        self.kinds.iter().position(|kind| kind.id == id)
    }

    /// The room type a rate is for.
    pub(in crate::sandbox) fn rated(&self, rate_id: &str) -> Option<usize> {
        self.kinds.iter().position(|kind| kind.rate_id == rate_id)
    }

    pub(in crate::sandbox) fn rate(&self, kind: usize, day: Day) -> i64 {
        self.prices.get(&(kind, day)).map_or(self.kinds[kind].rate, |price| price.rate)
    }

    pub(in crate::sandbox) fn blocked(&self, kind: usize, day: Day) -> bool {
        self.prices.get(&(kind, day)).is_some_and(|price| price.blocked)
    }

    /// What each night of a stay would cost.
    pub(in crate::sandbox) fn rates(&self, kind: usize, start: Day, end: Day) -> Vec<i64> {
        start.until(end).map(|day| self.rate(kind, day)).collect()
    }

    /// How many rooms of a type are free on a night.
    pub(in crate::sandbox) fn free_on(&self, kind: usize, day: Day) -> usize {
        if self.blocked(kind, day) {
            return 0;
        }
        let rooms = self.rooms.iter().filter(|room| room.kind == kind).count();
        let of_kind = |stay: &Stay| stay.rooms.iter().filter(|booked| booked.kind == kind).count();
        let taken: usize = self.stays.iter().filter(|stay| stay.holds() && stay.covers(day)).map(of_kind).sum();
        rooms.saturating_sub(taken)
    }

    /// How many rooms of a type are free for a whole stay.
    pub(in crate::sandbox) fn free(&self, kind: usize, start: Day, end: Day) -> usize {
        start.until(end).map(|day| self.free_on(kind, day)).min().unwrap_or(0)
    }

    /// Whether a room is somebody else's on one of these nights.
    pub(in crate::sandbox) fn is_taken(&self, room: usize, stay: &Stay) -> bool {
        let overlaps = |other: &&Stay| other.start < stay.end && stay.start < other.end;
        let others = self.stays.iter().filter(|other| other.id != stay.id && other.holds()).filter(overlaps);
        others.flat_map(|other| &other.rooms).any(|booked| booked.room == Some(room))
    }

    pub(in crate::sandbox) fn count(&self, day: Day) -> DayCount {
        let rooms = |wanted: &dyn Fn(&Stay) -> bool| -> usize {
            self.stays.iter().filter(|stay| stay.holds() && wanted(stay)).map(|stay| stay.rooms.len()).sum()
        };
        DayCount {
            occupied: rooms(&|stay| stay.covers(day)),
            arrivals: rooms(&|stay| stay.start == day),
            departures: rooms(&|stay| stay.end == day),
            staying: rooms(&|stay| stay.start < day && day < stay.end),
        }
    }
}

impl Kind {
    /// The sentence about it that descriptions have.
    pub(in crate::sandbox) fn description(&self) -> String {
        format!("{} on the garden side", self.name)
    }
}
