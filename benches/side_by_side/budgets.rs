//! What budgets cost that nobody reaches.
//!
//! In: two instances of ours with the same keys, one of them with the highest budgets there are. Out: CPU per request of that
//! one, as a ratio to the other's. What is looked for is smaller than what a machine's pace changes by in a second, so both
//! work at the same time, on the same core, with the same load. Each round starts them anew: where a program's memory happens
//! to lie makes a difference too.

use std::thread;

use crate::kit::pace::{self, Outcome, Pace, Plan, Progress};
use crate::kit::section::Section;
use crate::kit::{Sentence, median, show, spread};
use crate::latency::{CONNECTIONS, LIMIT, get};
use crate::options::{Peer, name};
use crate::peers::{How, Place, Proxy};
use crate::scale::shown;

/// What both are asked at the same time.
#[derive(Clone, Copy)]
struct Asked {
    said: &'static str,
    pace: Pace,
    connections: usize,
    /// How many apps share the hotels.
    apps: u64,
}

const LOADS: [Asked; 3] = [
    Asked { said: "700/s, one app", pace: Pace::Rate(700.0), connections: CONNECTIONS, apps: 1 },
    Asked { said: "all it can, one app", pace: Pace::Answers, connections: 16, apps: 1 },
    Asked { said: "all it can, 64 apps", pace: Pace::Answers, connections: 16, apps: 64 },
];

/// The ratios for each version of HTTP towards the upstream.
pub(crate) fn measure(place: &Place<'_>) -> Result<Section, Sentence> {
    let mut section = Section::new(
        "CPU per request below a budget, beside no budgets",
        &["peer", "load of each", "ratio", "spread", "without µs", "with µs"],
    );
    let peers = [Peer::OursH1, Peer::OursH2].into_iter().filter(|peer| place.options.peers.contains(peer));
    for (peer, asked) in peers.flat_map(|peer| LOADS.map(|asked| (peer, asked))) {
        let mut pairs = Vec::new();
        for round in 0..place.options.rounds {
            show(&format!("budgets: round {}, {}, {}", round + 1, name(peer), asked.said));
            let start = |budgets| place.start(peer, How { apps: asked.apps, budgets, ..How::default() });
            // Who is started first has no advantage twice.
            let (first, second) = (start(round % 2 == 0)?, start(round % 2 != 0)?);
            let [first, second] = at_once(place, asked, [&first, &second])?;
            pairs.push(if round % 2 == 0 { (second, first) } else { (first, second) });
        }
        let ratios: Vec<f64> = pairs.iter().map(|(without, with)| with / without).collect();
        let micros = |one: &dyn Fn(&(f64, f64)) -> f64| median(&pairs.iter().map(one).collect::<Vec<_>>());
        section.row([
            name(peer),
            asked.said.to_owned(),
            shown(median(&ratios), 3),
            spread(&ratios).map_or_else(|| "–".to_owned(), |(least, most)| format!("{least:.2}–{most:.2}")),
            shown(micros(&|pair| pair.0), 1),
            shown(micros(&|pair| pair.1), 1),
        ]);
    }
    show("");
    Ok(section)
}

/// Loads two at the same time; microseconds of CPU per request of each.
fn at_once(place: &Place<'_>, asked: Asked, pair: [&Proxy; 2]) -> Result<[f64; 2], Sentence> {
    let load = |duration| {
        thread::scope(|scope| {
            let run = |proxy: &Proxy| {
                let Asked { pace, connections, .. } = asked;
                let connect = || pace::plain(proxy.address, LIMIT);
                let plan = Plan { connect: &connect, pace, connections, duration, request: &get };
                pace::run(&plan, &Progress::new())
            };
            let threads = pair.map(|proxy| scope.spawn(move || run(proxy)));
            threads.map(|thread| thread.join().map_err(|_| "a loader panicked".to_owned())?)
        })
    };
    // Pools are filled and pages touched before it counts.
    for outcome in load(place.options.duration() / 4) {
        outcome?;
    }
    let before = pair.map(|proxy| proxy.process.cpu());
    let outcomes = load(place.options.duration());
    let mut micros = [0.0; 2];
    for (index, outcome) in outcomes.into_iter().enumerate() {
        let (outcome, proxy): (Outcome, _) = (outcome?, pair[index]);
        let cpu = proxy.process.cpu().saturating_sub(before[index]);
        // A refused one would be cheap.
        if outcome.good() == 0 || outcome.good() < outcome.all() {
            return Err(format!("{} did not serve: {:?}", name(proxy.peer), outcome.ends));
        }
        micros[index] = cpu.as_secs_f64() * 1e6 / outcome.good() as f64;
    }
    Ok(micros)
}
