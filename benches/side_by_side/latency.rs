//! How long calls take at a rate that leaves every peer room: 400 a second.
//!
//! In: running peers. Out: p50 and p99 of each, in turns, and their ratios to nginx's. Eight connections send evenly; a
//! call that had to wait for a late answer counts from when it was due. What the upstream and the loader take is in all
//! of the figures alike, so a ratio near one says that the proxies do not differ, not that they take no time.

use std::time::Duration;

use crate::kit::client::Client;
use crate::kit::pace::{self, Outcome, Pace, Plan, Progress};
use crate::kit::section::Section;
use crate::kit::{Sentence, median, show};
use crate::options::{Peer, name};
use crate::peers::{FIRST, KEYS, Place, Proxy};

const RATE: f64 = 400.0;

pub(crate) const CONNECTIONS: usize = 8;

pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// A GET of 1 KiB for the property of this number.
pub(crate) fn get(number: u64) -> Vec<u8> {
    let property = FIRST + number * 7919 % KEYS;
    format!(
        "GET /bench/1k HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Property-Id: {property}\r\nAuthorization: Bearer unused\r\n\r\n"
    )
    .into_bytes()
}

pub(crate) fn measure(place: &Place<'_>, peers: &[Proxy], notes: &mut Vec<String>) -> Result<Section, Sentence> {
    let mut by_peer: Vec<Vec<Outcome>> = peers.iter().map(|_| Vec::new()).collect();
    for round in 0..place.options.rounds {
        for turn in 0..peers.len() {
            let index = (turn + round as usize) % peers.len();
            show(&format!("latency: round {}, {}", round + 1, name(peers[index].peer)));
            // One call ahead, so that no connection's first use is measured in one peer and not in another.
            if let Ok(mut client) = Client::connect(peers[index].address, LIMIT) {
                let _ = client.call(&get(0));
            }
            let plan = Plan {
                address: peers[index].address,
                pace: Pace::Rate(RATE),
                connections: CONNECTIONS,
                duration: place.options.duration(),
                limit: LIMIT,
                request: &get,
            };
            let outcome = pace::run(&plan, &Progress::new())?;
            if outcome.good() < outcome.all() {
                notes.push(format!("{} at latency: {:?}", name(peers[index].peer), outcome.ends));
            }
            by_peer[index].push(outcome);
        }
    }
    show("");
    let nginx = peers.iter().position(|proxy| proxy.peer == Peer::Nginx);
    let ratio = |index: usize, share: f64| {
        let pairs = by_peer[index].iter().zip(&by_peer[nginx?]);
        let ratios: Vec<f64> =
            pairs.filter_map(|(own, other)| Some(own.quantile(share)? / other.quantile(share)?)).collect();
        median(&ratios)
    };
    let mut section = Section::new(
        "Time of a call at 400 requests/s",
        &["peer", "p50 ms", "p99 ms", "p50 ÷ nginx", "p99 ÷ nginx", "calls"],
    );
    for (index, proxy) in peers.iter().enumerate() {
        let mut all = Outcome::new()?;
        by_peer[index].iter().for_each(|outcome| all.add(outcome));
        let shown = |value: Option<f64>, places: usize| {
            value.map_or_else(|| "–".to_owned(), |value| format!("{value:.places$}"))
        };
        section.row([
            name(proxy.peer),
            shown(all.quantile(0.5), 3),
            shown(all.quantile(0.99), 3),
            shown(ratio(index, 0.5), 2),
            shown(ratio(index, 0.99), 2),
            all.all().to_string(),
        ]);
    }
    Ok(section)
}
