//! Overrides from the environment: `CLOUDBEDS_AUTH_PROXY__UPSTREAM__TIMEOUTS__CONNECT=3s` for
//! `upstream.timeouts.connect`.
//!
//! In: the environment's pairs. Out: the same configuration with those options replaced, before it is typed, so they
//! are held to the same rules. A variable with the prefix that names no option is a fault, never ignored.

use std::ffi::OsString;

use super::sources::{Sources, closest};
use crate::fault::{Fault, shown};
use crate::yaml::{Mapping, Value};

/// What every override starts with. `CLOUDBEDS_AUTH_PROXY_CONFIG`, with one underscore, is no override.
pub const PREFIX: &str = "CLOUDBEDS_AUTH_PROXY__";

/// Puts every override into `root`, and notes its variable with the sources.
pub(super) fn overlay(
    root: &mut Value,
    known: &[String],
    env: impl IntoIterator<Item = (OsString, OsString)>,
    sources: &mut Sources<'_>,
) {
    for (variable, value) in env {
        let Some(variable) = variable.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        let option = variable[PREFIX.len()..].to_ascii_lowercase().replace("__", ".");
        if !known.contains(&option) {
            // What is not shown need not be guessed at.
            let hint = if sources.enough() { String::new() } else { unknown(&option, known) };
            sources.push(Fault::new(shown(variable), "names no option", hint));
            continue;
        }
        let Some(value) = value.to_str() else {
            sources.push(Fault::new(variable, "is not UTF-8 text", "").about(option));
            continue;
        };
        sources.variables.insert(option.clone(), variable.to_owned());
        set(root, &option, scalar(value));
    }
}

/// Environment variables have no types; what looks like a number or a truth value is one, and an empty one is null.
fn scalar(text: &str) -> Value {
    match text {
        "" | "null" => Value::Null,
        "true" => true.into(),
        "false" => false.into(),
        number if number.bytes().all(|byte| byte.is_ascii_digit()) => {
            number.parse::<u64>().map_or_else(|_| number.into(), Value::from)
        }
        text => text.into(),
    }
}

fn set(root: &mut Value, option: &str, value: Value) {
    let mut node = root;
    for name in option.split('.') {
        // A section without options, or `limits: null`: the environment wins.
        if node.is_null() {
            *node = Mapping::new().into();
        }
        // A section that is no mapping has a fault of its own coming.
        let Value::Mapping(entries) = node else { return };
        node = entries.entry(name.into()).or_insert_with(|| Mapping::new().into());
    }
    *node = value;
}

fn unknown(option: &str, known: &[String]) -> String {
    match closest(option, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {PREFIX}{}?", near.replace('.', "__").to_ascii_uppercase()),
        None => "options and their sections are joined by two underscores; see config.example.yaml".to_owned(),
    }
}
