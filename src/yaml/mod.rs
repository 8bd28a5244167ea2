//! YAML, read strictly: the only module that calls a YAML parser.
//!
//! In: the bytes of a file. Out: a [`Value`], or whatever a seed makes of the text, or [`Fault`]s with line and column.
//! Refused: text that is not UTF-8, control characters, an empty file, a second document, a name given twice, tags, and
//! aliases that blow the document up. No fault quotes the file: `serde_yaml`'s messages do, so of them only the place
//! and fixed words leave this module.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserializer, Serialize};
pub use serde_yaml::{Mapping, Value};

use crate::fault::{FAULTS_MAX, Fault, shown};

mod spans;
mod tree;
mod veil;
mod walk;

pub use spans::{Node, Shape, spans};
pub use tree::{Budget, Grow, Tree};
pub use veil::Veil;
#[cfg(test)]
pub(crate) use walk::LOCATED;
pub use walk::{Spot, locate};

/// Brackets that may be open at once; `serde_yaml` follows 128 levels.
const OPEN_MAX: usize = 256;

/// `%TAG` lines in a file. libyaml compares each with all before it: a megabyte of them takes 25 s. Of what else was
/// tried a megabyte takes a second at most, and with an anchor in every row 0.1 s, as without.
const TAGS_MAX: usize = 100;

/// One step down a document: an entry of a mapping by name, or an item of a list by index, counted from 0.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Step {
    /// The entry with this name.
    Name(String),
    /// The item at this index.
    Item(usize),
}

/// Why a value does not fit the type it is read into; none of these quotes the value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Misfit {
    /// The last step of the path is a name that nobody knows.
    UnknownName,
    /// A name of ours must be there and is not.
    Missing(String),
    /// What the type wants instead, for a sentence that starts with "expected".
    Expected(String),
}

/// The bytes as text; a byte order mark is dropped.
///
/// # Errors
/// When they are not UTF-8 or hold a control character other than tab and line break: the place of the first one.
pub fn text<'a>(source: &str, bytes: &'a [u8]) -> Result<&'a str, Vec<Fault>> {
    let place = |before: &str| {
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Some((before.matches('\n').count() + 1, before[line_start..].chars().count() + 1))
    };
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default();
        vec![Fault::new(source, "is not UTF-8 text", "save the file as UTF-8").at(place(before))]
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let foreign = |character: char| character.is_control() && !matches!(character, '\t' | '\n' | '\r' | '\u{85}');
    match text.find(foreign) {
        None => Ok(text),
        Some(at) => Err(vec![Fault::new(source, "holds a control character", "remove it").at(place(&text[..at]))]),
    }
}

/// Reads the one document of `text` through a seed of the caller's. The seed should raise no errors of its own, since
/// only their place would be left of them.
///
/// # Errors
/// When the text is not one document of YAML.
pub fn stream<'de, S: DeserializeSeed<'de>>(source: &str, text: &'de str, seed: S) -> Result<S::Value, Vec<Fault>> {
    if opens_too_many(text) {
        let words = format!("opens more than {OPEN_MAX} brackets");
        return Err(vec![Fault::new(source, words, "use fewer levels, and close those that stand in text")]);
    }
    if memchr::memmem::find_iter(text.as_bytes(), "%TAG").count() > TAGS_MAX {
        return Err(vec![Fault::new(source, "holds too many `%TAG` lines", "remove them: tags have no meaning here")]);
    }
    seed.deserialize(serde_yaml::Deserializer::from_str(text)).map_err(|error| {
        let (message, hint) = words(&error.to_string());
        let place = error.location().map(|place| (place.line(), place.column()));
        vec![Fault::new(source, message, hint).at(place)]
    })
}

/// Whether more brackets are open at once than a file of ours could need. libyaml looks at all that are open with
/// every word, so a file of nothing else, such as another one that came into its place, would be read for minutes:
/// 50 KB of `[?` lines take 0.6 s, twice as many four times as long; behind 250 of them a megabyte takes a second.
/// Quotes are not looked at: whoever means to hide brackets from this can, but it is the operator's own file.
fn opens_too_many(text: &str) -> bool {
    // All that end a line, and a remark with it (YAML 1.1, 4.2).
    let breaks = |letter: char| matches!(letter, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let (mut open, mut comment, mut before) = (0_usize, false, '\n');
    text.chars().any(|letter| {
        comment = match letter {
            '#' => comment || breaks(before) || matches!(before, ' ' | '\t'),
            _ => comment && !breaks(letter),
        };
        before = letter;
        match letter {
            '[' | '{' if !comment => open += 1,
            ']' | '}' if !comment => open = open.saturating_sub(1),
            _ => {}
        }
        open > OPEN_MAX
    })
}

/// The whole of a small file as a [`Value`] in which every name is text and none stands twice in its mapping.
///
/// # Errors
/// All names given twice and all tags, or the one place where the text stops being YAML.
pub fn document(source: &str, text: &str) -> Result<Value, Vec<Fault>> {
    let mut notes = Notes { at: Vec::new(), faults: Vec::new(), budget: Budget::of(text) };
    let value = stream(source, text, Build(&mut notes))?;
    if notes.faults.is_empty() {
        return Ok(value);
    }
    let fault = |(spot, message): (Spot, String)| Fault::new(source, message, "").at(locate(text, &spot));
    Err(notes.faults.into_iter().take(FAULTS_MAX).map(fault).collect())
}

/// A value as a type.
///
/// # Errors
/// The path of the first node that does not fit, and why.
pub fn typed<T: DeserializeOwned>(value: &Value) -> Result<T, (Vec<Step>, Misfit)> {
    serde_path_to_error::deserialize(value.clone()).map_err(|error| {
        use serde_path_to_error::Segment;
        let step = |segment: &Segment| match segment {
            Segment::Seq { index } => Some(Step::Item(*index)),
            Segment::Map { key } => Some(Step::Name(key.clone())),
            Segment::Enum { .. } | Segment::Unknown => None,
        };
        let path = error.path().iter().map_while(step).collect();
        let message = error.inner().to_string();
        let misfit = if message.starts_with("unknown field `") {
            Misfit::UnknownName
        } else if let Some(name) = message.strip_prefix("missing field `") {
            Misfit::Missing(name.trim_end_matches('`').to_owned())
        } else {
            // serde quotes the value first and ends with the type's own `expecting`, so the last one is ours.
            Misfit::Expected(message.rsplit_once(", expected ").map_or("something else", |(_, ours)| ours).to_owned())
        };
        (path, misfit)
    })
}

/// A type as a value, the way it would stand in a file. Null for what has no form in YAML.
pub fn value_of<T: Serialize>(typed: &T) -> Value {
    serde_yaml::to_value(typed).unwrap_or_default()
}

/// Fixed words for what `serde_yaml` and libyaml say, and what to do.
fn words(said: &str) -> (&'static str, &'static str) {
    const TABLE: &[(&str, &str, &str)] = &[
        ("EOF while parsing", "is empty", "write something into it, or leave the file out"),
        ("more than one document", "holds more than one document", "remove the `---` line and what follows it"),
        ("recursion limit", "is nested too deeply", "use fewer levels"),
        ("repetition limit", "its aliases repeat more than the file holds", "write it out in full"),
        ("unknown anchor", "an alias names nothing", "put text that starts with `*` in quotes"),
        ("cannot start any token", "a character that cannot stand here", "put the text in quotes; indent with spaces"),
        ("tab character", "a tab in the indentation", "indent with spaces"),
        ("mapping values are not allowed", "a second `: ` on one line", "put the text in quotes"),
        ("could not find expected ':'", "a name without `:` behind it", "write `name: value`, with a space between"),
        ("expected key", "the indentation does not fit the lines above", "indent the lines of one section alike"),
        ("expected '-' indicator", "a list ends in the middle", "start every item with `- ` in the same column"),
        ("expected ',' or ']'", "a `[` is not closed", "close it with `]`, or put the text in quotes"),
        ("expected ',' or '}'", "a `{` is not closed", "close it with `}`, or put the text in quotes"),
        ("unexpected end of stream", "a quote is not closed", "close it on the same line"),
        ("expected a mapping", "expected `name: value` lines", "compare with the example in the README"),
        ("expected text", "expected text", "put it in quotes"),
        ("unknown escape", "an unknown `\\` escape", "use single quotes, in which `\\` is only itself"),
    ];
    let known = TABLE.iter().find(|(theirs, ..)| said.contains(theirs));
    known
        .map_or(("cannot be read as YAML here", "compare with the example file"), |&(_, message, hint)| (message, hint))
}

/// What [`Build`] keeps in mind on its way through a document.
struct Notes {
    at: Vec<usize>,
    faults: Vec<(Spot, String)>,
    budget: Budget,
}

impl Notes {
    fn fault(&mut self, on_key: bool, message: String) {
        self.faults.push((Spot { steps: self.at.clone(), on_key }, message));
    }
}

/// Builds a [`Value`] and notes what `serde_yaml`'s own would accept or refuse without a place.
struct Build<'a>(&'a mut Notes);

impl<'de> DeserializeSeed<'de> for Build<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.0.budget.spend()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Build<'_> {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("YAML")
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Err(E::custom("EOF while parsing"))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        self.0.at.push(0);
        while let Some(item) = access.next_element_seed(Build(&mut *self.0))? {
            items.push(item);
            walk::next(&mut self.0.at);
        }
        self.0.at.pop();
        Ok(Value::Sequence(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let (mut entries, mut seen) = (Mapping::new(), HashSet::new());
        self.0.at.push(0);
        while let Some(name) = access.next_key_seed(Text)? {
            let value = access.next_value_seed(Build(&mut *self.0))?;
            if seen.insert(name.clone()) {
                entries.insert(name.into(), value);
            } else {
                self.0.fault(true, format!("`{}` stands here a second time", shown(&name)));
            }
            walk::next(&mut self.0.at);
        }
        self.0.at.pop();
        Ok(Value::Mapping(entries))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
        use serde::de::VariantAccess;
        let (IgnoredAny, content) = access.variant()?;
        content.newtype_variant::<IgnoredAny>()?;
        self.0.fault(false, "a YAML tag (`!…`) has no meaning here".to_owned());
        Ok(Value::Null)
    }
}

/// A scalar exactly as it was written: `0x10` and `007` stay what they are.
pub struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("text")
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<String, E> {
        Ok(value.to_owned())
    }
}

#[cfg(test)]
mod tests;
