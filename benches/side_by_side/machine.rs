//! What this machine offers: cores, tools, descriptors.
//!
//! In: nothing. Out: which core is the proxies' and which are the load's, and a sentence for everything that is missing.
//! Whatever is missing costs the figures that need it and nothing else.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::kit::process::find;

/// Descriptors left over for everything that is not a caller's connection.
const SPARE: u64 = 400;

/// The machine, and how it is divided.
pub(crate) struct Machine {
    /// The proxies' core, if they can be pinned.
    pub(crate) proxy: Option<String>,
    /// Two cores for two workers, if two more are left for the load.
    pub(crate) two: Option<String>,
    /// Every core this process was allowed when it started.
    pub(crate) all: String,
    /// Threads of the load and the stand-in.
    pub(crate) load_threads: usize,
    /// How many these are.
    pub(crate) cores: usize,
    pub(crate) wrk: Option<PathBuf>,
    /// The most descriptors a process may have.
    pub(crate) descriptors: u64,
    /// What is missing or odd, in sentences.
    pub(crate) notes: Vec<String>,
}

impl Machine {
    /// Looks around, and pins the calling process, its later threads and children to the load's cores.
    pub(crate) fn divide() -> Self {
        let cores = allowed_cores();
        let division = Division::of(&cores);
        let mut machine = Self {
            proxy: None,
            two: None,
            all: list(&cores),
            cores: cores.len(),
            load_threads: cores.len().saturating_sub(1).max(1),
            wrk: find("wrk"),
            descriptors: raise_descriptors(),
            notes: Vec::new(),
        };
        let mut notes = Vec::new();
        match division {
            None => notes.push(
                "There is one core only: proxy, load and upstream share it, and requests per second say nothing."
                    .to_owned(),
            ),
            Some(Division { proxy, two, load }) => match pin(&list(&load)) {
                Ok(()) => {
                    notes.push(format!("Proxies run on core {proxy}; load and upstream on {}.", list(&load)));
                    machine.proxy = Some(proxy.to_string());
                    machine.two = two.map(|two| list(&two));
                    machine.load_threads = load.len();
                }
                Err(why) => notes.push(format!("Nothing is pinned ({why}): expect a wider spread.")),
            },
        }
        if machine.wrk.is_none() {
            notes.push("wrk is missing, so CPU per request is not measured: apt-get install wrk".to_owned());
        }
        if std::fs::read_to_string("/proc/self/schedstat").is_err() {
            notes.push("This kernel has no /proc/PID/schedstat (CONFIG_SCHED_INFO): no CPU times.".to_owned());
        }
        machine.notes = notes;
        machine
    }

    /// How many idle connections can be held: HAProxy reckons with two descriptors for each.
    pub(crate) fn idle_connections(&self) -> usize {
        usize::try_from((self.descriptors.saturating_sub(SPARE) / 2).min(10_000)).unwrap_or(0)
    }

    /// What the figures depend on, for the reports.
    pub(crate) fn describe(&self) -> Value {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let info = read("/proc/cpuinfo");
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        json!({
            "cpu": model.map_or("unknown", |(_, name)| name),
            "cores": self.cores,
            "kernel": read("/proc/sys/kernel/osrelease").trim(),
            "load_average": read("/proc/loadavg").split(' ').next().unwrap_or_default(),
            "pinned": self.proxy.is_some(),
        })
    }
}

/// Who gets which cores, where there are two or more.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Division {
    pub(crate) proxy: usize,
    /// For two workers, if as many are left for the load.
    pub(crate) two: Option<[usize; 2]>,
    pub(crate) load: Vec<usize>,
}

impl Division {
    /// The first core is the proxies'; the load has the others, but for the second where there are four.
    pub(crate) fn of(cores: &[usize]) -> Option<Self> {
        match cores {
            [] | [_] => None,
            [proxy, second, load @ ..] if load.len() >= 2 => {
                Some(Self { proxy: *proxy, two: Some([*proxy, *second]), load: load.to_vec() })
            }
            [proxy, load @ ..] => Some(Self { proxy: *proxy, two: None, load: load.to_vec() }),
        }
    }
}

/// As taskset takes it.
fn list(cores: &[usize]) -> String {
    cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn allowed_cores() -> Vec<usize> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    counted_out(status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default())
}

/// "0-1,4" of `/proc/self/status`, each core by itself.
pub(crate) fn counted_out(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.trim().parse::<usize>().ok()?..=to.trim().parse().ok()?)
    };
    list.trim().split(',').filter_map(range).flatten().collect()
}

fn pin(cores: &str) -> Result<(), String> {
    let taskset = find("taskset").ok_or("taskset is missing: apt-get install util-linux")?;
    let done = Command::new(taskset)
        .args(["-a", "-c", "-p", cores, &std::process::id().to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match done {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err("no permission to set the affinity".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// As many descriptors as the system lets this process and its children have.
fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(1 << 20).min(1 << 20);
    // A refusal leaves what there was.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(most)
}
