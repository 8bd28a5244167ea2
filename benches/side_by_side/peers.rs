//! Starting the peers, each on a port and a log of its own.
//!
//! In: who, with how many keys and workers. Out: a running [`Proxy`] that accepts connections, or a sentence.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::kit::process::{Running, command, find};
use crate::kit::{Sentence, free_address};
use crate::machine::Machine;
use crate::options::{Options, Peer, name};
use crate::recipes::{self, Site};
use crate::stand_in::StandIn;

/// The first property; ids of the length seen in the field.
pub(crate) const FIRST: u64 = 100_000_000_001;

/// How many keys every peer has in the comparison.
pub(crate) const KEYS: u64 = 10_000;

/// Reading 100,000 keys takes a while on a busy machine.
const READY: Duration = Duration::from_secs(20);

/// How many ports are tried for one peer.
const PORTS: u32 = 3;

/// Everything peers are started from.
pub(crate) struct Place<'a> {
    pub(crate) options: &'a Options,
    pub(crate) machine: &'a Machine,
    pub(crate) stand_in: &'a StandIn,
    pub(crate) directory: &'a Path,
}

/// A peer at work.
pub(crate) struct Proxy {
    pub(crate) peer: Peer,
    pub(crate) address: SocketAddr,
    pub(crate) process: Running,
}

/// How a peer is to be started, where it matters.
#[derive(Clone, Copy)]
pub(crate) struct How<'a> {
    pub(crate) keys: u64,
    pub(crate) workers: u32,
    /// Instead of the proxies' one core.
    pub(crate) cores: Option<&'a str>,
    /// Instead of the stand-in.
    pub(crate) upstream: Option<SocketAddr>,
    /// Whether ours writes its access lines to a file that stays.
    pub(crate) log: bool,
    /// How many apps the hotels of ours are divided among; it is not told of any if it is 0.
    pub(crate) apps: u64,
    /// Whether each app has a budget, the highest there is.
    pub(crate) budgets: bool,
}

impl Default for How<'_> {
    fn default() -> Self {
        Self { keys: KEYS, workers: 1, cores: None, upstream: None, log: true, apps: 0, budgets: false }
    }
}

/// The key of a property.
pub(crate) fn key(property: u64) -> String {
    // Of the usual form and length, and no two alike.
    format!("cbat_{:0>32}", format!("{:x}", u128::from(property) * 0x9E37_79B9_7F4A_7C15_F39C))
}

impl Peer {
    /// Whether it speaks HTTP/2 to the upstream.
    pub(crate) fn speaks_http2(self) -> bool {
        matches!(self, Self::HaproxyH2 | Self::OursH2 | Self::BeforeH2)
    }

    /// Whether it is this project's.
    pub(crate) fn is_ours(self) -> bool {
        !matches!(self, Self::Nginx | Self::HaproxyH1 | Self::HaproxyH2)
    }
}

impl Place<'_> {
    /// The program of a peer, or how to come by it.
    pub(crate) fn program(&self, peer: Peer) -> Result<PathBuf, Sentence> {
        let installed = |program: &str| {
            find(program).ok_or_else(|| format!("{} is not measured: apt-get install {program}", name(peer)))
        };
        match peer {
            Peer::Nginx => installed("nginx"),
            Peer::HaproxyH1 | Peer::HaproxyH2 => installed("haproxy"),
            Peer::OursH1 | Peer::OursH2 => {
                Ok(self.options.binary.clone().unwrap_or_else(|| env!("CARGO_BIN_EXE_cloudbeds-auth-proxy").into()))
            }
            Peer::BeforeH1 | Peer::BeforeH2 => self.options.before.clone().ok_or_else(|| "no --before given".into()),
        }
    }

    /// Starts a peer and waits until it accepts connections. A port that somebody else took first is left to them.
    pub(crate) fn start(&self, peer: Peer, how: How<'_>) -> Result<Proxy, Sentence> {
        let mut tries = 1..PORTS;
        loop {
            let address = free_address()?;
            let started = self.start_at(address, peer, how);
            if started.is_ok() || TcpListener::bind(address).is_ok() || tries.next().is_none() {
                return started;
            }
        }
    }

    /// The same at one address only.
    pub(crate) fn start_at(&self, address: SocketAddr, peer: Peer, how: How<'_>) -> Result<Proxy, Sentence> {
        let program = self.program(peer)?;
        let upstream = if peer.speaks_http2() { self.stand_in.http2 } else { self.stand_in.http1 };
        let site = Site {
            listen: address,
            upstream: how.upstream.unwrap_or(upstream),
            http2: peer.speaks_http2(),
            directory: self.directory,
            descriptors: self.machine.descriptors,
        };
        let own = format!("{}-{}", name(peer), address.port());
        let file = |end: &str| self.directory.join(format!("{own}.{end}"));
        let (config, output) = (file("conf"), file("out"));
        let mut words = command(&program, how.cores.or(self.machine.proxy.as_deref()));
        match peer {
            Peer::Nginx => {
                self.map_file("nginx-keys.map", how.keys, |property, key| format!("{property} {key};\n"))?;
                write(&config, &recipes::nginx(&site), 0o600)?;
                words.arg("-p").arg(self.directory).arg("-c").arg(&config);
                words.arg("-e").arg(self.directory.join("nginx-error.log"));
            }
            Peer::HaproxyH1 | Peer::HaproxyH2 => {
                self.map_file("haproxy-keys.map", how.keys, |property, key| format!("{property} {key}\n"))?;
                write(&config, &recipes::haproxy(&site), 0o600)?;
                words.args(["-db", "-f"]).arg(&config);
            }
            _ => {
                // In a directory of their own: ours watches it, and would hear of every line of everybody's log.
                let keys = format!("keys/{}-{}.yaml", how.keys, how.apps);
                fs::create_dir_all(self.directory.join("keys")).map_err(|error| format!("keys: {error}"))?;
                self.map_file(&keys, how.keys, |property, key| match how.apps {
                    0 => format!("\"{property}\": {key}\n"),
                    apps => format!("\"{property}\": {{ key: {key}, app: a{} }}\n", property % apps),
                })?;
                let keys = self.directory.join(keys);
                let log = if how.log { file("log") } else { "/dev/null".into() };
                let limits = if how.budgets { "{ requests_per_second: 100000 }" } else { "null" };
                let mut text = recipes::ours(&site, free_address()?, &keys, &log, how.workers, limits);
                for app in 0..how.apps {
                    // Writing to a String cannot fail.
                    let _ =
                        writeln!(text, "{}  a{app}: {{ client_id: c{app} }}", if app == 0 { "apps:\n" } else { "" });
                }
                write(&config, &text, 0o600)?;
                words.arg("serve").arg("--config").arg(&config);
            }
        }
        let mut process = Running::start(&name(peer), words, &output)?;
        process.wait_ready(READY, |own| own.listens(address))?;
        Ok(Proxy { peer, address, process })
    }

    fn map_file(&self, file: &str, keys: u64, line: impl Fn(u64, String) -> String) -> Result<(), Sentence> {
        let path = self.directory.join(file);
        if path.exists() {
            return Ok(());
        }
        let mut text = String::new();
        for property in FIRST..FIRST + keys {
            // Writing to a String cannot fail.
            let _ = text.write_str(&line(property, key(property)));
        }
        write(&path, &text, 0o600)
    }
}

/// Writes a file that nobody else may read.
pub(crate) fn write(path: &Path, text: &str, mode: u32) -> Result<(), Sentence> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(path).map_err(failed)?;
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed)?;
    std::io::Write::write_all(&mut &file, text.as_bytes()).map_err(failed)
}
