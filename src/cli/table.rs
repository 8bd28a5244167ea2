//! Lines of a table, and the colours of a terminal.
//!
//! In: cells. Out: text in aligned columns. Colours only where standard output is a terminal that has them and `NO_COLOR`
//! (no-color.org) is not set; without them nothing is lost.

use std::io::IsTerminal as _;

/// What a text says, as a colour.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Tone {
    Plain,
    Good,
    Doubtful,
    Bad,
    Faint,
}

impl Tone {
    /// The text in this tone.
    pub(super) fn paint(self, text: &str, colour: bool) -> String {
        // Select Graphic Rendition, ECMA-48 8.3.117.
        let code = match self {
            Self::Plain => return text.to_owned(),
            Self::Good => "32",
            Self::Doubtful => "33",
            Self::Bad => "31",
            Self::Faint => "2",
        };
        if colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Whether standard output wants colours.
pub(super) fn has_colour() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    std::io::stdout().is_terminal() && set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb")
}

/// One cell.
pub(super) struct Cell {
    text: String,
    right: bool,
    tone: Tone,
}

impl Cell {
    pub(super) fn left(text: impl Into<String>) -> Self {
        Self { text: text.into(), right: false, tone: Tone::Plain }
    }

    pub(super) fn right(text: impl Into<String>) -> Self {
        Self { right: true, ..Self::left(text) }
    }

    /// A dash where nothing is known.
    pub(super) fn maybe(text: Option<&str>) -> Self {
        text.map_or_else(|| Self { tone: Tone::Faint, ..Self::left("-") }, Self::left)
    }

    pub(super) fn aligned_right(self) -> Self {
        Self { right: true, ..self }
    }

    pub(super) fn toned(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }
}

/// Rows under a head.
pub(super) struct Table {
    head: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(super) fn new(head: &[&str]) -> Self {
        Self { head: head.iter().map(|name| (*name).to_owned()).collect(), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Two spaces between columns, none at the end of a line.
    pub(super) fn text(&self, colour: bool) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.text.chars().count());
            cells.chain(self.head.get(column).map(|name| name.chars().count())).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let mut text = String::new();
        let head: Vec<Cell> = self.head.iter().map(|name| Cell::left(name.clone()).toned(Tone::Faint)).collect();
        for row in std::iter::once(&head).chain(&self.rows) {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let space = " ".repeat(width.saturating_sub(cell.text.chars().count()));
                let painted = cell.tone.paint(&cell.text, colour);
                line.push_str(if column > 0 { "  " } else { "" });
                line.push_str(&if cell.right { space + &painted } else { painted + &space });
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_with_and_without_colour() {
        let mut table = Table::new(&["id", "name"]);
        table.row(vec![Cell::right("7"), Cell::left("Café").toned(Tone::Good)]);
        table.row(vec![Cell::right("1001"), Cell::maybe(None)]);
        assert_eq!(table.text(false), "id    name\n   7  Café\n1001  -\n");
        assert_eq!(
            table.text(true),
            "\u{1b}[2mid\u{1b}[0m    \u{1b}[2mname\u{1b}[0m\n   7  \u{1b}[32mCafé\u{1b}[0m\n1001  \u{1b}[2m-\u{1b}[0m\n"
        );
    }
}
