//! The only place that opens connections.
//!
//! In: an [`Origin`]. Out: an encrypted stream to a server that proved to be that host, with the protocol it chose by
//! ALPN; or a [`DialError`] that says which step failed. There is no switch that turns verification off: a private
//! root is added, never trusted instead.

mod encrypted;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod handshake;
mod low_water;
mod older;
mod output;
mod records;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub use self::encrypted::Encrypted;
use crate::origin::Origin;

/// How connections are made; shared by all cores (rustls keeps the TLS sessions to resume in it).
#[derive(Clone)]
pub struct Dialer {
    tls: TlsConnector,
    connect: Duration,
    handshake: Duration,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Dialer").finish_non_exhaustive()
    }
}

/// Where the trusted roots came from, for the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Roots {
    /// The system's store (or `SSL_CERT_FILE`).
    System(usize),
    /// Mozilla's, compiled in, since the system has none.
    Bundled(usize),
}

/// Why there is no connection. `Display` and `source` are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name does not resolve.
    #[error("cannot resolve {host}")]
    Resolve {
        /// The host's name.
        host: String,
        /// What the resolver said.
        source: Arc<io::Error>,
    },
    /// No address accepted a TCP connection.
    #[error("cannot connect to {origin}")]
    Connect {
        /// Where to.
        origin: String,
        /// What the last address said.
        source: io::Error,
    },
    /// Name resolution and TCP took longer than `connect`.
    #[error("no connection to {origin} within {limit:?}")]
    ConnectTimeout {
        /// Where to.
        origin: String,
        /// The limit.
        limit: Duration,
    },
    /// The handshake failed, most often for the certificate. Nothing secret was sent.
    #[error("no trusted TLS connection to {origin}")]
    Tls {
        /// Where to.
        origin: String,
        /// rustls' reason.
        source: io::Error,
    },
    /// The handshake took longer than `tls`.
    #[error("TLS handshake with {origin} not finished within {limit:?}")]
    TlsTimeout {
        /// Where to.
        origin: String,
        /// The limit.
        limit: Duration,
    },
}

impl DialError {
    /// Whether the server could not prove to be that host, as opposed to not speaking TLS or hanging up.
    #[must_use]
    pub fn is_certificate(&self) -> bool {
        let invalid = |reason: &rustls::Error| {
            matches!(reason, rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
        };
        self.tls().is_some_and(invalid)
    }

    /// Whether it was the server that refused the handshake.
    #[must_use]
    pub fn is_alert(&self) -> bool {
        matches!(self.tls(), Some(rustls::Error::AlertReceived(_)))
    }

    /// Whether this host has no route to the server, or the network says that there is none.
    #[must_use]
    pub fn is_unroutable(&self) -> bool {
        let Self::Connect { source, .. } = self else { return false };
        matches!(source.kind(), io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable)
    }

    fn tls(&self) -> Option<&rustls::Error> {
        let Self::Tls { source, .. } = self else { return None };
        source.get_ref()?.downcast_ref()
    }
}

/// Why the set of trusted roots could not be built.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// `ca_file` cannot be read or is no PEM file.
    #[error("upstream.ca_file {path}: {reason}; it must be a readable PEM file with at least one CERTIFICATE")]
    File {
        /// The file.
        path: String,
        /// Why, without the file's content.
        reason: String,
    },
    /// `SSL_CERT_FILE` or `SSL_CERT_DIR` is set and holds nothing: whoever set it did not want another set of roots.
    #[error("SSL_CERT_FILE or SSL_CERT_DIR is set, but no certificate can be read there; correct or unset it")]
    Environment,
    /// rustls refuses the settings.
    #[error("TLS settings: {0}")]
    Tls(#[from] rustls::Error),
}

/// A connection, ready for HTTP.
pub struct Connection {
    /// The encrypted stream.
    pub stream: Encrypted<TcpStream>,
    /// Whether the server chose HTTP/2.
    pub http2: bool,
}

impl Dialer {
    /// A dialer that trusts the system's roots and those of `ca_file`.
    ///
    /// # Errors
    /// When `ca_file` holds no certificate that can be used.
    pub fn new(
        ca_file: Option<&Path>,
        http2: bool,
        connect: Duration,
        handshake: Duration,
    ) -> Result<(Self, Roots), RootsError> {
        let alpn: &[&[u8]] = if http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
        Self::offering(alpn, ca_file, connect, handshake)
    }

    /// One for what is no HTTP, so nothing is offered by ALPN.
    ///
    /// # Errors
    /// As for [`Dialer::new`].
    pub fn without_http(ca_file: Option<&Path>, connect: Duration, handshake: Duration) -> Result<Self, RootsError> {
        Ok(Self::offering(&[], ca_file, connect, handshake)?.0)
    }

    fn offering(
        alpn: &[&[u8]],
        ca_file: Option<&Path>,
        connect: Duration,
        handshake: Duration,
    ) -> Result<(Self, Roots), RootsError> {
        let mut roots = RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        let (added, _unusable) = roots.add_parsable_certificates(native.certs);
        let source = if added > 0 {
            Roots::System(added)
        } else if ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| std::env::var_os(name).is_some()) {
            return Err(RootsError::Environment);
        } else {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            Roots::Bundled(roots.len())
        };
        if let Some(path) = ca_file {
            add_file(&mut roots, path)?;
        }
        // The provider by name: with two providers in a build every bare builder would panic.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        // For `records.rs`, which goes on behind the handshake.
        config.enable_secret_extraction = true;
        Ok((Self { tls: TlsConnector::from(Arc::new(config)), connect, handshake }, source))
    }

    /// A new connection to `origin`.
    ///
    /// # Errors
    /// A [`DialError`] for the first step that failed or took too long.
    pub async fn dial(&self, origin: &Origin) -> Result<Connection, DialError> {
        self.dial_resolved(origin, resolve(origin)).await
    }

    /// The same without records of our own and without counting, for a connection that may move between threads.
    ///
    /// # Errors
    /// A [`DialError`] for the first step that failed or took too long.
    pub async fn dial_https(&self, origin: &Origin) -> Result<TlsStream<TcpStream>, DialError> {
        let stream = self.connected(origin, resolve(origin)).await?;
        self.encrypted(origin, stream).await
    }

    /// A connection to a Redis server, encrypted or not: what is spoken there is no HTTP, and no key travels on it.
    ///
    /// # Errors
    /// A [`DialError`] for the first step that failed or took too long.
    pub async fn dial_redis(&self, server: &Origin, tls: bool) -> Result<Plain, DialError> {
        let stream = self.connected(server, resolve(server)).await?;
        if tls { Ok(Box::new(self.encrypted(server, stream).await?)) } else { Ok(Box::new(stream)) }
    }

    /// As [`Dialer::dial`], with the look-up of the name left to `resolved`, so that several attempts can share one.
    ///
    /// # Errors
    /// As [`Dialer::dial`].
    pub async fn dial_resolved(
        &self,
        origin: &Origin,
        resolved: impl Future<Output = Resolved>,
    ) -> Result<Connection, DialError> {
        let stream = self.connected(origin, resolved).await?;
        let handshake = handshake::shake(self.tls.config(), origin.server_name().clone(), stream);
        let (stream, protocol) = self.in_time(origin, handshake).await?;
        let http2 = protocol.as_deref() == Some(b"h2");
        Ok(Connection { stream, http2 })
    }

    async fn connected(
        &self,
        origin: &Origin,
        resolved: impl Future<Output = Resolved>,
    ) -> Result<TcpStream, DialError> {
        let deadline = Instant::now() + self.connect;
        timeout_at(deadline, connect(origin, resolved, deadline))
            .await
            .map_err(|_| DialError::ConnectTimeout { origin: origin.to_string(), limit: self.connect })?
    }

    async fn encrypted<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        origin: &Origin,
        stream: S,
    ) -> Result<TlsStream<S>, DialError> {
        self.in_time(origin, self.tls.connect(origin.server_name().clone(), stream)).await
    }

    async fn in_time<T>(
        &self,
        origin: &Origin,
        handshake: impl Future<Output = io::Result<T>>,
    ) -> Result<T, DialError> {
        tokio::time::timeout(self.handshake, handshake)
            .await
            .map_err(|_| DialError::TlsTimeout { origin: origin.to_string(), limit: self.handshake })?
            .map_err(|source| DialError::Tls { origin: origin.to_string(), source })
    }
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), RootsError> {
    let fault = |reason: &str| RootsError::File { path: path.display().to_string(), reason: reason.to_owned() };
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| match error {
        rustls::pki_types::pem::Error::Io(error) => fault(&error.to_string()),
        _ => fault("not a PEM file"),
    })?;
    let mut added = 0;
    for certificate in certificates {
        let certificate = certificate.map_err(|_| fault("not a PEM file"))?;
        roots.add(certificate).map_err(|_| fault("a certificate in it cannot be used as a root"))?;
        added += 1;
    }
    if added == 0 { Err(fault("no certificate in it")) } else { Ok(()) }
}

/// A stream of bytes, whatever lies below.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A stream for something else than HTTP.
pub type Plain = Box<dyn Stream>;

/// A host's addresses, or what the resolver said.
pub type Resolved = Result<Vec<SocketAddr>, Arc<io::Error>>;

/// Looks a host's name up, on a thread of the runtime's, since the system's resolver blocks.
///
/// # Errors
/// What the resolver says.
pub async fn resolve(origin: &Origin) -> Resolved {
    Ok(lookup_host((origin.host(), origin.port())).await.map_err(Arc::new)?.collect())
}

/// Tries the host's addresses one after the other, each for its share of the time that is left.
async fn connect(
    origin: &Origin,
    resolved: impl Future<Output = Resolved>,
    deadline: Instant,
) -> Result<TcpStream, DialError> {
    let addresses = resolved.await.map_err(|source| DialError::Resolve { host: origin.host().to_owned(), source })?;
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for (tried, address) in addresses.iter().enumerate() {
        let left = (addresses.len() - tried) as u32;
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Heads are small and must not wait for an acknowledgement (Nagle).
                stream.set_nodelay(true).map_err(|source| connect_error(origin, source))?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) if left == 1 => {
                // The caller's own deadline ends now; let it say so.
                std::future::pending::<()>().await;
            }
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(connect_error(origin, last))
}

fn connect_error(origin: &Origin, source: io::Error) -> DialError {
    DialError::Connect { origin: origin.to_string(), source }
}

/// A plain connection to a listener of this host, for `healthcheck`, `wait`, the call of `demo` and the sandbox's
/// webhooks. No key travels on it.
///
/// # Errors
/// What the system says.
pub async fn dial_local(address: std::net::SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect(address).await
}
