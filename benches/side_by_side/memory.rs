//! Resident memory: at the start, after the work, and for every caller who is connected and silent.
//!
//! In: running peers. Out: KiB as the kernel counts them (VmRSS of all processes of a peer). Each idle connection has
//! made one request, since a proxy that has allocated nothing yet has nothing to give back.

use std::fs::File;
use std::net::TcpStream;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{Advice, fadvise};

use crate::kit::client::Client;
use crate::kit::section::Section;
use crate::kit::{Sentence, show};
use crate::latency::get;
use crate::options::{Peer, name};
use crate::peers::{How, Place, Proxy};

const LIMIT: Duration = Duration::from_secs(10);

/// What a peer has until it has put away what it no longer needs.
const SETTLE: Duration = Duration::from_secs(3);

/// The same in `--quick`, and how many idle connections there are then.
const FEW: (Duration, usize) = (Duration::from_millis(300), 200);

/// `at_start` holds each peer's memory from before its first request.
pub(crate) fn measure(place: &Place<'_>, peers: &[Proxy], at_start: &[u64], notes: &mut Vec<String>) -> Section {
    let (settle, wanted) = if place.options.quick { FEW } else { (SETTLE, place.machine.idle_connections()) };
    if wanted < 10_000 && !place.options.quick {
        let most = place.machine.descriptors;
        notes.push(format!(
            "{wanted} idle connections instead of 10,000: {most} descriptors are all a process may have."
        ));
    }
    let mut section = Section::new(
        "Resident memory (KiB)",
        &["peer", "1 key", "10,000 keys", "after the work", "idle connections", "for each of them"],
    );
    for (proxy, start) in peers.iter().zip(at_start) {
        show(&format!("memory: {}", name(proxy.peer)));
        // Nothing, if it is gone.
        let worked = Some(proxy.process.rss()).filter(|rss| *rss > 0);
        let one_key = match proxy.peer.is_ours() {
            true => with_one_key(place, proxy.peer).map_or_else(|_| "–".to_owned(), |rss| rss.to_string()),
            false => "–".to_owned(),
        };
        let (count, each) = match idle(proxy, wanted, settle) {
            Ok((count, bytes)) => (count.to_string(), format!("{:.2}", bytes / 1024.0)),
            Err(why) => {
                notes.push(format!("{}: {why}", name(proxy.peer)));
                ("–".to_owned(), "–".to_owned())
            }
        };
        let worked = worked.map_or_else(|| "–".to_owned(), |rss| rss.to_string());
        section.row([name(proxy.peer), one_key, start.to_string(), worked, count, each]);
    }
    show("");
    section
}

/// Lets a program's file be read from disk when it is started next. A file that was just written lies in the system's cache
/// in larger pieces, more of which then counts as resident: a MiB of ours. Where it cannot be, that stays so.
pub(crate) fn read_anew(program: &Path) {
    if let Ok(file) = File::open(program) {
        let _ = file.sync_all();
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
    }
}

fn with_one_key(place: &Place<'_>, peer: Peer) -> Result<u64, Sentence> {
    let proxy = place.start(peer, How { keys: 1, ..How::default() })?;
    sleep(Duration::from_millis(300));
    Ok(proxy.process.rss())
}

/// Opens connections until there are `wanted`, and says what each has cost, in bytes.
fn idle(proxy: &Proxy, wanted: usize, settle: Duration) -> Result<(usize, f64), Sentence> {
    let open = |count: usize| -> Result<Vec<TcpStream>, Sentence> {
        (0..count as u64)
            .map(|number| {
                let failed = |error| format!("idle connection {number}: {error}");
                let mut client = Client::connect(proxy.address, LIMIT).map_err(failed)?;
                client.call(&get(number)).map_err(failed)?;
                Ok(client.into_stream())
            })
            .collect()
    };
    // The first ones make room that the later ones share; they are not what "each further" means.
    let first = open((wanted / 10).min(100))?;
    sleep(settle);
    let before = proxy.process.rss();
    let rest = open(wanted - first.len())?;
    sleep(settle);
    let bytes = proxy.process.rss().saturating_sub(before) as f64 * 1024.0;
    Ok((first.len() + rest.len(), bytes / rest.len().max(1) as f64))
}
