//! An HTTP/1.1 upstream that answers with given bytes, right or wrong, and keeps the bytes it was sent.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::Proxy;
use super::proxy::Builder;

/// The upstream; it ends with the test's runtime.
pub struct Origin {
    address: SocketAddr,
    root_pem: String,
    answer: Arc<Mutex<Vec<u8>>>,
    requests: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Origin {
    pub async fn start() -> Self {
        let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certificate.signing_key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, requests) = (Arc::<Mutex<Vec<u8>>>::default(), Arc::<Mutex<Vec<Vec<u8>>>>::default());
        let shared = (Arc::clone(&answer), Arc::clone(&requests));
        tokio::spawn(async move {
            let tls = TlsAcceptor::from(Arc::new(config));
            while let Ok((tcp, _)) = listener.accept().await {
                let (tls, (answer, requests)) = (tls.clone(), shared.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = tls.accept(tcp).await else { return };
                    while let Some(request) = read_request(&mut stream).await {
                        requests.lock().unwrap().push(request);
                        let bytes = answer.lock().unwrap().clone();
                        if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
                            return;
                        }
                        // What has no other end ends with the connection.
                        if memchr::memmem::find(&bytes, b"\r\nconnection: close\r\n").is_some() {
                            let _ = stream.shutdown().await;
                            return;
                        }
                    }
                });
            }
        });
        Self { address, root_pem: certificate.cert.pem(), answer, requests }
    }

    /// From now on every request is answered by these bytes. `connection: close` in them ends the connection behind them.
    pub fn answer(&self, bytes: impl AsRef<[u8]>) {
        *self.answer.lock().unwrap() = bytes.as_ref().to_vec();
    }

    /// The requests so far, byte for byte.
    pub fn requests(&self) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        requests.iter().map(|request| String::from_utf8_lossy(request).into_owned()).collect()
    }

    /// A proxy before it that knows property 1001.
    pub async fn proxy(&self) -> Proxy {
        self.builder().start().await
    }

    /// The same before its start.
    pub fn builder(&self) -> Builder {
        let base_url = format!("https://localhost:{}", self.address.port());
        Proxy::to_origin(&base_url, &self.root_pem).key("1001", &super::key())
    }
}

/// A whole request; `None` when the connection ends before one is complete.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            let complete = if head.contains("transfer-encoding: chunked") {
                // No test sends a body in which this would stand before the end.
                bytes[end + 2..].ends_with(b"\r\n\r\n") && memchr::memmem::find(&bytes[end..], b"\r\n0\r\n").is_some()
            } else {
                bytes.len() >= end + 4 + length.unwrap_or(0)
            };
            if complete {
                return Some(bytes);
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}
