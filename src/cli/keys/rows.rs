//! What is known of each property, as the commands show it.
//!
//! In: the keys that are there, names and lives. Out: rows for a table or JSON, in which a key is a short fingerprint:
//! the first 32 bits of its SHA-256, which cannot be turned back and tells one key from another.

use serde::Serialize;

use crate::cli::life::Lives;
use crate::cli::table::{Cell, Table};
use crate::cloudbeds::Hotel;
use crate::config::Config;
use crate::keys::names::Names;
use crate::keys::{Key, KeySet};
use crate::property::PropertyId;

/// One property.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) property: PropertyId,
    /// The hotel's name, as Cloudbeds told it last.
    pub(super) hotel: Option<String>,
    pub(super) organization: Option<String>,
    /// The app's name; the first one of the configuration where the row names none.
    pub(super) app: Option<String>,
    /// The key's short fingerprint.
    pub(super) key: String,
    pub(super) verdict: Option<String>,
    pub(super) age_days: Option<u64>,
    pub(super) idle_days: Option<u64>,
}

/// Every property in order.
pub(super) fn all(config: &Config, set: &KeySet) -> Vec<Row> {
    let (names, lives) = (Names::read(&config.keys.file), Lives::read(config));
    let mut rows: Vec<_> = set.iter().map(|(property, key)| row(config, property, key, &names, &lives)).collect();
    rows.sort_unstable_by_key(|row| row.property);
    rows
}

fn row(config: &Config, property: PropertyId, key: &Key, names: &Names, lives: &Lives) -> Row {
    let life = lives.of(key, property);
    Row {
        property,
        hotel: names.get(property).map(str::to_owned),
        organization: key.organization.as_deref().map(str::to_owned),
        app: key.app.as_deref().or(config.apps.first().map(|app| app.name.as_str())).map(str::to_owned),
        key: key.secret().digest().short(),
        age_days: life.as_ref().map(|(_, age, _)| *age),
        idle_days: life.as_ref().map(|(_, _, idle)| *idle),
        verdict: life.map(|(verdict, ..)| verdict),
    }
}

/// The rows as lines.
pub(super) fn table(rows: &[Row], colour: bool) -> String {
    let mut table = Table::new(&["property", "hotel", "organization", "app", "key", "verdict", "age", "idle"]);
    let days = |days: Option<u64>| Cell::maybe(days.map(|days| format!("{days} d")).as_deref());
    for row in rows {
        table.row(vec![
            Cell::right(row.property.to_string()),
            Cell::maybe(row.hotel.as_deref()),
            Cell::maybe(row.organization.as_deref()),
            Cell::maybe(row.app.as_deref()),
            Cell::left(row.key.clone()),
            Cell::maybe(row.verdict.as_deref()),
            days(row.age_days).aligned_right(),
            days(row.idle_days).aligned_right(),
        ]);
    }
    table.text(colour)
}

/// A line for each of the properties whose hotel is known.
pub(super) fn told(hotels: Option<&[Hotel]>, properties: &[PropertyId]) -> String {
    let theirs = hotels.into_iter().flatten().filter(|hotel| properties.contains(&hotel.property));
    theirs.map(|hotel| format!("{}: {}\n", hotel.property, hotel.name)).collect()
}
