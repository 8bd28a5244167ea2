//! What several benches are made of: starting and measuring processes, calling them, timing calls, showing results.
//!
//! In: programs of this machine. Out: their processes, which end with the bench however it ends, and figures of them.
#![allow(dead_code, reason = "each bench compiles this for itself and needs a part of it")]

pub(crate) mod client;
pub(crate) mod pace;
pub(crate) mod page;
pub(crate) mod process;
pub(crate) mod section;

use std::fs::OpenOptions;
use std::io::{IsTerminal as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;

/// What went wrong, as a sentence for whoever started the bench.
pub(crate) type Sentence = String;

/// How a bench ends: whether all was as it should be, or the sentence that says why it did not run.
#[allow(clippy::print_stderr, reason = "a bench talks to people")]
pub(crate) fn ended(result: Result<bool, Sentence>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// An address of loopback that nobody listens on right now.
pub(crate) fn free_address() -> Result<SocketAddr, Sentence> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|error| format!("no free port on 127.0.0.1: {error}"))
}

/// Whether results can go there, asked before minutes are spent on them. What the file holds is left as it is.
pub(crate) fn can_be_written(file: &Path) -> Result<(), Sentence> {
    let opened = OpenOptions::new().create(true).append(true).open(file);
    opened.map(drop).map_err(|error| format!("{}: {error}", file.display()))
}

/// Shows what goes on, in place of what was shown before; nothing when nobody watches. An empty text takes it away.
pub(crate) fn show(text: &str) {
    let mut err = std::io::stderr();
    if err.is_terminal() {
        // Whoever closed the terminal does not want to read of it.
        let _ = write!(err, "\r\x1b[K{text}");
        let _ = err.flush();
    }
}

/// The middle value; of two middle ones the mean. `None` of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get(sorted.len().checked_sub(1)? / 2)?;
    Some(f64::midpoint(lower, upper))
}

/// The smallest and the largest value.
pub(crate) fn spread(values: &[f64]) -> Option<(f64, f64)> {
    let least = values.iter().copied().min_by(f64::total_cmp)?;
    let most = values.iter().copied().max_by(f64::total_cmp)?;
    Some((least, most))
}
