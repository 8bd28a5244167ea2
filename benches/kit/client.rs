//! A caller with one connection, blocking, which costs next to nothing beside what it calls.
//!
//! In: requests as bytes. Out: status and body of each answer. It reads what HTTP/1.1 servers send to it, lengths and
//! chunks, and believes the server; it is a measuring device, no client for the open sea.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use memchr::memmem::find;

/// How much of a body is kept to be looked at.
const KEPT: usize = 64 * 1024;

/// A connection, any stream of bytes.
pub(crate) struct Client<S> {
    stream: S,
    /// Bytes read and not used yet.
    unread: Vec<u8>,
    head: Vec<u8>,
    body: Vec<u8>,
}

/// Whatever makes calls, one after the other.
pub(crate) trait Caller {
    /// Makes one, given as a request of HTTP/1.1, and reads its whole answer.
    fn call(&mut self, request: &[u8]) -> io::Result<Answer>;

    /// The start of the last answer's body, as far as it is kept.
    fn body(&self) -> &[u8];
}

impl<S: Read + Write> Caller for Client<S> {
    fn call(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.call(request)
    }

    fn body(&self) -> &[u8] {
        self.body()
    }
}

/// What came back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Bytes of its body.
    pub(crate) bytes: u64,
    /// Whether the connection can be used again.
    pub(crate) kept: bool,
}

impl Client<TcpStream> {
    pub(crate) fn connect(address: SocketAddr, limit: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        Ok(Self::new(stream))
    }

    /// The connection alone, without buffers.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }
}

impl<S: Read + Write> Client<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, unread: Vec::new(), head: Vec::new(), body: Vec::new() }
    }

    /// Sends one request and reads its whole answer.
    pub(crate) fn call(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.stream.write_all(request)?;
        self.stream.flush()?;
        let to_head = request.starts_with(b"HEAD ");
        self.body.clear();
        loop {
            self.read_head()?;
            let status = self.status()?;
            if status >= 200 {
                let empty = to_head || status == 204 || status == 304;
                let bytes = if empty { Some(0) } else { self.read_body()? };
                let close = self.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
                return match bytes {
                    Some(bytes) => Ok(Answer { status, bytes, kept: !close }),
                    None => Ok(Answer { status, bytes: self.read_to_end()?, kept: false }),
                };
            }
        }
    }

    /// The last answer's status line and fields.
    pub(crate) fn head(&self) -> &[u8] {
        &self.head
    }

    /// The start of the last answer's body.
    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    /// The first value of a field of the last answer.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let text = std::str::from_utf8(&self.head).ok()?;
        text.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    fn status(&self) -> io::Result<u16> {
        let digits = self.head.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
        digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| bad("no status line"))
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut some = [0; 16 * 1024];
        match self.stream.read(&mut some)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.unread.extend_from_slice(&some[..read]);
                Ok(())
            }
        }
    }

    fn read_head(&mut self) -> io::Result<()> {
        loop {
            if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                self.head = self.unread.drain(..end + 4).collect();
                return Ok(());
            }
            self.fill()?;
        }
    }

    /// The body's length, once it is read; nothing if only the connection's end will tell.
    fn read_body(&mut self) -> io::Result<Option<u64>> {
        if let Some(length) = self.field("content-length") {
            let length = length.parse().map_err(|_| bad("no length"))?;
            self.take(length)?;
            return Ok(Some(length));
        }
        if self.field("transfer-encoding").is_none_or(|coding| !coding.eq_ignore_ascii_case("chunked")) {
            return Ok(None);
        }
        let mut total = 0;
        loop {
            let line = self.line()?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(digits, 16).map_err(|_| bad("no chunk size"))?;
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(Some(total));
            }
            self.take(size)?;
            self.line()?;
            total += size;
        }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.unread, b"\r\n") {
                let line = self.unread.drain(..end + 2).take(end).collect();
                return String::from_utf8(line).map_err(|_| bad("no text"));
            }
            self.fill()?;
        }
    }

    fn take(&mut self, mut length: u64) -> io::Result<()> {
        while length > 0 {
            if self.unread.is_empty() {
                self.fill()?;
            }
            let part = self.unread.len().min(usize::try_from(length).unwrap_or(usize::MAX));
            let keep = part.min(KEPT.saturating_sub(self.body.len()));
            self.body.extend_from_slice(&self.unread[..keep]);
            self.unread.drain(..part);
            length -= part as u64;
        }
        Ok(())
    }

    fn read_to_end(&mut self) -> io::Result<u64> {
        let mut total = 0;
        loop {
            total += self.unread.len() as u64;
            self.take(self.unread.len() as u64)?;
            match self.fill() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(total),
                Err(error) => return Err(error),
            }
        }
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the answer has {what}"))
}
