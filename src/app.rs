//! The composition root: from a configuration to a running process, and to its orderly end.
//!
//! In: a [`Config`]. Out, in this order: keys read, roots loaded, sockets bound, cores started, ready; then, told to
//! end, a drain. It is the only place that sees all of the configuration; every part gets small settings of its own.

pub mod certificates;
mod keeping;
mod pacing;
mod pasting;
mod tokens;
mod watching;
mod worker;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Notify;

use self::certificates::Certificates;
use self::keeping::Keeping;
use self::pacing::Pacing;
use self::tokens::TokenFiles;
use self::worker::{Settings, Worker};
use crate::address::Address;
use crate::admin::{self, AdminState, KeyView, Paste};
use crate::budget::Budgets;
use crate::cloudbeds::Cloudbeds;
use crate::config::{self, Config};
use crate::fault::Fault;
use crate::https::{Dialer, Roots, RootsError};
use crate::inquiry::Inquiry;
use crate::keys::record::IdleDays;
use crate::keys::report::{self, Row};
use crate::keys::state;
use crate::keys::{self, KeyStore, Lives, Reload, Time, keeper};
use crate::listen::{self, BindError, Bound, SocketFile};
use crate::onboarding::{self, Onboarding};
use crate::phase::{Phase, PhaseCell};
use crate::process;
use crate::property::PropertyId;
use crate::proxy::authorize::Policy;
use crate::proxy::callers::{Caller, Callers, KnownBy};
use crate::proxy::verdict::ConnectLinks;
use crate::proxy::{identify, pool, upstream};
use crate::secret::{ClientSecret, RedisPassword, Token};
use crate::shared::Server;
use crate::telemetry::metrics::Budget;
use crate::telemetry::{AccessLog, Metrics, Sparing};
use crate::wire::gate::Limits;
use crate::wire::site::Sites;

/// Why the process does not start; each reads as one sentence.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The key file and the trusted roots, all faults at once.
    #[error("{}", lines(.0))]
    Files(Vec<Fault>),
    /// A socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Threads or runtimes.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

impl StartError {
    /// Whether the configuration is to blame (exit code 78) rather than this host.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Files(_))
    }
}

fn lines(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// What can be checked without binding anything: the keys, the secrets of apps, the roots.
pub struct Loaded {
    /// The keys.
    pub keys: Arc<KeyStore>,
    /// What onboarding needs besides.
    pub secrets: Secrets,
    /// How connections will be made.
    pub dialer: Dialer,
    /// Where the trusted roots came from.
    pub roots: Roots,
    /// The listener's certificate, where it speaks TLS.
    certificates: Option<Certificates>,
    /// The Redis that replicas share budgets through.
    pub redis: Option<Server>,
    /// Callers' tokens that stand in files.
    tokens: TokenFiles,
}

/// Secrets other than keys, each from a file of its own.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// By the app's name; those that have one.
    pub clients: BTreeMap<String, ClientSecret>,
    /// The webhook's secret path segment.
    pub webhook: Option<Token>,
    /// What a request must show that writes a key.
    pub admin: Option<Token>,
    /// How we come in at Redis.
    pub redis: Option<RedisPassword>,
}

impl Secrets {
    fn load(config: &Config) -> Result<Self, Vec<Fault>> {
        let (mut secrets, mut faults) = (Self::default(), Vec::new());
        for app in &config.apps {
            let Some(file) = &app.client_secret_file else { continue };
            match keys::client_secret(file, &format!("apps.{}.client_secret_file", app.name)) {
                Ok(secret) => drop(secrets.clients.insert(app.name.clone(), secret)),
                Err(wrong) => faults.extend(wrong),
            }
        }
        let redis = config.shared.as_ref().and_then(|shared| shared.password_file.as_ref());
        match redis.map(|file| keys::redis_password(file, "shared.password_file")).transpose() {
            Ok(password) => secrets.redis = password,
            Err(wrong) => faults.extend(wrong),
        }
        let webhook = config.onboarding.as_ref().and_then(|onboarding| onboarding.webhook_path_secret_file.as_ref());
        for (file, option, token) in [
            (webhook, "onboarding.webhook_path_secret_file", &mut secrets.webhook),
            (config.admin.token_file.as_ref(), "admin.token_file", &mut secrets.admin),
        ] {
            match file.map(|file| keys::token(file, option)).transpose() {
                Ok(secret) => *token = secret,
                Err(wrong) => faults.extend(wrong),
            }
        }
        if faults.is_empty() { Ok(secrets) } else { Err(faults) }
    }
}

impl Loaded {
    /// Reads the key file, the secrets and the roots.
    ///
    /// # Errors
    /// Everything that is wrong with any of them.
    pub fn load(config: &Config) -> Result<Self, StartError> {
        let apps = config.apps.iter().map(|app| app.name.clone()).collect();
        let keys = KeyStore::resume(&config.keys.file, Some(apps), lives(config));
        let certificates = config.tls.as_ref().map(Certificates::load).transpose();
        let (tokens, redis) = (TokenFiles::load(config), redis_dialer(config));
        match (keys, Secrets::load(config), certificates, tokens, dialer(config), redis) {
            (Ok(keys), Ok(secrets), Ok(certificates), Ok(tokens), Ok((dialer, roots)), Ok(redis)) => {
                let password = secrets.redis.clone();
                let redis = redis.zip(config.shared.as_ref()).map(|(dialer, shared)| Server {
                    url: shared.url.clone(),
                    user: shared.user.clone(),
                    password,
                    name: name(config),
                    prefix: shared.prefix.clone(),
                    clients: config.apps.iter().map(|app| (app.name.clone(), app.client_id.clone())).collect(),
                    dialer,
                    stand: None,
                });
                Ok(Self { keys, secrets, dialer, roots, certificates, tokens, redis })
            }
            (keys, secrets, certificates, tokens, roots, redis) => {
                let mut faults = keys.err().unwrap_or_default();
                faults.extend(secrets.err().unwrap_or_default());
                faults.extend(certificates.err().unwrap_or_default());
                faults.extend(tokens.err().unwrap_or_default());
                faults.extend(roots.err().map(|error| fault(&error, "upstream.ca_file")));
                faults.extend(redis.err().map(|error| fault(&error, "shared.ca_file")));
                Err(StartError::Files(faults))
            }
        }
    }

    /// What is wrong with files although they can be used, and with a configuration that accepts it.
    #[must_use]
    pub fn warnings(&self, config: &Config) -> Vec<Fault> {
        let files = self.certificates.as_ref().map(Certificates::warnings).unwrap_or_default();
        let unsearched = config.policy.unreadable_codings.then(|| {
            let message = "answers in a coding that cannot be read pass unsearched: a key in one reaches the caller";
            Fault::new("policy.unreadable_codings", message, "remove the option when no answer needs it any more")
        });
        files.into_iter().chain(unsearched).collect()
    }
}

/// What is wrong with the files of callers' tokens.
#[must_use]
pub fn token_faults(config: &Config) -> Vec<Fault> {
    TokenFiles::load(config).err().unwrap_or_default()
}

/// What is known of the keys from before. A file that cannot be read costs that, and nothing else.
fn lives(config: &Config) -> Arc<Lives> {
    let lives = Lives::resume([], Arc::new(Time::now));
    if let Some(path) = config.keys.state_file.as_deref()
        && let Err(error) = state::each(path, |name, record| lives.remember(name, record))
    {
        tracing::warn!("last uses and verdicts of before are not known, or not all of them: {error}");
    }
    lives
}

fn fault(error: &RootsError, option: &str) -> Fault {
    match error {
        RootsError::File { path, reason } => {
            Fault::new(path, reason, "it must be a readable PEM file with at least one CERTIFICATE").about(option)
        }
        RootsError::Environment => Fault::new("trusted roots", error.to_string(), ""),
        RootsError::Tls(error) => Fault::new("TLS settings", error.to_string(), ""),
    }
}

/// The dialer the configuration asks for.
///
/// # Errors
/// When `upstream.ca_file` cannot be used.
pub fn dialer(config: &Config) -> Result<(Dialer, Roots), RootsError> {
    let config::Upstream { ca_file, http2, timeouts, .. } = &config.upstream;
    Dialer::new(ca_file.as_deref(), *http2, timeouts.connect, timeouts.tls)
}

/// The one for Redis, which has roots of its own; nothing where budgets are not shared.
fn redis_dialer(config: &Config) -> Result<Option<Dialer>, RootsError> {
    let Some(shared) = &config.shared else { return Ok(None) };
    let limit = Duration::from_secs(1);
    Ok(Some(Dialer::without_http(shared.ca_file.as_deref(), limit, limit)?))
}

/// What this replica is called among others: the same when it is started again in the same container or place.
fn name(config: &Config) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let listen: Vec<_> = config.listen.iter().map(|listener| listener.address.to_string()).collect();
    format!("{}\n{}\n{}", host.trim(), listen.join(","), config.keys.file.display())
}

/// Everything bound and loaded; nothing served yet.
pub struct App {
    config: Config,
    loaded: Loaded,
    /// For each core its listeners.
    listeners: Vec<Vec<(Bound, identify::Settings)>>,
    /// Removed from the disk with this value.
    socket_files: Vec<SocketFile>,
    addresses: Vec<String>,
    admin: std::net::TcpListener,
    /// Where hotels connect, when that is on.
    onboarding: Option<std::net::TcpListener>,
    metrics: Metrics,
    access: AccessLog,
    handle: Handle,
}

/// How others steer a running process.
#[derive(Clone)]
pub struct Handle {
    phase: Arc<PhaseCell>,
    reload: Arc<Notify>,
    reload_rest: Arc<Notify>,
    drain: Arc<Notify>,
    at_once: Arc<Notify>,
    cut: Arc<Notify>,
}

impl Handle {
    /// Reads the key file again, and all others that are watched.
    pub fn reload(&self) {
        self.reload.notify_one();
        self.reload_rest.notify_waiters();
    }

    /// Ends the process in order: accepting for `drain.min`, then finishing what is under way, at most `drain.max`.
    pub fn drain(&self) {
        self.drain.notify_one();
    }

    /// Ends accepting at once, and what is under way soon.
    pub fn hurry(&self) {
        self.drain.notify_one();
        self.at_once.notify_one();
    }

    /// Ends the process now: what is under way is cut.
    pub fn cut(&self) {
        self.hurry();
        self.cut.notify_one();
    }

    /// How far the process is.
    #[must_use]
    pub fn phase(&self) -> &PhaseCell {
        &self.phase
    }
}

impl App {
    /// Loads and binds. Access lines will go to `access`.
    ///
    /// # Errors
    /// A [`StartError`] in words that say what to do; nothing is left half open.
    pub fn prepare(config: Config, access: AccessLog) -> Result<Self, StartError> {
        let loaded = Loaded::load(&config)?;
        let workers = config.workers.0;
        let mut listeners: Vec<Vec<(Bound, identify::Settings)>> = (0..workers).map(|_| Vec::new()).collect();
        let (mut addresses, mut socket_files) = (Vec::new(), Vec::new());
        for listener in &config.listen {
            let settings = identify::Settings {
                query: config.identify.query,
                path_prefix: config.identify.path_prefix,
                default: listener.default_property,
            };
            let bound = bind(&listener.address, workers, &mut socket_files)?;
            addresses.push(match bound.first().and_then(Bound::tcp_address) {
                Some(address) => address.to_string(),
                None => listener.address.to_string(),
            });
            for (core, bound) in listeners.iter_mut().zip(bound) {
                core.push((bound, settings));
            }
        }
        let mut admin = listen::tcp(config.admin.listen, 1)?;
        let admin = admin.pop().ok_or_else(|| io::Error::other("no admin listener"))?;
        let onboarding = match &config.onboarding {
            Some(onboarding) => listen::tcp(onboarding.listen, 1)?.pop(),
            None => None,
        };
        let handle = Handle {
            phase: Arc::new(PhaseCell::new()),
            reload: Arc::default(),
            reload_rest: Arc::default(),
            drain: Arc::default(),
            at_once: Arc::default(),
            cut: Arc::default(),
        };
        let metrics = Metrics::new(workers);
        Ok(Self { config, loaded, listeners, socket_files, addresses, admin, onboarding, metrics, access, handle })
    }

    /// Where the proxy listens, as bound: a port 0 of the configuration is a real one here.
    #[must_use]
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Where the admin listener is, as bound.
    ///
    /// # Errors
    /// What the system says.
    pub fn admin_address(&self) -> io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Where the onboarding listener is, as bound; nothing when it is off.
    ///
    /// # Errors
    /// What the system says.
    pub fn onboarding_address(&self) -> io::Result<Option<SocketAddr>> {
        self.onboarding.as_ref().map(std::net::TcpListener::local_addr).transpose()
    }

    /// The counters, to tell them of the log's lost lines.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What steers it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until told to end, on the control runtime that calls it; the cores get threads of their own.
    ///
    /// # Errors
    /// When a thread or a runtime cannot be had.
    pub async fn run(self) -> io::Result<()> {
        let Self { config, mut loaded, listeners, socket_files, addresses, admin, onboarding, metrics, access, handle } =
            self;
        let phase = Arc::clone(&handle.phase);
        process::blocking_thread()?;
        log_start(&config, &loaded, &addresses);
        let keys = Arc::clone(&loaded.keys);
        metrics.control().set_key_file_good(true);
        let watching = tokio::spawn({
            let (metrics, reload) = (metrics.clone(), Arc::clone(&handle.reload));
            let (key_store, poll) = (Arc::clone(&keys), config.keys.poll);
            async move { keys::watch(key_store, poll, reload, move |result| observe(&metrics, result)).await }
        });
        let certificates = loaded.certificates.take();
        let acceptor = certificates.as_ref().map(Certificates::acceptor);
        let renewing = certificates.map(|certificates| {
            tokio::spawn(certificates.watch(config.keys.poll, Arc::clone(&handle.reload_rest), metrics.clone()))
        });
        let limits = limits(&config);
        let redis = loaded.redis.take().map(Arc::new);
        let mut pacing = Pacing::start(&config, redis.clone())?;
        let base_url = config.upstream.base_url.clone();
        let inquiry = Inquiry::new(loaded.dialer.clone(), base_url, pacing.budgets());
        let keeping = Keeping::start(Arc::clone(&keys), inquiry, keeping(&config), redis)?;
        let keys = Arc::new(Keys { store: keys, limits, budgets: pacing.budgets() });
        let paste = loaded.secrets.admin.clone().map(|token| {
            let desk = pasting::Desk {
                store: Arc::clone(&loaded.keys),
                calls: Cloudbeds::new(loaded.dialer.clone()).promptly(),
                budgets: pacing.budgets(),
                base_url: config.upstream.base_url.clone(),
                reload: Arc::clone(&handle.reload),
                turn: tokio::sync::Mutex::default(),
            };
            Paste { token, desk: Arc::new(desk) }
        });
        let admin_state = AdminState {
            phase: Arc::clone(&phase),
            metrics: metrics.clone(),
            keys,
            paste,
            sites: sites(&config),
            loopback: config.admin.listen.ip().to_canonical().is_loopback(),
        };
        let admin = tokio::net::TcpListener::from_std(admin)?;
        let admin_address = admin.local_addr()?;
        let serving = tokio::spawn({
            let phase = Arc::clone(&phase);
            async move {
                admin::serve(admin, Arc::new(admin_state), async move { phase.reached(Phase::Stopped).await }).await
            }
        });

        let onboarding_address = onboarding.as_ref().map(std::net::TcpListener::local_addr).transpose()?;
        let connecting = match onboarding {
            Some(listener) => {
                let onboarding = connecting(&config, &loaded, pacing.budgets(), (&metrics, &access), &handle);
                let (listener, phase) = (tokio::net::TcpListener::from_std(listener)?, Arc::clone(&phase));
                let ended = async move { phase.reached(Phase::Closing).await };
                Some(tokio::spawn(onboarding.serve(listener, ended)))
            }
            None => None,
        };

        let settings = Arc::new(settings(&config, &loaded.tokens));
        let admitting = tokio::spawn(loaded.tokens.watch(config.keys.poll, Arc::clone(&handle.reload_rest)));
        let open = Arc::new(AtomicUsize::new(0));
        let mut threads = Vec::with_capacity(listeners.len());
        for (index, listeners) in listeners.into_iter().enumerate() {
            let worker = Worker {
                index,
                listeners,
                settings: Arc::clone(&settings),
                keys: Arc::clone(&loaded.keys),
                dialer: loaded.dialer.clone(),
                limiter: pacing.limiter.clone(),
                acceptor: acceptor.clone(),
                metrics: metrics.clone(),
                access: access.clone(),
                phase: Arc::clone(&phase),
                open: Arc::clone(&open),
            };
            threads.push(worker.start()?);
        }
        let mut ended = Vec::with_capacity(threads.len());
        for thread in threads {
            thread.started.await.map_err(|_| io::Error::other("a worker ended before it started"))??;
            ended.push(thread.ended);
        }
        phase.set(Phase::Ready);
        tracing::info!(
            listen = %addresses.join(", "),
            admin = %admin_address,
            onboarding = onboarding_address.map(tracing::field::display),
            workers = ended.len(),
            "ready"
        );

        tokio::select! {
            () = handle.drain.notified() => {}
            () = any(&mut ended) => return Err(io::Error::other("a worker has ended by itself; the log says why")),
        }
        let until = tokio::time::Instant::now() + config.drain.max.max(LETTING_GO);
        drain(&config.drain, &handle, ended).await;
        drop(socket_files);
        if let Some(connecting) = connecting {
            // A key that is being fetched now cannot be fetched again. What is on disk by then is safe in any case.
            let _ = tokio::time::timeout_at(until, connecting).await;
        }
        watching.abort();
        if let Some(renewing) = renewing {
            renewing.abort();
        }
        admitting.abort();
        keeping.stop().await;
        pacing.say_goodbye().await;
        // Until now somebody may have waited for a turn.
        drop(pacing);
        // The admin listener gives its last answers a second at most.
        let _ = serving.await;
        tracing::info!("stopped");
        Ok(())
    }
}

/// Waits for the first of the cores to end.
async fn any(ended: &mut [tokio::sync::oneshot::Receiver<()>]) {
    std::future::poll_fn(|cx| {
        let over = ended.iter_mut().any(|worker| Pin::new(worker).poll(cx).is_ready());
        if over { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// How long cores have to let go of what is cut, and to hand their last lines over.
const LETTING_GO: Duration = Duration::from_secs(1);

async fn drain(limits: &config::Drain, handle: &Handle, ended: Vec<tokio::sync::oneshot::Receiver<()>>) {
    let started = tokio::time::Instant::now();
    handle.phase.set(Phase::Draining);
    tracing::info!(min_ms = millis(limits.min), max_ms = millis(limits.max), "draining");
    tokio::select! {
        () = tokio::time::sleep(limits.min) => {}
        () = handle.at_once.notified() => {}
    }
    handle.phase.set(Phase::Closing);
    let mut all = pin!(async {
        for worker in ended {
            // An error means that the worker is gone, which is what is waited for.
            let _ = worker.await;
        }
    });
    let over = tokio::select! {
        () = &mut all => None,
        () = tokio::time::sleep_until(started + limits.max.max(limits.min)) => Some("drain.max is over"),
        () = handle.cut.notified() => Some("told to end twice"),
    };
    handle.phase.set(Phase::Stopped);
    if let Some(why) = over {
        tracing::warn!("{why}: the requests still under way are cut");
        // Their access lines are still to be written.
        let _ = tokio::time::timeout(LETTING_GO, all).await;
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn bind(address: &Address, workers: usize, files: &mut Vec<SocketFile>) -> Result<Vec<Bound>, BindError> {
    match address {
        Address::Tcp(address) => Ok(listen::tcp(*address, workers)?.into_iter().map(Bound::Tcp).collect()),
        Address::Unix(path) => {
            let (bound, file) = listen::unix(path, workers)?;
            files.push(file);
            Ok(bound.into_iter().map(Bound::Unix).collect())
        }
    }
}

/// Who may ask for what; nothing where nobody is named.
fn callers(config: &Config, files: &TokenFiles) -> Option<Callers> {
    let caller = |caller: &config::Caller| {
        let may = Caller {
            // The configuration is read once.
            name: Box::leak(caller.name.clone().into_boxed_str()),
            properties: caller.properties.clone(),
            methods: caller.methods.clone(),
            paths: caller.paths.as_ref().map(|paths| paths.iter().map(|path| path.as_str().into()).collect()),
            refused: Sparing::default(),
        };
        let known_by = KnownBy {
            tokens: caller.tokens.clone(),
            file: files.of(&caller.name),
            certificates: caller.certificates.clone(),
            uids: caller.uids.clone(),
        };
        (may, known_by)
    };
    (!config.callers.is_empty()).then(|| Callers::new(config.callers.iter().map(caller)))
}

fn settings(config: &Config, files: &TokenFiles) -> Settings {
    let Config { upstream, client, policy, .. } = config;
    Settings {
        policy: Policy {
            credential_paths: policy.credential_paths,
            unreadable_codings: policy.unreadable_codings,
            callers: callers(config, files),
            sites: Arc::new(sites(config)),
            pages: Arc::default(),
        },
        base_url: upstream.base_url.clone(),
        routes: upstream.routes.iter().map(|route| (route.prefix.clone(), route.base_url.clone())).collect(),
        timeouts: upstream::Timeouts { first_byte: upstream.timeouts.first_byte, idle: upstream.timeouts.idle },
        pool: pool::Settings {
            idle: upstream.pool.idle,
            max_age: upstream.pool.max_age,
            unsafe_reuse: upstream.pool.unsafe_reuse,
        },
        limits: Limits {
            head_timeout: client.head_timeout,
            idle: client.idle,
            body_idle: upstream.timeouts.idle,
            max_head_size: client.max_head_size,
            max_headers: client.max_headers,
        },
        max_connections: client.max_connections,
        descriptors: process::descriptors_for_callers(),
        connect: connect_links(config),
    }
}

/// The pages and names that are welcome.
fn sites(config: &Config) -> Sites {
    // Cloudbeds' own name is nobody else's, and an application may keep it in `Host`.
    let upstream = [&config.upstream.base_url].into_iter().chain(config.upstream.routes.iter().map(|to| &to.base_url));
    let hosts = config.policy.hosts.iter().cloned().chain(upstream.map(|origin| origin.host().to_ascii_lowercase()));
    Sites { hosts: hosts.collect(), origins: config.policy.origins.clone() }
}

fn limits(config: &Config) -> IdleDays {
    let (idle_days, expiring_days) = config.keys.idle_days;
    IdleDays { idle_days, expiring_days }
}

fn keeping(config: &Config) -> keeper::Settings {
    let (min, max) = config.keys.cool_down;
    keeper::Settings {
        state_file: config.keys.state_file.clone(),
        keep_alive: config.keys.keep_alive,
        limits: limits(config),
        cool_down: (min.as_secs(), max.as_secs()),
    }
}

/// Everything hotels need to connect.
fn connecting(
    config: &Config,
    loaded: &Loaded,
    budgets: Option<Arc<Budgets>>,
    (metrics, access): (&Metrics, &AccessLog),
    handle: &Handle,
) -> Arc<Onboarding> {
    let app = |app: &config::App| onboarding::App {
        name: app.name.clone(),
        client_id: app.client_id.clone(),
        connect_url: app.connect_url.clone(),
        codes: match (app.delivery, loaded.secrets.clients.get(&app.name), &app.redirect_uri) {
            (config::Delivery::Automatic, Some(secret), Some(redirect_uri)) => Some(onboarding::Codes {
                secret: secret.clone(),
                redirect_uri: redirect_uri.clone(),
                exchange: app.exchange_url.clone(),
                marketplace: app.marketplace,
            }),
            _ => None,
        },
    };
    let settings = onboarding::Settings {
        apps: config.apps.iter().map(app).collect(),
        https: config.onboarding.as_ref().is_none_or(|onboarding| onboarding.public_url.is_https()),
        webhook: loaded.secrets.webhook.clone(),
    };
    let parts = onboarding::Parts {
        keys: Arc::clone(&loaded.keys),
        reload: Arc::clone(&handle.reload),
        dialer: loaded.dialer.clone(),
        budgets,
        base_url: config.upstream.base_url.clone(),
        metrics: metrics.clone(),
        access: access.clone(),
    };
    // The workers' supplies of request ids have the numbers below.
    Onboarding::new(settings, parts, config.workers.0)
}

/// Where a hotel connects again: here, or at Cloudbeds.
fn connect_links(config: &Config) -> ConnectLinks {
    let (apps, onboarding) = (config.apps.clone(), config.onboarding.clone());
    Arc::new(move |name, property| {
        let app = apps.iter().find(|app| name.is_none_or(|name| name == app.name))?;
        Some(match &onboarding {
            Some(onboarding) => {
                let public = onboarding.public_url.as_str().trim_end_matches('/');
                format!("{public}/connect/{property}?app={}", app.name)
            }
            None => app.connect_link(property),
        })
    })
}

fn log_start(config: &Config, loaded: &Loaded, addresses: &[String]) {
    let set = loaded.keys.current();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        listen = %addresses.join(", "),
        admin = %config.admin.listen,
        upstream = %config.upstream.base_url,
        requests_per_second = config.limits.as_ref().map(|limits| limits.requests_per_second),
        roots = ?loaded.roots,
        keys = set.keys(),
        properties = set.properties(),
        "starting"
    );
    loaded.warnings(config).iter().for_each(|fault| tracing::warn!("{fault}"));
}

/// Tells log and metrics how a reading of the key file went.
fn observe(metrics: &Metrics, result: &Reload) {
    match result {
        Reload::Unchanged => metrics.control().set_key_file_good(true),
        Reload::Swapped { .. } => {
            metrics.control().reload_succeeded();
            metrics.control().set_key_file_good(true);
        }
        Reload::Refused(_) => {
            metrics.control().reload_refused();
            metrics.control().set_key_file_good(false);
        }
    }
}

/// What the admin listener may know of the keys.
struct Keys {
    store: Arc<KeyStore>,
    limits: IdleDays,
    budgets: Option<Arc<Budgets>>,
}

impl KeyView for Keys {
    fn contains(&self, property: PropertyId) -> bool {
        self.store.current().contains(property)
    }

    fn counts(&self) -> (usize, usize) {
        let set = self.store.current();
        (set.keys(), set.properties())
    }

    fn rows(&self) -> Vec<Row> {
        report::rows(&self.store, self.limits)
    }

    fn budgets(&self) -> Vec<Budget> {
        self.budgets.as_deref().map(pacing::told).unwrap_or_default()
    }
}
