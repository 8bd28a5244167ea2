//! What can be chosen on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Measures cloudbeds-auth-proxy beside nginx and HAProxy, on this machine, doing equal work.
#[derive(Debug, Parser)]
#[command(
    name = "side_by_side",
    after_help = "For example: cargo bench --bench side_by_side -- --works json1k,latency"
)]
pub(crate) struct Options {
    /// What to measure; all of it but the soak if none is named
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME,…")]
    pub(crate) works: Vec<Work>,
    /// Whom to measure; all who are installed if none is named. nginx is the measure of the ratios
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME,…")]
    pub(crate) peers: Vec<Peer>,
    /// How often each work is done by each peer, in turns
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// How long each peer works in each round
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,
    /// How long each soak takes
    #[arg(long, default_value_t = 600, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(4..=86_400))]
    pub(crate) soak_seconds: u32,
    /// Under a minute, for CI: every peer must be there and do equal work; the figures mean little
    #[arg(long)]
    pub(crate) quick: bool,
    /// Writes every figure of every round
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Writes a report with plots, one file
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// The program to measure instead of the one cargo has just built
    #[arg(long, value_name = "FILE")]
    pub(crate) binary: Option<PathBuf>,
    /// A second program of ours, measured as `before`, to see what a change does
    #[arg(long, value_name = "FILE")]
    pub(crate) before: Option<PathBuf>,
    /// What cargo passes to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// One kind of work.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Work {
    /// CPU per request: GET of 1 KiB JSON, 32 connections
    #[value(name = "json1k")]
    Json1k,
    /// CPU per request: GET of 16 KiB JSON, 16 connections
    #[value(name = "json16k")]
    Json16k,
    /// CPU per request: GET of 1 MiB JSON, 16 connections
    #[value(name = "down1m")]
    Down1m,
    /// CPU per request: POST of 1 MiB, 16 connections
    #[value(name = "up1m")]
    Up1m,
    /// p50 and p99 at 400 requests a second
    Latency,
    /// Resident memory at the start, after the work, and for each idle connection
    Memory,
    /// Cost with 100,000 keys beside the cost with one
    Keys,
    /// CPU per request below a budget, beside no budgets
    Budgets,
    /// Two workers beside one
    Workers,
    /// What an application saves that opens a connection for every call
    Trips,
    /// Resident memory of ours over ten minutes of load; only when it is named
    Soak,
}

/// Who is measured.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, ValueEnum)]
pub(crate) enum Peer {
    /// nginx, HTTP/1.1 upstream (its only one)
    Nginx,
    /// HAProxy, HTTP/1.1 upstream
    #[value(name = "haproxy-h1")]
    HaproxyH1,
    /// HAProxy, HTTP/2 upstream
    #[value(name = "haproxy-h2")]
    HaproxyH2,
    /// cloudbeds-auth-proxy, HTTP/1.1 upstream
    #[value(name = "ours-h1")]
    OursH1,
    /// cloudbeds-auth-proxy, HTTP/2 upstream
    #[value(name = "ours-h2")]
    OursH2,
    /// The program of --before, HTTP/1.1 upstream
    #[value(name = "before-h1")]
    BeforeH1,
    /// The program of --before, HTTP/2 upstream
    #[value(name = "before-h2")]
    BeforeH2,
}

impl Options {
    /// As typed, and filled in.
    pub(crate) fn read() -> Self {
        Self::parse().filled_in()
    }

    /// With what `--quick` and silence mean.
    pub(crate) fn filled_in(self) -> Self {
        let mut options = self;
        if options.quick {
            (options.rounds, options.seconds) = (1, 1);
        }
        if options.works.is_empty() {
            options.works = Work::value_variants().to_vec();
            options.works.retain(|work| *work != Work::Soak);
            if options.quick {
                // Those whose means differ from the others' take the longest, and prove nothing in a second.
                options.works.retain(|work| !matches!(work, Work::Keys | Work::Budgets | Work::Workers));
            }
        }
        if options.peers.is_empty() {
            options.peers = Peer::value_variants().to_vec();
        }
        if options.before.is_none() {
            options.peers.retain(|peer| !matches!(peer, Peer::BeforeH1 | Peer::BeforeH2));
        }
        options
    }

    pub(crate) fn has(&self, work: Work) -> bool {
        self.works.contains(&work)
    }

    pub(crate) fn soak(&self) -> Duration {
        Duration::from_secs(self.soak_seconds.into())
    }

    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }
}

/// The name by which it is chosen and shown.
pub(crate) fn name<T: ValueEnum>(value: T) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
