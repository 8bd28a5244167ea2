//! The committed figures, and the comparison with what was counted.
//!
//! In: `expected.tsv` (a stage and its instructions a line) and counts. Out: a verdict for each stage and for the run.
//! A stage that is more than [`MORE`] per cent up, or without a figure, fails it. Less is no failure, but is said, so
//! that the figure is lowered and a later rise does not hide behind it. Nothing here counts anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Per cent by which a count may rise, and fall without a word.
const MORE: u64 = 5;

/// What stands before the line that says where the figures hold.
const MADE_BY: &str = "# Counted with: ";

/// Instructions of one call, by stage.
pub(crate) type Figures = BTreeMap<String, u64>;

/// What came of one stage.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Verdict {
    /// Within the limits.
    Same,
    /// It costs more than it may.
    Up,
    /// It costs less, and the figure should say so.
    Down,
    /// There is no figure for it yet.
    New,
    /// There is a figure and no such stage.
    Gone,
}

impl Verdict {
    /// Whether it fails the run.
    fn fails(self) -> bool {
        matches!(self, Self::Up | Self::New | Self::Gone)
    }
}

/// One stage's two figures.
struct Line {
    stage: String,
    expected: Option<u64>,
    counted: Option<u64>,
}

impl Line {
    fn verdict(&self) -> Verdict {
        match (self.expected, self.counted) {
            (Some(expected), Some(counted)) if counted * 100 > expected * (100 + MORE) => Verdict::Up,
            (Some(expected), Some(counted)) if counted * 100 < expected * (100 - MORE) => Verdict::Down,
            (Some(_), Some(_)) => Verdict::Same,
            (None, _) => Verdict::New,
            (Some(_), None) => Verdict::Gone,
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: Option<u64>| value.map_or_else(|| "–".to_owned(), |value| value.to_string());
        let change = match (self.expected, self.counted) {
            (Some(expected @ 1..), Some(counted)) => {
                format!("{:+.1} %", (counted as f64 / expected as f64 - 1.0) * 100.0)
            }
            _ => String::new(),
        };
        let word = match self.verdict() {
            Verdict::Same => "",
            Verdict::Up => "MORE than it may",
            Verdict::Down => "less: lower the figure",
            Verdict::New => "has no figure",
            Verdict::Gone => "is not counted any more",
        };
        let (expected, counted) = (number(self.expected), number(self.counted));
        let line = format!("  {:<36} {expected:>9} {counted:>9} {change:>8}  {word}", self.stage);
        out.write_str(line.trim_end())
    }
}

/// What is to be said of a run, and whether it passes.
pub(crate) struct Judgement {
    pub(crate) text: String,
    pub(crate) passes: bool,
}

/// Compares every stage that either side knows.
pub(crate) fn judge(expected: &Figures, counted: &Figures) -> Judgement {
    let stages: BTreeSet<&String> = expected.keys().chain(counted.keys()).collect();
    let line = |stage: &String| Line {
        stage: stage.clone(),
        expected: expected.get(stage).copied(),
        counted: counted.get(stage).copied(),
    };
    let lines: Vec<Line> = stages.into_iter().map(line).collect();
    let those = |wanted: fn(Verdict) -> bool| -> Vec<&str> {
        lines.iter().filter(|line| wanted(line.verdict())).map(|line| line.stage.as_str()).collect()
    };
    let (failing, down) = (those(Verdict::fails), those(|verdict| verdict == Verdict::Down));
    let mut text = format!("Instructions of one call\n  {:<36} {:>9} {:>9}\n", "stage", "committed", "counted");
    lines.iter().for_each(|line| text += &format!("{line}\n"));
    if !down.is_empty() {
        text += &format!(
            "\nMore than {MORE} % down: {}. So that it stays so: scripts/instructions --update\n",
            down.join(", ")
        );
    }
    if !failing.is_empty() {
        text += &format!(
            "\nMore than {MORE} % up, or only on one side: {}. If that is wanted, scripts/instructions --update writes \
             the new figures; commit them with the reason.\n",
            failing.join(", ")
        );
    }
    Judgement { text, passes: failing.is_empty() }
}

/// The figures of a file; its lines are empty, comments, or a stage, a tab and a number.
///
/// # Errors
/// The first line that is none of these, by its number.
pub(crate) fn parse(text: &str) -> Result<Figures, String> {
    let mut figures = Figures::new();
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let row = line.split_once('\t').and_then(|(stage, count)| Some((stage.to_owned(), count.parse().ok()?)));
        let (stage, count) = row.ok_or_else(|| format!("line {} is not a stage, a tab and a number", number + 1))?;
        if figures.insert(stage.clone(), count).is_some() {
            return Err(format!("line {} repeats {stage}", number + 1));
        }
    }
    Ok(figures)
}

/// What a file says of where its figures hold.
pub(crate) fn made_by(text: &str) -> &str {
    text.lines().find_map(|line| line.strip_prefix(MADE_BY)).unwrap_or("who knows what")
}

/// The file of these figures. `made_by` says where they hold.
pub(crate) fn text(figures: &Figures, made_by: &str) -> String {
    let mut text = format!(
        "# Instructions of one call of each stage, counted by valgrind. scripts/instructions compares with these and\n\
         # fails when one is more than {MORE} % up; scripts/instructions --update writes them anew.\n\
         {MADE_BY}{made_by}\n"
    );
    for (stage, count) in figures {
        text += &format!("{stage}\t{count}\n");
    }
    text
}
