//! `keys list`: every property and what is known of its key, without asking anybody.

use std::path::Path;

use clap::Args;

use super::desk::Desk;
use super::rows;
use crate::cli::table::has_colour;
use crate::cli::{Failure, json, say};

#[derive(Debug, Args)]
#[command(
    after_help = "The column `key` is a fingerprint: the first 32 bits of the key's SHA-256. It tells one key from \
    another and cannot be turned back. Names of hotels are those that `keys add`, `import`, `check` and `doctor` were told."
)]
pub(in crate::cli) struct Options {
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
}

impl Options {
    pub(super) fn run(&self, path: Option<&Path>) -> Result<(), Failure> {
        let desk = Desk::open(path)?;
        let rows = rows::all(&desk.config, &*desk.keys()?);
        if self.json { json(&rows) } else { say(&rows::table(&rows, has_colour())) }
    }
}
