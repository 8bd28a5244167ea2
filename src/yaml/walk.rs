//! Where a node of a YAML document stands in its file.
//!
//! In: the text and the way down to a node. Out: its line and column. `serde_yaml` tells a place only with an error,
//! and gives a custom error the place of the node it was raised on; so this walks down to the node and raises one.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A node by its position: per level the number of the entry or item, from 0. Numbers also name what names cannot, such
/// as the second of two equal ones.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Spot {
    /// The numbers, outermost first; empty for the document itself.
    pub steps: Vec<usize>,
    /// Whether the name of the last entry is meant and not its value.
    pub on_key: bool,
}

#[cfg(test)]
thread_local! {
    /// How many nodes this thread has looked for, each from the beginning of its text.
    pub(crate) static LOCATED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Line and column of a node, both counted from 1, the column in characters. Nothing where there is no such node.
#[must_use]
pub fn locate(text: &str, spot: &Spot) -> Option<(usize, usize)> {
    #[cfg(test)]
    LOCATED.set(LOCATED.get() + 1);
    let walk = Walk { steps: &spot.steps, on_key: spot.on_key };
    let error = walk.deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
    error.location().map(|place| (place.line(), place.column()))
}

/// Moves the last number of a way on to the next entry or item.
pub(super) fn next(steps: &mut [usize]) {
    if let Some(last) = steps.last_mut() {
        *last += 1;
    }
}

#[derive(Clone, Copy)]
struct Walk<'a> {
    steps: &'a [usize],
    on_key: bool,
}

/// The error whose place is the answer; its text is never seen.
fn here<E: Error>() -> E {
    E::custom("here")
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Every `visit_…` that is not written out raises an error by itself, which is as good.
impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("here")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let Some((number, rest)) = self.steps.split_first() else { return Err(here()) };
        for _ in 0..*number {
            access.next_element::<IgnoredAny>()?;
        }
        access.next_element_seed(Walk { steps: rest, ..self })?;
        Err(here())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let Some((number, rest)) = self.steps.split_first() else { return Err(here()) };
        for _ in 0..*number {
            access.next_entry::<IgnoredAny, IgnoredAny>()?;
        }
        if rest.is_empty() && self.on_key {
            access.next_key_seed(Walk { steps: &[], on_key: false })?;
        } else if access.next_key::<IgnoredAny>()?.is_some() {
            access.next_value_seed(Walk { steps: rest, ..self })?;
        }
        Err(here())
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(here())
    }
}
