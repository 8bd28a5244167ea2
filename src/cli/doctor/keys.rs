//! `doctor` on the keys: each different one is shown to Cloudbeds once, which counts as use.
//!
//! In: a configuration. Out: a finding per property: its hotel, the key's fingerprint, verdict, age and idle days.

use super::Finding;
use crate::cli::Failure;
use crate::cli::keys::{Desk, ask};
use crate::cli::life::Lives;

const FAMILY: &str = "keys";

pub(super) async fn all(desk: &Desk, reachable: bool) -> Vec<Finding> {
    let Ok(set) = desk.keys() else { return Vec::new() };
    if !reachable {
        let advice = "mend the way to Cloudbeds first";
        return vec![Finding::warning(FAMILY, "all", "not tried, since Cloudbeds cannot be reached", advice)];
    }
    // Before the calls, which count as use.
    let lives = Lives::read(&desk.config);
    let checked = match ask(desk, None).await {
        Ok(checked) => checked,
        Err(Failure::Other(why)) => return vec![Finding::broken(FAMILY, "all", why, "mend that first")],
        Err(_) => return Vec::new(),
    };
    let mut findings = Vec::with_capacity(checked.len());
    for one in checked {
        let life = set.get(one.property).and_then(|key| lives.of(key, one.property));
        let life = life.map(|(verdict, age, idle)| format!(", was {verdict}, {age} days old, {idle} days idle"));
        let hotel = one.hotel.as_deref().unwrap_or("name unknown");
        let found = format!("{hotel}: key {}, {}{}", one.key, one.verdict, life.unwrap_or_default());
        let about = one.property.to_string();
        findings.push(match one.verdict {
            "active" => Finding::ok(FAMILY, about, found),
            "unknown" => Finding::warning(FAMILY, about, format!("{found} ({})", one.why), one.advice),
            _ => Finding::broken(FAMILY, about, format!("{found} ({})", one.why), one.advice),
        });
    }
    findings
}
