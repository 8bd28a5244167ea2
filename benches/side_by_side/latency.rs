//! How long calls take at a rate that leaves every peer room: 400 a second.
//!
//! In: running peers. Out: p50 and p99 of each, in turns, their ratios to nginx's, and what they add to the same calls made
//! straight to the upstream in the peer's version of HTTP: its answers over HTTP/2 take longer than over HTTP/1.1. Eight
//! connections send evenly; a call that had to wait for a late answer counts from when it was due. Straight calls take the
//! caller TLS, and HTTP/2, which a proxy's caller does without: what that costs is not in what a proxy adds, but saved by it.

use std::io;
use std::time::Duration;

use crate::direct::Direct;
use crate::kit::client::Caller;
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

/// The quantiles that are shown.
const SHARES: [f64; 2] = [0.5, 0.99];

/// One who is called, and what came of it in each round.
struct Party<'a> {
    name: String,
    connect: Box<dyn Fn() -> io::Result<Box<dyn Caller>> + Sync + 'a>,
    rounds: Vec<Outcome>,
    /// The party that is called without it.
    straight: Option<usize>,
}

impl Party<'_> {
    /// Milliseconds within which this share of the calls was answered, in each round.
    fn quantiles(&self, share: f64) -> impl Iterator<Item = f64> + '_ {
        self.rounds.iter().map(move |round| round.quantile(share).unwrap_or(f64::NAN))
    }
}

pub(crate) fn measure(place: &Place<'_>, peers: &[Proxy], notes: &mut Vec<String>) -> Result<Section, Sentence> {
    let mut parties = Vec::new();
    for http2 in [false, true] {
        let address = if http2 { place.stand_in.http2 } else { place.stand_in.http1 };
        let direct = Direct::new(address, place.stand_in, http2, LIMIT)
            .map_err(|error| format!("the upstream cannot be called straight: {error}"))?;
        let name = if http2 { "no proxy, HTTP/2" } else { "no proxy, HTTP/1.1" };
        let connect = Box::new(move || direct.connect());
        parties.push(Party { name: name.to_owned(), connect, rounds: Vec::new(), straight: None });
    }
    let first = parties.len();
    for Proxy { peer, address, .. } in peers {
        let connect = Box::new(|| pace::plain(*address, LIMIT));
        let straight = Some(usize::from(peer.speaks_http2()));
        parties.push(Party { name: name(*peer).to_owned(), connect, rounds: Vec::new(), straight });
    }
    for round in 0..place.options.rounds {
        for turn in 0..parties.len() {
            let index = (turn + round as usize) % parties.len();
            let party = &mut parties[index];
            show(&format!("latency: round {}, {}", round + 1, party.name));
            // One call ahead, so that no connection's first use is measured in one peer and not in another.
            if let Ok(mut client) = (party.connect)() {
                let _ = client.call(&get(0));
            }
            let plan = Plan {
                connect: &*party.connect,
                pace: Pace::Rate(RATE),
                connections: CONNECTIONS,
                duration: place.options.duration(),
                request: &get,
            };
            let outcome = pace::run(&plan, &Progress::new())?;
            if outcome.good() < outcome.all() {
                notes.push(format!("{} at latency: {:?}", party.name, outcome.ends));
            }
            party.rounds.push(outcome);
        }
    }
    show("");
    let nginx = peers.iter().position(|proxy| proxy.peer == Peer::Nginx).map(|index| &parties[first + index]);
    let mut section = Section::new(
        "Time of a call at 400 requests/s",
        &["peer", "p50 ms", "p99 ms", "p50 ÷ nginx", "p99 ÷ nginx", "p50 added ms", "p99 added ms", "calls"],
    );
    let shown =
        |value: Option<f64>, places: usize| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.places$}"));
    for party in &parties {
        let mut all = Outcome::new()?;
        party.rounds.iter().for_each(|outcome| all.add(outcome));
        let ratio = |share| {
            let pairs = party.quantiles(share).zip(nginx?.quantiles(share));
            median(&pairs.map(|(own, other)| own / other).collect::<Vec<_>>())
        };
        let added = |share| {
            let pairs = party.quantiles(share).zip(parties[party.straight?].quantiles(share));
            median(&pairs.map(|(own, straight)| own - straight).collect::<Vec<_>>())
        };
        let [p50, p99] = SHARES.map(|share| shown(all.quantile(share), 3));
        let [p50_ratio, p99_ratio] = SHARES.map(|share| shown(ratio(share), 2));
        let [p50_added, p99_added] = SHARES.map(|share| shown(added(share), 3));
        let calls = all.all().to_string();
        section.row([party.name.clone(), p50, p99, p50_ratio, p99_ratio, p50_added, p99_added, calls]);
    }
    Ok(section)
}
