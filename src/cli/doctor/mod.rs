//! `doctor`: what a person on call runs first.
//!
//! In: a configuration, good or bad. Out: findings about it, the files, the host, the network and every key, each of
//! which ends with what to do; exit code 0, 1 with warnings, 2 when something is broken. It changes no file of yours: a
//! trial of whether keys can be written leaves the lock behind, and names of hotels are kept for lists. No finding holds
//! a key.

mod certificate;
mod files;
mod keys;
mod network;

use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::keys::Desk;
use super::table::{Tone, has_colour};
use super::{Failure, block_on, json, load, say};

#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 in order, 1 with warnings, 2 when something is broken.")]
pub(super) struct Options {
    /// Look at this host only, and call nobody
    #[arg(long)]
    offline: bool,
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warning,
    Broken,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    /// What kind of thing: `config`, `files`, `network`, `host` or `keys`.
    family: &'static str,
    /// Which one.
    about: String,
    level: Level,
    /// What was found.
    found: String,
    /// What to do; empty when nothing is to be done.
    #[serde(rename = "do")]
    advice: String,
}

impl Finding {
    fn ok(family: &'static str, about: impl Into<String>, found: impl Into<String>) -> Self {
        Self { family, about: about.into(), level: Level::Ok, found: found.into(), advice: String::new() }
    }

    fn warning(
        family: &'static str,
        about: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { level: Level::Warning, advice: advice.into(), ..Self::ok(family, about, found) }
    }

    fn broken(
        family: &'static str,
        about: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { level: Level::Broken, advice: advice.into(), ..Self::ok(family, about, found) }
    }

    /// A fault of a file; those always say what to do.
    fn fault(family: &'static str, fault: crate::fault::Fault) -> Self {
        let advice = if fault.hint.is_empty() { "correct it there".to_owned() } else { fault.hint.clone() };
        let source = fault.source.clone();
        let place = crate::fault::Fault { hint: String::new(), ..fault }.to_string();
        let found = place.strip_prefix(&source).unwrap_or(&place).trim_start_matches([':', ' ']).to_owned();
        Self::broken(family, source, found, advice)
    }
}

impl Options {
    pub(super) fn run(&self, path: Option<&Path>) -> Result<(), Failure> {
        let findings = self.look(path)?;
        let worst = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
        if self.json {
            json(&serde_json::json!({"result": worst, "findings": findings}))?;
        } else {
            say(&text(&findings, has_colour()))?;
        }
        match worst {
            Level::Ok => Ok(()),
            Level::Warning => Err(Failure::Told(1)),
            Level::Broken => Err(Failure::Told(2)),
        }
    }

    fn look(&self, path: Option<&Path>) -> Result<Vec<Finding>, Failure> {
        let name = path.map_or_else(|| "defaults and environment".to_owned(), |path| path.display().to_string());
        let config = match load(path) {
            Ok(config) => config,
            // Without a configuration nothing else has a meaning.
            Err(Failure::Configuration(faults)) => {
                return Ok(faults.into_iter().map(|fault| Finding::fault("config", fault)).collect());
            }
            Err(other) => return Err(other),
        };
        let found = format!("in order; requests go to {}", config.upstream.base_url);
        let mut findings = vec![Finding::ok("config", name, found)];
        let desk = Desk { config };
        findings.extend(files::all(&desk));
        block_on(async {
            findings.extend(network::host(&desk).await);
            if self.offline {
                findings.push(Finding::ok("network", "Cloudbeds", "not asked (--offline)"));
                findings.extend(keys::known(&desk));
            } else {
                let (found, reachable) = network::all(&desk).await;
                findings.extend(found);
                findings.extend(keys::all(&desk, reachable).await);
            }
            Ok(findings)
        })
    }
}

fn text(findings: &[Finding], colour: bool) -> String {
    let width = findings.iter().map(|finding| finding.about.chars().count()).max().unwrap_or_default().min(40);
    let (mut text, mut family) = (String::new(), "");
    for finding in findings {
        if finding.family != family {
            family = finding.family;
            text.push_str(&format!("{}{family}\n", if text.is_empty() { "" } else { "\n" }));
        }
        let (word, tone) = match finding.level {
            Level::Ok => ("ok     ", Tone::Good),
            Level::Warning => ("warning", Tone::Doubtful),
            Level::Broken => ("broken ", Tone::Bad),
        };
        text.push_str(&format!("  {}  {:<width$}  {}\n", tone.paint(word, colour), finding.about, finding.found));
        if !finding.advice.is_empty() {
            text.push_str(&format!("           → {}\n", finding.advice));
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let summary = match (count(Level::Warning), count(Level::Broken)) {
        (0, 0) => "Everything is in order.".to_owned(),
        (warnings, 0) => format!("Nothing is broken; {warnings} to look at."),
        (0, broken) => format!("{broken} broken."),
        (warnings, broken) => format!("{broken} broken, {warnings} more to look at."),
    };
    text + "\n" + &summary + "\n"
}
