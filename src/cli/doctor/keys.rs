//! `doctor` on the keys: each different one is shown to Cloudbeds once, which counts as use.
//!
//! In: a configuration. Out: a finding per property: its hotel, the key's fingerprint, verdict, age and idle days. Offline
//! it is what the proxy has written down that is told.

use super::Finding;
use crate::cli::Failure;
use crate::cli::keys::{Desk, ask};
use crate::cli::life::{Life, Lives};
use crate::keys::Verdict;
use crate::keys::names::Names;

const FAMILY: &str = "keys";

/// What Cloudbeds says of each key.
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
        let hotel = one.hotel.as_deref().unwrap_or("name unknown");
        let found = format!("{hotel}: key {}, {}{}", one.key, one.verdict, days(life.as_ref()));
        let about = one.property.to_string();
        findings.push(match (one.verdict, life.and_then(|(verdict, ..)| verdict.parse().ok())) {
            ("active", Some(idle @ (Verdict::Idle | Verdict::Expiring))) => {
                Finding::warning(FAMILY, about, format!("{found} before this call"), idle.advice())
            }
            ("active", _) => Finding::ok(FAMILY, about, found),
            ("unknown", _) => Finding::warning(FAMILY, about, format!("{found} ({})", one.why), one.advice),
            _ => Finding::broken(FAMILY, about, format!("{found} ({})", one.why), one.advice),
        });
    }
    findings
}

/// What is known without asking.
pub(super) fn known(desk: &Desk) -> Vec<Finding> {
    let Ok(set) = desk.keys() else { return Vec::new() };
    let (lives, names) = (Lives::read(&desk.config), Names::read(desk.file()));
    let mut rows: Vec<_> = set.iter().collect();
    rows.sort_unstable_by_key(|(property, _)| *property);
    let finding = |(property, key): (crate::property::PropertyId, &std::sync::Arc<crate::keys::Key>)| {
        let (life, name) = (lives.of(key, property), key.secret().digest().short());
        let verdict = life.as_ref().and_then(|(verdict, ..)| verdict.parse::<Verdict>().ok());
        let word = verdict.map_or("not tried", Verdict::as_str);
        let hotel = names.get(property).unwrap_or("name unknown");
        let found = format!("{hotel}: key {name}, {word}{}", days(life.as_ref()));
        let about = property.to_string();
        match verdict {
            Some(dead) if dead.is_dead() => Finding::broken(FAMILY, about, found, dead.advice()),
            Some(idle @ (Verdict::Idle | Verdict::Expiring)) => Finding::warning(FAMILY, about, found, idle.advice()),
            _ => Finding::ok(FAMILY, about, found),
        }
    };
    rows.into_iter().map(finding).collect()
}

fn days(life: Option<&Life>) -> String {
    life.map(|(_, age, idle)| format!(", {age} days old, {idle} days idle")).unwrap_or_default()
}
