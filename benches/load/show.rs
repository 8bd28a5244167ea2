//! What the person at the terminal sees, and the same as JSON.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use crate::kit;
use crate::kit::pace::{Outcome, Progress};

/// Characters of the longest bar.
const BAR: u64 = 50;

const QUANTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// One line, in place where there is a terminal, else one every ten seconds.
pub(crate) fn progress(progress: &Progress, seconds: u64, of: Duration) {
    let answered = progress.answered.load(Ordering::Relaxed);
    let failed = progress.failed.load(Ordering::Relaxed);
    let rate = (answered + failed) / seconds.max(1);
    let line = format!("{seconds} s of {} s: {answered} answered, {failed} failed, {rate}/s", of.as_secs());
    if std::io::stderr().is_terminal() {
        kit::show(&line);
    } else if seconds.is_multiple_of(10) {
        eprintln!("{line}");
    }
}

pub(crate) fn text(outcome: &Outcome, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    // Writing to a String cannot fail.
    let mut text = String::new();
    let _ = writeln!(
        text,
        "\n{} calls in {seconds:.1} s: {:.1}/s, {:.2} MiB/s of answers\n",
        outcome.all(),
        outcome.all() as f64 / seconds,
        outcome.bytes as f64 / seconds / f64::from(1 << 20)
    );
    for (name, share) in QUANTILES {
        if let Some(millis) = outcome.quantile(share) {
            let _ = writeln!(text, "  {name:<6} {millis:>10.3} ms");
        }
    }
    text.push('\n');
    let steps: Vec<(u64, u64)> = outcome
        .times
        .iter_log(128, 2.0)
        .map(|step| (step.value_iterated_to(), step.count_since_last_iteration()))
        .filter(|(_, count)| *count > 0)
        .collect();
    let most = steps.iter().map(|(_, count)| *count).max().unwrap_or(1);
    for (micros, count) in steps {
        let bar = "█".repeat(usize::try_from((count * BAR).div_ceil(most)).unwrap_or(0));
        let _ = writeln!(text, "  ≤ {:>9.2} ms {count:>9}  {bar}", (micros + 1) as f64 / 1000.0);
    }
    text.push('\n');
    for (end, count) in &outcome.ends {
        let _ = writeln!(text, "  {end:<32} {count:>9}");
    }
    text
}

pub(crate) fn json(outcome: &Outcome, elapsed: Duration) -> Value {
    let quantiles = QUANTILES.iter().map(|(name, share)| ((*name).to_owned(), json!(outcome.quantile(*share))));
    let steps = outcome.times.iter_recorded().map(|step| json!([step.value_iterated_to(), step.count_at_value()]));
    json!({
        "seconds": elapsed.as_secs_f64(),
        "calls": outcome.all(),
        "calls_per_second": outcome.all() as f64 / elapsed.as_secs_f64(),
        "answer_bytes": outcome.bytes,
        "milliseconds": quantiles.collect::<serde_json::Map<_, _>>(),
        "ends": outcome.ends,
        "histogram_micros": steps.collect::<Vec<_>>(),
    })
}
