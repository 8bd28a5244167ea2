//! From any records of a server to the stream that its client reads, beside what rustls makes of the same ones.
//!
//! In: a byte that says how bytes are cut, then a program of what the server says behind the handshake, until it closes
//! (`far.rs` has its notation). Asserted: the stream, how it ends and what the server hears are the same as with rustls' own
//! client; but what ours takes for wrong at once may only show later, or never, with that one.
#![allow(clippy::expect_used, clippy::panic, reason = "a broken promise is to end the process")]

mod far;
mod near;

use rustls::{AlertDescription, ContentType, Error, InvalidMessage, PeerMisbehaved};

use self::far::Far;

/// What a client makes of it.
#[derive(Debug, PartialEq)]
struct Got {
    stream: Vec<u8>,
    end: End,
    /// The types and contents of the records that the client sends.
    heard: Vec<(u8, Vec<u8>)>,
}

#[derive(Debug, PartialEq)]
enum End {
    /// The server said goodbye. The client has sent something then, and said goodbye too.
    Closed,
    CutOff,
    Broken(Error),
}

/// What a client sends at the end.
const ANSWER: &[u8] = b"behind";

/// Follows any bytes.
pub fn records(data: &[u8]) {
    let Some((cut, program)) = data.split_first() else { return };
    let piece = if *cut == 0 { usize::MAX } else { usize::from(*cut) };
    let (ours, theirs) = (near::ours(program, piece), near::theirs(program));
    match (&ours.end, &theirs.end) {
        (End::Broken(error), _) if is_stricter(error) => {
            // It may not show there, but where it was not all there was; and a goodbye is.
            let unheard = matches!(
                error,
                Error::InappropriateMessage { .. }
                    | Error::InappropriateHandshakeMessage { .. }
                    | Error::InvalidMessage(InvalidMessage::InvalidKeyUpdate)
            );
            assert!(!unheard || theirs.end != End::Closed, "{ours:?} {theirs:?}");
            assert!(theirs.stream.starts_with(&ours.stream), "{ours:?} {theirs:?}");
        }
        // The words for it, and whether the server is told which alert, are a matter of taste.
        (End::Broken(_), End::Broken(_)) => assert_eq!(ours.stream, theirs.stream),
        _ => assert_eq!(ours, theirs, "ours is the first"),
    }
    if let End::Broken(error) = &ours.end {
        check(error, &ours.heard);
    }
}

/// What rustls does not look at, or not before a record or a message is whole (RFC 8446 4, 5.1 and 5.2); and new keys again and
/// again with nothing but empty records between, which it takes for a stream.
fn is_stricter(error: &Error) -> bool {
    use InvalidMessage::{HandshakePayloadTooLarge, InvalidEmptyPayload, InvalidKeyUpdate, UnknownProtocolVersion};
    matches!(
        error,
        Error::InvalidMessage(
            HandshakePayloadTooLarge | InvalidEmptyPayload | InvalidKeyUpdate | UnknownProtocolVersion
        ) | Error::PeerMisbehaved(PeerMisbehaved::TooManyKeyUpdateRequests)
            | Error::PeerSentOversizedRecord
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
    )
}

/// The server hears of its fault once, and of its own alert nothing, if it is one (RFC 8446 6.2).
fn check(error: &Error, heard: &[(u8, Vec<u8>)]) {
    match heard {
        [] => assert!(matches!(error, Error::AlertReceived(_)), "{error:?} and not a word of it"),
        [(kind, alert)] => {
            assert_eq!(*kind, u8::from(ContentType::Alert));
            let &[2, description] = &alert[..] else { panic!("{alert:?}") };
            assert_ne!(description, u8::from(AlertDescription::InternalError), "{error:?} is not ours");
            let answer = matches!(error, Error::AlertReceived(_));
            assert!(!answer || description == u8::from(AlertDescription::IllegalParameter), "{alert:?} to {error:?}");
        }
        more => panic!("{more:?}"),
    }
}
