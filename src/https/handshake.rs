//! The handshake with a server, by rustls, over a stream that then goes on without its buffers.
//!
//! In: a stream to somebody. Out: an encrypted one to the server that proved to have that name, and what it chose by ALPN.
//! All that is decided here is decided by rustls: this moves its bytes, tells the server why it failed, and sees that not
//! one byte behind the handshake is taken from the stream that follows.

use std::io;
use std::sync::Arc;

use bytes::{Buf as _, BytesMut};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{ClientConfig, Error, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::encrypted::Encrypted;
use super::older::Older;
use super::records::Records;

/// What is read at a time, in bytes.
const READ: usize = 4 * 1024;

/// The most that may wait for the rest of a message, in bytes: twice the longest message that rustls accepts.
const INPUT_MAX: usize = 128 * 1024;

/// Where it is.
enum Step {
    Again,
    Send,
    Receive,
    Done,
    Failed(Error),
}

/// Does it.
///
/// # Errors
/// What the system says, or a [`rustls::Error`] in an `io::Error`.
pub(super) async fn shake<S: AsyncRead + AsyncWrite + Unpin>(
    config: &Arc<ClientConfig>,
    name: ServerName<'static>,
    mut io: S,
) -> io::Result<(Encrypted<S>, Option<Vec<u8>>)> {
    let mut connection = UnbufferedClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    let (mut input, mut output) = (BytesMut::new(), Vec::new());
    loop {
        match step(&mut connection, &mut input, &mut output) {
            Step::Again => {}
            Step::Send => {
                io.write_all(&output).await?;
                io.flush().await?;
                output.clear();
            }
            Step::Receive if input.len() >= INPUT_MAX => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a handshake without an end"));
            }
            Step::Receive => {
                input.reserve(READ);
                if io.read_buf(&mut input).await? == 0 {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof"));
                }
            }
            Step::Failed(error) => {
                farewell(&mut connection, &mut input, &mut output);
                // What the server hears of it changes nothing of the reason.
                let _ = io.write_all(&output).await;
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
            Step::Done => break,
        }
    }
    let protocol = connection.alpn_protocol().map(<[u8]>::to_vec);
    let encrypted = if is_tls13(&connection) {
        let (secrets, kernel) = connection.dangerous_into_kernel_connection().map_err(io::Error::other)?;
        Encrypted::Records(Records::new(io, secrets, kernel, input).map_err(io::Error::other)?)
    } else {
        Encrypted::Older(Box::new(Older::new(io, connection, input, output)))
    };
    Ok((encrypted, protocol))
}

fn is_tls13(connection: &UnbufferedClientConnection) -> bool {
    connection.protocol_version() == Some(ProtocolVersion::TLSv1_3)
}

fn step(connection: &mut UnbufferedClientConnection, input: &mut BytesMut, output: &mut Vec<u8>) -> Step {
    // Behind the server's Finished, which ends a record (RFC 8446 5.1), rustls gets nothing more to decrypt: it would
    // count what we are to read.
    let is_through = is_tls13(connection) && !connection.is_handshaking();
    let read = if is_through { &mut [][..] } else { &mut input[..] };
    let UnbufferedStatus { discard, state } = connection.process_tls_records(read);
    let step = match state {
        Ok(ConnectionState::EncodeTlsData(data)) => encode(data, output).map_or_else(Step::Failed, |()| Step::Again),
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Step::Send
        }
        Ok(ConnectionState::BlockedHandshake) => Step::Receive,
        // The rest is no handshake's.
        Ok(_) => Step::Done,
        Err(error) => Step::Failed(error),
    };
    input.advance(discard);
    step
}

/// Puts what rustls wants to say at last behind `output`.
pub(super) fn farewell(connection: &mut UnbufferedClientConnection, input: &mut [u8], output: &mut Vec<u8>) {
    while connection.wants_write() {
        let UnbufferedStatus { state: Ok(ConnectionState::EncodeTlsData(data)), .. } =
            connection.process_tls_records(input)
        else {
            return;
        };
        if encode(data, output).is_err() {
            return;
        }
    }
}

/// Puts a record behind `output`.
pub(super) fn encode(mut data: EncodeTlsData<'_, ClientConnectionData>, output: &mut Vec<u8>) -> Result<(), Error> {
    let begin = output.len();
    loop {
        match data.encode(&mut output[begin..]) {
            Ok(_) => return Ok(()),
            Err(EncodeError::InsufficientSize(needed)) if output.len() == begin => {
                output.resize(begin + needed.required_size, 0);
            }
            Err(error) => return Err(Error::General(error.to_string())),
        }
    }
}
