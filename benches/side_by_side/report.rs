//! The results as a table for the terminal and as JSON.
//!
//! In: rows, sections and notes. Out: text. Every ratio is of CPU time unless its title says otherwise.

use serde_json::{Value, json};

use crate::kit::section::{Section, table};
use crate::rounds::{Row, TITLES};

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
            text += &section.text();
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
