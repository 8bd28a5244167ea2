//! A client of the sandbox's own: one TLS connection, one HTTP version, nothing smoothed over.
//!
//! In: a running sandbox. Out: whole answers, trailers included, or the error exactly where it happened. The proxy's own
//! dialer is left out on purpose, so that the stand-in is tested without the thing it stands in for.
#![allow(clippy::unwrap_used)] // Clippy knows a test by its attribute, not its helpers.
#![allow(dead_code)] // Each test binary uses its own part.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use cloudbeds_auth_proxy::sandbox::Sandbox;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The HTTP versions, as ALPN names them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Http {
    One,
    Two,
}

pub(crate) const BOTH: [Http; 2] = [Http::One, Http::Two];

/// One connection.
pub(crate) enum Client {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

/// One answer, as far as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// The sizes of the frames the body came in, empty ones left out.
    pub(crate) frames: Vec<usize>,
    pub(crate) trailers: HeaderMap,
    /// Whether the body ended before its end.
    pub(crate) broken: bool,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The value of a hidden or other input of a page.
    pub(crate) fn input(&self, name: &str) -> String {
        let text = self.text();
        let (_, rest) = text.split_once(&format!("name=\"{name}\" value=\"")).unwrap();
        rest.split('"').next().unwrap().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// The TLS connection alone.
pub(crate) async fn handshake(sandbox: &Sandbox, name: &str, alpn: &[&str]) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(sandbox.root_pem().as_bytes()).unwrap()).unwrap();
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, sandbox.address().port())).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

impl Client {
    pub(crate) async fn connect(sandbox: &Sandbox, http: Http) -> Self {
        let alpn = if http == Http::One { "http/1.1" } else { "h2" };
        let stream = handshake(sandbox, "localhost", &[alpn]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn.as_bytes()));
        match http {
            Http::One => {
                let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
                tokio::spawn(connection);
                Self::One(sender)
            }
            Http::Two => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
                tokio::spawn(connection);
                Self::Two(sender)
            }
        }
    }

    /// Sends one request; `Err` when no answer began.
    pub(crate) async fn send(&mut self, mut request: Request<Bytes>) -> Result<Answer, hyper::Error> {
        let target = request.uri().to_string();
        let request_for = |uri: String, request: &mut Request<Bytes>| *request.uri_mut() = uri.parse().unwrap();
        let response = match self {
            Self::One(sender) => {
                request.headers_mut().insert("host", "localhost".parse().unwrap());
                sender.ready().await?;
                sender.send_request(request.map(Full::new)).await?
            }
            Self::Two(sender) => {
                request_for(format!("https://localhost{target}"), &mut request);
                sender.ready().await?;
                sender.send_request(request.map(Full::new)).await?
            }
        };
        let (head, body) = response.into_parts();
        let mut answer = Answer {
            status: head.status,
            headers: head.headers,
            body: Vec::new(),
            frames: Vec::new(),
            trailers: HeaderMap::new(),
            broken: false,
        };
        read(body, &mut answer).await;
        Ok(answer)
    }

    /// `GET target` with a key.
    pub(crate) async fn get(&mut self, target: &str, key: &str) -> Answer {
        let request = Request::get(target).header("authorization", format!("Bearer {key}"));
        self.send(request.body(Bytes::new()).unwrap()).await.unwrap()
    }

    /// `GET target` as a browser would, without a key.
    pub(crate) async fn look(&mut self, target: &str) -> Answer {
        self.send(Request::get(target).body(Bytes::new()).unwrap()).await.unwrap()
    }

    /// `POST target` as a browser submits a form.
    pub(crate) async fn submit(&mut self, target: &str, form: &[(&str, &str)]) -> Answer {
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = Request::post(target).header("content-type", "application/x-www-form-urlencoded");
        self.send(request.body(form.into()).unwrap()).await.unwrap()
    }

    /// `POST target` with a key, a content type and a body.
    pub(crate) async fn post(&mut self, target: &str, key: &str, media: &str, body: impl Into<Bytes>) -> Answer {
        let request = Request::post(target).header("authorization", format!("Bearer {key}"));
        self.send(request.header("content-type", media).body(body.into()).unwrap()).await.unwrap()
    }
}

async fn read(mut body: Incoming, answer: &mut Answer) {
    while let Some(frame) = body.frame().await {
        match frame.map(|frame| frame.into_data().map_err(|frame| frame.into_trailers().unwrap_or_default())) {
            // HTTP/2 may end a stream with an empty frame, which says nothing.
            Ok(Ok(data)) if data.is_empty() => {}
            Ok(Ok(data)) => {
                answer.frames.push(data.len());
                answer.body.extend_from_slice(&data);
            }
            Ok(Err(trailers)) => answer.trailers = trailers,
            Err(_) => {
                answer.broken = true;
                return;
            }
        }
    }
}
