//! What a server does wrong, and what it is told about that (RFC 8446 6.2).

use rustls::{AlertDescription, Error, InvalidMessage, PeerMisbehaved};

/// Why a stream breaks.
#[derive(Debug)]
pub(super) struct Fault {
    /// For the operator, in rustls' words.
    pub(super) error: Error,
    /// For the server; none where it was the server that spoke of an error.
    pub(super) alert: Option<AlertDescription>,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let alert = match &error {
            Error::DecryptError => Some(AlertDescription::BadRecordMac),
            Error::PeerSentOversizedRecord => Some(AlertDescription::RecordOverflow),
            Error::AlertReceived(_) => None,
            Error::InvalidMessage(InvalidMessage::InvalidKeyUpdate) => Some(AlertDescription::IllegalParameter),
            Error::InvalidMessage(InvalidMessage::InvalidEmptyPayload) => Some(AlertDescription::UnexpectedMessage),
            Error::InvalidMessage(_) => Some(AlertDescription::DecodeError),
            Error::PeerMisbehaved(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. } => Some(AlertDescription::UnexpectedMessage),
            _ => Some(AlertDescription::InternalError),
        };
        Self { error, alert }
    }
}

impl From<InvalidMessage> for Fault {
    fn from(message: InvalidMessage) -> Self {
        Error::from(message).into()
    }
}

impl From<PeerMisbehaved> for Fault {
    fn from(misbehaved: PeerMisbehaved) -> Self {
        Error::from(misbehaved).into()
    }
}
