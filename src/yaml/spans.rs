//! Where every node of a document begins and ends, for a writer that changes some and keeps the rest byte for byte.
//!
//! In: text that `serde_yaml` has accepted. Out: a [`Node`] for the whole of it. The events come from another parser
//! (`saphyr-parser`), which tells all beginnings in one pass; of ends it only knows where the next thing begins, so they
//! are looked for here. Where this or the two parsers err, an edit goes wrong: whoever edits must read the result again
//! and compare what it means.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use zeroize::Zeroizing;

/// Levels of nesting that are followed; no file that is written has more than five.
const DEPTH_MAX: usize = 16;

/// A node and its place: bytes of the text, `start` of its first and `end` behind its last.
pub struct Node {
    /// Where it begins, behind an anchor or tag.
    pub start: usize,
    /// Where it ends. A node in block style ends with its last part.
    pub end: usize,
    /// What it is.
    pub shape: Shape,
}

/// What a node is. No `Debug`: it may hold a secret.
pub enum Shape {
    /// A scalar's text.
    Scalar(Zeroizing<String>),
    /// A scalar below a `|` or `>`, which ends with a line.
    Block(Zeroizing<String>),
    /// A `*name`.
    Alias,
    /// A list, and whether it stands between brackets.
    List(bool, Vec<Node>),
    /// A mapping, and whether it stands between braces.
    Map(bool, Vec<(Node, Node)>),
}

impl Node {
    /// The text of a scalar, or nothing where it is something else.
    #[must_use]
    pub fn as_text(&self) -> &str {
        if let Shape::Scalar(text) | Shape::Block(text) = &self.shape { text } else { "" }
    }

    /// The entries of a mapping, or none where it is something else.
    #[must_use]
    pub fn entries(&self) -> &[(Node, Node)] {
        if let Shape::Map(_, entries) = &self.shape { entries } else { &[] }
    }

    /// The items of a list, or none where it is something else.
    #[must_use]
    pub fn items(&self) -> &[Node] {
        if let Shape::List(_, items) = &self.shape { items } else { &[] }
    }

    /// Whether it stands between brackets or braces.
    #[must_use]
    pub fn is_flow(&self) -> bool {
        matches!(self.shape, Shape::List(true, _) | Shape::Map(true, _))
    }
}

/// The nodes of the one document of `text`; nothing when it has none, or when this parser does not follow.
#[must_use]
pub fn spans(text: &str) -> Option<Node> {
    let bytes = (!text.is_ascii()).then(|| text.char_indices().map(|(at, _)| at).chain([text.len()]).collect());
    let mut walk = Walk { text, bytes, events: Parser::new_from_str(text) };
    loop {
        match walk.next()? {
            (Event::StreamEnd, _) => return None,
            (Event::DocumentStart(_), _) => break,
            _ => {}
        }
    }
    let (event, span) = walk.next()?;
    walk.node(event, span, 0)
}

struct Walk<'a> {
    text: &'a str,
    /// The byte each character begins at, where that is not its number.
    bytes: Option<Vec<usize>>,
    events: Parser<'a, saphyr_parser::StrInput<'a>>,
}

impl<'a> Walk<'a> {
    fn next(&mut self) -> Option<(Event<'a>, Span)> {
        self.events.next_event()?.ok()
    }

    fn byte(&self, character: usize) -> usize {
        let at = self.bytes.as_ref().map_or(character, |bytes| bytes.get(character).copied().unwrap_or(usize::MAX));
        at.min(self.text.len())
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Option<Node> {
        let (start, told) = (self.byte(span.start.index()), self.byte(span.end.index()));
        if depth > DEPTH_MAX {
            return None;
        }
        let start = behind_properties(self.text, start);
        // Only the opening bracket of its own kind: a list in block style may be said to begin at its first item.
        let flow = |bracket: char| self.text[start..].starts_with(bracket);
        match event {
            Event::Alias(_) => Some(Node { start, end: told, shape: Shape::Alias }),
            Event::Scalar(value, style, ..) => {
                let value = Zeroizing::new(value.into_owned());
                if matches!(style, ScalarStyle::Literal | ScalarStyle::Folded) {
                    // The parser begins with the text; what is written begins with the indicator above it.
                    let start = self.text[..start].rfind(['|', '>'])?;
                    return Some(Node { start, end: told, shape: Shape::Block(value) });
                }
                let end = match self.text.as_bytes().get(start) {
                    Some(quote @ (b'\'' | b'"')) => behind_quote(self.text, start, *quote)?,
                    _ => behind_plain(self.text, start, told),
                };
                Some(Node { start, end, shape: Shape::Scalar(value) })
            }
            Event::SequenceStart(..) => {
                let (flow, mut items) = (flow('['), Vec::new());
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => items.push(self.node(event, span, depth + 1)?),
                    }
                }
                let last = items.last().map(|item| item.end);
                let end = self.end(start, flow, last)?;
                Some(Node { start, end, shape: Shape::List(flow, items) })
            }
            Event::MappingStart(..) => {
                let (flow, mut entries) = (flow('{'), Vec::new());
                loop {
                    match self.next()? {
                        (Event::MappingEnd, _) => break,
                        (event, span) => {
                            let name = self.node(event, span, depth + 1)?;
                            let (event, span) = self.next()?;
                            entries.push((name, self.node(event, span, depth + 1)?));
                        }
                    }
                }
                let last = entries.last().map(|(name, value): &(Node, Node)| value.end.max(name.end));
                let end = self.end(start, flow, last)?;
                Some(Node { start, end, shape: Shape::Map(flow, entries) })
            }
            _ => None,
        }
    }

    /// Where a collection ends that begins at `start` and whose last part ends at `last`.
    fn end(&self, start: usize, flow: bool, last: Option<usize>) -> Option<usize> {
        if !flow {
            return Some(last.unwrap_or(start));
        }
        let mut at = last.unwrap_or(start + 1);
        loop {
            let rest = &self.text[at..];
            match rest.bytes().next()? {
                b']' | b'}' => return Some(at + 1),
                b'#' => at += rest.find('\n')?,
                _ => at += rest.chars().next()?.len_utf8(),
            }
        }
    }
}

/// Where a node begins behind its anchor and tag.
fn behind_properties(text: &str, mut start: usize) -> usize {
    while text[start..].starts_with(['&', '!']) {
        let rest = &text[start..];
        let word = rest.find(char::is_whitespace).unwrap_or(rest.len());
        start += word + (rest[word..].len() - rest[word..].trim_start().len());
    }
    start
}

/// Where a scalar in quotes ends.
fn behind_quote(text: &str, start: usize, quote: u8) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = start + 1;
    loop {
        let byte = *bytes.get(at)?;
        let doubled = byte == b'\'' && bytes.get(at + 1) == Some(&b'\'');
        if quote == b'"' && byte == b'\\' || quote == b'\'' && doubled {
            at += 2;
        } else if byte == quote {
            return Some(at + 1);
        } else {
            at += 1;
        }
    }
}

/// Where a plain scalar ends, of which the parser says that it ends at `told` or before.
fn behind_plain(text: &str, start: usize, told: usize) -> usize {
    let told = told.max(start);
    let whole = &text[start..told];
    let comment = whole.match_indices('#').find(|(at, _)| whole[..*at].ends_with(char::is_whitespace));
    start + comment.map_or(whole, |(at, _)| &whole[..at]).trim_end().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every scalar with the text it stands for, and every closed collection as a whole.
    fn shown(text: &str, node: &Node, found: &mut Vec<String>) {
        let whole = &text[node.start..node.end];
        match &node.shape {
            Shape::Scalar(value) | Shape::Block(value) => found.push(format!("{whole} = {}", value.trim_end())),
            Shape::Alias => found.push(whole.to_owned()),
            Shape::List(flow, items) => {
                found.extend(flow.then(|| whole.to_owned()));
                items.iter().for_each(|item| shown(text, item, found));
            }
            Shape::Map(flow, entries) => {
                found.extend(flow.then(|| whole.to_owned()));
                entries.iter().for_each(|(name, value)| {
                    shown(text, name, found);
                    shown(text, value, found);
                });
            }
        }
    }

    #[test]
    fn a_node_is_exactly_its_bytes() {
        let text = "# ä\r\n\"1\": 'x ''y'  # c\r\n2: { k: [a , \"\\\"b\"] , # }\r\n  }\r\n3:   t  #c\r\nkeys:\r\n- &n z\r\n- *n\r\n- p: |\r\n    ü\r\n- q  # end\r\nl:\r\n- { m: 4 }\r\n";
        let root = spans(text).unwrap();
        let mut found = Vec::new();
        shown(text, &root, &mut found);
        assert_eq!(
            found,
            [
                "\"1\" = 1",
                "'x ''y' = x 'y",
                "2 = 2",
                "{ k: [a , \"\\\"b\"] , # }\r\n  }",
                "k = k",
                "[a , \"\\\"b\"]",
                "a = a",
                "\"\\\"b\" = \"b",
                "3 = 3",
                "t = t",
                "keys = keys",
                "z = z",
                "*n",
                "p = p",
                "|\r\n    ü\r\n = ü",
                "q = q",
                "l = l",
                "{ m: 4 }",
                "m = m",
                "4 = 4",
            ]
        );
        assert_eq!(&text[root.start..root.end], &text[6..text.len() - 2]);
    }

    #[test]
    fn what_is_no_document_has_no_nodes() {
        for text in ["", "# nothing\n", "a: [b", "a: 'b", "- x: {"] {
            assert!(spans(text).is_none(), "{text:?}");
        }
    }
}
