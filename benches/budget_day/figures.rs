//! A day as tables and curves.

use crate::books::Books;
use crate::kit::section::{Section, Series};
use crate::options::Setting;
use crate::traffic::Kind;

/// The summary of all settings, a row for each.
pub(crate) fn summary() -> Section {
    Section::new(
        "How well the budget is used and divided in the peak, 02:00 to 04:00",
        &["setting", "starts", "most in a second", "use in overload", "Jain's index over hotels", "last audit done at"],
    )
}

/// What a day comes to; the most calls in any one second with it.
pub(crate) fn sum_up(setting: Setting, books: &mut Books, summary: &mut Section) -> usize {
    let most = books.most_in_a_second();
    let share = books.use_in_overload().map_or_else(|| "–".to_owned(), |share| format!("{share:.3}"));
    let over = books.audits_over.as_secs() / 60;
    let over = if over == 0 { "–".to_owned() } else { format!("{}:{:02}", over / 60, over % 60) };
    summary.row([
        setting.title().to_owned(),
        books.starts().to_string(),
        most.to_string(),
        share,
        format!("{:.3}", books.fairness()),
        over,
    ]);
    most
}

/// Who waited how long; the day as curves.
pub(crate) fn waits(setting: Setting, books: &Books) -> Section {
    let titles = [
        "calls",
        "started",
        "told to come back",
        "given up",
        "wait p50, s",
        "p99, s",
        "longest, s",
        "peak p50, s",
        "peak p99, s",
        "peak longest, s",
    ];
    let mut section = Section::new(format!("Waits, {}", setting.title()), &titles);
    for kind in Kind::ALL {
        let tally = books.tally(kind);
        let seconds = |millis: u64| format!("{:.2}", millis as f64 / 1000.0);
        section.row([
            kind.name().to_owned(),
            tally.started.to_string(),
            tally.refused.to_string(),
            tally.given_up.to_string(),
            seconds(tally.waits.value_at_quantile(0.5)),
            seconds(tally.waits.value_at_quantile(0.99)),
            seconds(tally.waits.max()),
            seconds(tally.peak.value_at_quantile(0.5)),
            seconds(tally.peak.value_at_quantile(0.99)),
            seconds(tally.peak.max()),
        ]);
    }
    let curve =
        |name: &str, points: &[(f64, f64)]| Series { name: name.to_owned(), unit: "h", points: points.to_vec() };
    section.series = vec![
        curve("starts/s", &books.pace),
        curve("waiting", &books.waiting),
        curve("desk waits, s", &books.desk_waits),
    ];
    if books.reports.0 > 0 {
        section.series.push(curve("reports/s", &books.report_pace));
    }
    section
}

/// What sharing took, a row for each setting.
pub(crate) fn sharing() -> Section {
    let titles = ["setting", "reports", "a second", "in the busiest minute", "each takes the script, ms", "left alone"];
    Section::new("What replicas told each other", &titles)
}

/// What it took in one day.
pub(crate) fn shared(setting: Setting, books: &Books, sharing: &mut Section) {
    let (reports, spent) = books.reports;
    let busiest = books.report_pace.iter().map(|(_, pace)| *pace).fold(0.0, f64::max);
    sharing.row([
        setting.title().to_owned(),
        reports.to_string(),
        format!("{:.0}", reports as f64 / (60 * books.report_pace.len().max(1)) as f64),
        format!("{busiest:.0}"),
        format!("{:.3}", spent.as_secs_f64() * 1000.0 / reports.max(1) as f64),
        books.losses.to_string(),
    ]);
}
