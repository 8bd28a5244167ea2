//! A day of a thousand hotels through the real budget, on a clock that does not wait.
//!
//! In: traffic that is made up, and the same in every run; one replica, or many that share the budget by their own code and
//! the script that Redis runs. Out: who waited how long, how fairly the peak was divided, how much of the budget was used,
//! and what a decision costs the more hotels wait; JSON and a page with plots on request.
//! Exit code 1 when more calls arrived in any one second than are granted. `docs/budgets.md` has the results.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench talks to people")]
#![allow(clippy::unwrap_used, reason = "a benchmark may end itself")]

#[path = "../kit/mod.rs"]
mod kit;

mod books;
mod chance;
mod cost;
mod crowd;
mod day;
mod figures;
mod options;
mod redis;
mod replicas;
mod script;
mod shared;
mod traffic;

use std::process::ExitCode;

use clap::Parser as _;
use kit::page::{head, section, tail};
use kit::section::Section;
use kit::{Sentence, can_be_written, ended};
use options::Options;
use serde_json::json;

fn main() -> ExitCode {
    ended(run(&Options::parse().filled_in()))
}

/// Plays and reports; whether no second had more calls than are granted.
fn run(options: &Options) -> Result<bool, Sentence> {
    for file in [&options.json, &options.html].into_iter().flatten() {
        can_be_written(file)?;
    }
    if options.shared {
        let (section, within) = shared::measure(options)?;
        print!("{}", section.text());
        if !within {
            println!("More calls arrived in one second than are granted.");
        }
        return Ok(within);
    }
    let (mut summary, mut sharing) = (figures::summary(), figures::sharing());
    let (mut sections, mut within) = (Vec::new(), true);
    for setting in &options.settings {
        let mut books = day::play(*setting, options)?;
        within &= figures::sum_up(*setting, &mut books, &mut summary) <= options.per_second as usize;
        sections.push(figures::waits(*setting, &books));
        figures::shared(*setting, &books, &mut sharing);
    }
    sections.insert(0, summary);
    if options.replicas > 1 {
        sections.push(sharing);
    }
    sections.push(cost::measure(options.quick)?.0);

    let about = options.about();
    println!("{about}");
    sections.iter().for_each(|section| print!("{}", section.text()));
    if !within {
        println!("More calls arrived in one second than are granted.");
    }
    let json = json!({
        "hotels": options.hotels,
        "about": about,
        "replicas": options.replicas,
        "per_second": options.per_second,
        "sections": sections.iter().map(Section::json).collect::<Vec<_>>(),
    });
    let page = format!(
        "{}<p>{about}</p>{}{}",
        head("A day within the budget"),
        sections.iter().map(section).collect::<String>(),
        tail(&[])
    );
    for (file, text) in [(&options.json, format!("{json:#}\n")), (&options.html, page)] {
        if let Some(file) = file {
            std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))?;
            println!("Written: {}", file.display());
        }
    }
    Ok(within)
}
