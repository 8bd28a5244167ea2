//! The rows of a key file while it is read, and what is wrong with them.
//!
//! In: rows and faults, each with the numbers that lead to its place. Out: a [`KeySet`], or faults with line and column.
//! Places are looked up once the file has been read, and only for faults: it takes a second reading each.

use std::fmt;

use super::build::{Builder, Nth};
use super::{KeySet, Lives};
use crate::fault::{FAULTS_MAX, Fault};
use crate::property::PropertyId;
use crate::yaml::{self, Spot, Veil};

/// A node by the numbers that lead to it, like [`Spot`] but small enough to keep one per row: no form is deeper than
/// row, item, field, property.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    steps: [u32; 4],
    depth: u8,
}

impl Place {
    /// The entry or item with this number.
    pub(super) fn below(mut self, number: usize) -> Self {
        if let Some(step) = self.steps.get_mut(usize::from(self.depth)) {
            *step = u32::try_from(number).unwrap_or(u32::MAX);
            self.depth += 1;
        }
        self
    }

    fn spot(self, on_key: bool) -> Spot {
        let steps = self.steps.iter().take(usize::from(self.depth)).map(|step| *step as usize).collect();
        Spot { steps, on_key }
    }

    /// A property is an entry's name in the file itself, and an item further down.
    fn of_property(self) -> Spot {
        self.spot(self.depth == 1)
    }
}

/// A fault without its line and column.
pub(super) struct Bad {
    spot: Spot,
    about: String,
    message: String,
    hint: &'static str,
    /// Where the same stood first.
    first: Option<Spot>,
}

/// What has been read so far.
pub(super) struct Rows<'a> {
    pub(super) set: Builder<Place>,
    pub(super) faults: Vec<Bad>,
    /// Faults beyond the first [`FAULTS_MAX`].
    pub(super) more: usize,
    /// The apps a row may name; nothing where that is not checked.
    pub(super) apps: Option<&'a [String]>,
}

impl Rows<'_> {
    /// Something is wrong with a value.
    pub(super) fn fault(&mut self, place: Place, about: &str, message: impl fmt::Display, hint: &'static str) {
        self.push(place.spot(false), about, message, hint, None);
    }

    /// Something is wrong with the name of an entry.
    pub(super) fn fault_on_name(&mut self, place: Place, about: &str, message: impl fmt::Display, hint: &'static str) {
        self.push(place.spot(true), about, message, hint, None);
    }

    /// Gives a property its key; a second time is a fault that names both lines.
    pub(super) fn row(&mut self, property: PropertyId, key: Nth, place: Place) {
        if let Err(first) = self.set.row(property, key, place) {
            let (about, first) = (property.to_string(), Some(first.of_property()));
            self.push(place.of_property(), &about, "the property stands here a second time", "", first);
        }
    }

    /// The set, when there is a row and no fault.
    pub(super) fn finish(self, name: &str, veil: Veil<'_>, lives: &Lives) -> Result<KeySet, Vec<Fault>> {
        let mut faults: Vec<_> = self.faults.into_iter().map(|bad| located(bad, name, veil.text())).collect();
        faults.sort_by_key(|fault| (fault.line, fault.column));
        if self.more > 0 {
            faults.push(Fault::new(name, format!("{} more faults", self.more), "mend the ones above first"));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let text = veil.taken_off();
        let empty = || Fault::new(name, "holds no keys", "write a line such as \"1001\": cbat_… for each property");
        self.set.finish(lives).or_else(|| says_none(text).then(KeySet::none)).ok_or_else(|| vec![empty()])
    }

    fn push(&mut self, spot: Spot, about: &str, message: impl fmt::Display, hint: &'static str, first: Option<Spot>) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(Bad { spot, about: about.to_owned(), message: message.to_string(), hint, first });
        } else {
            self.more += 1;
        }
    }
}

/// Whether a text is `{}`.
fn says_none(text: &str) -> bool {
    yaml::spans(text).is_some_and(|root| root.is_flow() && root.entries().is_empty() && root.items().is_empty())
}

fn located(bad: Bad, name: &str, text: &str) -> Fault {
    let mut fault = Fault::new(name, bad.message, bad.hint).about(bad.about).at(yaml::locate(text, &bad.spot));
    if let Some((line, _)) = bad.first.and_then(|first| yaml::locate(text, &first)) {
        fault.hint = format!("it stands on line {line} already; keep one of them");
    }
    fault
}
