//! A small piece of a document, in whatever shape it was written.
//!
//! In: any node. Out: a [`Tree`] whose scalars are wiped when dropped. Reading one never fails for its shape, so a
//! reader of many rows can note a bad one and go on; the order of entries is kept and none is lost, so their numbers
//! lead back to their places ([`super::locate`]).

use std::cell::Cell;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, VariantAccess, Visitor};
use zeroize::Zeroizing;

use super::{Text, Veil};

/// A node and what is below it. No `Debug`: it may hold a secret.
pub enum Tree {
    /// Text.
    Text(Zeroizing<String>),
    /// A whole number.
    Number(u64),
    /// true or false.
    Flag(bool),
    /// A list.
    List(Vec<Tree>),
    /// A mapping, in the order it was written, with names that may repeat.
    Map(Vec<(Zeroizing<String>, Tree)>),
    /// Nothing of use: null, a fraction, a tagged node.
    Other,
}

impl Tree {
    /// The text, or nothing of it when the node is something else.
    #[must_use]
    pub fn as_text(&self) -> &str {
        if let Self::Text(text) = self { text } else { "" }
    }
}

/// Reads a node.
pub struct Grow<'a> {
    /// Where the node is a list, each of its items goes here with its number, and none is kept.
    pub each: Option<&'a mut dyn FnMut(usize, Tree)>,
    /// What the document may still grow by.
    pub budget: &'a Budget,
    /// What hides the keys of the document's text.
    pub veil: &'a Veil<'a>,
}

/// How many nodes a document may have. Each takes a byte at least, so one with more of them than bytes repeats itself
/// through aliases, and a short one could fill the memory that way.
pub struct Budget(Cell<usize>);

impl Budget {
    /// The budget of a document.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(Cell::new(text.len() + 1))
    }

    /// Takes a node off, or raises the error that `words` explains.
    pub(super) fn spend<E: Error>(&self) -> Result<(), E> {
        let left = self.0.get().checked_sub(1).ok_or_else(|| E::custom("repetition limit"))?;
        self.0.set(left);
        Ok(())
    }
}

impl Grow<'_> {
    /// The same for a node below.
    fn below(&self) -> Grow<'_> {
        Grow { each: None, budget: self.budget, veil: self.veil }
    }
}

impl<'de> DeserializeSeed<'de> for Grow<'_> {
    type Value = Tree;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        self.budget.spend()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Grow<'_> {
    type Value = Tree;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("YAML")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(self.veil.lift(text)))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Tree, E> {
        Ok(Tree::Number(number))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut access: A) -> Result<Tree, A::Error> {
        let (mut kept, mut number) = (Vec::new(), 0);
        while let Some(item) = access.next_element_seed(self.below())? {
            match &mut self.each {
                Some(each) => each(number, item),
                None => kept.push(item),
            }
            number += 1;
        }
        Ok(Tree::List(kept))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(name) = access.next_key_seed(Text)? {
            let name = self.veil.lift(&Zeroizing::new(name));
            entries.push((name, access.next_value_seed(self.below())?));
        }
        Ok(Tree::Map(entries))
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Tree, E> {
        Ok(Tree::Flag(flag))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_i128<E: Error>(self, _: i128) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_u128<E: Error>(self, _: u128) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_unit<E: Error>(self) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Tree, A::Error> {
        let (IgnoredAny, content) = access.variant()?;
        content.newtype_variant::<IgnoredAny>()?;
        Ok(Tree::Other)
    }
}
