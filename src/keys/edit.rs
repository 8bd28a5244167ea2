//! A key file's text with some of its keys changed and all else as it was.
//!
//! In: a text, the set it holds, and [`Change`]s. Out: the new text, which has been read again and means exactly what it
//! should; or nothing, where the file is written in a way that this does not understand. Comments, order, quoting and
//! line ends of what is not changed stay byte for byte. Nothing here touches a disk.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use zeroize::Zeroizing;

use super::KeySet;
use super::change::{Change, Said, means, quoted};
use crate::property::PropertyId;
use crate::secret::ApiKey;
use crate::yaml::{Node, Shape, spans};

/// The changed text. `old` is the set of `text`, or nothing where the text holds none.
pub(super) fn edit(text: &str, old: Option<&KeySet>, changes: &[Change]) -> Option<Zeroizing<String>> {
    let root = spans(text).filter(|root| !matches!(&root.shape, Shape::Scalar(empty) if empty.is_empty()));
    let mut plan = Plan::new(text, root.as_ref())?;
    for change in changes {
        plan.change(change, old);
    }
    let edited = plan.finish()?;
    means(&edited, old, changes).then_some(edited)
}

/// A place in the text and what comes there.
struct Edit {
    at: Range<usize>,
    to: Zeroizing<String>,
}

/// A row of the list `keys:`.
struct Item<'a> {
    node: &'a Node,
    properties: Option<&'a Node>,
    ids: Vec<Option<PropertyId>>,
}

struct Plan<'a> {
    text: &'a str,
    root: Option<&'a Node>,
    /// Which entry of the file, from 0, is a property's row.
    rows: HashMap<PropertyId, usize>,
    /// Which entry is `keys:`.
    list: Option<usize>,
    items: Vec<Item<'a>>,
    /// In which item, and at which place there, a property stands.
    listed: HashMap<PropertyId, (usize, usize)>,
    edits: Vec<Edit>,
    gone_rows: BTreeSet<usize>,
    gone_listed: BTreeMap<usize, BTreeSet<usize>>,
    new_rows: Vec<Zeroizing<String>>,
    new_items: Vec<Zeroizing<String>>,
    line_end: &'static str,
}

impl<'a> Plan<'a> {
    fn new(text: &'a str, root: Option<&'a Node>) -> Option<Self> {
        let mut plan = Self {
            text,
            root,
            rows: HashMap::new(),
            list: None,
            items: Vec::new(),
            listed: HashMap::new(),
            edits: Vec::new(),
            gone_rows: BTreeSet::new(),
            gone_listed: BTreeMap::new(),
            new_rows: Vec::new(),
            new_items: Vec::new(),
            line_end: if text.contains("\r\n") { "\r\n" } else { "\n" },
        };
        if root.is_some_and(|root| !matches!(root.shape, Shape::Map(..))) {
            return None;
        }
        for (number, (name, value)) in root.into_iter().flat_map(|root| root.entries().iter().enumerate()) {
            if name.as_text() == "keys" {
                plan.list = Some(number);
                plan.items = value.items().iter().map(item).collect();
            } else if let Ok(property) = name.as_text().parse() {
                plan.rows.insert(property, number);
            }
        }
        for (number, item) in plan.items.iter().enumerate() {
            let ids = item.ids.iter().enumerate().filter_map(|(at, id)| Some(((*id)?, (number, at))));
            plan.listed.extend(ids);
        }
        Some(plan)
    }

    fn change(&mut self, change: &Change, old: Option<&KeySet>) {
        let Some((secret, fields)) = &change.to else {
            return change.properties.iter().for_each(|property| self.take_out(*property));
        };
        let said = Said::of(change, fields, old);
        let had = change.properties.first().and_then(|property| old?.get(*property)).map(|key| Said::by(key));
        if let (Some(place), Some(had)) = (self.place(&change.properties), had) {
            return self.rekey(place, secret, &said, &had);
        }
        change.properties.iter().for_each(|property| self.take_out(*property));
        let (key, said) = (secret.for_key_file(), said.written());
        if let [property] = change.properties[..] {
            let row = if said.is_empty() { key.to_owned() } else { format!("{{ key: {key}{said} }}") };
            let row = Zeroizing::new(row);
            self.new_rows.push(Zeroizing::new(format!("\"{property}\": {}", *row)));
        } else {
            let ids: Vec<_> = change.properties.iter().map(ToString::to_string).collect();
            let item = format!("{{ key: {key}, properties: [{}]{said} }}", ids.join(", "));
            self.new_items.push(Zeroizing::new(item));
        }
    }

    /// Where these properties, and no others, have their key.
    fn place(&self, properties: &[PropertyId]) -> Option<&'a Node> {
        if let [property] = properties
            && let Some(row) = self.rows.get(property)
        {
            return Some(&self.root?.entries().get(*row)?.1);
        }
        let item = self.items.get(self.listed.get(properties.first()?)?.0)?;
        let same = item.ids.len() == properties.len() && properties.iter().all(|id| item.ids.contains(&Some(*id)));
        same.then_some(item.node)
    }

    /// Puts another key where one stands.
    fn rekey(&mut self, place: &Node, secret: &ApiKey, said: &Said, had: &Said) {
        let name_and_value = place.entries().iter().find(|(name, _)| name.as_text() == "key");
        let Some((name, value)) = name_and_value else {
            if said == had {
                return self.replace(place, secret.for_key_file());
            }
            let row = Zeroizing::new(format!("{{ key: {}{} }}", secret.for_key_file(), said.written()));
            return self.edits.push(Edit { at: place.start..place.end, to: row });
        };
        self.replace(value, secret.for_key_file());
        for ((field, wanted), (_, was)) in said.fields.iter().zip(&had.fields) {
            let Some(wanted) = wanted.as_ref().filter(|wanted| Some(*wanted) != was.as_ref()) else { continue };
            let wanted = quoted(wanted);
            if let Some((_, value)) = place.entries().iter().find(|(name, _)| name.as_text() == *field) {
                self.edits.push(Edit { at: value.start..value.end, to: Zeroizing::new(wanted) });
            } else {
                let behind = if place.is_flow() { ", ".to_owned() } else { self.next_line_at(name.start) };
                let to = Zeroizing::new(format!("{field}: {wanted}{behind}"));
                self.edits.push(Edit { at: name.start..name.start, to });
            }
        }
    }

    /// Another scalar in the place of one, in the same quotes.
    fn replace(&mut self, scalar: &Node, text: &str) {
        let around = match self.text.as_bytes().get(scalar.start) {
            Some(b'"') => "\"",
            Some(b'\'') => "'",
            _ => "",
        };
        let behind = if matches!(scalar.shape, Shape::Block(_)) { self.line_end } else { "" };
        let to = Zeroizing::new(format!("{around}{text}{around}{behind}"));
        self.edits.push(Edit { at: scalar.start..scalar.end, to });
    }

    fn take_out(&mut self, property: PropertyId) {
        if let Some(row) = self.rows.get(&property) {
            self.gone_rows.insert(*row);
        } else if let Some((item, at)) = self.listed.get(&property) {
            self.gone_listed.entry(*item).or_default().insert(*at);
        }
    }

    /// A line break, and spaces up to the column of `at`.
    fn next_line_at(&self, at: usize) -> String {
        let before = &self.text[self.line_start(at)..at];
        let indent: String = before.chars().map(|letter| if letter == '\t' { '\t' } else { ' ' }).collect();
        format!("{}{indent}", self.line_end)
    }

    fn line_start(&self, at: usize) -> usize {
        self.text[..at].rfind('\n').map_or(0, |at| at + 1)
    }

    /// The start of the line behind the one that holds the byte before `at`.
    fn behind_line(&self, at: usize) -> usize {
        if self.text[..at].ends_with('\n') {
            return at;
        }
        self.text[at..].find('\n').map_or(self.text.len(), |end| at + end + 1)
    }

    fn finish(mut self) -> Option<Zeroizing<String>> {
        let mut gone_items = BTreeSet::new();
        for (number, gone) in std::mem::take(&mut self.gone_listed) {
            let item = self.items.get(number)?;
            if gone.len() == item.ids.len() {
                gone_items.insert(number);
            } else {
                let list = item.properties?;
                let parts: Vec<_> = list.items().iter().map(|node| node.start..node.end).collect();
                self.cut(list.is_flow(), &parts, &gone)?;
            }
        }
        let list = self.list.and_then(|number| Some((number, &self.root?.entries().get(number)?.1)));
        if let Some((number, list)) = list {
            if gone_items.len() == self.items.len() && self.new_items.is_empty() && !gone_items.is_empty() {
                self.gone_rows.insert(number);
            } else {
                let parts: Vec<_> = self.items.iter().map(|item| item.node.start..item.node.end).collect();
                self.cut(list.is_flow(), &parts, &gone_items)?;
                self.insert_items(list);
            }
        }
        if !self.new_items.is_empty() {
            let items = std::mem::take(&mut self.new_items);
            let row = if self.is_flow() {
                format!("keys: [{}]", joined(&items, ", ").as_str())
            } else {
                let between = format!("{}  - ", self.next_line_at(self.column()));
                format!("keys:{between}{}", joined(&items, &between).as_str())
            };
            self.new_rows.push(Zeroizing::new(row));
        }
        self.rows()?;
        apply(self.text, self.edits)
    }

    fn is_flow(&self) -> bool {
        self.root.is_some_and(|root| root.is_flow() && !root.entries().is_empty())
    }

    /// Where the file's own rows begin, as a place in the text whose column is theirs.
    fn column(&self) -> usize {
        let first = self.root.and_then(|root| root.entries().first()).map_or(0, |(name, _)| name.start);
        let line = self.line_start(first);
        // Behind `--- ` or `? ` a column is not an indentation.
        line + self.text[line..first].len() - self.text[line..first].trim_start().len()
    }

    /// New items of the list `keys:`, at its front: it may end in many ways.
    fn insert_items(&mut self, list: &Node) {
        let items = std::mem::take(&mut self.new_items);
        if items.is_empty() {
            return;
        }
        let (at, to) = if list.is_flow() {
            let behind = if list.items().is_empty() { "" } else { ", " };
            (list.start + 1, format!("{}{behind}", joined(&items, ", ").as_str()))
        } else {
            let Some(first) = list.items().first().and_then(|first| self.dash(first.start)) else {
                self.new_items = items;
                return;
            };
            let between = format!("{}- ", self.next_line_at(first));
            let end = self.next_line_at(first);
            (first, format!("- {}{end}", joined(&items, &between).as_str()))
        };
        self.edits.push(Edit { at: at..at, to: Zeroizing::new(to) });
    }

    /// Where the `-` of an item stands that begins at `start`.
    fn dash(&self, start: usize) -> Option<usize> {
        let before = self.text[..start].trim_end();
        before.ends_with('-').then(|| before.len() - 1)
    }

    /// Takes the rows out that go, and adds the new ones.
    fn rows(&mut self) -> Option<()> {
        let (rows, gone) = (std::mem::take(&mut self.new_rows), std::mem::take(&mut self.gone_rows));
        let Some(root) = self.root else {
            return self.append(&rows, self.text.len());
        };
        let entries = root.entries();
        let parts: Vec<_> = entries.iter().map(|(name, value)| name.start..value.end.max(name.end)).collect();
        if root.is_flow() && !entries.is_empty() {
            self.cut(true, &parts, &gone)?;
            if !rows.is_empty() {
                let to = Zeroizing::new(format!(" {},", joined(&rows, ", ").as_str()));
                self.edits.push(Edit { at: root.start + 1..root.start + 1, to });
            }
            return Some(());
        }
        for part in gone.iter().map(|number| parts.get(*number)) {
            let part = part?;
            let start = self.line_start(part.start);
            if !matches!(self.text[start..part.start].trim(), "" | "?") {
                return None;
            }
            self.edits.push(Edit { at: start..self.behind_line(part.end), to: Zeroizing::default() });
        }
        if root.is_flow() {
            // `{}`, which says that there are none.
            if !rows.is_empty() {
                let at = self.column();
                let to = joined(&rows, &self.next_line_at(at));
                self.edits.push(Edit { at: root.start..root.end, to });
            }
            return Some(());
        }
        let marked = self.text[root.end..].lines().any(|line| line.starts_with("...") || line.starts_with("---"));
        let end = if marked { self.behind_line(root.end) } else { self.text.len() };
        if rows.is_empty() && gone.len() == entries.len() {
            // An empty file is taken for an accident; this is not.
            return self.append(&[Zeroizing::new("{}".to_owned())], end);
        }
        self.append(&rows, end)
    }

    /// Adds lines at `end`.
    fn append(&mut self, rows: &[Zeroizing<String>], end: usize) -> Option<()> {
        if rows.is_empty() {
            return Some(());
        }
        let before = &self.text[..end];
        let first = if before.is_empty() || before.ends_with('\n') { "" } else { self.line_end };
        let column = self.column();
        let indent = &self.text[self.line_start(column)..column];
        let mut to = Zeroizing::new(first.to_owned());
        for row in rows {
            to.push_str(indent);
            to.push_str(row);
            to.push_str(self.line_end);
        }
        self.edits.push(Edit { at: end..end, to });
        Some(())
    }

    /// Takes parts out of a collection. Where some are left, what separates them goes as well.
    fn cut(&mut self, flow: bool, parts: &[Range<usize>], gone: &BTreeSet<usize>) -> Option<()> {
        let last_kept = (0..parts.len()).rev().find(|number| !gone.contains(number));
        for number in gone {
            let part = parts.get(*number)?.clone();
            let at = if !flow {
                let dash = self.dash(part.start)?;
                let start = self.line_start(dash);
                if !self.text[start..dash].trim().is_empty() {
                    return None;
                }
                start..self.behind_line(part.end)
            } else if last_kept.is_some_and(|kept| *number < kept) {
                let next = parts.get(number + 1)?.start;
                let between = self.text.get(part.end..next)?;
                // A comment between two stays.
                let end = if between.contains('#') { part.end + between.find(',')? + 1 } else { next };
                part.start..end
            } else if let Some(before) = number.checked_sub(1).and_then(|number| parts.get(number)) {
                let between = self.text.get(before.end..part.start)?;
                if between.contains('#') { part } else { before.end..part.end }
            } else {
                part
            };
            self.edits.push(Edit { at, to: Zeroizing::default() });
        }
        Some(())
    }
}

fn item(node: &Node) -> Item<'_> {
    let properties = node.entries().iter().find(|(name, _)| name.as_text() == "properties").map(|(_, list)| list);
    let ids = properties.into_iter().flat_map(Node::items).map(|id| id.as_text().parse().ok()).collect();
    Item { node, properties, ids }
}

fn joined(texts: &[Zeroizing<String>], between: &str) -> Zeroizing<String> {
    let mut joined = Zeroizing::new(String::new());
    for (number, text) in texts.iter().enumerate() {
        joined.push_str(if number > 0 { between } else { "" });
        joined.push_str(text);
    }
    joined
}

/// The text with all edits made; nothing where two of them are about the same bytes.
fn apply(text: &str, mut edits: Vec<Edit>) -> Option<Zeroizing<String>> {
    edits.sort_by_key(|edit| (edit.at.start, edit.at.end));
    let room = text.len() + edits.iter().map(|edit| edit.to.len()).sum::<usize>();
    let (mut edited, mut at) = (Zeroizing::new(String::with_capacity(room)), 0);
    for edit in &edits {
        edited.push_str(text.get(at..edit.at.start)?);
        edited.push_str(&edit.to);
        at = edit.at.end;
    }
    edited.push_str(text.get(at..)?);
    Some(edited)
}
