//! `keys`: how keys get into the key file and out of it by hand.
//!
//! In: property ids, and keys from a hidden prompt, standard input or a file, never from an argument, where every
//! process of the host could read them. Out: the key file changed by its one writer, and words that show no key. A proxy
//! may be running or not: the writer holds a lock, and a running proxy sees the new file by itself.

mod add;
mod check;
mod desk;
mod import;
mod list;
mod remove;
mod rows;
mod server;

use std::path::Path;

use clap::Subcommand;

use super::Failure;
use crate::process;
use crate::property::{NotAPropertyId, PropertyId};

pub(super) use check::ask;
pub(super) use desk::{Desk, by_key};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add or replace the key of a property; it is read from a hidden prompt or from standard input
    Add(add::Options),
    /// Add many keys from a CSV, JSON or YAML file
    Import(import::Options),
    /// List the properties and what is known of their keys
    List(list::Options),
    /// Ask Cloudbeds whether keys work and whose they are
    Check(check::Options),
    /// Take properties out of the key file
    Remove(remove::Remove),
    /// Take an exposed key out of use for good, here and in a running proxy
    Revoke(remove::Revoke),
}

impl Command {
    pub(super) fn run(&self, config: Option<&Path>) -> Result<(), Failure> {
        // A key is in this process for a moment: no core dump of it, no debugger on it. What the system refuses of
        // that is no reason not to go on.
        let _ = process::harden();
        match self {
            Self::Add(options) => options.run(config),
            Self::Import(options) => options.run(config),
            Self::List(options) => options.run(config),
            Self::Check(options) => options.run(config),
            Self::Remove(options) => options.run(config),
            Self::Revoke(options) => options.run(config),
        }
    }
}

/// An argument that is a property id.
pub(super) fn property(text: &str) -> Result<PropertyId, NotAPropertyId> {
    text.parse()
}

/// `1001, 1002 and 1003`
pub(super) fn listed(properties: &[PropertyId]) -> String {
    let ids: Vec<_> = properties.iter().map(ToString::to_string).collect();
    match ids.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => ids.join(""),
    }
}
