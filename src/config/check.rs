//! From what was typed to what it means.
//!
//! In: a [`Raw`] of the right shape. Out: a [`Config`], or faults about values that are out of bounds, are no address,
//! origin or word we know, or do not go together. Checking goes on after a fault, so all are told at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::raw::{self, Listen, Raw};
use super::sources::{Sources, path};
use super::units::{Size, Time};
use super::{
    Admin, Client, Config, Drain, Identify, Keys, Limits, Listener, Log, LogFormat, LogOutput, Policy, Pool, Route,
    Timeouts, Tls, Upstream, Workers,
};
use crate::address::Address;
use crate::fault::is_word;
use crate::log_filter::LogFilter;
use crate::origin::Origin;
use crate::yaml::Step;

/// The most addresses of the proxy; every one is a socket of every core.
const LISTENERS_MAX: usize = 1000;

/// Starts in a second. Cloudbeds grants 5 or 10; a load test of one's own may want more than it ever reaches.
pub(super) const RATE: RangeInclusive<u64> = 1..=100_000;

/// What the option `unauthenticated_network` must say before a listener may stand on a network. A `true` would be
/// copied without being read.
pub const UNAUTHENTICATED_NETWORK: &str = "anyone who reaches this listener may use every key";

/// What the option `policy.unreadable_codings` must say before an answer may pass in a coding that nobody here can read.
pub const UNREADABLE_CODINGS: &str = "answers that nobody can search for keys may pass";

/// What fits into Linux' `sun_path` with its closing zero, in bytes.
const SOCKET_PATH_MAX: usize = 107;

const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The meaning of `raw`; nothing when a fault left a hole.
pub(super) fn config(raw: &Raw, base_dir: &Path, sources: &mut Sources<'_>) -> Option<Config> {
    let mut check = Check { base_dir, sources };
    let tls = check.tls(&raw.tls);
    let listen = check.listeners(raw);
    let callers = check.callers(raw, listen.as_deref().unwrap_or_default());
    let admin = check.admin(&raw.admin, listen.as_deref().unwrap_or_default());
    let keys = check.keys(&raw.keys);
    let apps = check.apps(raw);
    let onboarding = check.onboarding(
        &raw.onboarding,
        apps.as_deref().unwrap_or_default(),
        listen.as_deref().unwrap_or_default(),
        admin.as_ref(),
    );
    let upstream = check.upstream(&raw.upstream);
    let limits = raw.limits.as_ref().map(|limits| check.limits(limits));
    let shared = check.shared(raw, apps.as_deref().unwrap_or_default(), limits.as_ref());
    let policy =
        check.word("policy.credential_paths", &raw.policy.credential_paths, &[("refuse", false), ("allow", true)]);
    let unreadable_codings =
        check.said("policy.unreadable_codings", raw.policy.unreadable_codings.as_deref(), UNREADABLE_CODINGS);
    let (hosts, origins) = check.sites(&raw.policy);
    let client = check.client(&raw.client);
    let drain = check.drain(&raw.drain);
    let log = check.log(&raw.log);
    let workers = check.workers(raw.workers);
    Some(Config {
        listen: listen?,
        tls: tls?,
        callers: callers?,
        admin: admin?,
        keys: keys?,
        apps: apps?,
        onboarding: onboarding?,
        upstream: upstream?,
        limits,
        shared: shared?,
        identify: Identify { query: raw.identify.query, path_prefix: raw.identify.path_prefix },
        policy: Policy { credential_paths: policy?, unreadable_codings, hosts, origins },
        client,
        drain,
        log: log?,
        workers,
    })
}

pub(super) struct Check<'a, 'text> {
    pub(super) base_dir: &'a Path,
    pub(super) sources: &'a mut Sources<'text>,
}

impl Check<'_, '_> {
    pub(super) fn fault(&mut self, option: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.sources.fault(&path(option), message, hint);
    }

    pub(super) fn time(&mut self, option: &str, time: Time, bounds: RangeInclusive<Duration>) -> Duration {
        if !bounds.contains(&time.0) {
            let (least, most) = (Time(*bounds.start()), Time(*bounds.end()));
            self.fault(option, format!("expected {least} to {most}"), "");
        }
        time.0
    }

    fn count(&mut self, option: &str, count: usize, bounds: RangeInclusive<usize>) -> usize {
        if !bounds.contains(&count) {
            self.fault(option, format!("expected {} to {}", bounds.start(), bounds.end()), "");
        }
        count
    }

    fn word<T: Copy>(&mut self, option: &str, word: &str, words: &[(&str, T)]) -> Option<T> {
        let found = words.iter().find(|(known, _)| *known == word);
        if found.is_none() {
            let known: Vec<_> = words.iter().map(|(known, _)| format!("`{known}`")).collect();
            self.fault(option, format!("expected {}", known.join(" or ")), "");
        }
        found.map(|(_, meaning)| *meaning)
    }

    /// Whether a risk is accepted in the very words that name it.
    fn said(&mut self, option: &str, typed: Option<&str>, sentence: &str) -> bool {
        if typed.is_some_and(|typed| typed != sentence) {
            let hint = format!("write exactly \"{sentence}\", or remove the option");
            self.fault(option, "does not say what it means", hint);
        }
        typed.is_some()
    }

    fn origin(&mut self, at: &[Step], text: &str) -> Option<Origin> {
        text.parse().map_err(|error: crate::origin::NotAnOrigin| self.sources.fault(at, error.to_string(), "")).ok()
    }

    pub(super) fn file(&mut self, option: &str, text: &str) -> Option<PathBuf> {
        if text.is_empty() || text.contains('\0') {
            self.fault(option, "expected the path of a file", "");
            return None;
        }
        Some(self.base_dir.join(text))
    }

    /// Nothing, and a fault, where an entry's own name could not stand in a log or a dotted path.
    pub(super) fn entry_name(&mut self, section: &str, name: &str) -> Option<()> {
        if !name.is_empty() && is_word(name) && !name.contains('.') {
            return Some(());
        }
        let mut at = path(section);
        at.push(Step::Name(name.to_owned()));
        self.sources.fault(&at, "expected a name of at most 64 characters, without spaces and dots", "");
        None
    }

    /// Something is wrong with an option of an entry.
    pub(super) fn entry_fault(&mut self, section: &str, name: &str, option: &str, message: &str, hint: &str) {
        let mut at = path(section);
        at.extend([Step::Name(name.to_owned()), Step::Name(option.to_owned())]);
        self.sources.fault(&at, message, hint);
    }

    fn listeners(&mut self, raw: &Raw) -> Option<Vec<Listener>> {
        let one;
        let (typed, list) = match &raw.listen {
            Listen::One(address) => {
                one = [raw::Listener { address: address.clone(), default_property: None }];
                (&one[..], false)
            }
            Listen::Many(many) => (&many[..], true),
        };
        let network =
            self.said("unauthenticated_network", raw.unauthenticated_network.as_deref(), UNAUTHENTICATED_NETWORK);
        if typed.is_empty() && !self.sources.blamed_below("listen[") {
            self.fault("listen", "expected at least one address", "");
        }
        if typed.len() > LISTENERS_MAX {
            let words = format!("names more than {LISTENERS_MAX} addresses");
            self.fault(
                "listen",
                words,
                "one serves any number of hotels: name them by X-Property-Id, or by identify.path_prefix",
            );
        }
        let mut listeners: Vec<Listener> = Vec::new();
        for (index, listener) in typed.iter().take(LISTENERS_MAX).enumerate() {
            let mut at = path("listen");
            at.extend(list.then_some(Step::Item(index)));
            let address = match listener.address.parse() {
                Ok(Address::Unix(socket)) => Address::Unix(self.base_dir.join(socket)),
                Ok(address) => address,
                Err(error) => {
                    let error: crate::address::NotAnAddress = error;
                    self.sources.fault(&at, format!("expected {error}"), "");
                    continue;
                }
            };
            if matches!(&address, Address::Unix(socket) if socket.as_os_str().len() > SOCKET_PATH_MAX) {
                self.sources.fault(
                    &at,
                    format!("the socket's path is longer than {SOCKET_PATH_MAX} bytes"),
                    "shorten it",
                );
            }
            let known = !raw.callers.0.is_empty() || raw.tls.client_ca_file.is_some();
            if !network && !known && !address.is_local() {
                let words = format!(
                    "listen on 127.0.0.1, [::1] or a unix socket, name who may use it below `callers:`, ask for certificates \
                     with `tls.client_ca_file`, or accept it with \
                     `unauthenticated_network: \"{UNAUTHENTICATED_NETWORK}\"`"
                );
                self.sources.fault(&at, "would offer every key to the network, since callers are not checked", words);
            }
            if listeners.iter().any(|other| other.address.overlaps(&address)) {
                self.sources.fault(&at, "overlaps another listener", "give it another port or path");
            }
            let id = listener.default_property.as_deref().map(str::parse);
            let default_property = id.and_then(|id: Result<_, crate::property::NotAPropertyId>| {
                id.map_err(|error| self.sources.fault(&at, format!("default_property is {error}"), "")).ok()
            });
            listeners.push(Listener { address, default_property });
        }
        (!listeners.is_empty()).then_some(listeners)
    }

    /// Nothing where a fault left a hole; nothing inside where listeners stay plain.
    fn tls(&mut self, typed: &raw::Tls) -> Option<Option<Tls>> {
        let file = |check: &mut Self, option: &str, text: &Option<String>| {
            text.as_deref().map(|text| check.file(option, text)).map_or(Some(None), |path| path.map(Some))
        };
        let certificate = file(self, "tls.certificate_file", &typed.certificate_file);
        let key = file(self, "tls.key_file", &typed.key_file);
        let client_ca_file = file(self, "tls.client_ca_file", &typed.client_ca_file);
        let client_crl_file = file(self, "tls.client_crl_file", &typed.client_crl_file);
        if typed.client_crl_file.is_some() && typed.client_ca_file.is_none() {
            let hint = "name who issues them as tls.client_ca_file, or leave the list out";
            self.fault("tls.client_crl_file", "revokes certificates that nobody is asked for", hint);
        }
        match (certificate?, key?) {
            (Some(certificate_file), Some(key_file)) => {
                let (client_ca_file, client_crl_file) = (client_ca_file?, client_crl_file?);
                Some(Some(Tls { certificate_file, key_file, client_ca_file, client_crl_file, http2: typed.http2 }))
            }
            (None, None) => {
                if typed.client_ca_file.is_some() {
                    let hint = "name a certificate_file and a key_file beside it";
                    self.fault("tls.client_ca_file", "asks for certificates where no TLS is spoken", hint);
                }
                Some(None)
            }
            (Some(_), None) => {
                self.fault("tls.certificate_file", "has no key beside it", "name its private key as tls.key_file");
                None
            }
            (None, Some(_)) => {
                self.fault("tls.key_file", "has no certificate beside it", "name it as tls.certificate_file");
                None
            }
        }
    }

    fn admin(&mut self, typed: &raw::Admin, listeners: &[Listener]) -> Option<Admin> {
        let Ok(Address::Tcp(listen)) = typed.listen.parse::<Address>() else {
            self.fault("admin.listen", "expected an address such as 127.0.0.1:9090", "");
            return None;
        };
        let address = Address::Tcp(listen);
        if listeners.iter().any(|listener| listener.address.overlaps(&address)) {
            self.fault("admin.listen", "overlaps a proxy listener", "apps must not reach it: give it another port");
        }
        let listen: SocketAddr = listen;
        let token_file = typed.token_file.as_deref().and_then(|file| self.file("admin.token_file", file));
        Some(Admin { listen, token_file })
    }

    fn keys(&mut self, typed: &raw::Keys) -> Option<Keys> {
        let poll = self.time("keys.poll", typed.poll, Duration::from_millis(100)..=HOUR);
        let file = self.file("keys.file", &typed.file);
        let state_file = match typed.state_file.as_str() {
            "auto" => file.as_deref().map(crate::keys::state::beside),
            "off" => None,
            path if path.contains('/') => self.file("keys.state_file", path),
            _ => {
                self.fault(
                    "keys.state_file",
                    "expected `auto`, `off` or a path",
                    "write a path with a `/`: ./state.json",
                );
                None
            }
        };
        let idle_days = (typed.idle_days, typed.expiring_days);
        if idle_days.0 < 1 || idle_days.1 > 29 || idle_days.0 >= idle_days.1 {
            let words = "Cloudbeds deletes a key that was not used for 30 days";
            self.fault(
                "keys.idle_days",
                "expected 1 to 28, and less than keys.expiring_days, which is 29 at most",
                words,
            );
        }
        let (second, day) = (Duration::from_secs(1), DAY);
        let min = self.time("keys.cool_down.min", typed.cool_down.min, second..=day);
        let max = self.time("keys.cool_down.max", typed.cool_down.max, second..=day);
        if min > max && !self.sources.blamed("keys.cool_down.min") && !self.sources.blamed("keys.cool_down.max") {
            self.fault(
                "keys.cool_down.min",
                "is longer than keys.cool_down.max",
                "lower it, or raise keys.cool_down.max",
            );
        }
        let keep_alive = typed.keep_alive;
        Some(Keys { file: file?, poll, state_file, keep_alive, idle_days, cool_down: (min, max) })
    }

    fn upstream(&mut self, typed: &raw::Upstream) -> Option<Upstream> {
        let base_url = self.origin(&path("upstream.base_url"), &typed.base_url);
        let mut routes = Vec::with_capacity(typed.routes.len());
        for (prefix, origin) in &typed.routes {
            let mut at = path("upstream.routes");
            at.push(Step::Name(prefix.clone()));
            if !is_prefix(prefix) {
                let words = "start it with `/`, without `%`, `//`, dot segments, query or spaces";
                self.sources.fault(&at, "expected a path prefix such as /vault/", words);
            }
            let origin = self.origin(&at, origin);
            routes.extend(origin.map(|base_url| Route { prefix: prefix.clone(), base_url }));
        }
        routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
        let ca_file = typed.ca_file.as_deref().and_then(|file| self.file("upstream.ca_file", file));
        let (timeouts, pool, one) = (&typed.timeouts, &typed.pool, MILLISECOND..=HOUR);
        Some(Upstream {
            timeouts: Timeouts {
                connect: self.time("upstream.timeouts.connect", timeouts.connect, one.clone()),
                tls: self.time("upstream.timeouts.tls", timeouts.tls, one.clone()),
                first_byte: self.time("upstream.timeouts.first_byte", timeouts.first_byte, one.clone()),
                idle: self.time("upstream.timeouts.idle", timeouts.idle, one.clone()),
            },
            pool: Pool {
                idle: self.time("upstream.pool.idle", pool.idle, one),
                max_age: self.time("upstream.pool.max_age", pool.max_age, MILLISECOND..=DAY),
                unsafe_reuse: self.time("upstream.pool.unsafe_reuse", pool.unsafe_reuse, Duration::ZERO..=HOUR),
            },
            base_url: base_url?,
            routes,
            ca_file,
            http2: typed.http2,
        })
    }

    fn limits(&mut self, typed: &raw::Limits) -> Limits {
        if !RATE.contains(&typed.requests_per_second) {
            let hint = "write what Cloudbeds grants you; `limits: null` turns budgets off";
            self.fault("limits.requests_per_second", "expected 1 to 100000", hint);
        }
        let mut weights = BTreeMap::new();
        for (id, weight) in &typed.weights {
            let mut at = path("limits.weights");
            at.push(Step::Name(id.clone()));
            let weight = usize::try_from(*weight).ok().filter(|weight| (1..=100).contains(weight));
            match (id.parse(), weight) {
                (Ok(property), Some(weight)) => drop(weights.insert(property, weight)),
                (Err(error), _) => {
                    let error: crate::property::NotAPropertyId = error;
                    self.sources.fault(&at, error.to_string(), "");
                }
                (_, None) => self.sources.fault(&at, "expected 1 to 100", ""),
            }
        }
        Limits {
            requests_per_second: typed.requests_per_second,
            max_wait: self.time("limits.max_wait", typed.max_wait, Duration::ZERO..=HOUR),
            max_waiting: self.count("limits.max_waiting", typed.max_waiting, 0..=1_000_000),
            max_waiting_per_property: self.count(
                "limits.max_waiting_per_property",
                typed.max_waiting_per_property,
                0..=1_000_000,
            ),
            weights,
            announce: typed.announce,
        }
    }

    /// Names and pages that are welcome, in the form that browsers send.
    fn sites(&mut self, typed: &raw::Policy) -> (Vec<String>, Vec<String>) {
        let plain = |name: &str| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        };
        if !typed.hosts.iter().all(|host| plain(host)) {
            self.fault("policy.hosts", "expected names such as proxy.example.com", "without a port");
        }
        let origin = |text: &String| {
            let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
            let (host, port) = rest.map_or(("", ""), |rest| rest.split_once(':').unwrap_or((rest, "1")));
            plain(host) && port.parse::<u16>().is_ok() && !text.bytes().any(|byte| byte.is_ascii_uppercase())
        };
        if !typed.origins.iter().all(origin) {
            let hint = "as browsers send it: small letters, and no slash at the end";
            self.fault("policy.origins", "expected origins such as https://app.example.com", hint);
        }
        (typed.hosts.iter().map(|host| host.to_ascii_lowercase()).collect(), typed.origins.clone())
    }

    fn client(&mut self, typed: &raw::Client) -> Client {
        let Size(max_head_size) = typed.max_head_size;
        if !(1024..=1024 * 1024).contains(&max_head_size) {
            self.fault("client.max_head_size", "expected 1KiB to 1MiB", "");
        }
        Client {
            head_timeout: self.time("client.head_timeout", typed.head_timeout, MILLISECOND..=HOUR),
            idle: self.time("client.idle", typed.idle, MILLISECOND..=HOUR),
            max_head_size,
            max_headers: self.count("client.max_headers", typed.max_headers, 10..=1000),
            max_connections: self.count("client.max_connections", typed.max_connections, 1..=1_000_000),
        }
    }

    fn drain(&mut self, typed: &raw::Drain) -> Drain {
        let min = self.time("drain.min", typed.min, Duration::ZERO..=HOUR);
        let max = self.time("drain.max", typed.max, Duration::ZERO..=HOUR);
        if min > max && !self.sources.blamed("drain.min") && !self.sources.blamed("drain.max") {
            self.fault("drain.min", "is longer than drain.max", "lower it, or raise drain.max");
        }
        Drain { min, max }
    }

    fn log(&mut self, typed: &raw::Log) -> Option<Log> {
        let format = self.word("log.format", &typed.format, &[("text", LogFormat::Text), ("json", LogFormat::Json)]);
        let level = typed.level.parse::<LogFilter>();
        if let Err(error) = &level {
            self.fault("log.level", error.to_string(), "");
        }
        let output = match typed.output.as_str() {
            "stdout" => Some(LogOutput::Stdout),
            "stderr" => Some(LogOutput::Stderr),
            // Without the slash, a misspelt word would become a file of that name.
            file if file.contains('/') => self.file("log.output", file).map(LogOutput::File),
            _ => {
                self.fault(
                    "log.output",
                    "expected `stdout`, `stderr` or a path",
                    "write a path with a `/`: ./proxy.log",
                );
                None
            }
        };
        Some(Log { format: format?, level: level.ok()?, output: output?, access: typed.access })
    }

    fn workers(&mut self, typed: raw::Workers) -> Workers {
        match typed {
            raw::Workers::Auto => Workers(std::thread::available_parallelism().map_or(1, |cores| cores.get().min(256))),
            raw::Workers::Exactly(number) => {
                let number = usize::try_from(number).unwrap_or(usize::MAX);
                Workers(self.count("workers", number, 1..=256))
            }
        }
    }
}

/// Whether requests can start with it: paths with an encoded or dot segment are refused before routes are looked at.
fn is_prefix(text: &str) -> bool {
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"%?#\\".contains(&byte));
    let dots = text.split('/').any(|segment| matches!(segment, "." | ".."));
    text.starts_with('/') && plain && !dots && !text.contains("//")
}
