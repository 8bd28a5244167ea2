//! What can be chosen on the command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::kit::Sentence;
use crate::mix::Mix;

/// The sandbox's first property.
const FIRST: u64 = 1001;

/// The most connections; each has a thread.
const MOST: usize = 1024;

/// Loads a proxy: the built-in sandbox behind one of ours, or one of your own.
#[derive(Debug, Parser)]
#[command(
    name = "load",
    after_help = "For example: cargo bench --bench load -- --proxy 127.0.0.1:8080 --properties 1001,1002 --rate 5"
)]
struct Typed {
    /// The proxy to load; without one, a sandbox and a proxy are started
    #[arg(long, value_name = "ADDRESS:PORT")]
    proxy: Option<SocketAddr>,
    /// Whose calls: 1001,1002 or 1001-1100. Needed with --proxy; the built-in sandbox has 1001-1100
    #[arg(long, value_name = "ID,…")]
    properties: Option<String>,
    /// Which calls, and how often each beside the others: [METHOD ]PATH[ +BYTES]=WEIGHT, … where +BYTES sends a body
    #[arg(long, value_name = "CALL=WEIGHT,…", default_value = Mix::USUAL)]
    mix: String,
    /// Calls a second, whatever the answers do; without it, each connection calls again as soon as it is answered
    #[arg(long, value_name = "NUMBER")]
    rate: Option<f64>,
    /// Connections; 16, or at a fixed rate as many as calls a second, up to 256
    #[arg(long, value_name = "NUMBER")]
    concurrency: Option<usize>,
    /// Seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 15.0)]
    duration: f64,
    /// Seconds an answer may take
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
    timeout: f64,
    /// A field for every request, such as a caller's token
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// Loads the proxy even though its upstream is not a sandbox; needs --rate
    #[arg(long)]
    load_real_accounts_of_real_hotels: bool,
    /// Writes the results
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// What cargo passes to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// What was typed, and what it means.
pub(crate) struct Options {
    pub(crate) proxy: Option<SocketAddr>,
    pub(crate) properties: Vec<u64>,
    pub(crate) mix: Mix,
    pub(crate) rate: Option<f64>,
    concurrency: Option<usize>,
    pub(crate) duration: Duration,
    pub(crate) timeout: Duration,
    /// Whole lines, each with its end.
    pub(crate) headers: String,
    pub(crate) real: bool,
    pub(crate) json: Option<PathBuf>,
}

impl Options {
    pub(crate) fn read() -> Result<Self, Sentence> {
        Self::of(std::env::args_os())
    }

    /// What these words mean, the first of which is the program's name.
    pub(crate) fn of(words: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Self, Sentence> {
        let typed = Typed::parse_from(words);
        let properties = match (&typed.properties, typed.proxy) {
            (Some(text), _) => properties(text)?,
            (None, None) => (FIRST..FIRST + 100).collect(),
            (None, Some(_)) => return Err("--proxy needs --properties: whose calls should these be?".to_owned()),
        };
        if typed.proxy.is_none() && properties.iter().any(|id| !(FIRST..FIRST + 10_000).contains(id)) {
            return Err("the built-in sandbox's properties are 1001 to 11000".to_owned());
        }
        if typed.rate.is_some_and(|rate| !(rate.is_finite() && rate > 0.0)) {
            return Err("--rate must be more than nothing".to_owned());
        }
        if typed.concurrency.is_some_and(|connections| !(1..=MOST).contains(&connections)) {
            return Err(format!("--concurrency must be 1 to {MOST}"));
        }
        let seconds = |name: &str, seconds: f64| {
            Duration::try_from_secs_f64(seconds)
                .ok()
                .filter(|duration| !duration.is_zero() && *duration <= Duration::from_hours(24))
                .ok_or_else(|| format!("{name} must be more than nothing and at most a day"))
        };
        let mut headers = String::new();
        for line in &typed.header {
            if !line.contains(':') || line.contains(['\r', '\n']) {
                return Err("--header must be NAME: VALUE".to_owned());
            }
            headers += &format!("{line}\r\n");
        }
        Ok(Self {
            proxy: typed.proxy,
            properties,
            mix: Mix::parse(&typed.mix)?,
            rate: typed.rate,
            concurrency: typed.concurrency,
            duration: seconds("--duration", typed.duration)?,
            timeout: seconds("--timeout", typed.timeout)?,
            headers,
            real: typed.load_real_accounts_of_real_hotels,
            json: typed.json,
        })
    }

    pub(crate) fn connections(&self) -> usize {
        let by_rate = self.rate.map_or(16, |rate| rate.ceil().clamp(1.0, 256.0) as usize);
        self.concurrency.unwrap_or(by_rate)
    }
}

/// "1001,1005-1010" counted out.
fn properties(text: &str) -> Result<Vec<u64>, Sentence> {
    let wrong = || "--properties must be ids and ranges, such as 1001,1005-1010".to_owned();
    let mut all = Vec::new();
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (Ok(from), Ok(to)) = (from.trim().parse::<u64>(), to.trim().parse::<u64>()) else { return Err(wrong()) };
        if from > to || to - from > 1_000_000 {
            return Err(wrong());
        }
        all.extend(from..=to);
    }
    Ok(all)
}
