//! TLS 1.3 behind its handshake: records, read and written; of what is read only small ones are copied (RFC 8446 5).
//!
//! In: what rustls agreed on with the server, and the stream below. Out: the server's bytes as slices of the very buffer
//! they were received and decrypted in, small ones put together, and ours as records. Cipher, nonces, key schedule and
//! tickets are rustls' (`rustls::kernel`); here is what stands between: where a record begins and ends, what may be in
//! it at this stage, and that no sequence number is used twice. A stream that ends without the server's close_notify has
//! not ended well.

mod fault;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod messages;
mod reading;
mod room;
#[cfg(test)]
mod tests;
mod writing;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use rustls::client::ClientConnectionData;
use rustls::crypto::cipher::{AeadKey, Iv, MessageDecrypter, MessageEncrypter};
use rustls::kernel::KernelConnection;
use rustls::{ConnectionTrafficSecrets, Error, ExtractedSecrets, SupportedCipherSuite, Tls13CipherSuite};
use tokio::io::{AsyncRead, AsyncWrite};

use self::fault::Fault;
use self::reading::{Got, Reader};
use self::writing::Writer;
use super::output::Output;

/// Bytes before each record: type, version, length.
const HEADER: usize = 5;

/// The most that may be in one record, in bytes (RFC 8446 5.1), and what encryption may add to it (5.2).
const FRAGMENT_MAX: usize = 1 << 14;
const EXPANSION_MAX: usize = 256;

/// The levels of alerts (RFC 8446 6).
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// An encrypted stream.
pub struct Records<S> {
    io: S,
    session: Session,
    reader: Reader,
    writer: Writer,
    /// Received and not decrypted.
    input: BytesMut,
    output: Output,
    state: State,
}

/// What of the server may still be read.
enum State {
    Open,
    /// It said close_notify: what follows is none of the stream (RFC 8446 6.1).
    Ended,
    /// It broke the rules, or said that we did.
    Failed(Error),
}

/// What rustls keeps of the handshake: the secrets that new keys come from, and where tickets go.
struct Session {
    kernel: KernelConnection<ClientConnectionData>,
    suite: &'static Tls13CipherSuite,
}

impl Session {
    fn encrypter(&self, secrets: ConnectionTrafficSecrets) -> Result<Box<dyn MessageEncrypter>, Error> {
        let (key, iv) = key(secrets)?;
        Ok(self.suite.aead_alg.encrypter(key, iv))
    }

    fn decrypter(&self, secrets: ConnectionTrafficSecrets) -> Result<Box<dyn MessageDecrypter>, Error> {
        let (key, iv) = key(secrets)?;
        Ok(self.suite.aead_alg.decrypter(key, iv))
    }
}

fn key(secrets: ConnectionTrafficSecrets) -> Result<(AeadKey, Iv), Error> {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => Ok((key, iv)),
        _ => Err(Error::General("a cipher whose keys are not known here".into())),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Records<S> {
    /// Goes on where rustls ended the handshake; `input` is what has come behind it.
    pub(super) fn new(
        io: S,
        secrets: ExtractedSecrets,
        kernel: KernelConnection<ClientConnectionData>,
        input: BytesMut,
    ) -> Result<Self, Error> {
        let SupportedCipherSuite::Tls13(suite) = kernel.negotiated_cipher_suite() else {
            return Err(Error::General("not TLS 1.3".into()));
        };
        let session = Session { kernel, suite };
        let ((received, rx), (sent, tx)) = (secrets.rx, secrets.tx);
        let reader = Reader::new(session.decrypter(rx)?, received);
        let writer = Writer::new(session.encrypter(tx)?, sent, suite.common.confidentiality_limit);
        Ok(Self { io, session, reader, writer, input, output: Output::default(), state: State::Open })
    }

    /// Bytes of ciphertext that the system has taken.
    pub fn taken(&self) -> u64 {
        self.output.taken()
    }

    /// The next bytes of the stream, where they came or where small ones were put together; `None` at its end.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<BytesMut>>> {
        loop {
            match &self.state {
                State::Open => {}
                State::Ended => return Poll::Ready(Ok(None)),
                State::Failed(error) => return Poll::Ready(Err(broken(error.clone()))),
            }
            let held = !self.input.is_empty();
            let got = self.reader.next(&mut self.input, &mut self.session);
            if held && self.input.is_empty() {
                room::put_back(&mut self.input);
            }
            match got {
                Ok(Some(Got::Data(piece))) => return Poll::Ready(Ok(Some(piece))),
                Ok(Some(Got::AskedForUpdate)) => self.writer.renew_soon(),
                Ok(Some(Got::Closed)) => {
                    self.input = BytesMut::new();
                    self.state = State::Ended;
                }
                Ok(None) => {
                    let missing = reading::missing(&self.input);
                    if ready!(room::poll_receive(&mut self.input, missing, &mut self.io, cx))? == 0 {
                        // It may have been cut off by anybody.
                        let text = "the server closed the connection without close_notify";
                        return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
                    }
                }
                Err(fault) => self.fail(fault, cx),
            }
        }
    }

    /// Nothing more is read or written; the server is told why, as far as the system takes that at once.
    fn fail(&mut self, fault: Fault, cx: &mut Context<'_>) {
        self.input = BytesMut::new();
        if let Some(alert) = fault.alert {
            self.writer.fatal(alert, &mut self.output);
        }
        self.writer.close();
        let _ = self.output.poll_send(&mut self.io, cx);
        self.state = State::Failed(fault.error);
    }
}

impl<S> Records<S> {
    /// The stream below.
    pub(super) fn below(&self) -> &S {
        &self.io
    }
}

fn broken(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Records<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { io, session, writer, output, .. } = self.get_mut();
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        loop {
            let count = writer.take(bufs, session, output)?;
            // What does not leave now is sent by the next call, or by a flush.
            let sent = output.poll_send(io, cx)?;
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
            ready!(sent);
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, output, .. } = self.get_mut();
        output.poll_flush(io, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, writer, output, .. } = self.get_mut();
        writer.goodbye(output);
        output.poll_shutdown(io, cx)
    }
}
