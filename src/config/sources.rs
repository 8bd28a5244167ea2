//! Which file, line or variable an option came from, and the faults found so far.
//!
//! In: faults about options. Out: [`Fault`]s that name the place to mend: the variable for an option the environment
//! set, else line and column of the file, else the file.

use std::collections::BTreeMap;

use super::raw::{App, Caller, options_of};
use crate::fault::{FAULTS_MAX, Fault, shown};
use crate::property::PropertyId;
use crate::yaml::{Misfit, Spot, Step, Value, locate};

/// The text a configuration is made from, and what is wrong with it.
pub(super) struct Sources<'a> {
    name: &'a str,
    text: &'a str,
    /// The file's content as parsed, before the environment and before anything was pruned.
    file: Value,
    /// Options the environment set, by dotted path: the variable's name.
    pub(super) variables: BTreeMap<String, String>,
    /// No more than are told, since each costs a reading of the file.
    faults: Vec<Fault>,
    known: Vec<String>,
    /// Nodes that were cut out of the document because they did not fit; paths given later are those without them.
    cut: Vec<Vec<Step>>,
}

/// A dotted path as steps.
pub(super) fn path(dotted: &str) -> Vec<Step> {
    dotted.split('.').map(|name| Step::Name(name.to_owned())).collect()
}

impl<'a> Sources<'a> {
    pub(super) fn new(name: &'a str, text: &'a str, file: Value, known: Vec<String>) -> Self {
        Self { name, text, file, variables: BTreeMap::new(), faults: Vec::new(), known, cut: Vec::new() }
    }

    /// What was found, at most [`FAULTS_MAX`]; empty when all is well.
    pub(super) fn into_faults(mut self) -> Vec<Fault> {
        self.faults.sort_by_key(|fault| (fault.line.unwrap_or(usize::MAX), fault.column));
        self.faults
    }

    /// Whether looking for more makes no sense.
    pub(super) fn enough(&self) -> bool {
        self.faults.len() >= FAULTS_MAX
    }

    /// Whether an option is already known to be wrong, so that what follows from its default is not worth saying.
    pub(super) fn blamed(&self, dotted: &str) -> bool {
        self.faults.iter().any(|fault| fault.path == dotted)
    }

    /// Whether anything whose path starts so is already known to be wrong.
    pub(super) fn blamed_below(&self, start: &str) -> bool {
        self.faults.iter().any(|fault| fault.path.starts_with(start))
    }

    /// Records a fault that has no option, such as an unknown variable.
    pub(super) fn push(&mut self, fault: Fault) {
        if !self.enough() {
            self.faults.push(fault);
        }
    }

    /// Notes that the node at `path` is no longer in the document that later paths are about.
    pub(super) fn cut(&mut self, path: &[Step]) {
        let original = self.original(path);
        self.cut.push(original);
    }

    /// The path as it was before items in front of it were cut out of its lists.
    fn original(&self, path: &[Step]) -> Vec<Step> {
        let mut original: Vec<Step> = Vec::with_capacity(path.len());
        for step in path {
            let mut step = step.clone();
            if let Step::Item(index) = &mut step {
                let gone = self.cut.iter().filter_map(|cut| match cut.split_last() {
                    Some((Step::Item(gone), list)) if list == original => Some(*gone),
                    _ => None,
                });
                for gone in std::collections::BTreeSet::from_iter(gone) {
                    *index += usize::from(gone <= *index);
                }
            }
            original.push(step);
        }
        original
    }

    /// Records a fault about the value at `path`.
    pub(super) fn fault(&mut self, path: &[Step], message: impl Into<String>, hint: impl Into<String>) {
        self.record(path, false, message.into(), hint.into());
    }

    /// Records why the value at `path` does not fit, in our words.
    pub(super) fn misfit(&mut self, path: &[Step], misfit: Misfit) {
        match misfit {
            Misfit::UnknownName => {
                let (message, hint) = self.unknown(path);
                self.record(path, true, message, hint);
            }
            Misfit::Missing(name) => self.fault(path, format!("`{name}` is missing"), "add it"),
            Misfit::Expected(what) => {
                let (what, hint) = what.split_once(" — ").unwrap_or((&what, ""));
                let (what, hint) = match what {
                    "a boolean" => ("true or false", hint),
                    "a string" => ("text", "put it in quotes"),
                    "u64" | "usize" => ("a whole number", hint),
                    "f64" => ("a number such as 0.5", hint),
                    "a map" => ("a mapping", "write `name: value` lines below it"),
                    what => (what, hint),
                };
                self.fault(path, format!("expected {what}"), hint);
            }
        }
    }

    fn unknown(&self, path: &[Step]) -> (String, String) {
        let Some((Step::Name(name), parent)) = path.split_last() else { return Default::default() };
        let message = format!("unknown option `{}`", shown(name));
        if name.parse::<PropertyId>().is_ok() {
            return (message, "keys belong into a file of their own; name it under `keys: file:`".to_owned());
        }
        let mut beneath = written(parent);
        if !beneath.is_empty() {
            beneath.push('.');
        }
        let of_an_app = match parent {
            [Step::Name(section), _] if section == "apps" => Some(options_of::<App>()),
            [Step::Name(section), _] if section == "callers" => Some(options_of::<Caller>()),
            _ => None,
        };
        let mut siblings: Vec<&str> = if let Some(options) = &of_an_app {
            options.iter().map(String::as_str).collect()
        } else if matches!(parent.last(), Some(Step::Item(_))) {
            vec!["address", "default_property"]
        } else {
            let below = self.known.iter().filter_map(|known| known.strip_prefix(&beneath));
            below.map(|known| known.split('.').next().unwrap_or(known)).collect()
        };
        siblings.dedup();
        let hint = match closest(name, siblings.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known here: {}", siblings.join(", ")),
        };
        (message, hint)
    }

    fn record(&mut self, path: &[Step], on_key: bool, message: String, hint: String) {
        if self.enough() {
            return;
        }
        let path = &self.original(path);
        let dotted = written(path);
        let fault = match self.variables.get(&dotted) {
            Some(variable) => Fault::new(variable, message, hint),
            None => Fault::new(self.name, message, hint).at(self.place(path, on_key)),
        };
        self.faults.push(fault.about(dotted));
    }

    /// Where a path stands in the file; for one that is not there, where its nearest section stands.
    fn place(&self, path: &[Step], on_key: bool) -> Option<(usize, usize)> {
        let (mut node, mut steps) = (&self.file, Vec::new());
        for step in path {
            let below = match (node, step) {
                (Value::Mapping(entries), Step::Name(name)) => {
                    let found = entries.iter().position(|(key, _)| key.as_str() == Some(name));
                    found.and_then(|at| Some((at, entries.iter().nth(at)?.1)))
                }
                (Value::Sequence(items), Step::Item(at)) => items.get(*at).map(|item| (*at, item)),
                _ => None,
            };
            let Some((at, value)) = below else { break };
            steps.push(at);
            node = value;
        }
        if steps.is_empty() {
            return None;
        }
        let on_key = on_key || steps.len() < path.len();
        locate(self.text, &Spot { steps, on_key })
    }
}

/// Steps as they are shown: `listen[1].address`.
fn written(path: &[Step]) -> String {
    let mut dotted = String::new();
    for step in path {
        match step {
            Step::Item(index) => dotted.push_str(&format!("[{index}]")),
            Step::Name(name) if dotted.is_empty() => dotted.push_str(shown(name)),
            Step::Name(name) => {
                dotted.push('.');
                dotted.push_str(shown(name));
            }
        }
    }
    dotted
}

/// The name nearest to a misspelt one, if it is near enough to be meant. One that is longer or shorter by more than
/// that is not looked at: of a variable with a long name all options would be.
pub(super) fn closest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let most = 1 + name.len() / 6;
    let of_a_length = names.filter(|known| known.len().abs_diff(name.len()) <= most);
    let near = of_a_length.map(|known| (distance(name, known), known)).min()?;
    (near.0 <= most).then_some(near.1)
}

/// How many letters must be added, removed or changed to get from one name to the other (Levenshtein).
fn distance(one: &str, two: &str) -> usize {
    let mut row: Vec<usize> = (0..=two.len()).collect();
    for (above, a) in one.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], above + 1);
        for (left, b) in two.bytes().enumerate() {
            let change = diagonal + usize::from(a != b);
            diagonal = row[left + 1];
            row[left + 1] = change.min(row[left] + 1).min(diagonal + 1);
        }
    }
    row[two.len()]
}
