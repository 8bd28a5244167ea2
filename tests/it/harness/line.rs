//! One connection to the proxy, byte by byte: what is written is what the test says, and answers are read one at a time.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::wire::Stream;
use super::{Answer, PATIENCE, Proxy, Watch};

/// How an answer ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// By its length or its last chunk.
    Framed,
    /// By an orderly close where neither was announced.
    Closed,
    /// Before its announced end, or by a reset.
    Cut,
}

/// An open connection.
pub struct Line {
    stream: Box<dyn Stream>,
    secrets: Vec<String>,
    watch: Watch,
    unread: Vec<u8>,
    /// The status line of the last answer.
    pub status_line: String,
    /// How the last answer ended.
    pub end: End,
    /// The chunks of the last answer, when it was chunked: their sizes.
    pub chunks: Vec<usize>,
    /// Whether the last answer had bytes behind its last chunk's line: trailers.
    pub trailers: bool,
}

impl Line {
    pub async fn to(address: SocketAddr, secrets: &[String]) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream, secrets)
    }

    /// On a stream that is there already.
    pub fn over(stream: impl Stream + 'static, secrets: &[String]) -> Self {
        let stream = Box::new(stream);
        let (status_line, end) = (String::new(), End::Framed);
        let (unread, chunks) = (Vec::new(), Vec::new());
        let (secrets, watch) = (secrets.to_vec(), Watch::for_any(secrets));
        Self { stream, secrets, watch, unread, status_line, end, chunks, trailers: false }
    }

    /// Writes as much as the proxy takes: one that has refused already may close before everything is written.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let written = async {
            self.stream.write_all(bytes.as_ref()).await?;
            self.stream.flush().await
        };
        let _ = timeout(PATIENCE, written).await.expect("the proxy reads in time");
        self
    }

    /// Closes our direction only.
    pub async fn half_close(&mut self) -> &mut Self {
        self.stream.shutdown().await.unwrap();
        self
    }

    /// The next answer, whose request was not a HEAD.
    pub async fn answer(&mut self) -> Answer {
        let answer = self.answer_to("GET").await;
        assert_ne!(self.end, End::Cut, "{}: the answer is cut off: {}", self.status_line, answer.text());
        answer
    }

    /// The next answer, which may be cut off.
    pub async fn answer_to(&mut self, method: &str) -> Answer {
        let (status, headers) = self.head().await;
        self.end = End::Framed;
        let bodiless = method == "HEAD" || status.is_informational() || matches!(status.as_u16(), 204 | 304);
        let body = if bodiless {
            Vec::new()
        } else if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
            self.chunked().await
        } else if let Some(length) = headers.get("content-length") {
            let length = length.to_str().unwrap().parse().unwrap();
            self.exactly(length).await
        } else {
            while self.fill().await {}
            if self.end == End::Framed {
                self.end = End::Closed;
            }
            std::mem::take(&mut self.unread)
        };
        let answer = Answer { status, headers, body };
        answer.assert_clean(&self.secrets);
        answer
    }

    /// Asserts that the proxy closes without another byte.
    pub async fn closed(&mut self) {
        while self.fill().await {}
        assert!(self.unread.is_empty(), "more came: {}", String::from_utf8_lossy(&self.unread));
    }

    /// Whether the proxy has closed: true once it has, false when nothing is there to read now.
    pub fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        match Pin::new(&mut self.stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer) {
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => true,
            Poll::Ready(Ok(())) => panic!("an unexpected byte"),
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        }
    }

    async fn head(&mut self) -> (StatusCode, HeaderMap) {
        let end = loop {
            if let Some(end) = memchr::memmem::find(&self.unread, b"\r\n\r\n") {
                break end;
            }
            let more = self.fill().await;
            assert!(more, "closed without an answer; so far: {:?}", String::from_utf8_lossy(&self.unread));
        };
        let head: Vec<u8> = self.unread.drain(..end + 4).collect();
        let text = String::from_utf8_lossy(&head);
        let mut lines = text.trim_end().split("\r\n");
        self.status_line = lines.next().unwrap().to_owned();
        let status = self.status_line.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(':').unwrap();
            headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value.trim()).unwrap());
        }
        (status, headers)
    }

    async fn chunked(&mut self) -> Vec<u8> {
        (self.chunks, self.trailers) = (Vec::new(), false);
        let mut body = Vec::new();
        loop {
            let Some(size) = self.text_line().await else { return body };
            let size = usize::from_str_radix(&size, 16).unwrap();
            if size == 0 {
                while let Some(line) = self.text_line().await {
                    if line.is_empty() {
                        break;
                    }
                    self.trailers = true;
                }
                return body;
            }
            self.chunks.push(size);
            body.extend_from_slice(&self.exactly(size).await);
            if self.text_line().await.is_none() {
                return body;
            }
        }
    }

    async fn text_line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = memchr::memmem::find(&self.unread, b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..end + 2).collect();
                return Some(String::from_utf8(line[..end].to_vec()).unwrap());
            }
            if !self.fill().await {
                self.end = End::Cut;
                return None;
            }
        }
    }

    async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.unread.len() < length {
            if !self.fill().await {
                self.end = End::Cut;
                return std::mem::take(&mut self.unread);
            }
        }
        self.unread.drain(..length).collect()
    }

    /// Reads more; false at the end, however it comes.
    async fn fill(&mut self) -> bool {
        let before = self.unread.len();
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.unread)).await.expect("bytes or an end in time");
        self.watch.see("an answer", &self.unread[before..]);
        match read {
            Ok(0) => false,
            Ok(_) => true,
            Err(_) => {
                self.end = End::Cut;
                false
            }
        }
    }
}

impl Proxy {
    /// A connection of its own.
    pub async fn line(&self) -> Line {
        Line::to(self.address, &self.secrets).await
    }
}
