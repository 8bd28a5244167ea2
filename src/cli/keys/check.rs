//! `keys check`: asks Cloudbeds about keys, one call for each different one.
//!
//! In: properties. Out: for each what Cloudbeds says, and exit code 1 when a key does not work. It counts as use.

use std::collections::HashSet;
use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::desk::{Desk, Pace, advice, by_key, whose};
use super::{listed, property};
use crate::cli::progress::Progress;
use crate::cli::table::{Cell, Table, Tone, has_colour};
use crate::cli::{Failure, block_on, json, say};
use crate::cloudbeds::{Hotel, Unanswered, opens};
use crate::property::PropertyId;

#[derive(Debug, Args)]
#[command(after_help = "Exit code 1 when a key does not work, or Cloudbeds does not say.")]
pub(in crate::cli) struct Options {
    /// The properties
    #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "PROPERTY", value_parser = property)]
    properties: Vec<PropertyId>,
    /// All properties of the key file
    #[arg(long)]
    all: bool,
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
}

/// What Cloudbeds says of one property's key.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct Checked {
    pub(in crate::cli) property: PropertyId,
    /// The hotel's name.
    pub(in crate::cli) hotel: Option<String>,
    /// The key's short fingerprint.
    pub(in crate::cli) key: String,
    /// `active`, `rejected`, `user_left`, `property_left`, `foreign` (it opens other properties) or `unknown`.
    pub(in crate::cli) verdict: &'static str,
    /// A sentence; empty for one that works.
    pub(in crate::cli) why: String,
    /// What to do; empty for one that works.
    pub(in crate::cli) advice: String,
}

impl Options {
    pub(super) fn run(&self, path: Option<&Path>) -> Result<(), Failure> {
        let desk = Desk::open(path)?;
        let checked = block_on(ask(&desk, (!self.all).then_some(&self.properties)))?;
        if self.json {
            json(&checked)?
        } else {
            say(&table(&checked, has_colour()))?
        }
        let bad = checked.iter().filter(|one| one.verdict != "active").count();
        if bad == 0 {
            Ok(())
        } else {
            Err(Failure::Other(format!("{bad} of {} do not work or gave no answer", checked.len())))
        }
    }
}

/// Asks about the keys of these properties, or of all.
pub(in crate::cli) async fn ask(desk: &Desk, properties: Option<&Vec<PropertyId>>) -> Result<Vec<Checked>, Failure> {
    let (set, calls, mut pace) = (desk.keys()?, desk.calls()?, Pace::of(&desk.config));
    let wanted: Option<HashSet<PropertyId>> = properties.map(|properties| properties.iter().copied().collect());
    let missing: Vec<_> = properties.into_iter().flatten().copied().filter(|id| !set.contains(*id)).collect();
    if !missing.is_empty() {
        let file = desk.file().display();
        return Err(Failure::Other(format!("{file}: no key for property {}; see `keys list`", listed(&missing))));
    }
    let (mut checked, mut hotels) = (Vec::new(), Vec::new());
    let keys = by_key(&set, |id| wanted.as_ref().is_none_or(|wanted| wanted.contains(&id)));
    let mut progress = Progress::new(keys.len());
    for (key, properties) in keys {
        let answer = whose(&calls, &mut pace, key.secret(), desk.origin(key.base_url.as_deref())).await;
        let name = key.secret().digest().short();
        checked.extend(properties.into_iter().map(|property| judged(property, name.clone(), &answer)));
        progress.step(checked.iter().filter(|one| one.verdict != "active").count());
        hotels.extend(answer.unwrap_or_default());
    }
    progress.done();
    desk.learn(&hotels);
    checked.sort_unstable_by_key(|one| one.property);
    Ok(checked)
}

fn judged(property: PropertyId, key: String, answer: &Result<Vec<Hotel>, Unanswered>) -> Checked {
    let none = Checked { property, hotel: None, key, verdict: "active", why: String::new(), advice: String::new() };
    match answer {
        Ok(hotels) => match opens(hotels, &[property]) {
            Ok(()) => {
                let name = hotels.iter().find(|hotel| hotel.property == property).map(|hotel| hotel.name.clone());
                Checked { hotel: name.filter(|name| !name.is_empty()), ..none }
            }
            Err(why) => {
                let advice = "give the property its own key with `keys add`, and this one to the property it opens";
                Checked { verdict: "foreign", why, advice: advice.to_owned(), ..none }
            }
        },
        Err(error) => {
            let verdict = match error {
                Unanswered::Rejected => "rejected",
                Unanswered::UserLeft => "user_left",
                Unanswered::PropertyLeft => "property_left",
                _ => "unknown",
            };
            let advice = match error {
                Unanswered::Rejected => "the hotel must connect again, or a new key be fetched: see `connect-link`",
                Unanswered::Refused(_) => "see what Cloudbeds says; the key may lack the scope read:hotel",
                Unanswered::Unreachable(_) | Unanswered::Broken(_) | Unanswered::NoTurn(_) => {
                    "try again; `doctor` looks at the way there"
                }
                other => advice(other),
            };
            Checked { verdict, why: error.to_string(), advice: advice.to_owned(), ..none }
        }
    }
}

fn table(checked: &[Checked], colour: bool) -> String {
    let mut table = Table::new(&["property", "hotel", "key", "verdict", "why"]);
    for one in checked {
        let tone = match one.verdict {
            "active" => Tone::Good,
            "unknown" => Tone::Doubtful,
            _ => Tone::Bad,
        };
        let why = if one.why.is_empty() { String::new() } else { format!("{}; {}", one.why, one.advice) };
        table.row(vec![
            Cell::right(one.property.to_string()),
            Cell::maybe(one.hotel.as_deref()),
            Cell::left(one.key.clone()),
            Cell::left(one.verdict).toned(tone),
            Cell::left(why),
        ]);
    }
    table.text(colour)
}
