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

/// CPU per request with 100,000 keys in rotation, as a ratio to one key.
pub(crate) fn keys(place: &Place<'_>) -> Result<Section, Sentence> {
    let hows = [How { keys: 1, ..How::default() }, How { keys: MANY, ..How::default() }];
    let pairs = in_turns(place, hows, |how| how.keys)?;
    let ratios: Vec<f64> = pairs.iter().map(|[one, many]| many.cpu_micros / one.cpu_micros).collect();
    let mut section = Section::new(
        "CPU per request with 100,000 keys, beside one key",
        &["ratio", "spread", "1 key µs", "100,000 keys µs"],
    );
    let micros = |index: usize| median(&pairs.iter().map(|pair| pair[index].cpu_micros).collect::<Vec<_>>());
    section.row([
        shown(median(&ratios), 2),
        spread(&ratios).map_or_else(|| "–".to_owned(), |(least, most)| format!("{least:.2}–{most:.2}")),
        shown(micros(0), 1),
        shown(micros(1), 1),
    ]);
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
    let pairs = in_turns(place, hows, |how| how.keys)?;
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

/// Two instances of ours at 1 KiB over HTTP/2, one after the other, in each round.
fn in_turns(place: &Place<'_>, hows: [How<'_>; 2], keys: impl Fn(&How<'_>) -> u64) -> Result<Vec<[Run; 2]>, Sentence> {
    let load = Load::of(Work::Json1k).ok_or("no such work")?;
    let mut instances = Vec::new();
    for how in hows {
        instances.push((place.start(Peer::OursH2, how)?, load.script(place.directory, keys(&how))?));
    }
    let mut pairs = Vec::new();
    for round in 0..=place.options.rounds {
        let mut runs = Vec::new();
        for (proxy, script) in &instances {
            show(&format!("{}: round {round}", name(proxy.peer)));
            let duration = if round == 0 { Duration::from_secs(1) } else { place.options.duration() };
            runs.push(load.run(place, proxy, script, duration, u64::from(round) * 997)?);
        }
        // The first is to fill pools and touch pages.
        if let ([one, two], true) = (&runs[..], round > 0) {
            pairs.push([*one, *two]);
        }
    }
    show("");
    Ok(pairs)
}

fn shown(value: Option<f64>, places: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.places$}"))
}
