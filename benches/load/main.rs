//! Load for a deployment of one's own.
//!
//! In: a proxy's address, properties, a mix of calls, a pace. Out: progress while it runs; then how long calls took and
//! how they ended, JSON on request. Without an address it starts the sandbox and a proxy before it. It loads nothing
//! but sandboxes unless told otherwise in words: behind a real proxy are the accounts of real hotels, and Cloudbeds
//! suspends whoever calls too often.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench talks to people")]

#[path = "../kit/mod.rs"]
mod kit;

mod mix;
mod options;
mod show;
mod target;

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use kit::Sentence;
use kit::pace::{self, Pace, Plan, Progress};
use kit::process::end_on_signals;
use options::Options;
use target::Target;

/// Seen by the callers, by whoever shows it, and by Ctrl-C.
static PROGRESS: Progress = Progress::new();

fn main() -> ExitCode {
    kit::ended(Options::read().and_then(|options| run(&options)))
}

/// Makes the calls; whether any was answered well.
fn run(options: &Options) -> Result<bool, Sentence> {
    options.json.as_deref().map_or(Ok(()), kit::can_be_written)?;
    let directory = tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
    end_on_signals(directory.path().to_owned(), Some(&PROGRESS.stop));
    let target = match options.proxy {
        Some(address) => Target::at(address, options)?,
        None => Target::start(directory.path(), options)?,
    };
    println!("{}", target.described);
    let mix = &options.mix;
    let request = |number: u64| mix.request(number, &options.properties, &options.headers);
    let connect = || pace::plain(target.address, options.timeout);
    let plan = Plan {
        connect: &connect,
        pace: options.rate.map_or(Pace::Answers, Pace::Rate),
        connections: options.connections(),
        duration: options.duration,
        request: &request,
    };
    let start = Instant::now();
    let outcome = thread::scope(|scope| {
        let calls = scope.spawn(|| pace::run(&plan, &PROGRESS));
        let mut before = 0;
        while !calls.is_finished() {
            thread::sleep(Duration::from_millis(100));
            let seconds = start.elapsed().as_secs();
            if seconds > before {
                show::progress(&PROGRESS, seconds, options.duration);
                before = seconds;
            }
        }
        calls.join().map_err(|_| "the load itself broke down".to_owned())?
    })?;
    kit::show("");
    if PROGRESS.stop.load(Ordering::Relaxed) {
        println!("Stopped early.");
    }
    let elapsed = start.elapsed();
    print!("{}", show::text(&outcome, elapsed));
    if let Some(file) = &options.json {
        let text = format!("{:#}\n", show::json(&outcome, elapsed));
        std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))?;
        println!("Written: {}", file.display());
    }
    Ok(outcome.good() > 0)
}
