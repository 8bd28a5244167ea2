//! `keys import`: many keys from a table or a file of another program.
//!
//! In: CSV, JSON or YAML. Out: all of its keys in the key file in one step, or none; with `--partial`, those that are
//! good. A row that is not gets a line that names its place and property and shows nothing of it. Each different key is
//! looked up at Cloudbeds once.

mod read;

use std::collections::HashMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;

use self::read::{Format, Found, Row};
use super::desk::{Desk, Pace, advice, whose};
use super::server::{Followed, Server};
use crate::cli::progress::Progress;
use crate::cli::{Failure, block_on, say, tcp_address};
use crate::cloudbeds::{Hotel, opens};
use crate::keys::write::{self, Change};
use crate::property::PropertyId;
use crate::secret::KeyDigest;

#[derive(Debug, Args)]
#[command(
    after_help = "CSV: the columns property and key, and where wanted app, organization and base_url; the first line \
    may name them. JSON and YAML: the forms of a key file, or a list of objects with those names.\n\n\
    Delete the file afterwards: it holds keys."
)]
pub(in crate::cli) struct Options {
    /// The file, or - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What it is; by default as its name ends
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Take the good rows although others are bad
    #[arg(long)]
    partial: bool,
    /// Do not ask Cloudbeds whose keys they are
    #[arg(long)]
    no_check: bool,
    /// Look at everything and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Where a running proxy's admin listener is; by default where the configuration says
    #[arg(long, value_name = "ADDRESS", value_parser = tcp_address)]
    admin: Option<SocketAddr>,
}

impl Options {
    pub(super) fn run(&self, path: Option<&Path>) -> Result<(), Failure> {
        let desk = Desk::open(path)?;
        desk.keys_or_none()?;
        let format = self.format.or_else(|| Format::of(&self.file)).ok_or_else(|| {
            Failure::Other(
                "cannot tell what the file is by its name; say it with --format csv, json or yaml".to_owned(),
            )
        })?;
        let bytes = read::bytes(&self.file).map_err(Failure::Other)?;
        let found = read::rows(format, &bytes).map_err(Failure::Other)?;
        if found.is_empty() {
            return Err(Failure::Other("there are no rows in it".to_owned()));
        }
        let total = found.len();
        let (mut good, mut bad) = sorted(&desk, found);
        block_on(async {
            let mut hotels = Vec::new();
            if !self.no_check {
                (good, hotels) = checked(&desk, good, &mut bad).await?;
            }
            for (at, why) in &bad {
                // With standard error closed there is nobody left to tell.
                let _ = writeln!(std::io::stderr(), "{at}: {why}");
            }
            if !bad.is_empty() && !self.partial {
                let words = "mend them, or take the others with --partial";
                return Err(Failure::Other(format!(
                    "nothing was written: {} of {total} rows are bad; {words}",
                    bad.len()
                )));
            }
            if !self.dry_run {
                self.write(&desk, &good, &hotels).await?;
            } else {
                say(&format!("{} of {total} rows are good; nothing was written.\n", good.len()))?;
            }
            if bad.is_empty() {
                Ok(())
            } else {
                Err(Failure::Other(format!("{} of {total} rows were left out", bad.len())))
            }
        })
    }

    async fn write(&self, desk: &Desk, good: &[Row], hotels: &[Hotel]) -> Result<(), Failure> {
        let server = Server::look(&desk.config, self.admin).await;
        let changes: Vec<_> = good.iter().map(|row| Change::put(&row.properties, &row.key, &row.fields)).collect();
        let written = write::apply(desk.file(), &changes).map_err(|error| Failure::Other(error.to_string()))?;
        desk.learn(hotels);
        let all = good.iter().map(|row| row.properties.len()).sum::<usize>();
        let same = all - written.added - written.replaced;
        say(&format!("Added: {}, replaced: {}, as before: {same}.\n", written.added, written.replaced))?;
        if written.added + written.replaced == 0 {
            return Ok(());
        }
        match server.follow().await {
            Followed::Yes(sentence) => say(&format!("{sentence}\n")),
            Followed::No(sentence) => Err(Failure::Other(sentence)),
        }
    }
}

/// A bad row's place, and what is wrong with it.
type Bad = (String, String);

/// What can be told without asking anybody: unknown apps, and properties that stand there twice.
fn sorted(desk: &Desk, found: Vec<Found>) -> (Vec<Row>, Vec<Bad>) {
    let (mut good, mut bad): (Vec<Row>, Vec<Bad>) = (Vec::new(), Vec::new());
    let mut first: HashMap<PropertyId, String> = HashMap::new();
    for Found { at, row } in found {
        let row = match row {
            Ok(row) => row,
            Err(why) => {
                bad.push((at, why));
                continue;
            }
        };
        let twice = row.properties.iter().find_map(|property| Some((*property, first.get(property)?.clone())));
        let unknown = row.fields.app.as_deref().is_some_and(|app| desk.app(Some(app)).is_err());
        if let Some((property, place)) = twice {
            bad.push((at, format!("property {property} stands here a second time, after {place}")));
        } else if unknown {
            bad.push((at, format!("property {}: no such app in the configuration", row.named())));
        } else {
            first.extend(row.properties.iter().map(|property| (*property, at.clone())));
            good.push(row);
        }
    }
    (good, bad)
}

/// Asks Cloudbeds about every different key.
async fn checked(desk: &Desk, rows: Vec<Row>, bad: &mut Vec<Bad>) -> Result<(Vec<Row>, Vec<Hotel>), Failure> {
    let (calls, mut pace) = (desk.calls()?, Pace::of(&desk.config));
    let mut progress = Progress::new(rows.len());
    let mut known: HashMap<KeyDigest, Result<Vec<Hotel>, String>> = HashMap::new();
    let mut good = Vec::with_capacity(rows.len());
    for row in rows {
        let digest = row.key.digest();
        if let std::collections::hash_map::Entry::Vacant(free) = known.entry(digest) {
            let origin = desk.origin(row.fields.base_url.as_ref());
            let answer = whose(&calls, &mut pace, &row.key, origin).await;
            free.insert(answer.map_err(|why| format!("{why}; {}", advice(&why))));
        }
        let verdict = match known.get(&digest) {
            Some(Ok(hotels)) => opens(hotels, &row.properties),
            Some(Err(why)) => Err(why.clone()),
            None => Ok(()),
        };
        match verdict {
            Ok(()) => good.push(row),
            Err(why) => bad.push((row.at.clone(), format!("property {}: {why}", row.named()))),
        }
        progress.step(bad.len());
    }
    progress.done();
    let hotels = known.into_values().filter_map(Result::ok).flatten().collect();
    Ok((good, hotels))
}
