//! HTTP/2 frame by frame, as no library would speak it: by a caller, and by an upstream. Every frame that comes to a caller
//! is searched for keys: heads as the fields they are, bodies over their frames' bounds.

use std::collections::HashMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::{PATIENCE, Peer, Proxy, Speaker, Watch, hpack};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// SETTINGS_HEADER_TABLE_SIZE is 0, so that no answer's head depends on another.
const NO_TABLE: [u8; 6] = [0, 1, 0, 0, 0, 0];

/// One frame (RFC 9113 4.1).
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// What the nine bytes before a payload say, and how long that is.
    fn parse(head: &[u8]) -> (Self, usize) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        (Self { kind: head[3], flags: head[4], stream, payload: Vec::new() }, length)
    }

    /// Whether it ends its stream.
    pub fn is_last(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }
}

/// How a stream ended.
#[derive(Debug, Eq, PartialEq)]
pub enum Outcome {
    /// With an answer, whose body is text.
    Answered(String),
    /// By RST_STREAM with this code.
    Reset(u32),
    /// By GOAWAY with this code.
    Gone(u32),
    /// By the end of the connection, without a word.
    Closed,
}

/// A connection after its preface.
pub struct Frames {
    reader: ReadHalf<TlsStream<TcpStream>>,
    pub writer: WriteHalf<TlsStream<TcpStream>>,
    watch: Watch,
    /// One for the body of each stream.
    bodies: HashMap<u32, Watch>,
    /// As much of a head as has come.
    head: Vec<u8>,
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block in as many frames as it takes.
pub fn head_frames(flags: u8, stream: u32, block: &[u8]) -> Vec<u8> {
    let mut pieces = block.chunks(16_384).peekable();
    let (mut kind, mut out) = (HEADERS, Vec::new());
    while let Some(piece) = pieces.next() {
        let end = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        let flags = if kind == HEADERS { flags | end } else { end };
        out.extend(frame(kind, flags, stream, piece));
        kind = CONTINUATION;
    }
    out
}

/// Header fields in HPACK, each spelled out (RFC 7541 6.2.2), so that anything can be said.
pub fn raw_fields<'a>(list: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Vec<u8> {
    fn text(out: &mut Vec<u8>, text: &[u8]) {
        let mut length = text.len();
        if length < 127 {
            out.push(length as u8);
        } else {
            out.push(127);
            length -= 127;
            while length >= 128 {
                out.push((length % 128) as u8 | 128);
                length /= 128;
            }
            out.push(length as u8);
        }
        out.extend(text);
    }
    let mut out = Vec::new();
    for (name, value) in list {
        out.push(0);
        text(&mut out, name);
        text(&mut out, value);
    }
    out
}

/// The same of text.
pub fn fields<'a>(list: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    raw_fields(list.into_iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
}

/// The fields of a good GET of a path for property 1001.
pub fn get(path: &str) -> Vec<(&str, &str)> {
    vec![
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", path),
        ("x-property-id", "1001"),
    ]
}

impl Frames {
    /// Connects, and sends the preface and empty settings.
    pub async fn to(proxy: &Proxy, root: &str) -> Self {
        Self::by(&Speaker { alpn: &["h2"], ..Speaker::new(root) }, proxy, &[]).await
    }

    /// The same in somebody's name, with settings of one's own.
    pub async fn by(speaker: &Speaker<'_>, proxy: &Proxy, settings: &[u8]) -> Self {
        Self::over(speaker.connect(proxy.address).await.unwrap(), proxy, settings).await
    }

    /// The same on a stream that is there already.
    pub async fn over(stream: TlsStream<TcpStream>, proxy: &Proxy, settings: &[u8]) -> Self {
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (reader, writer) = tokio::io::split(stream);
        let (watch, bodies, head) = (Watch::for_any(&proxy.secrets), HashMap::new(), Vec::new());
        let mut frames = Self { reader, writer, watch, bodies, head };
        frames.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        frames.send(&frame(SETTINGS, 0, 0, &[&NO_TABLE, settings].concat())).await;
        frames
    }

    /// Sends bytes; a connection that is closed already takes none.
    pub async fn send(&mut self, bytes: &[u8]) {
        let sent = async {
            self.writer.write_all(bytes).await?;
            self.writer.flush().await
        };
        let _ = timeout(PATIENCE, sent).await.expect("the proxy reads in time");
    }

    /// Sends a whole head that ends the request.
    pub async fn head(&mut self, stream: u32, list: &[(&str, &str)]) {
        self.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields(list.iter().copied()))).await;
    }

    /// The next frame; nothing at the end of the connection.
    pub async fn next(&mut self) -> Option<Frame> {
        let read = async {
            let mut head = [0; 9];
            self.reader.read_exact(&mut head).await.ok()?;
            let (mut frame, length) = Frame::parse(&head);
            frame.payload.resize(length, 0);
            self.reader.read_exact(&mut frame.payload).await.ok()?;
            Some(frame)
        };
        let frame = timeout(PATIENCE, read).await.expect("a frame in time")?;
        self.see(&frame);
        Some(frame)
    }

    fn see(&mut self, frame: &Frame) {
        match frame.kind {
            HEADERS | CONTINUATION => {
                assert_eq!(frame.flags & !(END_HEADERS | END_STREAM), 0, "neither padding nor priority");
                self.head.extend(&frame.payload);
                if frame.flags & END_HEADERS != 0 {
                    for (name, value) in hpack::fields(&std::mem::take(&mut self.head)) {
                        self.watch.clone().see("a field over HTTP/2", format!("{name}: {value}").as_bytes());
                    }
                }
            }
            DATA => {
                let body = self.bodies.entry(frame.stream).or_insert_with(|| self.watch.clone());
                body.see("a body over HTTP/2", &frame.payload);
            }
            _ => self.watch.clone().see("a frame", &frame.payload),
        }
    }

    /// Reads until a stream ends, one way or another.
    pub async fn outcome(&mut self, stream: u32) -> Outcome {
        let (mut body, mut gone) = (Vec::new(), None);
        while let Some(frame) = self.next().await {
            let code = |at: usize| u32::from_be_bytes(frame.payload[at..at + 4].try_into().unwrap());
            match frame.kind {
                GOAWAY if code(4) != 0 => gone = Some(code(4)),
                GOAWAY if stream == 0 => return Outcome::Gone(code(4)),
                RST_STREAM if frame.stream == stream => return Outcome::Reset(code(0)),
                DATA if frame.stream == stream => body.extend(&frame.payload),
                _ => {}
            }
            if frame.stream == stream && frame.is_last() {
                return Outcome::Answered(String::from_utf8_lossy(&body).into_owned());
            }
        }
        gone.map_or(Outcome::Closed, Outcome::Gone)
    }
}

impl Peer {
    /// Sends settings and reads the client's preface.
    pub async fn begin(&mut self, settings: &[u8]) {
        self.write(frame(SETTINGS, 0, 0, settings)).await;
        self.exactly(24).await;
    }

    /// The next frame, whatever it is; `None` when the client closes before its end. Given up, nothing is lost.
    pub async fn silent_frame(&mut self) -> Option<Frame> {
        let whole = |bytes: &[u8]| (bytes.len() >= 9).then(|| 9 + Frame::parse(bytes).1);
        let bytes = self.fill(|bytes| whole(bytes).filter(|length| bytes.len() >= *length)).await?;
        let (mut frame, _) = Frame::parse(&bytes);
        frame.payload = bytes[9..].to_vec();
        Some(frame)
    }

    /// The same, with what settings and pings are owed.
    pub async fn frame(&mut self) -> Option<Frame> {
        let read = self.silent_frame().await?;
        if matches!(read.kind, SETTINGS | PING) && read.flags & ACK == 0 {
            let echo: &[u8] = if read.kind == PING { &read.payload } else { &[] };
            self.write(frame(read.kind, ACK, 0, echo)).await;
        }
        Some(read)
    }

    /// Waits for the end of the next request; its stream.
    pub async fn asked(&mut self) -> Option<u32> {
        loop {
            let frame = self.frame().await?;
            if frame.is_last() {
                return Some(frame.stream);
            }
        }
    }

    /// Answers a request with the body `ok`.
    pub async fn answer_stream(&mut self, stream: u32) {
        // `:status: 200` is number 8 of HPACK's table.
        let head = [&[0x88], &*fields([("content-length", "2")])].concat();
        self.write([frame(HEADERS, END_HEADERS, stream, &head), frame(DATA, END_STREAM, stream, b"ok")].concat()).await;
    }
}
