//! What can be chosen on the command line, and what is compared.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use cloudbeds_auth_proxy::budget::Limits;

use crate::chance::Chance;

/// Plays a day of many hotels through the real budget, on a clock that does not wait.
#[derive(Debug, Parser)]
#[command(name = "budget_day", after_help = "For example: cargo bench --bench budget_day -- --html day.html")]
pub(crate) struct Options {
    /// How many hotels there are
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(20..=10_000))]
    pub(crate) hotels: u32,
    /// How many replicas their calls come through; one owns the budget, more share it
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) replicas: u32,
    /// By which of them a hotel's calls come
    #[arg(long, value_enum, default_value_t = By::Any)]
    pub(crate) by: By,
    /// What a report of a replica takes to get to the script, and an answer back, in milliseconds
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=50))]
    pub(crate) way: u32,
    /// What Cloudbeds grants: starts in any one second
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) per_second: u32,
    /// The hour of the day at which it begins; the peak is from 2 to 4
    #[arg(long, default_value_t = 0.0, value_parser = hours)]
    pub(crate) from: f64,
    /// How many hours are played; all that are left of the day if it does not say
    #[arg(long, value_parser = hours)]
    pub(crate) hours: Option<f64>,
    /// Which settings are played; all for one replica, and `patient` for several, if none is named
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME,…")]
    pub(crate) settings: Vec<Setting>,
    /// Plays an overload by replicas that share through a real `redis-server` instead: with one, eight and all of them
    #[arg(long)]
    pub(crate) shared: bool,
    /// How much of that is played, in minutes
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=60))]
    pub(crate) minutes: u32,
    /// A fifth of the hotels, eight replicas and the first ten minutes of the peak: to see that it runs
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

/// A number of hours within a day.
fn hours(text: &str) -> Result<f64, String> {
    let hours = text.parse::<f64>().ok().filter(|hours| (0.0..=24.0).contains(hours));
    hours.ok_or_else(|| "a number from 0 to 24 is needed".to_owned())
}

impl Options {
    /// With what `--quick` and silence mean.
    pub(crate) fn filled_in(self) -> Self {
        let mut options = self;
        if options.quick {
            (options.hotels, options.per_second, options.replicas) = (200, 2, options.replicas.min(8));
            (options.from, options.hours) = (2.0, Some(0.17));
            options.minutes = 1;
        }
        if options.settings.is_empty() {
            options.settings = Setting::value_variants().to_vec();
            if options.replicas > 1 {
                options.settings = vec![Setting::Patient];
            }
        }
        options
    }

    /// When it begins, and how many minutes are played.
    pub(crate) fn time(&self) -> (Duration, u32) {
        let left = 24.0 - self.from;
        let hours = self.hours.map_or(left, |hours| hours.min(left));
        (Duration::from_secs_f64(self.from * 3600.0), (hours * 60.0).round() as u32)
    }

    /// What a report takes to the script.
    pub(crate) fn way(&self) -> Duration {
        Duration::from_millis(self.way.into())
    }

    /// What runs, for people.
    pub(crate) fn about(&self) -> String {
        let Self { hotels, replicas, per_second, way, .. } = self;
        let who = if *replicas == 1 {
            format!("one replica, which owns the budget of {per_second} starts a second")
        } else {
            format!(
                "{replicas} replicas, each with a queue and places of its own, which share {per_second} starts a second by \
                 src/shared/budget.lua itself, run in this process and {way} ms away; a hotel's calls come {}",
                self.by.words()
            )
        };
        let (from, minutes) = self.time();
        let hour = |minutes: u64| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        let from = from.as_secs() / 60;
        format!(
            "{hotels} hotels; {who}; {} to {} of a day, on a paused clock.",
            hour(from),
            hour(from + u64::from(minutes))
        )
    }
}

/// By which replica a hotel's calls come.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum By {
    /// Each hotel's by one of its own, as where the property is what a balancer goes by
    One,
    /// Each call by any
    Any,
}

impl By {
    /// The replica of a call. Chance goes on alike, so that the traffic is the same.
    pub(crate) fn replica(self, hotel: u64, chance: &mut Chance) -> usize {
        let any = chance.below(1 << 20);
        if self == Self::One { usize::try_from(hotel).unwrap_or(0) } else { any }
    }

    /// For people.
    pub(crate) fn words(self) -> &'static str {
        if self == Self::One { "by one replica" } else { "by any" }
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
