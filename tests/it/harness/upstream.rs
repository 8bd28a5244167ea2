//! An upstream that does exactly as told: a scene scripted byte by byte, where a real server would behave.
//!
//! In: a [`Manner`] (which certificate, which ALPN) and a script that is run for every accepted connection. Out: a
//! listener on loopback that keeps the decrypted bytes of each connection, and the root that signed its certificate.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Builder, PATIENCE, Proxy, key};

/// How good the certificate is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Certificate {
    Good,
    WrongName,
    Expired,
    NotYetValid,
    SelfSigned,
}

/// What a connection starts with.
#[derive(Clone, Copy, Debug)]
pub enum Manner {
    /// TLS with this certificate; whether ALPN offers HTTP/2 alone, or HTTP/1.1 alone.
    Tls(Certificate, Alpn),
    /// No TLS: the script sees the socket.
    Plain,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Alpn {
    Http1,
    Http2,
}

/// The usual manner.
pub const HTTP1: Manner = Manner::Tls(Certificate::Good, Alpn::Http1);
pub const HTTP2: Manner = Manner::Tls(Certificate::Good, Alpn::Http2);

/// A running upstream. Dropped, it ends with all its connections.
pub struct Upstream {
    pub address: SocketAddr,
    root_pem: String,
    received: Arc<Mutex<Vec<Vec<u8>>>>,
    accepting: JoinHandle<()>,
}

impl Upstream {
    /// Listens, and runs `script` on every connection.
    pub async fn start<S, F>(manner: Manner, script: S) -> Self
    where
        S: Fn(Peer) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Self::start_after(manner, |_| std::future::ready(()), script).await
    }

    /// The same, where each connection's handshake waits for `before`, which is given the connection's number.
    pub async fn start_after<B, W, S, F>(manner: Manner, before: B, script: S) -> Self
    where
        B: Fn(usize) -> W + Send + Sync + 'static,
        W: Future<Output = ()> + Send + 'static,
        S: Fn(Peer) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (root_pem, tls) = match manner {
            Manner::Tls(certificate, alpn) => {
                let (root_pem, config) = config(certificate, alpn);
                (root_pem, Some(TlsAcceptor::from(Arc::new(config))))
            }
            Manner::Plain => (config(Certificate::Good, Alpn::Http1).0, None),
        };
        let received: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let log = Arc::clone(&received);
        let script = Arc::new(script);
        let accepting = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            loop {
                let Ok((tcp, _)) = listener.accept().await else { return };
                tcp.set_nodelay(true).unwrap();
                let number = {
                    let mut log = log.lock().unwrap();
                    log.push(Vec::new());
                    log.len() - 1
                };
                let (tls, script, log) = (tls.clone(), Arc::clone(&script), Arc::clone(&log));
                let before = before(number);
                open.spawn(async move {
                    before.await;
                    let stream = match tls {
                        // A client that does not like the certificate ends it here.
                        Some(tls) => match tls.accept(tcp).await {
                            Ok(stream) => Stream::Tls(Box::new(stream)),
                            Err(_) => return,
                        },
                        None => Stream::Plain(tcp),
                    };
                    script(Peer { number, stream, log, buffer: BytesMut::new() }).await;
                });
            }
        });
        Self { address, root_pem, received, accepting }
    }

    /// A proxy before it, with a key for property 1001.
    pub fn proxy(&self) -> Builder {
        Proxy::to_origin(&self.base_url(), &self.root_pem).key("1001", &key())
    }

    /// The root that signed its certificate.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    pub fn base_url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> usize {
        self.received.lock().unwrap().len()
    }

    /// The decrypted bytes of all connections, one text per connection.
    pub fn received(&self) -> Vec<String> {
        let received = self.received.lock().unwrap();
        received.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    /// The request lines of HTTP/1.1, over all connections.
    pub fn request_lines(&self) -> Vec<String> {
        let lines = |text: &String| -> Vec<String> {
            text.lines().filter_map(|line| line.strip_suffix(" HTTP/1.1")).map(str::to_owned).collect()
        };
        self.received().iter().flat_map(lines).collect()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// One accepted connection, in the hands of the script.
pub struct Peer {
    /// Which connection it is, from 0.
    pub number: usize,
    stream: Stream,
    log: Arc<Mutex<Vec<Vec<u8>>>>,
    buffer: BytesMut,
}

impl Peer {
    /// Reads one request with its body; `None` when the client closes before one is complete.
    pub async fn request(&mut self) -> Option<String> {
        let head = self.head().await?;
        let lower = head.to_ascii_lowercase();
        if let Some((_, rest)) = lower.split_once("content-length: ") {
            let length: usize = rest.split("\r\n").next()?.parse().ok()?;
            self.fill(|buffer| (buffer.len() >= length).then_some(length)).await?;
        } else if lower.contains("transfer-encoding: chunked") {
            self.fill(|buffer| Some(memchr::memmem::find(buffer, b"0\r\n\r\n")? + 5)).await?;
        }
        Some(head)
    }

    /// Reads one request head and none of its body beyond what came with it.
    pub async fn head(&mut self) -> Option<String> {
        let head = self.fill(|buffer| Some(memchr::memmem::find(buffer, b"\r\n\r\n")? + 4)).await?;
        Some(String::from_utf8_lossy(&head).into_owned())
    }

    /// Reads exactly so many bytes; `None` when the client closes before.
    pub async fn exactly(&mut self, count: usize) -> Option<BytesMut> {
        self.fill(|buffer| (buffer.len() >= count).then_some(count)).await
    }

    async fn fill(&mut self, complete: impl Fn(&[u8]) -> Option<usize>) -> Option<BytesMut> {
        loop {
            if let Some(length) = complete(&self.buffer) {
                return Some(self.buffer.split_to(length));
            }
            let before = self.buffer.len();
            if self.stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
            self.log.lock().unwrap()[self.number].extend_from_slice(&self.buffer[before..]);
        }
    }

    /// Reads and keeps until the client closes.
    pub async fn log_all(&mut self) {
        self.fill(|_| None).await;
    }

    /// Reads and drops until the client closes.
    pub async fn drain(&mut self) {
        let mut buffer = [0; 16 * 1024];
        while let Ok(1..) = self.stream.read(&mut buffer).await {}
    }

    /// Writes bytes as they are; a client that has gone is no error here.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_write(bytes).await;
    }

    /// The same; whether the client was there to take them.
    pub async fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok() && self.stream.flush().await.is_ok()
    }

    /// A complete answer with this body.
    pub async fn answer(&mut self, body: &str) {
        self.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    }

    /// Answers every further request until the client closes.
    pub async fn serve(&mut self) {
        while self.request().await.is_some() {
            self.answer("ok").await;
        }
    }

    /// Closes in order: TLS `close_notify`, then FIN.
    pub async fn close(mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Closes as a careful server does that has not read everything: what still comes is read, or the answer would be
    /// lost in the reset that follows.
    pub async fn linger(mut self) {
        let _ = self.stream.shutdown().await;
        self.drain().await;
    }

    /// Closes with a TCP reset.
    pub fn reset(self) {
        self.stream.tcp().set_zero_linger().unwrap();
    }

    /// Keeps the connection open and does nothing with it.
    pub async fn hang(self) {
        std::future::pending::<()>().await;
        drop(self);
    }

    /// The stream itself, for HTTP/2.
    pub fn into_stream(self) -> Stream {
        self.stream
    }
}

/// Either kind of stream.
pub enum Stream {
    Tls(Box<TlsStream<TcpStream>>),
    Plain(TcpStream),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Tls(stream) => stream.get_ref().0,
            Self::Plain(stream) => stream,
        }
    }
}

macro_rules! either {
    ($this:ident, $stream:ident => $do:expr) => {
        match $this.get_mut() {
            Stream::Tls(stream) => {
                let $stream = Pin::new(&mut **stream);
                $do
            }
            Stream::Plain(stream) => {
                let $stream = Pin::new(stream);
                $do
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        either!(self, stream => stream.poll_read(cx, into))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        either!(self, stream => stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        either!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        either!(self, stream => stream.poll_shutdown(cx))
    }
}

fn config(certificate: Certificate, alpn: Alpn) -> (String, ServerConfig) {
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
    let name = if certificate == Certificate::WrongName { "elsewhere.test" } else { "localhost" };
    let mut leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    match certificate {
        Certificate::Expired => leaf.not_after = date_time_ymd(2020, 1, 1),
        Certificate::NotYetValid => leaf.not_before = date_time_ymd(2200, 1, 1),
        _ => {}
    }
    let key = KeyPair::generate().unwrap();
    let leaf = match certificate {
        Certificate::SelfSigned => leaf.self_signed(&key).unwrap(),
        _ => leaf.signed_by(&key, &root).unwrap(),
    };
    let chain: Vec<CertificateDer<'static>> = vec![leaf.der().clone()];
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![match alpn {
        Alpn::Http1 => b"http/1.1".to_vec(),
        Alpn::Http2 => b"h2".to_vec(),
    }];
    (root.pem(), config)
}

/// The application's end of a connection, byte by byte.
pub struct Caller {
    pub stream: TcpStream,
    buffer: BytesMut,
}

impl Caller {
    /// Connects to the proxy.
    pub async fn connect(proxy: &Proxy) -> Self {
        Self { stream: TcpStream::connect(proxy.address).await.unwrap(), buffer: BytesMut::new() }
    }

    /// Sends bytes as they are.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        in_time(self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Sends a request head for property 1001, with further lines.
    pub async fn head(&mut self, method: &str, target: &str, lines: &str) {
        let head = format!("{method} {target} HTTP/1.1\r\nhost: proxy\r\nx-property-id: 1001\r\n{lines}\r\n");
        self.write(head).await;
    }

    /// Reads the head of an answer.
    pub async fn answer_head(&mut self) -> String {
        loop {
            if let Some(end) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                let head = self.buffer.split_to(end + 4);
                return String::from_utf8_lossy(&head).into_owned();
            }
            let read = in_time(self.stream.read_buf(&mut self.buffer)).await.unwrap();
            assert!(read > 0, "closed before an answer: {:?}", self.buffer);
        }
    }

    /// Reads exactly so many bytes.
    pub async fn read(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            let read = in_time(self.stream.read_buf(&mut self.buffer)).await.unwrap();
            assert!(read > 0, "closed after {} bytes", self.buffer.len());
        }
        self.buffer.split_to(count).to_vec()
    }

    /// Reads what is there, at most so many bytes.
    pub async fn some(&mut self, most: u64) -> BytesMut {
        if self.buffer.is_empty() {
            self.buffer.reserve(256 << 10);
            let read = in_time(self.stream.read_buf(&mut self.buffer)).await.unwrap();
            assert!(read > 0, "closed before the end");
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        self.buffer.split_to(self.buffer.len().min(most))
    }

    /// Reads until the proxy closes the connection; whether it did so with a reset.
    pub async fn rest(&mut self) -> (String, bool) {
        let reset = loop {
            match in_time(self.stream.read_buf(&mut self.buffer)).await {
                Ok(0) => break false,
                Ok(_) => {}
                Err(_) => break true,
            }
        };
        let rest = self.buffer.split();
        (String::from_utf8_lossy(&rest).into_owned(), reset)
    }
}

/// Waits, but not for ever.
pub async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

/// Runs futures together; their outputs in order.
pub async fn together<F: Future>(all: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut all: Vec<_> = all.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|cx| {
        for (future, output) in all.iter_mut().filter(|(_, output)| output.is_none()) {
            if let Poll::Ready(done) = future.as_mut().poll(cx) {
                *output = Some(done);
            }
        }
        if all.iter().all(|(_, output)| output.is_some()) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    all.into_iter().filter_map(|(_, output)| output).collect()
}

/// Waits until something is so.
pub async fn until<F: AsyncFnMut() -> bool>(what: &str, mut so: F) {
    let look = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, look).await.is_ok(), "{what}: not in time");
}
