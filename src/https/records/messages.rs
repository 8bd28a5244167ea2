//! What a server may say of the session behind the handshake: a ticket for the next one, or that its keys are new
//! (RFC 8446 4.6.1, 4.6.3).
//!
//! In: the contents of handshake records, in which messages may be cut and joined. Out: tickets go to rustls; new keys come
//! from there. Whatever else it says here ends the connection.

use rustls::crypto::cipher::MessageDecrypter;
use rustls::{Error, HandshakeType, InvalidMessage, PeerMisbehaved};

use super::Session;
use super::fault::Fault;

/// Type and length, in bytes.
const HEADER: usize = 4;

/// The longest message that is put together, in bytes, as rustls does it.
const LENGTH_MAX: usize = 0xffff;

/// How often a server may take new keys without a byte of the stream in between, as rustls and BoringSSL allow it.
const UPDATES_MAX: u8 = 32;

/// Messages on their way.
#[derive(Default)]
pub(super) struct Messages {
    /// One that has begun.
    joined: Vec<u8>,
    updates: u8,
}

/// What is to be done.
pub(super) enum Asked {
    Nothing,
    /// The next record is encrypted with other keys; whether we are asked to take new ones too.
    Renewed {
        decrypter: (Box<dyn MessageDecrypter>, u64),
        answer: bool,
    },
}

impl Messages {
    /// Whether nothing else may come before the message that has begun is whole (RFC 8446 5.1).
    pub(super) fn is_within(&self) -> bool {
        !self.joined.is_empty()
    }

    /// Bytes of the stream have come.
    pub(super) fn data_came(&mut self) {
        self.updates = 0;
    }

    /// Takes the content of a record.
    pub(super) fn take(&mut self, content: &[u8], session: &mut Session) -> Result<Asked, Fault> {
        if content.is_empty() {
            return Err(InvalidMessage::InvalidEmptyPayload.into());
        }
        self.joined.extend_from_slice(content);
        let mut at = 0;
        while let [kind, high, middle, low, behind @ ..] = &self.joined[at..] {
            let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
            let (kind, whole) = (HandshakeType::from(*kind), behind.get(..length));
            match kind {
                HandshakeType::NewSessionTicket if length > LENGTH_MAX => {
                    return Err(InvalidMessage::HandshakePayloadTooLarge.into());
                }
                HandshakeType::KeyUpdate if length != 1 => return Err(InvalidMessage::InvalidKeyUpdate.into()),
                HandshakeType::NewSessionTicket | HandshakeType::KeyUpdate => {}
                got_type => {
                    let expect_types = vec![HandshakeType::NewSessionTicket, HandshakeType::KeyUpdate];
                    return Err(Error::InappropriateHandshakeMessage { expect_types, got_type }.into());
                }
            }
            let Some(message) = whole else { break };
            if kind == HandshakeType::KeyUpdate {
                // Nothing may follow it that the old keys protect.
                if behind.len() > length {
                    return Err(PeerMisbehaved::KeyEpochWithPendingFragment.into());
                }
                let answer = match message {
                    [0] => false,
                    [1] => true,
                    _ => return Err(InvalidMessage::InvalidKeyUpdate.into()),
                };
                self.joined = Vec::new();
                return self.renew(answer, session);
            }
            session.kernel.handle_new_session_ticket(message)?;
            at += HEADER + length;
        }
        if at == self.joined.len() {
            // A connection that waits keeps no room for messages.
            self.joined = Vec::new();
        } else {
            self.joined.drain(..at);
        }
        Ok(Asked::Nothing)
    }

    fn renew(&mut self, answer: bool, session: &mut Session) -> Result<Asked, Fault> {
        if self.updates == UPDATES_MAX {
            return Err(PeerMisbehaved::TooManyKeyUpdateRequests.into());
        }
        self.updates += 1;
        let (sequence, secrets) = session.kernel.update_rx_secret()?;
        Ok(Asked::Renewed { decrypter: (session.decrypter(secrets)?, sequence), answer })
    }
}
