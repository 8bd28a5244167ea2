//! What is told of budgets.
//!
//! In: each app's numbers at the time of a scrape. Out: their series, by app; and by property only for those of which a
//! request ever waited, as long as keys name them.

use std::fmt;

use super::encode::{GAUGE, Page, counter, decimal};
use super::{Budget, Gauges};
use crate::property::PropertyId;

/// Writes them; nothing where budgets are off.
pub(super) fn encode(gauges: &Gauges, known: &dyn Fn(PropertyId) -> bool, page: &mut Page<'_, '_>) -> fmt::Result {
    let budgets = &gauges.budgets;
    if budgets.is_empty() {
        return Ok(());
    }
    let gauge = |page: &mut Page<'_, '_>, name, help, value: &dyn Fn(&Budget) -> u64| {
        let mut metric = page.descriptor(name, help, GAUGE)?;
        budgets
            .iter()
            .try_for_each(|budget| metric.encode_family(&[("app", budget.app.as_str())])?.encode_gauge(&value(budget)))
    };
    let help = "Starts in a second that the configuration grants the app.";
    gauge(page, "budget_granted", help, &|budget| budget.granted as u64)?;
    let help = "Starts in a second that the app may have now, after what Cloudbeds has refused.";
    gauge(page, "budget_allowed", help, &|budget| budget.allowed as u64)?;
    gauge(page, "budget_used", "Starts that count now.", &|budget| budget.used as u64)?;
    gauge(page, "budget_waiting", "Requests that wait for their turn.", &|budget| budget.waiting as u64)?;
    let help = "Seconds until Cloudbeds may be asked again; 0 unless it has told us to wait.";
    let mut metric = page.descriptor("budget_paused_seconds", help, GAUGE)?;
    for budget in budgets {
        metric.encode_family(&[("app", budget.app.as_str())])?.encode_gauge(&budget.paused.as_secs_f64())?;
    }
    let mut metric = page.counters("budget_pauses", "Times that Cloudbeds has told the app to wait.")?;
    for budget in budgets {
        counter(&mut metric.encode_family(&[("app", budget.app.as_str())])?, budget.pauses)?;
    }
    let mut metric = page.counters("budget_waits", "Requests that waited for their turn and got it.")?;
    for budget in budgets {
        counter(&mut metric.encode_family(&[("app", budget.app.as_str())])?, budget.waits)?;
    }
    let mut metric = page.counters("budget_waited_seconds", "Seconds that they waited, together.")?;
    for budget in budgets {
        decimal(&mut metric.encode_family(&[("app", budget.app.as_str())])?, budget.waited.as_secs_f64())?;
    }
    let mut metric = page.counters("budget_refused", "Requests that got no turn, by the reason.")?;
    for budget in budgets {
        for (why, count) in &budget.refused {
            counter(&mut metric.encode_family(&[("app", budget.app.as_str()), ("why", *why)])?, *count)?;
        }
    }
    sharing(budgets, page)?;
    by_property(budgets, known, page)
}

fn sharing(budgets: &[Budget], page: &mut Page<'_, '_>) -> fmt::Result {
    let shared: Vec<_> =
        budgets.iter().filter_map(|budget| Some(([("app", budget.app.as_str())], budget.sharing?))).collect();
    if shared.is_empty() {
        return Ok(());
    }
    let mut metric = page.descriptor("shared_up", "1 while the app's budget is shared through Redis.", GAUGE)?;
    for (labels, sharing) in &shared {
        metric.encode_family(labels)?.encode_gauge(&u64::from(sharing.up))?;
    }
    let help = "Starts in a second that this replica may have while Redis is lost.";
    let mut metric = page.descriptor("shared_share", help, GAUGE)?;
    for (labels, sharing) in &shared {
        metric.encode_family(labels)?.encode_gauge(&(sharing.share as u64))?;
    }
    let mut metric = page.descriptor("shared_replicas", "Replicas that share the budget, as last heard.", GAUGE)?;
    for (labels, sharing) in &shared {
        metric.encode_family(labels)?.encode_gauge(&(sharing.replicas as u64))?;
    }
    let mut metric = page.counters("shared_losses", "Times that Redis was lost.")?;
    for (labels, sharing) in &shared {
        counter(&mut metric.encode_family(labels)?, sharing.losses)?;
    }
    Ok(())
}

fn by_property(budgets: &[Budget], known: &dyn Fn(PropertyId) -> bool, page: &mut Page<'_, '_>) -> fmt::Result {
    let rows = budgets.iter().flat_map(|budget| budget.properties.iter().map(|row| (budget.app.as_str(), row)));
    let rows: Vec<_> = rows
        .filter(|(_, (property, ..))| known(*property))
        .map(|(app, (property, waiting, waited, refused))| {
            ([("app", app.to_owned()), ("property", property.to_string())], *waiting, *waited, *refused)
        })
        .collect();
    let help = "Requests that wait for their turn, of properties of which one ever did.";
    let mut metric = page.descriptor("budget_property_waiting", help, GAUGE)?;
    for (labels, waiting, ..) in &rows {
        metric.encode_family(labels)?.encode_gauge(&(*waiting as u64))?;
    }
    let help = "Seconds that a property's requests waited for their turn.";
    let mut metric = page.counters("budget_property_waited_seconds", help)?;
    for (labels, _, waited, _) in &rows {
        decimal(&mut metric.encode_family(labels)?, waited.as_secs_f64())?;
    }
    let mut metric = page.counters("budget_property_refused", "A property's requests that got no turn.")?;
    for (labels, .., refused) in &rows {
        counter(&mut metric.encode_family(labels)?, *refused)?;
    }
    Ok(())
}
