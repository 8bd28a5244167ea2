//! The upstream every peer is measured before: cheap, the same for all, over TLS 1.3.
//!
//! In: how many threads the load side has. Out: two ports, one that speaks HTTP/1.1 and one that speaks HTTP/2, and a
//! root to trust. Answers are made once, at the start; nothing is parsed but what HTTP asks for.
//!
//! Why not the sandbox: it builds JSON and checks keys, so it would be the slowest part of the chain and the proxies
//! would wait. Why not nginx: it would be one peer's own sibling, and its HTTP/2 side ends connections by count. This
//! one runs on threads of the bench itself, beside the load generator, so its cost never lands on the proxy's core.
//!
//! | path | answer |
//! |---|---|
//! | `/bench/1k` `/bench/16k` `/bench/1m` | JSON of that many bytes |
//! | `/bench/up` | reads the body, answers how long it was |
//! | `/bench/seen` | remembers the request's fields for [`StandIn::seen`] |
#![allow(dead_code, reason = "two benches compile this, and each needs a part of it")]

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::kit::Sentence;

/// What it puts into `Set-Cookie`, which no caller may see.
pub(crate) const COOKIE: &str = "session=of_the_upstream; Path=/; HttpOnly";

/// HTTP/2's window for one body and for a connection: a body of 1 MiB goes through without waiting.
const WINDOW: u32 = 4 << 20;

/// HTTP/2 bodies go out in frames that fill one TLS record each, their head of nine bytes included. hyper left to itself
/// makes them nine bytes longer, so each frame would be a full record and one of nine bytes: hardly any server at large
/// does that, and every reader would pay for it.
const FRAME: usize = 16 * 1024 - 9;

/// Running until the bench ends.
pub(crate) struct StandIn {
    pub(crate) http1: SocketAddr,
    pub(crate) http2: SocketAddr,
    pub(crate) root_pem: String,
    seen: Arc<Mutex<Vec<HeaderMap>>>,
}

struct Answers {
    small: Bytes,
    medium: Bytes,
    large: Bytes,
    seen: Arc<Mutex<Vec<HeaderMap>>>,
}

impl StandIn {
    /// Starts it on `threads` threads, which are pinned as the calling one is.
    pub(crate) fn start(threads: usize) -> Result<Self, Sentence> {
        let (mut here, tls, answers) = Self::prepare()?;
        for _ in 0..threads.max(1) {
            let listeners = here.bind()?;
            let (tls, answers) = (tls.clone(), Arc::clone(&answers));
            std::thread::Builder::new()
                .name("stand-in".into())
                .spawn(move || serve(listeners, tls, answers))
                .map_err(|error| failed(&error))?;
        }
        Ok(here)
    }

    /// Starts it on the runtime this is called in, and does nothing but what whoever drives that lets it do.
    pub(crate) fn start_here() -> Result<Self, Sentence> {
        let (mut here, tls, answers) = Self::prepare()?;
        tokio::spawn(accept_all(here.bind()?, tls, answers));
        Ok(here)
    }

    fn prepare() -> Result<(Self, [TlsAcceptor; 2], Arc<Answers>), Sentence> {
        let (root_pem, http1_tls, http2_tls) = identity().map_err(|error| failed(&error))?;
        let seen = Arc::default();
        let answers = Arc::new(Answers {
            small: json(1024),
            medium: json(16 * 1024),
            large: json(1024 * 1024),
            seen: Arc::clone(&seen),
        });
        let [http1, http2] = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); 2];
        Ok((Self { http1, http2, root_pem, seen }, [http1_tls, http2_tls], answers))
    }

    /// A listener for each of the two ports, which are chosen when this is called for the first time.
    fn bind(&mut self) -> Result<Vec<std::net::TcpListener>, Sentence> {
        let bound = |port: &mut SocketAddr| {
            let listener = bind(*port)?;
            *port = listener.local_addr()?;
            Ok(listener)
        };
        [&mut self.http1, &mut self.http2]
            .into_iter()
            .map(bound)
            .collect::<io::Result<_>>()
            .map_err(|error| failed(&error))
    }

    /// The fields of the requests for `/bench/seen` since this was last asked.
    pub(crate) fn seen(&self) -> Vec<HeaderMap> {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One socket of several on the same port: each thread accepts for itself.
fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

fn failed(error: &dyn std::fmt::Display) -> Sentence {
    format!("the stand-in upstream does not start: {error}")
}

fn serve(listeners: Vec<std::net::TcpListener>, tls: [TlsAcceptor; 2], answers: Arc<Answers>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(accept_all(listeners, tls, answers));
}

async fn accept_all(listeners: Vec<std::net::TcpListener>, tls: [TlsAcceptor; 2], answers: Arc<Answers>) {
    let accepting = listeners.into_iter().zip(tls).filter_map(|(listener, tls)| {
        let listener = TcpListener::from_std(listener).ok()?;
        Some(tokio::spawn(accept(listener, tls, Arc::clone(&answers))))
    });
    for accepting in accepting.collect::<Vec<_>>() {
        let _ = accepting.await;
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, answers: Arc<Answers>) {
    loop {
        let Ok((tcp, _)) = listener.accept().await else { continue };
        let _ = tcp.set_nodelay(true);
        let (tls, answers) = (tls.clone(), Arc::clone(&answers));
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(tcp).await else { return };
            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let service = service_fn(|request| {
                let answers = Arc::clone(&answers);
                async move { Ok::<_, Infallible>(answer(&answers, request).await) }
            });
            // How a connection ends is the proxies' business.
            if h2 {
                let mut http = http2::Builder::new(TokioExecutor::new());
                http.initial_stream_window_size(WINDOW).initial_connection_window_size(4 * WINDOW);
                http.max_send_buf_size(1 << 20).max_concurrent_streams(250);
                let _ = http.serve_connection(TokioIo::new(stream), service).await;
            } else {
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            }
        });
    }
}

/// A fixed body, in frames of at most `frame` bytes.
struct Fixed {
    left: Bytes,
    frame: usize,
}

impl Body for Fixed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let size = self.left.len().min(self.frame);
        Poll::Ready((size > 0).then(|| Ok(Frame::data(self.left.split_to(size)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}

async fn answer(answers: &Answers, request: Request<Incoming>) -> Response<Fixed> {
    let frame = if request.version() == Version::HTTP_2 { FRAME } else { usize::MAX };
    let body = match request.uri().path() {
        "/bench/16k" => answers.medium.clone(),
        "/bench/1m" => answers.large.clone(),
        "/bench/up" => {
            let (mut body, mut bytes) = (request.into_body(), 0);
            while let Some(Ok(frame)) = body.frame().await {
                bytes += frame.data_ref().map_or(0, Bytes::len);
            }
            format!("{{\"success\":true,\"bytes\":{bytes}}}").into()
        }
        "/bench/seen" => {
            answers.seen.lock().unwrap_or_else(PoisonError::into_inner).push(request.headers().clone());
            answers.small.clone()
        }
        _ => answers.small.clone(),
    };
    let mut answer = Response::new(Fixed { left: body, frame });
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-cache, must-revalidate"));
    headers.insert(SET_COOKIE, HeaderValue::from_static(COOKIE));
    headers.insert("x-request-id", HeaderValue::from_static("6f1f3f0a-0001-4c4e-9a51-bench0000001"));
    answer
}

/// JSON of exactly so many bytes, of the vendor's kind.
fn json(bytes: usize) -> Bytes {
    const ROW: &str = "{\"reservationID\":\"4729361085\",\"guestName\":\"Ada Example\",\"status\":\"confirmed\",\
                       \"startDate\":\"2026-07-01\",\"endDate\":\"2026-07-05\",\"balance\":123.45},";
    let (open, close) = ("{\"success\":true,\"data\":[", "{}],\"note\":\"\"}");
    let mut text = String::from(open);
    while text.len() + ROW.len() + close.len() <= bytes {
        text.push_str(ROW);
    }
    let filler = "x".repeat(bytes.saturating_sub(text.len() + close.len()));
    text.push_str(&close.replace("\"\"", &format!("\"{filler}\"")));
    text.into()
}

/// A throw-away root, and what proves `localhost` by it, for each of the two versions of HTTP.
fn identity() -> Result<(String, TlsAcceptor, TlsAcceptor), Box<dyn std::error::Error>> {
    let mut root = CertificateParams::default();
    // Names of their own: OpenSSL takes a certificate that names itself as its issuer for a self-signed one.
    root.distinguished_name.push(DnType::CommonName, "bench root");
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    leaf.distinguished_name.push(DnType::CommonName, "bench stand-in");
    let leaf = leaf.signed_by(&key, &root)?;
    let key: PrivateKeyDer<'static> = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let acceptor = |protocol: &[u8]| -> Result<TlsAcceptor, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key.clone_key())?;
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    };
    Ok((root.pem(), acceptor(b"http/1.1")?, acceptor(b"h2")?))
}
