//! `check-config`: everything that `serve` would refuse to start for, and what it would warn of, without starting.

use std::path::Path;

use super::{Failure, load, say};
use crate::app::Loaded;

pub(super) fn run(path: Option<&Path>) -> Result<(), Failure> {
    let config = load(path)?;
    let loaded = Loaded::load(&config)?;
    let set = loaded.keys.current();
    let name = path.map_or_else(|| "defaults and environment".to_owned(), |path| path.display().to_string());
    for fault in loaded.warnings(&config) {
        say(&format!("warning: {fault}\n"))?;
    }
    say(&format!(
        "{name}: ok; {} for {}, requests go to {}\n",
        count(set.keys(), "key", "keys"),
        count(set.properties(), "property", "properties"),
        config.upstream.base_url
    ))
}

fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
