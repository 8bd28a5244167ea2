//! Whether cost grows with the number of keys, and what a second worker brings.
//!
//! In: ours alone, in instances of its own. Out: ratios, in turns as everything else.

use std::time::Duration;

use crate::kit::section::Section;
use crate::kit::{Sentence, median, show, spread};
use crate::options::{Peer, Work, name};
use crate::peers::{How, Place};
use crate::wrk::{Load, Run};

/// The most keys anybody has been seen with, and then some.
const MANY: u64 = 100_000;

/// CPU per request with 100,000 keys, as a ratio to one key: with the same traffic, which shows what the number of keys
/// costs, and with all of them in rotation, which shows what so many hotels cost at once.
pub(crate) fn keys(place: &Place<'_>) -> Result<Section, Sentence> {
    let many = How { keys: MANY, ..How::default() };
    let of_one = (How { keys: 1, ..How::default() }, 1);
    let rounds = in_turns(place, [of_one, (many, 1), (many, MANY)])?;
    let mut section = Section::new(
        "CPU per request with 100,000 keys, beside one key",
        &["traffic for", "ratio", "spread", "1 key µs", "100,000 keys µs"],
    );
    let micros = |index: usize| median(&rounds.iter().map(|runs| runs[index].cpu_micros).collect::<Vec<_>>());
    for (index, traffic) in [(1, "one hotel"), (2, "all of them")] {
        let ratios: Vec<f64> = rounds.iter().map(|runs| runs[index].cpu_micros / runs[0].cpu_micros).collect();
        section.row([
            traffic.to_owned(),
            shown(median(&ratios), 2),
            spread(&ratios).map_or_else(|| "–".to_owned(), |(least, most)| format!("{least:.2}–{most:.2}")),
            shown(micros(0), 1),
            shown(micros(index), 1),
        ]);
    }
    Ok(section)
}

/// Requests a second with two workers on two cores, as a ratio to one worker on one.
pub(crate) fn workers(place: &Place<'_>, notes: &mut Vec<String>) -> Result<Section, Sentence> {
    let two = place.machine.two.as_deref();
    if two.is_none() {
        notes.push(
            "Two workers and a load that outruns them need four cores. Here they share what there is, so their \
             requests/s are the machine's limit; what can be read is whether a request costs more CPU with two."
                .to_owned(),
        );
    }
    // Without room of their own, both instances get the same cores: all. Where nothing can be pinned they have them.
    let own = two.or(place.machine.proxy.is_some().then_some(place.machine.all.as_str()));
    let one_core = if two.is_some() { None } else { own };
    let hows = [How { cores: one_core, ..How::default() }, How { workers: 2, cores: own, ..How::default() }];
    let pairs = in_turns(place, hows.map(|how| (how, how.keys)))?;
    let ratio = |value: &dyn Fn(&Run) -> f64| {
        median(&pairs.iter().map(|[one, two]| value(two) / value(one)).collect::<Vec<_>>())
    };
    let mut section =
        Section::new("Two workers beside one", &["requests/s ratio", "CPU per request ratio", "load has room"]);
    section.row([
        shown(ratio(&|run| run.per_second), 2),
        shown(ratio(&|run| run.cpu_micros), 2),
        if two.is_some() { "yes" } else { "no" }.to_owned(),
    ]);
    Ok(section)
}

/// Instances of ours at 1 KiB over HTTP/2, one after the other, in each round; each with traffic for so many properties.
fn in_turns<const N: usize>(place: &Place<'_>, hows: [(How<'_>, u64); N]) -> Result<Vec<[Run; N]>, Sentence> {
    let load = Load::of(Work::Json1k).ok_or("no such work")?;
    let mut instances = Vec::new();
    for (how, properties) in hows {
        instances.push((place.start(Peer::OursH2, how)?, load.script(place.directory, properties)?));
    }
    let mut rounds = Vec::new();
    for round in 0..=place.options.rounds {
        let mut runs = Vec::new();
        for (proxy, script) in &instances {
            show(&format!("{}: round {round}", name(proxy.peer)));
            let duration = if round == 0 { Duration::from_secs(1) } else { place.options.duration() };
            runs.push(load.run(place, proxy, script, duration, u64::from(round) * 997)?);
        }
        // The first is to fill pools and touch pages.
        if let (Ok(runs), true) = (runs.try_into(), round > 0) {
            rounds.push(runs);
        }
    }
    show("");
    Ok(rounds)
}

/// A value with so many places, or a dash.
pub(crate) fn shown(value: Option<f64>, places: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.places$}"))
}
