//! Results as small tables, for the terminal and as JSON, with how values went over time.
//!
//! In: titles, cells and series. Out: text and JSON. `page.rs` shows the same on a page.

use serde_json::{Map, Value, json};

/// A small table beside the main one.
pub(crate) struct Section {
    pub(crate) title: String,
    pub(crate) titles: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
    /// How something went over time, for JSON and the page.
    pub(crate) series: Vec<Series>,
}

/// How a value went over time.
pub(crate) struct Series {
    pub(crate) name: String,
    /// What time is counted in, for the page: `s` or `h`.
    pub(crate) unit: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Section {
    pub(crate) fn new(title: impl Into<String>, titles: &[&'static str]) -> Self {
        Self { title: title.into(), titles: titles.to_vec(), rows: Vec::new(), series: Vec::new() }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// The heading and the table.
    pub(crate) fn text(&self) -> String {
        format!("\n{}\n{}", self.title, table(&self.titles, &self.rows))
    }

    pub(crate) fn json(&self) -> Value {
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

/// Columns as wide as they must be: words to the left, numbers to the right.
pub(crate) fn table(titles: &[&str], rows: &[Vec<String>]) -> String {
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
