//! Whether memory stays where it is while requests keep coming: ten minutes of them, by default.
//!
//! In: ours alone, in instances of its own, one for each version of HTTP towards the upstream. Out: VmRSS before the
//! first request, once it has settled, and at the end, with its slope in between. The access log goes to `/dev/null`,
//! by the same code: ten minutes of it would fill a disk. Only runs when it is named, since it takes its time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use crate::kit::section::{Section, Series};
use crate::kit::{Sentence, show};
use crate::options::{Peer, Work, name};
use crate::peers::{How, KEYS, Place, Proxy};
use crate::wrk::{Load, Run};

/// How often memory is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// What a process may take to reach its size; of a short run, a quarter.
const SETTLED: Duration = Duration::from_mins(1);

/// Seconds since the load began, and KiB.
type Sample = (f64, u64);

pub(crate) fn measure(place: &Place<'_>, notes: &mut Vec<String>) -> Result<Section, Sentence> {
    let duration = place.options.soak();
    let settled = SETTLED.min(duration / 4);
    let mut section = Section::new(
        "Soak: resident memory (KiB) under load",
        &["peer", "at the start", "settled", "at the end", "most", "slope KiB/min", "requests", "errors"],
    );
    for peer in [Peer::OursH1, Peer::OursH2].into_iter().filter(|peer| place.options.peers.contains(peer)) {
        match soak(place, peer, duration) {
            Ok((start, samples, run)) => {
                let shown = |value: Option<u64>| value.map_or_else(|| "–".to_owned(), |value| value.to_string());
                let later: Vec<Sample> =
                    samples.iter().copied().filter(|(at, _)| *at >= settled.as_secs_f64()).collect();
                section.row([
                    name(peer),
                    start.to_string(),
                    shown(later.first().map(|(_, rss)| *rss)),
                    shown(samples.last().map(|(_, rss)| *rss)),
                    shown(samples.iter().map(|(_, rss)| *rss).max()),
                    slope(&later).map_or_else(|| "–".to_owned(), |slope| format!("{:.1}", slope * 60.0)),
                    run.requests.to_string(),
                    run.errors.to_string(),
                ]);
                let points = samples.into_iter().map(|(at, rss)| (at, rss as f64)).collect();
                section.series.push(Series { name: name(peer), unit: "s", points });
            }
            Err(why) => notes.push(format!("{} at soak: {why}", name(peer))),
        }
    }
    if section.rows.is_empty() {
        return Err("it is of ours-h1 and ours-h2, and needs wrk".to_owned());
    }
    notes.push(format!(
        "Soak: {} s each at 32 connections; \"settled\" is after {} s, and the slope is of what follows.",
        duration.as_secs(),
        settled.as_secs()
    ));
    Ok(section)
}

/// Memory before the load, each second of it, and what the load came to.
fn soak(place: &Place<'_>, peer: Peer, duration: Duration) -> Result<(u64, Vec<Sample>, Run), Sentence> {
    let load = Load::of(Work::Json1k).ok_or("no such work")?;
    let script = load.script(place.directory, KEYS)?;
    let proxy = place.start(peer, How { log: false, ..How::default() })?;
    let start = proxy.process.rss();
    let over = AtomicBool::new(false);
    let (samples, run) = scope(|scope| {
        let sampling = scope.spawn(|| sample(&proxy, duration, &over));
        let run = load.run(place, &proxy, &script, duration, 0);
        over.store(true, Ordering::Relaxed);
        (sampling.join().unwrap_or_default(), run)
    });
    show("");
    Ok((start, samples, run?))
}

fn sample(proxy: &Proxy, duration: Duration, over: &AtomicBool) -> Vec<Sample> {
    let (began, mut samples) = (Instant::now(), Vec::new());
    while !over.load(Ordering::Relaxed) {
        sleep(EVERY);
        let (at, rss) = (began.elapsed(), proxy.process.rss());
        // What is looked at while wrk is closing its connections is no part of the load.
        if at < duration {
            samples.push((at.as_secs_f64(), rss));
            show(&format!("soak: {}, {} s of {} s, {rss} KiB", name(proxy.peer), at.as_secs(), duration.as_secs()));
        }
    }
    samples
}

/// KiB a second by least squares; none of fewer than two moments.
pub(crate) fn slope(samples: &[Sample]) -> Option<f64> {
    let mean = |value: &dyn Fn(&Sample) -> f64| samples.iter().map(value).sum::<f64>() / samples.len() as f64;
    let (at, rss) = (mean(&|sample| sample.0), mean(&|sample| sample.1 as f64));
    let spread: f64 = samples.iter().map(|sample| (sample.0 - at).powi(2)).sum();
    let both: f64 = samples.iter().map(|sample| (sample.0 - at) * (sample.1 as f64 - rss)).sum();
    (spread > 0.0).then_some(both / spread)
}
