//! An application without a proxy: it speaks TLS to the upstream itself.
//!
//! In: where the upstream is, and the certificate it is known by. Out: connections to it, over HTTP/1.1 or HTTP/2, that make
//! the same calls as are made through a proxy.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::kit::client::{Answer, Caller, Client};
use crate::stand_in::StandIn;

/// The certificate's name.
const NAME: &str = "localhost";

/// How such an application connects.
pub(crate) struct Direct {
    address: SocketAddr,
    config: Arc<ClientConfig>,
    http2: bool,
    limit: Duration,
}

impl Direct {
    /// To this address, which leads to the stand-in, by one version of HTTP or the other.
    pub(crate) fn new(address: SocketAddr, stand_in: &StandIn, http2: bool, limit: Duration) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(stand_in.root_pem.as_bytes()).map_err(other)?).map_err(other)?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        if http2 {
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        Ok(Self { address, config: Arc::new(config), http2, limit })
    }

    /// A new connection.
    pub(crate) fn connect(&self) -> io::Result<Box<dyn Caller>> {
        let tcp = TcpStream::connect_timeout(&self.address, self.limit)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(self.limit))?;
        let name = ServerName::try_from(NAME).map_err(other)?;
        if self.http2 {
            return Ok(Box::new(Http2::connect(tcp, name, Arc::clone(&self.config), self.limit)?));
        }
        let session = ClientConnection::new(Arc::clone(&self.config), name).map_err(other)?;
        Ok(Box::new(Client::new(StreamOwned::new(session, tcp))))
    }
}

/// A connection of HTTP/2, which runs while a call waits for its answer.
struct Http2 {
    runtime: Runtime,
    requests: SendRequest<Bytes>,
    limit: Duration,
}

impl Http2 {
    fn connect(
        tcp: TcpStream,
        name: ServerName<'static>,
        config: Arc<ClientConfig>,
        limit: Duration,
    ) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        tcp.set_nonblocking(true)?;
        let opening = async {
            let tcp = tokio::net::TcpStream::from_std(tcp)?;
            let stream = TlsConnector::from(config).connect(name, tcp).await?;
            let (requests, connection) = h2::client::handshake(stream).await.map_err(other)?;
            tokio::spawn(connection);
            io::Result::Ok(requests)
        };
        let requests = runtime.block_on(async { timeout(limit, opening).await })??;
        Ok(Self { runtime, requests, limit })
    }
}

impl Caller for Http2 {
    /// The same request as bytes make of HTTP/1.1.
    fn call(&mut self, request: &[u8]) -> io::Result<Answer> {
        let mut fields = [httparse::EMPTY_HEADER; 16];
        let mut parsed = httparse::Request::new(&mut fields);
        parsed.parse(request).map_err(other)?;
        let (method, path) = (parsed.method.unwrap_or_default(), parsed.path.unwrap_or_default());
        let mut asked = Request::builder().method(method).uri(format!("https://{NAME}{path}"));
        for field in parsed.headers.iter().filter(|field| !field.name.eq_ignore_ascii_case("host")) {
            asked = asked.header(field.name, field.value);
        }
        let asked = asked.body(()).map_err(other)?;
        let requests = &mut self.requests;
        let exchange = async {
            std::future::poll_fn(|cx| requests.poll_ready(cx)).await?;
            let answer = requests.send_request(asked, true)?.0.await?;
            let (status, mut body, mut bytes) = (answer.status().as_u16(), answer.into_body(), 0);
            while let Some(piece) = body.data().await {
                let length = piece?.len();
                body.flow_control().release_capacity(length)?;
                bytes += length as u64;
            }
            Ok::<_, h2::Error>(Answer { status, bytes, kept: true })
        };
        self.runtime.block_on(async { timeout(self.limit, exchange).await })?.map_err(other)
    }

    /// Not kept.
    fn body(&self) -> &[u8] {
        &[]
    }
}

fn other(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}
