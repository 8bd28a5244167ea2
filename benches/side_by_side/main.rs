//! cloudbeds-auth-proxy beside what an operator would otherwise run, doing equal work on this machine.
//!
//! In: this machine with nginx, HAProxy and wrk, or what there is of them. Out: a table of ratios; JSON and an HTML
//! report on request. First every peer must show that it does the work; then all work in turns, and each round compares
//! them within the same seconds. `benches/README.md` has the method and what the figures do not say.
//!
//! Everything is on loopback and bounded, and every process started here is ended by its id, also on Ctrl-C.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench talks to people")]

#[path = "../kit/mod.rs"]
mod kit;

mod budgets;
mod direct;
mod equal;
mod html;
mod latency;
mod machine;
mod memory;
mod options;
mod peers;
mod recipes;
mod report;
mod rounds;
mod scale;
mod soak;
mod stand_in;
mod trips;
mod wrk;

use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::Duration;

use kit::Sentence;
use kit::process::{end_on_signals, find};
use kit::section::Section;
use machine::Machine;
use options::{Options, Peer, Work, name};
use peers::{How, Place, Proxy};
use report::Report;
use stand_in::StandIn;
use wrk::Load;

fn main() -> ExitCode {
    let options = Options::read();
    kit::ended(run(&options))
}

/// Measures and reports; whether every peer was there and did equal work.
fn run(options: &Options) -> Result<bool, Sentence> {
    for file in [&options.json, &options.html].into_iter().flatten() {
        kit::can_be_written(file)?;
    }
    // While there is one thread: later ones are pinned as this one is.
    let machine = Machine::divide();
    let directory = tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
    end_on_signals(directory.path().to_owned(), None);
    let stand_in = StandIn::start(machine.load_threads)?;
    peers::write(&directory.path().join("root.pem"), &stand_in.root_pem, 0o644)?;
    let place = Place { options, machine: &machine, stand_in: &stand_in, directory: directory.path() };

    let mut notes = machine.notes.clone();
    let described = machine.describe();
    let wanted = options.peers.len();
    let (mut peers, at_start) = start(&place, &mut notes);
    if peers.is_empty() {
        return Err("Nobody is left to be measured; the reasons stand above.".to_owned());
    }
    let mut all_there = peers.len() == wanted;

    let rows = rounds::measure(&place, &peers, &mut notes)?;
    let works = options.works.iter().filter(|work| Load::of(**work).is_some()).count();
    let complete = rows.len() == works * peers.len() && rows.iter().all(|row| !row.runs.is_empty());
    let mut sections = Vec::new();
    let mut failed = 0;
    let mut keep = |work: Work, section: Result<Section, Sentence>, notes: &mut Vec<String>| match section {
        Ok(section) => sections.push(section),
        Err(why) => {
            failed += 1;
            notes.push(format!("{} is not measured: {why}", name(work)));
        }
    };
    if options.has(Work::Latency) {
        let section = latency::measure(&place, &peers, &mut notes);
        keep(Work::Latency, section, &mut notes);
    }
    if options.has(Work::Memory) {
        let section = memory::measure(&place, &peers, &at_start, &mut notes);
        keep(Work::Memory, Ok(section), &mut notes);
    }
    for proxy in &mut peers {
        if let Some(end) = proxy.process.ended() {
            all_there = false;
            notes.push(end);
        }
    }
    // What follows is about ours alone, in instances of its own.
    drop(peers);
    if options.has(Work::Keys) {
        keep(Work::Keys, scale::keys(&place), &mut notes);
    }
    if options.has(Work::Budgets) {
        keep(Work::Budgets, budgets::measure(&place), &mut notes);
    }
    if options.has(Work::Workers) {
        let section = scale::workers(&place, &mut notes);
        keep(Work::Workers, section, &mut notes);
    }
    if options.has(Work::Trips) {
        keep(Work::Trips, trips::measure(&place), &mut notes);
    }
    if options.has(Work::Soak) {
        let section = soak::measure(&place, &mut notes);
        keep(Work::Soak, section, &mut notes);
    }

    let (rounds, seconds) = (options.rounds, options.seconds);
    let report = Report { machine: described, versions: versions(options), rounds, seconds, rows, sections, notes };
    println!("{}", report.text());
    for (file, text) in [(&options.json, format!("{:#}\n", report.json())), (&options.html, html::page(&report))] {
        if let Some(file) = file {
            std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))?;
            println!("Written: {}", file.display());
        }
    }
    Ok(!options.quick || (all_there && complete && failed == 0))
}

/// Starts who is wanted and keeps who does the work; with each one's memory from before the first request.
fn start(place: &Place<'_>, notes: &mut Vec<String>) -> (Vec<Proxy>, Vec<u64>) {
    let (mut peers, mut memory) = (Vec::new(), Vec::new());
    place.options.peers.iter().filter_map(|peer| place.program(*peer).ok()).for_each(|file| memory::read_anew(&file));
    for &peer in &place.options.peers {
        let mut proxy = match place.start(peer, How::default()) {
            Ok(proxy) => proxy,
            Err(why) => {
                eprintln!("{why}");
                notes.push(why);
                continue;
            }
        };
        sleep(Duration::from_millis(300));
        let rss = proxy.process.rss();
        let mut faults = equal::faults(&proxy, place.stand_in);
        // Then whatever answered was somebody else.
        faults.extend(proxy.process.ended());
        if faults.is_empty() {
            println!("{}: does equal work", name(peer));
            peers.push(proxy);
            memory.push(rss);
        } else {
            for fault in faults {
                let note = format!("{} is left out: {fault}", name(peer));
                println!("{note}");
                notes.push(note);
            }
        }
    }
    (peers, memory)
}

/// What each program calls itself.
fn versions(options: &Options) -> Vec<(String, String)> {
    let ask = |program: &str, flag: &str| {
        let output = Command::new(find(program)?).arg(flag).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let word = text.split([' ', '/', '\n']).find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
        Some((program.to_owned(), word.to_owned()))
    };
    let others = [(Peer::Nginx, "nginx"), (Peer::HaproxyH1, "haproxy")]
        .into_iter()
        .filter(|(peer, _)| options.peers.contains(peer))
        .filter_map(|(_, program)| ask(program, "-v"));
    others.chain([("cloudbeds-auth-proxy".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]).collect()
}
