//! How many instructions each stage of the request path takes, and a whole request, compared with committed figures.
//!
//! In: this build, valgrind, gungraun's runner. Out: a table, and exit code 1 when a stage takes more than 5 % more than
//! `expected.tsv` says. Counts do not depend on how busy a machine is, so they may gate what lands; timings never do.
//! `scripts/instructions` installs what is needed and runs this. `benches/README.md` says what the figures do not show.
#![allow(missing_docs, unreachable_pub, reason = "gungraun's macros make public items")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark may end itself")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench talks to people")]
#![allow(clippy::vec_box, reason = "requests are in boxes when the gate hands them out")]

mod counts;
#[path = "../budget_day/crowd.rs"]
mod crowd;
mod expected;
mod inputs;
#[path = "../kit/mod.rs"]
mod kit;
#[path = "../side_by_side/stand_in.rs"]
mod stand_in;
mod world;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use clap::Parser;
use serde_json::Value;

use expected::Figures;
use inputs::CALLS;
use kit::Sentence;
use kit::process::find;

/// The version of gungraun and of its runner, which must be the same.
const RUNNER: &str = "0.20.0";

/// Set for the run of this program that hands over to gungraun, whose runner would not know our arguments.
const COUNTING: &str = "CLOUDBEDS_AUTH_PROXY_COUNTING";

/// Counts instructions and compares them with benches/instructions/expected.tsv.
#[derive(Debug, Parser)]
#[command(name = "instructions", after_help = "scripts/instructions installs valgrind and the runner first.")]
struct Options {
    /// Writes what was counted as the figures to compare with from now on
    #[arg(long)]
    update: bool,
    /// Counts only the stages whose name holds this, such as `request` or `mask`
    #[arg(value_name = "STAGE", conflicts_with = "update")]
    filter: Option<String>,
    /// What cargo passes to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|first| first == "--gungraun-run") || std::env::var_os(COUNTING).is_some() {
        counts::run();
        return ExitCode::SUCCESS;
    }
    kit::ended(run(&Options::parse()))
}

/// Counts and compares; whether no stage takes more than it may.
fn run(options: &Options) -> Result<bool, Sentence> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions/expected.tsv");
    let failed = |error: std::io::Error| format!("{}: {error}", file.display());
    let (cpu, here) = (cpu(), made_by());
    if options.update {
        std::fs::write(&file, expected::text(&count(None)?, &here)).map_err(failed)?;
        println!("Written: {}", file.display());
        return Ok(true);
    }
    let text = std::fs::read_to_string(&file).map_err(failed)?;
    let there = expected::made_by(&text);
    if !there.starts_with(&cpu) {
        return Err(format!("The committed figures are of {there}; this is {cpu} for which other code is chosen."));
    }
    let mut counted = count(options.filter.as_deref())?;
    let mut figures = expected::parse(&text).map_err(|why| format!("{}: {why}", file.display()))?;
    if let Some(filter) = &options.filter {
        figures.retain(|stage, _| stage.contains(filter.as_str()));
        counted.retain(|stage, _| stage.contains(filter.as_str()));
    }
    let judgement = expected::judge(&figures, &counted);
    print!("{}", judgement.text);
    if there != here {
        println!("\nThe committed figures are of {there};\nthese of {here}.");
    }
    Ok(judgement.passes)
}

/// Runs all that is counted under valgrind; instructions of one call, by stage.
fn count(filter: Option<&str>) -> Result<Figures, Sentence> {
    let runner = runner()?;
    let program = std::env::current_exe().map_err(|error| format!("where is this program? {error}"))?;
    let mut words = Command::new(program);
    words.args(["--bench", "--output-format=json", "--nosummary=true"]);
    words.args(filter.map(|filter| format!("*{filter}*")));
    let output = words
        .env(COUNTING, "1")
        .env("PATH", path_with(&runner))
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("counting does not start: {error}"))?;
    if !output.status.success() {
        return Err(format!("counting failed ({}); what gungraun said stands above", output.status));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let figures: Result<Figures, Sentence> = text.lines().filter(|line| line.starts_with('{')).map(figure).collect();
    match figures? {
        figures if figures.is_empty() => Err("nothing was counted; is there such a stage?".to_owned()),
        figures => Ok(figures),
    }
}

/// A stage's name and its instructions, from gungraun's summary of it.
fn figure(line: &str) -> Result<(String, u64), Sentence> {
    let odd = || format!("gungraun's summary is not understood: {line}");
    let summary: Value = serde_json::from_str(line).map_err(|_| odd())?;
    let word = |name: &str| summary[name].as_str();
    let stage = [word("function_name"), word("id")].into_iter().flatten().collect::<Vec<_>>().join("::");
    let count = summary["profiles"][0]["data"]["total"]["metrics"]["Ir"]["values"]["new"].as_u64().ok_or_else(odd)?;
    Ok((stage, count / CALLS as u64))
}

/// PATH with the runner's directory in it: cargo's own need not be.
fn path_with(runner: &Path) -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = runner.parent().map(Path::to_owned);
    std::env::join_paths(own.into_iter().chain(std::env::split_paths(&path))).unwrap_or(path)
}

/// Where gungraun's runner is, after a look whether valgrind is there too.
fn runner() -> Result<PathBuf, Sentence> {
    let missing = |what: &str| format!("{what} is missing; scripts/instructions installs it");
    find("valgrind").ok_or_else(|| missing("valgrind"))?;
    let homes =
        [std::env::var_os("CARGO_HOME").map(PathBuf::from), std::env::home_dir().map(|home| home.join(".cargo"))];
    let in_home = homes.into_iter().flatten().map(|home| home.join("bin/gungraun-runner")).find(|file| file.is_file());
    let runner = find("gungraun-runner").or(in_home).ok_or_else(|| missing("gungraun-runner"))?;
    let version = said(&runner, "--version");
    match version.split_whitespace().last() {
        Some(RUNNER) => Ok(runner),
        _ => Err(missing(&format!("gungraun-runner {RUNNER} (there is: {version})"))),
    }
}

/// The kind of CPU, as far as code is chosen by it; valgrind knows nothing beyond AVX2.
fn cpu() -> String {
    #[cfg(target_arch = "x86_64")]
    let vectors = if std::arch::is_x86_feature_detected!("avx2") { " with AVX2," } else { " without AVX2," };
    #[cfg(not(target_arch = "x86_64"))]
    let vectors = ",";
    format!("{}{vectors}", std::env::consts::ARCH)
}

/// What the counts depend on beside the source.
fn made_by() -> String {
    let rustc = said(Path::new("rustc"), "--version");
    let valgrind = said(Path::new("valgrind"), "--version");
    let glibc = said(Path::new("getconf"), "GNU_LIBC_VERSION");
    format!("{} {rustc}, {valgrind}, {glibc}", cpu())
}

/// The first line a program says when asked, or that it says nothing.
fn said(program: &Path, flag: &str) -> String {
    let output = Command::new(program).arg(flag).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().map_or_else(|| format!("no {}", program.display()), str::to_owned)
}
