//! One connection under the test's own control: half a request now, the rest when the scene wants it.

use std::net::SocketAddr;
use std::path::Path;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::{Answer, PATIENCE, Watch};

/// What a connection is made of.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The connection, and what was read of it beyond the last answer. Every byte that comes is searched for keys.
pub struct Wire {
    stream: Box<dyn Stream>,
    ahead: Vec<u8>,
    secrets: Vec<String>,
    watch: Watch,
}

/// A GET without a body, as bytes.
pub fn get(path: &str, property: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: test\r\nx-property-id: {property}\r\n\r\n").into_bytes()
}

impl Wire {
    pub async fn tcp(address: SocketAddr, secrets: &[String]) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap(), secrets)
    }

    pub async fn unix(path: &Path, secrets: &[String]) -> Self {
        Self::over(UnixStream::connect(path).await.unwrap(), secrets)
    }

    pub fn over(stream: impl Stream + 'static, secrets: &[String]) -> Self {
        let (secrets, watch) = (secrets.to_vec(), Watch::for_any(secrets));
        Self { stream: Box::new(stream), ahead: Vec::new(), secrets, watch }
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends a GET and reads its answer.
    pub async fn get(&mut self, path: &str, property: &str) -> Answer {
        self.send(get(path, property)).await;
        self.answer().await
    }

    /// Reads one answer; the connection stays open.
    pub async fn answer(&mut self) -> Answer {
        self.try_answer().await.expect("an answer, not the connection's end")
    }

    /// The same, or nothing when the connection ends before the answer does.
    pub async fn try_answer(&mut self) -> Option<Answer> {
        let head = loop {
            if let Some(end) = memchr::memmem::find(&self.ahead, b"\r\n\r\n") {
                break self.ahead.drain(..end + 4).collect::<Vec<_>>();
            }
            self.more().await?;
        };
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.lines();
        let status: StatusCode = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        let body = match headers.get("content-length") {
            Some(length) => self.take(length.to_str().unwrap().parse().unwrap()).await?,
            None if headers.contains_key("transfer-encoding") => self.chunks().await?,
            None => Vec::new(),
        };
        let answer = Answer { status, headers, body };
        answer.assert_clean(&self.secrets);
        Some(answer)
    }

    /// Waits for the other side to end the connection, and gives what it sent before.
    pub async fn rest(mut self) -> Vec<u8> {
        while self.more().await.is_some() {}
        self.ahead
    }

    async fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = loop {
                if let Some(end) = memchr::memmem::find(&self.ahead, b"\r\n") {
                    break self.ahead.drain(..end + 2).collect::<Vec<_>>();
                }
                self.more().await?;
            };
            let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
            body.extend(self.take(size).await?);
            self.take(2).await?;
            if size == 0 {
                return Some(body);
            }
        }
    }

    async fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.ahead.len() < count {
            self.more().await?;
        }
        Some(self.ahead.drain(..count).collect())
    }

    async fn more(&mut self) -> Option<()> {
        let before = self.ahead.len();
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.ahead)).await.expect("bytes in time");
        self.watch.see("an answer", &self.ahead[before..]);
        (read.unwrap_or(0) > 0).then_some(())
    }
}
