//! `/api/keys`: what is known of each property's key, as JSON.
//!
//! In: the rows of a report. Out: one object with all of them, in the order of the ids. Times are seconds since 1970;
//! what is not known is null. A fingerprint is all that stands for a key.

use serde::Serialize;

use crate::keys::report::Row;
use crate::property::PropertyId;

#[derive(Serialize)]
struct Shown<'a> {
    property: PropertyId,
    verdict: &'static str,
    advice: &'static str,
    organization: Option<&'a str>,
    app: Option<&'a str>,
    age_days: u64,
    idle_days: u64,
    last_used: Option<u64>,
    asked_again: Option<u64>,
    fingerprint: &'a str,
}

pub(super) fn list(rows: &[Row]) -> String {
    let shown: Vec<_> = rows
        .iter()
        .map(|row| Shown {
            property: row.property,
            verdict: row.verdict.as_str(),
            advice: row.verdict.advice(),
            organization: row.organization.as_deref(),
            app: row.app.as_deref(),
            age_days: row.age_days,
            idle_days: row.idle_days,
            last_used: row.last_used.map(|time| time.0),
            asked_again: row.asked_again.map(|time| time.0),
            fingerprint: &row.fingerprint,
        })
        .collect();
    // Text and numbers only: it cannot fail.
    serde_json::json!({ "keys": shown }).to_string()
}
