//! The configuration: one file, overridden by the environment, with a default for everything.
//!
//! In: a YAML file (or none) and the environment's pairs. Out: a [`Config`] in which every value has been checked, or
//! every fault at once, each with its place and what to do. No secret is in here.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::address::Address;
use crate::log_filter::LogFilter;
use crate::origin::Origin;
use crate::property::PropertyId;
use crate::redis_url::RedisUrl;
use crate::secret::TokenDigest;
use crate::tls::CertificateName;
use crate::web::{Endpoint, WebUrl};

mod apps;
mod callers;
mod check;
mod env;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod load;
mod raw;
mod shared;
mod sources;
mod units;

pub use check::{UNAUTHENTICATED_NETWORK, UNREADABLE_CODINGS};
pub use env::PREFIX as ENV_PREFIX;
pub use load::{load, parse};

/// Everything the operator can choose. `config.example.yaml` describes each option.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// Where apps reach the proxy; at least one.
    pub listen: Vec<Listener>,
    /// How its TCP listeners speak TLS; nothing leaves them plain.
    pub tls: Option<Tls>,
    /// Who may use it; nobody in particular where there is none.
    pub callers: Vec<Caller>,
    /// Where operators, kubelet and Prometheus reach it.
    pub admin: Admin,
    /// Where the keys are.
    pub keys: Keys,
    /// Partner apps in the order they were written; the first is the default. May be none.
    pub apps: Vec<App>,
    /// Where hotels connect, when that is on.
    pub onboarding: Option<Onboarding>,
    /// Cloudbeds, and how it is called.
    pub upstream: Upstream,
    /// How fast it is called; nothing leaves that to the apps.
    pub limits: Option<Limits>,
    /// Where replicas share budgets; without it this one owns them.
    pub shared: Option<Shared>,
    /// Further ways to name a property.
    pub identify: Identify,
    /// What apps may call.
    pub policy: Policy,
    /// Bounds on what apps may send.
    pub client: Client,
    /// How the process ends.
    pub drain: Drain,
    /// What is written down, and where.
    pub log: Log,
    /// How many cores serve requests.
    pub workers: Workers,
}

/// One place to listen at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listener {
    /// The address; local unless the configuration accepts otherwise in words.
    pub address: Address,
    /// The property of requests that name none.
    pub default_property: Option<PropertyId>,
}

/// TLS towards callers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tls {
    /// The certificate and those between it and its root, PEM.
    pub certificate_file: PathBuf,
    /// Its private key, PEM.
    pub key_file: PathBuf,
    /// Who issues the certificates that callers must show, PEM; nothing asks for none.
    pub client_ca_file: Option<PathBuf>,
    /// The certificates they have revoked, PEM; nothing asks about none.
    pub client_crl_file: Option<PathBuf>,
    /// Whether HTTP/2 is offered.
    pub http2: bool,
}

/// One of those who may use the proxy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Caller {
    /// Its name, for logs.
    pub name: String,
    /// Digests of its tokens; several while they are replaced. A caller is known in at least one of these ways.
    pub tokens: Vec<TokenDigest>,
    /// Holds digests of further ones, and is read again when it changes.
    pub tokens_file: Option<PathBuf>,
    /// Names in its client certificates, of which one must be there.
    pub certificates: Vec<CertificateName>,
    /// The users its processes run as, where they connect to a unix socket.
    pub uids: Vec<u32>,
    /// The hotels it may ask about; nothing means all.
    pub properties: Option<HashSet<PropertyId>>,
    /// The methods it may use; nothing means all.
    pub methods: Option<Vec<http::Method>>,
    /// The paths it may use, and all below; nothing means all.
    pub paths: Option<Vec<String>>,
}

/// The admin listener.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Admin {
    /// May stand on any network, since it never shows key material; never overlaps a proxy listener.
    pub listen: SocketAddr,
    /// Holds what a request must show that writes a key; nothing takes none.
    pub token_file: Option<PathBuf>,
}

/// The key file or directory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Keys {
    /// Resolved against the configuration file's directory.
    pub file: PathBuf,
    /// How often its content is compared, 100 ms to 1 h.
    pub poll: Duration,
    /// Where uses and verdicts are kept; nothing keeps them in memory.
    pub state_file: Option<PathBuf>,
    /// Whether idle keys are used in our own name.
    pub keep_alive: bool,
    /// Days without use after which a key is worth a warning, and a second one; 1 to 29, in this order.
    pub idle_days: (u64, u64),
    /// The first pause after which Cloudbeds is asked about a dead key again, and the longest; 1 s to 24 h.
    pub cool_down: (Duration, Duration),
}

/// A partner app, as registered at Cloudbeds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct App {
    /// What key files call it.
    pub name: String,
    /// Unreserved characters (RFC 3986) only.
    pub client_id: String,
    /// The secret itself is in no configuration; there is one whenever onboarding is on and delivery automatic.
    pub client_secret_file: Option<PathBuf>,
    /// Its budget at Cloudbeds, starts in any one second, 1 to 100000, or to 1000 where replicas share it.
    pub requests_per_second: u64,
    /// As registered, letter by letter; there is one whenever onboarding is on and delivery automatic.
    pub redirect_uri: Option<WebUrl>,
    /// How its keys arrive.
    pub delivery: Delivery,
    /// Where a code is exchanged for a key.
    pub exchange_url: Endpoint,
    /// What a connect link starts with.
    pub connect_url: WebUrl,
    /// Whether hotels may come from Cloudbeds' Marketplace, without a state of ours.
    pub marketplace: bool,
    /// What it asks hotels for, as registered; for people to compare.
    pub scopes: Vec<String>,
}

impl App {
    /// The link that connects a hotel to this app (API Keys Authentication Guide, section 3).
    #[must_use]
    pub fn connect_link(&self, property: PropertyId) -> String {
        let base = self.connect_url.as_str().trim_end_matches('/');
        format!("{base}/{property}#/app/{}", self.client_id)
    }
}

/// How Cloudbeds delivers an app's keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Delivery {
    /// A code to the redirect URI, exchanged for the key.
    Automatic,
    /// An e-mail that a hotel connected; a person gets the key from the partner account.
    Email,
}

/// The listener for hotels' browsers and Cloudbeds' webhooks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Onboarding {
    /// May stand on any network; overlaps no other listener.
    pub listen: SocketAddr,
    /// Scheme and host as browsers see it, without a path.
    pub public_url: WebUrl,
    /// A file with a secret path segment for the webhook, since webhooks are unsigned.
    pub webhook_path_secret_file: Option<PathBuf>,
}

/// Where requests go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Upstream {
    /// For every path without a route.
    pub base_url: Origin,
    /// Other origins by path prefix, the longest prefix first: the first that fits is the one.
    pub routes: Vec<Route>,
    /// A PEM file of further roots. Verification has no off switch.
    pub ca_file: Option<PathBuf>,
    /// Deadlines, each 1 ms to 1 h.
    pub timeouts: Timeouts,
    /// Whether HTTP/2 is offered by ALPN.
    pub http2: bool,
    /// How long connections are kept.
    pub pool: Pool,
}

/// An origin for the paths that start with a prefix.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route {
    /// Starts with `/`; no percent sign, no dot segments.
    pub prefix: String,
    /// Where these paths go.
    pub base_url: Origin,
}

/// Deadlines of a call to Cloudbeds; there is none for the whole of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Timeouts {
    /// For name resolution and TCP together.
    pub connect: Duration,
    /// For the TLS handshake.
    pub tls: Duration,
    /// From the end of the request to the answer's first byte.
    pub first_byte: Duration,
    /// Between two bytes, either way.
    pub idle: Duration,
}

/// How long an upstream connection is used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pool {
    /// Without a request, 1 ms to 1 h.
    pub idle: Duration,
    /// Altogether, 1 ms to 24 h.
    pub max_age: Duration,
    /// Since its last use, for a request that must not be sent twice; 0 to 1 h, where 0 means a fresh one each time.
    pub unsafe_reuse: Duration,
}

/// Budgets of requests.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Starts in any one second, 1 to 100000 (1000 where replicas share it), of keys without an app, and of apps that say nothing else.
    pub requests_per_second: u64,
    /// The longest a request waits for its turn, 0 to 1 h.
    pub max_wait: Duration,
    /// The most requests of one app that wait, 0 to 1000000.
    pub max_waiting: usize,
    /// The most of one property, 0 to 1000000.
    pub max_waiting_per_property: usize,
    /// Properties with more than one request in a turn, 1 to 100.
    pub weights: BTreeMap<PropertyId, usize>,
    /// Whether answers say what is left.
    pub announce: bool,
}

/// The Redis that replicas share budgets through.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Shared {
    /// Where it is.
    pub url: RedisUrl,
    /// The ACL user; the server's default one where there is none.
    pub user: Option<String>,
    /// Holds the password; it is in no configuration.
    pub password_file: Option<PathBuf>,
    /// A PEM file of further roots, with `rediss://` only.
    pub ca_file: Option<PathBuf>,
    /// What the names of its keys begin with.
    pub prefix: String,
    /// What this replica has of every budget while there is no Redis; without it, what Redis said last.
    pub fallback_share: Option<Share>,
    /// For so long the share of a replica that Redis does not hear of is kept free; then it has none.
    pub cut_off: Duration,
}

/// A part of a budget, above 0 and up to 1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Share {
    millionths: u64,
}

impl Share {
    /// Nothing where it is no such part.
    fn new(part: f64) -> Option<Self> {
        // 0.3333 of 3 replicas must not become a fourth one by a rounding error, hence whole millionths.
        let millionths = (part * 1e6).round();
        (millionths >= 1.0 && part <= 1.0).then_some(Self { millionths: millionths as u64 })
    }

    /// Whole requests a second.
    #[must_use]
    pub fn of(self, granted: u64) -> u64 {
        granted.saturating_mul(self.millionths) / 1_000_000
    }

    /// How many such parts there can be.
    #[must_use]
    pub fn parts(self) -> u64 {
        1_000_000 / self.millionths.max(1)
    }
}

/// Further ways to name a property, for apps that cannot add a header.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identify {
    /// The query's `propertyID` or `propertyIDs`.
    pub query: bool,
    /// A path that starts with `/p/{id}/`.
    pub path_prefix: bool,
}

/// What apps may call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    /// Whether paths that hand out or destroy credentials are forwarded.
    pub credential_paths: bool,
    /// Whether answers pass in a coding that nobody here can read.
    pub unreadable_codings: bool,
    /// Names of this host that others could own, without a port, in small letters.
    pub hosts: Vec<String>,
    /// Origins whose pages may send requests.
    pub origins: Vec<String>,
}

/// Bounds on a client's connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Client {
    /// For the whole head of a request, 1 ms to 1 h.
    pub head_timeout: Duration,
    /// Between two requests, 1 ms to 1 h.
    pub idle: Duration,
    /// Bytes of a request's head, 1 KiB to 1 MiB.
    pub max_head_size: usize,
    /// Header lines of a request, 10 to 1000.
    pub max_headers: usize,
    /// Connections held open at once, 1 to 1000000.
    pub max_connections: usize,
}

/// How the process ends after SIGTERM.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Drain {
    /// How long new connections are still accepted, 0 to 1 h.
    pub min: Duration,
    /// When what is left is cut, `min` to 1 h.
    pub max: Duration,
}

/// What is written down.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// Which ordinary events.
    pub level: LogFilter,
    /// Where lines go.
    pub output: LogOutput,
    /// Whether each request gets a line.
    pub access: bool,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object per line.
    Json,
}

/// Where log lines go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LogOutput {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file that is appended to.
    File(PathBuf),
}

/// Threads that serve requests, 1 to 256.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Workers(pub usize);

#[cfg(test)]
mod tests;
