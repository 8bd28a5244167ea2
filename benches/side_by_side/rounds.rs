//! The CPU figures: every peer does every work in turns, and each round is compared with nginx in the same round.
//!
//! In: running peers. Out: [`Row`]s, one for each peer and work. What else the machine does drifts over minutes; peers
//! that work within the same few seconds drift alike, so their ratio holds where their figures do not. The order turns
//! with each round, so nobody always follows the same neighbour.

use std::time::Duration;

use serde_json::{Value, json};

use crate::kit::{Sentence, median, show, spread};
use crate::options::{Peer, Work, name};
use crate::peers::{KEYS, Place, Proxy};
use crate::wrk::{Load, Run};

/// One peer at one work.
pub(crate) struct Row {
    pub(crate) work: Work,
    pub(crate) peer: Peer,
    /// By round; a run that failed is missing.
    pub(crate) runs: Vec<(u32, Run)>,
    /// CPU time as a ratio to the measure's, by round.
    pub(crate) ratios: Vec<f64>,
}

/// All works of all peers. A run that fails is told and left out.
pub(crate) fn measure(place: &Place<'_>, peers: &[Proxy], notes: &mut Vec<String>) -> Result<Vec<Row>, Sentence> {
    let mut rows = Vec::new();
    for &work in &place.options.works {
        let Some(load) = Load::of(work) else { continue };
        if place.machine.wrk.is_none() {
            continue;
        }
        let script = load.script(place.directory, KEYS)?;
        let mut table: Vec<Row> =
            peers.iter().map(|proxy| Row { work, peer: proxy.peer, runs: Vec::new(), ratios: Vec::new() }).collect();
        // Pools are filled and pages touched before it counts.
        if !place.options.quick {
            for proxy in peers {
                let _ = load.run(place, proxy, &script, Duration::from_secs(1), 0);
            }
        }
        for round in 0..place.options.rounds {
            for turn in 0..peers.len() {
                let index = (turn + round as usize) % peers.len();
                show(&format!(
                    "{}: round {} of {}, {}",
                    name(work),
                    round + 1,
                    place.options.rounds,
                    name(peers[index].peer)
                ));
                match load.run(place, &peers[index], &script, place.options.duration(), u64::from(round) * 997) {
                    Ok(run) if run.requests > 0 => {
                        if run.errors > 0 {
                            notes.push(format!("{} at {}: {} errors", name(peers[index].peer), name(work), run.errors));
                        }
                        table[index].runs.push((round, run));
                    }
                    Ok(_) => notes.push(format!("{} at {}: no answer", name(peers[index].peer), name(work))),
                    Err(why) => notes.push(format!("{} at {}: {why}", name(peers[index].peer), name(work))),
                }
            }
        }
        show("");
        compare(&mut table);
        rows.append(&mut table);
    }
    Ok(rows)
}

/// Fills the ratios in: to nginx, or to the first peer where nginx is not there.
fn compare(table: &mut [Row]) {
    let measure = table.iter().find(|row| row.peer == Peer::Nginx).or(table.first());
    let Some(measure) = measure.map(|row| row.runs.clone()) else { return };
    for row in table {
        row.ratios = row
            .runs
            .iter()
            .filter_map(|(round, run)| {
                let (_, other) = measure.iter().find(|(other, _)| other == round)?;
                Some(run.cpu_micros / other.cpu_micros)
            })
            .collect();
    }
}

impl Row {
    fn values(&self, value: impl Fn(&Run) -> f64) -> Vec<f64> {
        self.runs.iter().map(|(_, run)| value(run)).collect()
    }

    pub(crate) fn ratio(&self) -> Option<f64> {
        median(&self.ratios)
    }

    /// The row as the table shows it.
    pub(crate) fn cells(&self) -> Vec<String> {
        let number =
            |value: Option<f64>, places: usize| value.map_or("–".to_owned(), |value| format!("{value:.places$}"));
        let spread = spread(&self.ratios).map_or("–".to_owned(), |(least, most)| format!("{least:.2}–{most:.2}"));
        vec![
            name(self.work),
            name(self.peer),
            number(self.ratio(), 2),
            spread,
            number(median(&self.values(|run| run.cpu_micros)), 1),
            number(median(&self.values(|run| run.per_second)), 0),
            number(median(&self.values(|run| run.busy * 100.0)), 0),
        ]
    }

    pub(crate) fn json(&self) -> Value {
        let rounds = self.runs.iter().map(|(round, run)| {
            json!({
                "round": round + 1, "requests": run.requests, "requests_per_second": run.per_second,
                "cpu_micros_per_request": run.cpu_micros, "core_busy": run.busy, "errors": run.errors,
            })
        });
        json!({
            "work": name(self.work), "peer": name(self.peer), "ratio_median": self.ratio(), "ratios": self.ratios,
            "rounds": rounds.collect::<Vec<_>>(),
        })
    }
}

/// The titles of [`Row::cells`].
pub(crate) const TITLES: [&str; 7] =
    ["work", "peer", "CPU ratio", "spread", "CPU µs/request", "requests/s", "core busy %"];
