//! TLS 1.2, where a server has nothing better: every record through rustls' own hands.
//!
//! In: a connection of rustls' whose handshake is through, and the stream below. Out: an encrypted stream with the same
//! methods as TLS 1.3 has here. It copies more, and nobody minds.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use rustls::Error;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::unbuffered::{ConnectionState, EncryptError, UnbufferedStatus, WriteTraffic};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use super::handshake::{encode, farewell};
use super::output::Output;

/// What is read at a time, in bytes: a full record.
const READ: usize = 17 * 1024;

/// The stream.
pub struct Older<S> {
    io: S,
    connection: UnbufferedClientConnection,
    /// Received and not decrypted.
    input: BytesMut,
    /// Decrypted and not asked for.
    plain: BytesMut,
    output: Output,
    /// The server said close_notify.
    ended: bool,
    /// We did.
    closed: bool,
    failed: Option<Error>,
}

impl<S> Older<S> {
    /// The stream below.
    pub(super) fn below(&self) -> &S {
        &self.io
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Older<S> {
    /// Goes on behind the handshake: with what has been received, and with what is still to be sent.
    pub(super) fn new(io: S, connection: UnbufferedClientConnection, input: BytesMut, unsent: Vec<u8>) -> Self {
        let mut output = Output::default();
        output.push(unsent);
        let plain = BytesMut::new();
        Self { io, connection, input, plain, output, ended: false, closed: false, failed: None }
    }

    /// Bytes of ciphertext that the system has taken.
    pub fn taken(&self) -> u64 {
        self.output.taken()
    }

    /// The next bytes of the stream; `None` at its end.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<BytesMut>>> {
        loop {
            if !self.plain.is_empty() {
                return Poll::Ready(Ok(Some(self.plain.split())));
            }
            if self.ended {
                return Poll::Ready(Ok(None));
            }
            match self.process(|_| Ok(())) {
                Err(error) if self.plain.is_empty() => {
                    // The reason may be told.
                    let _ = self.output.poll_send(&mut self.io, cx);
                    return Poll::Ready(Err(error));
                }
                // What came before it first.
                _ => {}
            }
            if self.plain.is_empty() && !self.ended {
                self.input.reserve(READ);
                if ready!(pin!(self.io.read_buf(&mut self.input)).poll(cx))? == 0 {
                    let text = "the server closed the connection without close_notify";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
                }
            }
        }
    }

    /// Lets rustls deal with all that has been received, and then does what can be done with a connection that waits.
    fn process<T>(
        &mut self,
        write: impl FnOnce(WriteTraffic<'_, ClientConnectionData>) -> Result<T, EncryptError>,
    ) -> io::Result<Option<T>> {
        if let Some(error) = &self.failed {
            return Err(io::Error::new(io::ErrorKind::InvalidData, error.clone()));
        }
        loop {
            let UnbufferedStatus { mut discard, state } = self.connection.process_tls_records(&mut self.input);
            let mut failed = None;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        match record {
                            Ok(record) => {
                                discard += record.discard;
                                self.plain.extend_from_slice(record.payload);
                            }
                            Err(error) => failed = Some(error),
                        }
                    }
                }
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    let mut record = Vec::new();
                    failed = encode(data, &mut record).err();
                    self.output.push(record);
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.ended = true,
                Ok(ConnectionState::WriteTraffic(traffic)) => {
                    let written = write(traffic).map_err(|error| io::Error::other(error.to_string()));
                    self.input.advance(discard);
                    return written.map(Some);
                }
                Ok(_) => {
                    self.input.advance(discard);
                    return Ok(None);
                }
                Err(error) => failed = Some(error),
            }
            self.input.advance(discard);
            if let Some(error) = failed {
                let mut record = Vec::new();
                farewell(&mut self.connection, &mut self.input, &mut record);
                self.output.push(record);
                self.failed = Some(error.clone());
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
    }
}

/// Encrypts with as much room as it takes.
fn with_room(
    mut encrypt: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
    records: &mut Vec<u8>,
) -> Result<(), EncryptError> {
    let needed = match encrypt(records) {
        Err(EncryptError::InsufficientSize(needed)) => needed.required_size,
        done => return done.map(|count| records.truncate(count)),
    };
    records.resize(needed, 0);
    encrypt(records).map(|count| records.truncate(count))
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Older<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        loop {
            let taken = &buf[..buf.len().min(this.output.room())];
            if !taken.is_empty() {
                let mut records = Vec::new();
                let encrypt =
                    |mut traffic: WriteTraffic<'_, _>| with_room(|room| traffic.encrypt(taken, room), &mut records);
                this.process(encrypt)?.ok_or(io::ErrorKind::BrokenPipe)?;
                this.output.push(records);
            }
            // What does not leave now is sent by the next call, or by a flush.
            let sent = this.output.poll_send(&mut this.io, cx)?;
            if !taken.is_empty() || buf.is_empty() {
                return Poll::Ready(Ok(taken.len()));
            }
            ready!(sent);
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, output, .. } = self.get_mut();
        output.poll_flush(io, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closed {
            this.closed = true;
            let mut records = Vec::new();
            let goodbye =
                |mut traffic: WriteTraffic<'_, _>| with_room(|room| traffic.queue_close_notify(room), &mut records);
            // Where the connection has broken there is nobody to say it to.
            let _ = this.process(goodbye);
            this.output.push(records);
        }
        this.output.poll_shutdown(&mut this.io, cx)
    }
}
