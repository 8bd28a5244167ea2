//! A stand-in for Cloudbeds on loopback, over TLS, for `demo`, tests and benches.
//!
//! In: [`Settings`] with the hotels and their keys. Out: a running [`Sandbox`] with a root certificate of its own, whose
//! answers have the shape of the vendor's API description and whose data set changes with what is posted to it.
//! It is the worst neighbour the proxy can have: `/sandbox/echo` hands back every credential it was sent, and the other
//! rooms under `/sandbox/` are slow, cut off, endless or coded. It dials nowhere but to the webhook endpoints that an app
//! registered, of which plain ones must be on loopback.
//!
//! | path | what it does |
//! |---|---|
//! | `/api/v1.1`, `v1.2`, `v1.3` | the operations of `answers/operation.rs`; needs a key |
//! | `/api/v1.x/access_token` | exchanges a code for a key; `exchange.rs` |
//! | `/connect/…` | the connect link, the consent page, disconnecting; `connect.rs` |
//! | `/partner/{client id}/keys` | an app's list of keys; `partner.rs` |
//! | `/sandbox/echo` | everything it was sent, in body and headers; switches in [`echo`] |
//! | `/sandbox/download` `/sandbox/upload` | gigabytes in flat memory; switches in [`bulk`] |
//! | `/sandbox/slow` `/sandbox/reset` `/sandbox/fail` `/sandbox/hang` | trouble on demand; switches in [`trouble`] |
//! | anything else | 404 with an HTML page, as Cloudbeds answers a path it does not know |

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::num::NonZeroU64;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::listen;
use crate::property::PropertyId;

mod accounts;
mod answers;
mod body;
pub mod bulk;
mod calendar;
mod clock;
mod coding;
mod connect;
mod control;
mod data;
pub mod echo;
mod exchange;
mod files;
mod judge;
mod keys;
mod multipart;
mod page;
mod partner;
mod query;
mod routes;
mod rules;
mod seen;
mod serve;
mod socket;
mod steer;
mod tls;
pub mod trouble;
mod webhooks;

pub use accounts::{App, AppState, Budget, Delivery, NotAnApp};
pub use files::{Written, write_files, write_secret};
pub use judge::Verdict;
pub use keys::random_key;
pub use rules::Rule;
pub use seen::Seen;
pub use socket::Cut;
pub use webhooks::{Delivered, Webhooks};

/// What a sandbox is made of.
pub struct Settings {
    /// Where it listens; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where the control listener is, a loopback address; `None` for none.
    pub control: Option<SocketAddr>,
    /// What ALPN offers.
    pub protocols: Protocols,
    /// The hotels that are connected. Several with one key are an organisation.
    pub hotels: Vec<Hotel>,
    /// The hotels that no app is connected to yet.
    pub unconnected: Vec<Unconnected>,
    /// The partners' apps. The keys of `hotels` belong to the first; with none, to one that nobody knows.
    pub apps: Vec<App>,
    /// How many calls an app may make; `None` leaves them alone.
    pub budget: Option<Budget>,
    /// How many calls an app may make in any one second for the judge, who only watches; [`Sandbox::verdict`] says what
    /// it saw. `None` for no judge.
    pub strict: Option<usize>,
    /// Whether an exchange answers with `resources`, which the vendor's description has and does not promise.
    pub resources: bool,
    /// Whether every request is kept for [`Sandbox::requests`]. Benches turn it off.
    pub record: bool,
    /// The certificate to show.
    pub certificate: Certificate,
    /// Refuses TLS 1.3, to try the older version.
    pub tls12_only: bool,
}

/// One hotel property. No `Debug`, since it holds the key.
#[derive(Clone)]
pub struct Hotel {
    /// Its id at Cloudbeds.
    pub property: PropertyId,
    /// Its name, as the answers give it.
    pub name: String,
    /// The key that opens it: `cbat_…`.
    pub key: String,
}

/// One hotel property without a key.
#[derive(Clone, Debug)]
pub struct Unconnected {
    /// Its id at Cloudbeds.
    pub property: PropertyId,
    /// Its name, as the answers give it.
    pub name: String,
    /// The id of its organisation; those with the same one can be connected together. Without one it is alone.
    pub organization: Option<String>,
}

/// The HTTP versions a sandbox speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocols {
    /// HTTP/2 where the client offers it, else HTTP/1.1.
    Both,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only.
    Http2,
}

/// How good the sandbox's certificate is. All are signed by [`Sandbox::root_pem`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Certificate {
    /// For `localhost`, `sandbox.test`, `127.0.0.1` and `::1`.
    Good,
    /// In date, for another name.
    WrongName,
    /// For the right names, until yesterday.
    Expired,
}

impl Settings {
    /// The two hotels of the demo, 1001 and 1002, with fresh keys of one app, on a free port of 127.0.0.1.
    #[must_use]
    pub fn demo() -> Self {
        let named = [(1001, "Seaside Demo Hotel"), (1002, "Mountain Demo Lodge")];
        let hotel = |(id, name): (u64, &str)| {
            let property = NonZeroU64::new(id).map(PropertyId::from)?;
            Some(Hotel { property, name: name.to_owned(), key: random_key() })
        };
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            control: None,
            protocols: Protocols::Both,
            hotels: named.into_iter().filter_map(hotel).collect(),
            unconnected: Vec::new(),
            apps: vec![demo_app()],
            budget: None,
            strict: None,
            resources: true,
            record: true,
            certificate: Certificate::Good,
            tls12_only: false,
        }
    }
}

/// The demo's app, with a fresh secret.
fn demo_app() -> App {
    App::new("live1_1001_sandboxDemoApp0123456789", &keys::random_token(40), "http://127.0.0.1:8081/api_key")
}

/// A running sandbox. Dropping it ends it too, though nobody waits then.
pub struct Sandbox {
    address: SocketAddr,
    control: Option<SocketAddr>,
    root_pem: String,
    state: Arc<routes::State>,
    stop: watch::Sender<()>,
    accepting: JoinHandle<()>,
}

/// Binds `settings.listen` and serves on the current tokio runtime, of whichever flavour.
///
/// # Errors
/// When an address cannot be bound, the certificate cannot be made, an app has a redirect URI that the vendor would not
/// register, or the control listener is not on loopback.
pub async fn start(settings: Settings) -> io::Result<Sandbox> {
    let listener = listen::tcp(settings.listen, 1)?.pop().ok_or(io::ErrorKind::AddrNotAvailable)?;
    start_on(listener, settings)
}

/// The same on a listener that is bound already; `settings.listen` is not looked at.
///
/// # Errors
/// As for [`start`], when the listener cannot be made non-blocking, or when no tokio runtime is current.
pub fn start_on(listener: TcpListener, settings: Settings) -> io::Result<Sandbox> {
    let runtime = Handle::try_current().map_err(io::Error::other)?;
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let identity = tls::identity(settings.certificate)?;
    let root_pem = identity.root_pem.clone();
    let config = tls::config(identity, settings.protocols, settings.tls12_only)?;
    for app in &settings.apps {
        app.check().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    }
    let (stop, stopped) = watch::channel(());
    let state = Arc::new(routes::State::new(&settings, runtime, stopped.clone()));
    let accepting =
        tokio::spawn(serve::accept(listener, Arc::new(config), settings.protocols, Arc::clone(&state), stopped));
    let control = settings.control.map(|at| control(at, &state, address)).transpose()?;
    Ok(Sandbox { address, control, root_pem, state, stop, accepting })
}

/// Binds the control listener and serves it on the side.
fn control(at: SocketAddr, state: &Arc<routes::State>, sandbox: SocketAddr) -> io::Result<SocketAddr> {
    if !at.ip().is_loopback() {
        let why = format!("the control listener must be on loopback, which {at} is not");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let listener = listen::tcp(at, 1)?.pop().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let address = listener.local_addr()?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    state.spawn(control::serve(listener, Arc::clone(state), sandbox));
    Ok(address)
}

impl Sandbox {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its control listener is, if it has one; `control/act.rs` says what it understands.
    #[must_use]
    pub fn control_address(&self) -> Option<SocketAddr> {
        self.control
    }

    /// `https://localhost:PORT`, as `upstream.base_url` wants it.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// The root certificate to trust, as `upstream.ca_file` wants it. Its private key is gone already.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// The last 10,000 requests, oldest first; empty when `Settings::record` is off.
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        self.state.recorder.requests()
    }

    /// How many TCP connections were accepted so far, failed handshakes included.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.state.recorder.connections()
    }

    /// Ends everything: the listener is closed and every connection cut when this returns.
    pub async fn stop(self) {
        drop(self.stop);
        // The task does not panic; were it to, the sandbox would have ended all the same.
        let _ = self.accepting.await;
    }
}
