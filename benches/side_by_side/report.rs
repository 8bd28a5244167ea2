//! The results as a table for the terminal and as JSON.
//!
//! In: rows, sections and notes. Out: text. Every ratio is of CPU time unless its title says otherwise.

use serde_json::{Map, Value, json};

use crate::rounds::{Row, TITLES};

/// A small table beside the main one.
pub(crate) struct Section {
    pub(crate) title: &'static str,
    pub(crate) titles: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
    /// How something went over time, for JSON and the page.
    pub(crate) series: Vec<Series>,
}

/// Seconds, and a value.
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, u64)>,
}

impl Section {
    pub(crate) fn new(title: &'static str, titles: &[&'static str]) -> Self {
        Self { title, titles: titles.to_vec(), rows: Vec::new(), series: Vec::new() }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    fn json(&self) -> Value {
        let row = |cells: &Vec<String>| {
            let value = |cell: &String| cell.parse::<f64>().map_or_else(|_| json!(cell), |number| json!(number));
            let named = self.titles.iter().zip(cells).map(|(title, cell)| ((*title).to_owned(), value(cell)));
            Value::Object(named.collect::<Map<_, _>>())
        };
        let mut section = json!({ "title": self.title, "rows": self.rows.iter().map(row).collect::<Vec<_>>() });
        if !self.series.is_empty() {
            let series = self.series.iter().map(|series| (series.name.clone(), json!(series.points)));
            section["series"] = Value::Object(series.collect());
        }
        section
    }
}

/// All that came out.
pub(crate) struct Report {
    pub(crate) machine: Value,
    pub(crate) versions: Vec<(String, String)>,
    pub(crate) rounds: u32,
    pub(crate) seconds: u32,
    pub(crate) rows: Vec<Row>,
    pub(crate) sections: Vec<Section>,
    pub(crate) notes: Vec<String>,
}

impl Report {
    /// The main table, the sections and the notes.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        if !self.rows.is_empty() {
            let cells: Vec<Vec<String>> = self.rows.iter().map(Row::cells).collect();
            text += "\nCPU per answered request; the ratio is to nginx in the same round, median over the rounds\n";
            text += &table(&TITLES, &cells);
        }
        for section in &self.sections {
            text += &format!("\n{}\n{}", section.title, table(&section.titles, &section.rows));
        }
        if !self.notes.is_empty() {
            text += "\nNotes\n";
            self.notes.iter().for_each(|note| text += &format!("  {note}\n"));
        }
        text
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "machine": self.machine,
            "versions": self.versions.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            "rounds": self.rounds,
            "seconds": self.seconds,
            "works": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
            "sections": self.sections.iter().map(Section::json).collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }
}

/// Columns as wide as they must be: words to the left, numbers to the right.
fn table(titles: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(String::as_str).chain([titles[column]]);
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::from(" ");
        for (cell, &width) in cells.zip(&widths) {
            let number = cell.starts_with(|first: char| first.is_ascii_digit() || first == '–');
            line += &if number { format!(" {cell:>width$} ") } else { format!(" {cell:<width$} ") };
        }
        format!("{}\n", line.trim_end())
    };
    let mut text = line(&mut titles.iter().copied());
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}
