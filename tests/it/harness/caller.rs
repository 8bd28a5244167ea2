//! The application's end of a connection where a body is too long, or an end too sudden, for [`Line`](super::Line); and
//! ways to wait.

use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{PATIENCE, Proxy, Watch, assert_clean};

/// An open connection. Every byte that comes is searched for keys.
pub struct Caller {
    pub stream: TcpStream,
    buffer: BytesMut,
    secrets: Vec<String>,
    watch: Watch,
}

impl Caller {
    /// Connects to the proxy.
    pub async fn connect(proxy: &Proxy) -> Self {
        Self::at(proxy.address, &proxy.secrets).await
    }

    /// Connects to wherever; none of these may come from there.
    pub async fn at(address: std::net::SocketAddr, secrets: &[String]) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self { stream, buffer: BytesMut::new(), secrets: secrets.to_vec(), watch: Watch::for_any(secrets) }
    }

    /// Sends bytes as they are; whether somebody was there to take them.
    pub async fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        in_time(self.stream.write_all(bytes.as_ref())).await.is_ok()
    }

    /// Status, head and body of the next answer, with a length or in chunks; nothing when it is cut.
    pub async fn whole_answer(&mut self) -> Option<(u16, String, Vec<u8>)> {
        let end = self.find(b"\r\n\r\n").await?;
        let head = String::from_utf8_lossy(&self.buffer.split_to(end)).into_owned();
        let status = head.get(9..12)?.parse().ok()?;
        let lower = head.to_ascii_lowercase();
        if let Some((_, rest)) = lower.split_once("content-length: ") {
            let length: usize = rest.split("\r\n").next()?.parse().ok()?;
            self.fill(length).await?;
            return Some((status, head, self.buffer.split_to(length).to_vec()));
        }
        let mut body = Vec::new();
        loop {
            let line = self.find(b"\r\n").await?;
            let size = self.buffer.split_to(line);
            let size = usize::from_str_radix(std::str::from_utf8(&size).ok()?.trim(), 16).ok()?;
            self.fill(size + 2).await?;
            body.extend_from_slice(&self.buffer.split_to(size));
            let _ = self.buffer.split_to(2);
            if size == 0 {
                // A key may be cut in two by the line of a chunk.
                assert_clean("a body in chunks", &body, &self.secrets);
                return Some((status, head, body));
            }
        }
    }

    /// Where the mark ends.
    async fn find(&mut self, mark: &[u8]) -> Option<usize> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, mark) {
                return Some(at + mark.len());
            }
            self.more().await?;
        }
    }

    async fn fill(&mut self, count: usize) -> Option<()> {
        while self.buffer.len() < count {
            self.more().await?;
        }
        Some(())
    }

    async fn more(&mut self) -> Option<()> {
        let read = self.receive().await.unwrap_or(0);
        (read > 0).then_some(())
    }

    /// Reads what comes next; nothing at the end.
    async fn receive(&mut self) -> std::io::Result<usize> {
        let before = self.buffer.len();
        let read = in_time(self.stream.read_buf(&mut self.buffer)).await?;
        self.watch.see("an answer", &self.buffer[before..]);
        Ok(read)
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
            let read = self.receive().await.unwrap();
            assert!(read > 0, "closed before an answer: {:?}", self.buffer);
        }
    }

    /// Reads exactly so many bytes.
    pub async fn read(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            let read = self.receive().await.unwrap();
            assert!(read > 0, "closed after {} bytes", self.buffer.len());
        }
        self.buffer.split_to(count).to_vec()
    }

    /// Reads what is there, at most so many bytes.
    pub async fn some(&mut self, most: u64) -> BytesMut {
        if self.buffer.is_empty() {
            self.buffer.reserve(256 << 10);
            let read = self.receive().await.unwrap();
            assert!(read > 0, "closed before the end");
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        self.buffer.split_to(self.buffer.len().min(most))
    }

    /// Reads until the proxy closes the connection; whether it did so with a reset.
    pub async fn rest(&mut self) -> (String, bool) {
        let reset = loop {
            match self.receive().await {
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

/// Waits for what a deadline of some hundred milliseconds ends: it is there long before anything else would end it.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    let soon = tokio::time::timeout(Duration::from_secs(5), future).await;
    soon.unwrap_or_else(|_| panic!("{what}: the deadline passed long ago"))
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
