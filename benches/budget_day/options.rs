//! What can be chosen on the command line, and what is compared.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use cloudbeds_auth_proxy::budget::Limits;

/// Plays a day of many hotels through the real budget, on a clock that does not wait.
#[derive(Debug, Parser)]
#[command(name = "budget_day", after_help = "For example: cargo bench --bench budget_day -- --html day.html")]
pub(crate) struct Options {
    /// How many hotels there are
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(20..=10_000))]
    pub(crate) hotels: u32,
    /// How many replicas their calls come through
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) replicas: u32,
    /// What Cloudbeds grants: starts in any one second
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) per_second: u32,
    /// How much of the day is played; the peak is over after four hours
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(4..=24))]
    pub(crate) hours: u32,
    /// Which settings are played; all if none is named
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME,…")]
    pub(crate) settings: Vec<Setting>,
    /// Plays an overload by replicas that share through a real `redis-server` instead: with one, eight and all of them
    #[arg(long)]
    pub(crate) shared: bool,
    /// How much of that is played, in minutes
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=60))]
    pub(crate) minutes: u32,
    /// A fifth of the hotels, the grant and the replicas, and the night alone: to see that it runs
    #[arg(long)]
    pub(crate) quick: bool,
    /// Writes every figure
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Writes a report with plots, one file
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// What cargo passes to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// With what `--quick` and silence mean.
    pub(crate) fn filled_in(self) -> Self {
        let mut options = self;
        if options.quick {
            (options.hotels, options.per_second, options.replicas, options.hours) = (200, 2, 10, 4);
            options.minutes = 1;
        }
        if options.settings.is_empty() {
            options.settings = Setting::value_variants().to_vec();
        }
        options
    }
}

/// How the budget is set and asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Setting {
    /// As the proxy comes: nobody waits for longer than 5 s
    AsShipped,
    /// Waits of up to two minutes, and room for all who wait
    Patient,
    /// The same, and audits and synchronisations say `X-Proxy-Priority: low`
    Polite,
    /// As patient, but all hotels stand in one line: what there would be without turns
    FirstCome,
}

impl Setting {
    /// What the report calls it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::AsShipped => "as shipped: max_wait 5s",
            Self::Patient => "patient: max_wait 2m",
            Self::Polite => "polite: max_wait 2m, jobs at low priority",
            Self::FirstCome => "first come, first served: max_wait 2m, no turns",
        }
    }

    /// What the proxy's configuration would say.
    pub(crate) fn limits(self) -> Limits {
        let shipped = Limits {
            max_wait: Duration::from_secs(5),
            max_waiting: 1_000,
            max_waiting_per_property: 200,
            weights: Arc::default(),
        };
        let patient = Limits { max_wait: Duration::from_mins(2), max_waiting: 5_000, ..shipped.clone() };
        match self {
            Self::AsShipped => shipped,
            Self::Patient | Self::Polite => patient,
            Self::FirstCome => Limits { max_waiting_per_property: 5_000, ..patient },
        }
    }

    /// Whether jobs let others go first.
    pub(crate) fn is_polite(self) -> bool {
        self == Self::Polite
    }

    /// Whether all hotels are one to the budget.
    pub(crate) fn is_one_line(self) -> bool {
        self == Self::FirstCome
    }
}
