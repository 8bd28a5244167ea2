//! An upstream that does exactly as told: a scene scripted byte by byte, where a real server would behave.
//!
//! In: a [`Manner`] (which certificate, which ALPN) and a script that is run for every accepted connection. Out: a
//! listener on loopback that keeps the decrypted bytes of each connection, and the root that signed its certificate.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificate::{Alpn, Certificate, config};
use super::{Builder, Proxy, key};

/// What a connection starts with.
#[derive(Clone, Copy, Debug)]
pub enum Manner {
    /// TLS with this certificate; whether ALPN offers HTTP/2 alone, or HTTP/1.1 alone.
    Tls(Certificate, Alpn),
    /// No TLS: the script sees the socket.
    Plain,
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

    /// The same at an address of the test's choice.
    pub async fn start_at<S, F>(address: SocketAddr, manner: Manner, script: S) -> Self
    where
        S: Fn(Peer) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        Self::listen(listener, manner, |_| std::future::ready(()), script)
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
        Self::listen(listener, manner, before, script)
    }

    fn listen<B, W, S, F>(listener: TcpListener, manner: Manner, before: B, script: S) -> Self
    where
        B: Fn(usize) -> W + Send + Sync + 'static,
        W: Future<Output = ()> + Send + 'static,
        S: Fn(Peer) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
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
        Some(String::from_utf8_lossy(&self.until(b"\r\n\r\n").await?).into_owned())
    }

    /// Reads up to a mark and the mark itself; `None` when the client closes before.
    pub async fn until(&mut self, mark: &[u8]) -> Option<BytesMut> {
        self.fill(|buffer| Some(memchr::memmem::find(buffer, mark)? + mark.len())).await
    }

    /// What came beyond what was read.
    pub fn unread(&self) -> &[u8] {
        &self.buffer
    }

    /// Reads exactly so many bytes; `None` when the client closes before.
    pub async fn exactly(&mut self, count: usize) -> Option<BytesMut> {
        self.fill(|buffer| (buffer.len() >= count).then_some(count)).await
    }

    /// Reads until there is something complete, and takes that; `None` when the client closes before. Given up, nothing is
    /// lost.
    pub(super) async fn fill(&mut self, complete: impl Fn(&[u8]) -> Option<usize>) -> Option<BytesMut> {
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

    /// Writes no more: TLS `close_notify`, then FIN.
    pub async fn end(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Closes in order.
    pub async fn close(mut self) {
        self.end().await;
    }

    /// Closes as a careful server does that has not read everything: what still comes is read, or the answer would be
    /// lost in the reset that follows.
    pub async fn linger(mut self) {
        self.end().await;
        self.drain().await;
    }

    /// The same, and keeps what still comes.
    pub async fn close_and_log(mut self) {
        self.end().await;
        self.log_all().await;
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

impl Proxy {
    /// Whether the next request is served, by a script that answers `/ok` with [`Peer::answer`] and the body `ok`.
    pub async fn assert_serves(&self, what: &str) {
        let answer = self.get("/ok").property("1001").send().await;
        assert_eq!((answer.status.as_u16(), &*answer.text()), (200, "ok"), "{what}: the next request");
    }
}
